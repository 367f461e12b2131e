"""The provider `openai` against a server that speaks the API's own format, on the loopback address."""

import base64
import logging
import struct
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from apps.embeddings.config import Config
from apps.embeddings.errors import EmbeddingError, ProviderFailed, TextRefused, UnknownModel
from apps.embeddings.registry import provider, provider_type
from apps.embeddings.services import embed
from tests.embeddings.service import BREAK, HANG, Answer, Service

KEY = "sk-test-0123456789abcdef"
MODEL = "text-embedding-3-small"


def components(text: str) -> list[float]:
    return [float(len(text)), 0.1, -1.5]


def item(index: int, embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def listed(*items: dict[str, Any]) -> Answer:
    return Answer({"object": "list", "data": items, "model": MODEL, "usage": {"prompt_tokens": 1, "total_tokens": 1}})


def in_base64(body: dict[str, Any]) -> Answer:
    packed = [base64.b64encode(struct.pack("<3f", *components(text))).decode() for text in body["input"]]
    return listed(*map(item, range(len(packed)), packed))


def in_numbers(body: dict[str, Any]) -> Answer:
    return listed(*map(item, range(len(body["input"])), map(components, body["input"])))


def error(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    body = {"error": {"message": message, "type": "some_error", "param": None, "code": code}}
    return Answer(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def openai(service: Service, configure: Callable[..., Config]) -> Callable[..., Config]:
    """Set settings by name; the server and the key are those of the tests."""

    def configured(**values: Any) -> Config:
        return configure(**{"openai_base_url": f"{service.url}/v1", "openai_api_key": KEY} | values)

    service.usual = in_base64
    configured()
    return configured


def failed(*texts: str) -> EmbeddingError:
    """The error that the texts end with; checked to hold no secret, with all that a log would show of it."""
    with pytest.raises(EmbeddingError) as raised:
        embed("openai", MODEL, texts or ["text"], "document")
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert KEY not in shown
    assert "sk-" not in shown
    return raised.value


@pytest.mark.parametrize("usual", [in_base64, in_numbers])
def test_texts_become_vectors(service: Service, openai: object, usual: Callable[..., Answer]) -> None:
    service.usual = usual
    vectors = embed("openai", MODEL, ["", "one", "Zürich 東京"], "document")
    assert np.array_equal(vectors, np.array([components(text) for text in ("", "one", "Zürich 東京")], np.float32))
    assert vectors.dtype == np.float32
    (asked,) = service.asked
    assert asked.path == "/v1/embeddings"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {"input": ["", "one", "Zürich 東京"], "model": MODEL, "encoding_format": "base64"}
    assert provider("openai", MODEL).dimension == 3


def test_vectors_are_put_in_the_order_of_their_numbers(service: Service, openai: object) -> None:
    service.next_answers = [listed(item(2, [3.0, 0]), item(0, [1.0, 0]), item(1, [2.0, 0]))]
    assert embed("openai", MODEL, ["a", "b", "c"], "document")[:, 0].tolist() == [1, 2, 3]


def test_vectors_without_numbers_are_taken_in_order(service: Service, openai: object) -> None:
    service.next_answers = [Answer({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]})]
    assert embed("openai", MODEL, ["a", "b"], "document").tolist() == [[1], [2]]


def test_batches_are_no_larger_than_the_settings_say(service: Service, openai: Callable[..., Config]) -> None:
    openai(openai_max_batch=4)
    assert embed("openai", MODEL, ["x" * n for n in range(10)], "document")[:, 0].tolist() == list(range(10))
    assert [len(asked.body["input"]) for asked in service.asked] == [4, 4, 2]


def test_long_texts_are_spread_over_requests(service: Service, openai: object) -> None:
    embed("openai", MODEL, ["x" * 100_000] * 5, "document")
    assert [len(asked.body["input"]) for asked in service.asked] == [2, 2, 1]


def test_a_dimension_may_be_asked_for(service: Service, openai: Callable[..., Config]) -> None:
    openai(openai_dimensions=3)
    assert provider("openai", MODEL).dimension == 3
    embed("openai", MODEL, ["text"], "query")
    assert service.asked[0].body["dimensions"] == 3
    openai(openai_dimensions=2)
    assert "vectors of 3 components; before they had 2" in str(failed())


def test_a_query_is_asked_for_once(service: Service, openai: object) -> None:
    for _ in range(3):
        embed("openai", MODEL, ["text"], "query")
    assert len(service.asked) == 1


def test_a_server_without_keys_needs_none(service: Service, openai: Callable[..., Config]) -> None:
    openai(openai_api_key="")
    assert embed("openai", MODEL, ["text"], "document").shape == (1, 3)


def test_a_wrong_key_is_said_but_not_shown(service: Service, openai: Callable[..., Config]) -> None:
    service.next_answers = [error(401, f"Incorrect API key provided: {KEY}.", "invalid_api_key")] * 2
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert not refused.transient
    assert "does not accept the API key (HTTP 401); set OPENAI_API_KEY" in str(refused)
    openai(openai_api_key="")
    assert "wants an API key (HTTP 401); set OPENAI_API_KEY" in str(failed())
    assert len(service.asked) == 2


def test_a_model_that_is_not_allowed_is_said(service: Service, openai: object) -> None:
    service.next_answers = [error(403, "You are not allowed to generate embeddings from this model")]
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert f"does not allow '{MODEL}' to this API key (HTTP 403; OPENAI_API_KEY): You are not allowed" in str(refused)
    assert not refused.transient


def test_secrets_in_other_refusals_are_hidden(service: Service, openai: object) -> None:
    service.next_answers = [error(400, f"no model for {KEY} nor sk-test-01***def")]
    assert str(failed()).count("(hidden)") == 2


def test_the_log_shows_no_key(service: Service, openai: object, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service.next_answers = [error(500, f"crashed with {KEY}")]
    embed("openai", MODEL, ["text"], "document")
    assert "Trying again" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again(service: Service, openai: object, status: int) -> None:
    service.next_answers = [error(status, "overloaded")] * 2
    assert embed("openai", MODEL, ["text"], "document").shape == (1, 3)
    assert len(service.asked) == 3


def test_too_many_attempts_end_with_what_the_server_said(service: Service, openai: object) -> None:
    service.next_answers = [error(500, "The engine\nis  on fire.")] * 3
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert refused.transient
    assert str(refused).endswith(f" failed: {service.url} answered HTTP 500: The engine is on fire.")
    assert len(service.asked) == 3


def test_retry_after_is_kept_to(service: Service, openai: Callable[..., Config]) -> None:
    openai(first_wait=3600)
    service.next_answers = [error(429, "slow down", Retry_After="0")]
    assert embed("openai", MODEL, ["text"], "document").shape == (1, 3)
    service.next_answers = [error(429, "slow down", Retry_After="3599")]
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert (refused.transient, refused.retry_after) == (True, 3599)
    assert len(service.asked) == 3


def test_a_spent_quota_is_not_tried_again(service: Service, openai: object) -> None:
    service.next_answers = [error(429, "You exceeded your current quota.", "insufficient_quota")]
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert not refused.transient
    assert len(service.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_is_refused_is_the_requests_fault(service: Service, openai: object, status: int) -> None:
    service.next_answers = [error(status, "maximum context length is 8192 tokens")]
    refused = failed()
    assert isinstance(refused, TextRefused)
    assert "maximum context length is 8192 tokens" in str(refused)


def test_an_unknown_model_is_told_from_a_wrong_address(service: Service, openai: object) -> None:
    service.next_answers = [error(404, f"The model `{MODEL}` does not exist.", "model_not_found")]
    unknown = failed()
    assert isinstance(unknown, UnknownModel)
    assert f"The model `{MODEL}` does not exist" in str(unknown)
    service.next_answers = [Answer(b"<html>404 page not found</html>", 404, content_type="text/html")]
    lost = failed()
    assert isinstance(lost, ProviderFailed)
    assert "check VECTORDB_OPENAI_BASE_URL" in str(lost)
    assert "<html>" not in str(lost)


def test_a_server_that_does_not_answer_is_given_up(service: Service, openai: Callable[..., Config]) -> None:
    openai(timeout=0.3)
    service.next_answers = [HANG] * 3
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert refused.transient
    # A connection that the service itself breaks off, later, is another failure.
    assert f"{service.url} did not answer in time" in str(refused)
    assert len(service.asked) == 1


def test_a_connection_that_breaks_is_tried_again(service: Service, openai: object) -> None:
    service.next_answers = [BREAK]
    assert embed("openai", MODEL, ["text"], "document").shape == (1, 3)


def test_a_server_that_is_not_there_is_said_so(openai: Callable[..., Config]) -> None:
    openai(openai_base_url="http://127.0.0.1:9/v1")
    refused = failed()
    assert isinstance(refused, ProviderFailed)
    assert refused.transient
    assert "http://127.0.0.1:9 cannot be reached; check VECTORDB_OPENAI_BASE_URL" in str(refused)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"", 200),
        Answer(b"{", 200),
        Answer(b"<html>hello</html>", 200, content_type="text/html"),
        Answer([]),
        Answer({"data": None}),
        Answer({"data": {"embedding": [1.0]}}),
        Answer({"data": [1, 2]}),
        Answer({"data": [{"index": 0}]}),
        listed(item(0, None)),
        listed(item(0, "!AADAPw=="), item(1, "AADAPw==")),
        listed(item(0, base64.b64encode(b"12345").decode())),
        listed(item(0, {"x": 1})),
        listed(item(0, [[1.0]]), item(1, [1.0])),
        listed(item(0, [1.0, 2.0]), item(1, [1.0])),
        listed(item(1, [1.0]), item(1, [2.0])),
        listed(item(1, [1.0]), item(2, [2.0])),
    ],
)
def test_garbage_is_the_providers_failure(service: Service, openai: object, answer: Answer) -> None:
    service.next_answers = [answer]
    refused = failed("a", "b")
    assert isinstance(refused, ProviderFailed)
    assert not refused.transient
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (listed(), "shape (0,)"),
        (listed(item(0, [1.0])), "answered 2 texts with 1 vectors"),
        (listed(item(0, [1.0]), item(1, [1.0]), item(2, [1.0])), "answered 2 texts with 3 vectors"),
        (listed(item(0, [1.0]), item(1, [0.0])), "is zero"),
        (listed(item(0, [1.0]), item(1, [1e300])), "beyond float32"),
        (listed(item(0, [1.0]), item(1, [None])), "NaN"),
        (listed(item(0, "AADAfw=="), item(1, "AADAfw==")), "NaN"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(service: Service, openai: object, answer: Answer, reason: str) -> None:
    service.next_answers = [answer]
    assert reason in str(failed("a", "b"))


@pytest.mark.parametrize("model", ["", " "])
def test_a_model_must_be_named(model: str, openai: object) -> None:
    with pytest.raises(UnknownModel, match="Name one"):
        provider("openai", model)


# It takes long enough to make this provider that the others ask meanwhile.
def test_threads_that_ask_at_the_same_time_get_the_same_provider(openai: object) -> None:
    provider_type("openai")
    found: list[object] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(provider("openai", MODEL))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
