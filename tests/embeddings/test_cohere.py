"""The provider `cohere` against a server that speaks version 2 of the API, on the loopback address."""

import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from apps.embeddings.config import Config
from apps.embeddings.errors import EmbeddingError, ProviderFailed, TextRefused, UnknownModel
from apps.embeddings.services import embed
from tests.embeddings.service import BREAK, HANG, Answer, Service

KEY = "co-test-0123456789abcdef"
MODEL = "embed-v4.0"


def listed(rows: Any, texts: list[str] | None = None) -> Answer:
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 1}}
    return Answer({"id": "1", "embeddings": {"float": rows}, "texts": texts or [], "meta": meta})


def usual(body: dict[str, Any]) -> Answer:
    return listed([[float(len(text)), 0.1, -1.5] for text in body["texts"]], body["texts"])


def error(status: int, message: str, **headers: str) -> Answer:
    return Answer({"id": "1", "message": message}, status, headers)


@pytest.fixture
def cohere(service: Service, configure: Callable[..., Config]) -> Callable[..., Config]:
    """Set settings by name; the server and the key are those of the tests."""

    def configured(**values: Any) -> Config:
        return configure(**{"cohere_base_url": service.url, "cohere_api_key": KEY} | values)

    service.usual = usual
    configured()
    return configured


def failed(*texts: str) -> EmbeddingError:
    """The error that the texts end with; checked to hold no secret, with all that a log would show of it."""
    with pytest.raises(EmbeddingError) as raised:
        embed("cohere", MODEL, texts or ["text"], "document")
    assert KEY not in "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    return raised.value


def test_documents_and_queries_are_told_apart(service: Service, cohere: object) -> None:
    vectors = embed("cohere", MODEL, ["one", "Zürich 東京"], "document")
    assert np.array_equal(vectors, np.array([[3, 0.1, -1.5], [9, 0.1, -1.5]], np.float32))
    embed("cohere", MODEL, ["one"], "query")
    first, second = service.asked
    assert first.path == second.path == "/v2/embed"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.body["texts"] == ["one", "Zürich 東京"]
    assert first.body["model"] == MODEL
    assert first.body["embedding_types"] == ["float"]
    assert [first.body["input_type"], second.body["input_type"]] == ["search_document", "search_query"]


def test_batches_have_96_texts(service: Service, cohere: object) -> None:
    assert embed("cohere", MODEL, ["x" * n for n in range(200)], "document")[:, 0].tolist() == list(range(200))
    assert [len(asked.body["texts"]) for asked in service.asked] == [96, 96, 8]


def test_a_wrong_key_is_said_but_not_shown(service: Service, cohere: Callable[..., Config]) -> None:
    service.next_answers = [error(401, f"invalid api token {KEY}")]
    assert "does not accept the API key (HTTP 401); set CO_API_KEY" in str(failed())
    cohere(cohere_api_key="")
    service.next_answers = [error(401, "no api key supplied")]
    assert "wants an API key (HTTP 401)" in str(failed())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(service: Service, cohere: object, status: int) -> None:
    service.next_answers = [error(status, "later")] * 2
    assert embed("cohere", MODEL, ["text"], "document").shape == (1, 3)
    assert len(service.asked) == 3


def test_retry_after_is_kept_to(service: Service, cohere: Callable[..., Config]) -> None:
    cohere(first_wait=3600)
    service.next_answers = [error(429, "slow down", **{"Retry-After": "0"})]
    assert embed("cohere", MODEL, ["text"], "document").shape == (1, 3)
    service.next_answers = [error(429, "slow down", **{"Retry-After": "3599"})]
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert refused.retry_after == 3599
    assert len(service.asked) == 3


def test_too_many_attempts_end_with_what_the_server_said(service: Service, cohere: object) -> None:
    service.next_answers = [error(500, f"internal error with {KEY}")] * 3
    assert f"{service.url} answered HTTP 500: internal error with (hidden)." in str(failed())
    assert len(service.asked) == 3


def test_refusals_of_a_text_and_of_a_model_are_the_requests_fault(service: Service, cohere: object) -> None:
    service.next_answers = [error(400, "invalid request: texts are too long"), error(404, f"model '{MODEL}' not found")]
    refused = failed()
    assert isinstance(refused, TextRefused)
    assert "texts are too long" in str(refused)
    assert isinstance(failed(), UnknownModel)


def test_a_server_that_does_not_answer_is_given_up(service: Service, cohere: Callable[..., Config]) -> None:
    cohere(timeout=0.5)
    service.next_answers = [HANG] * 3
    # A connection that the service itself breaks off, later, is another failure.
    assert f"{service.url} did not answer in time" in str(failed())
    assert len(service.asked) == 1


def test_a_connection_that_breaks_is_tried_again(service: Service, cohere: object) -> None:
    service.next_answers = [BREAK]
    assert embed("cohere", MODEL, ["text"], "document").shape == (1, 3)


def test_a_server_that_is_not_there_is_said_so(cohere: Callable[..., Config]) -> None:
    cohere(cohere_base_url="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached; check VECTORDB_COHERE_BASE_URL" in str(failed())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"", 200),
        Answer(b"{", 200),
        Answer(b"<html>hello</html>", 200, content_type="text/html"),
        Answer([]),
        Answer([[1.0], [2.0]]),
        Answer("text"),
        Answer(7),
        Answer({}),
        Answer({"id": "1", "embeddings": 7}),
        Answer({"id": "1", "embeddings": [[1.0], [2.0]]}),
        Answer({"id": "1", "embeddings": {"float": {"a": 1}}}),
        Answer({"id": "1", "embeddings": None}),
        Answer({"id": "1", "embeddings": {"int8": [[1], [2]]}}),
        listed(None),
        listed([[1.0, 2.0], [1.0]]),
        listed([[1.0], ["x"]]),
        listed([[1.0], None]),
        listed([]),
        listed([[1.0]]),
        listed([[1.0]] * 3),
        listed([[1.0], [0.0]]),
        listed([[1.0], [1e300]]),
    ],
)
def test_garbage_is_the_providers_failure(service: Service, cohere: object, answer: Answer) -> None:
    service.next_answers = [answer]
    refused = failed("a", "b")
    assert isinstance(refused, ProviderFailed)
    assert not refused.transient
    assert len(service.asked) == 1
