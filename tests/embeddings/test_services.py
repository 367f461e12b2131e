"""`embed`: what a provider answers is checked; batches, attempts, waits and the time-out are kept to."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.embeddings.config import Config
from apps.embeddings.errors import ProviderFailed, TextRefused
from apps.embeddings.provider import Kind, Provider, batches
from apps.embeddings.services import MAX_CACHED_CHARACTERS, embed, embed_with
from apps.engine.vectors import Float32
from tests.engine.data import bounded

SOON = Config(first_wait=0.001)


class Scripted(Provider):
    """Answers, or raises, what a test tells it to, one after the other; then the length of each text and a one."""

    name = "scripted"
    max_batch = 3

    def __init__(self, *answers: Any) -> None:
        super().__init__("a-model", SOON)
        self.answers = list(answers)
        self.asked: list[tuple[list[str], Kind]] = []

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        assert timeout is not None
        assert 0 < timeout <= 30
        self.asked.append((list(texts), kind))
        answer = self.answers.pop(0) if self.answers else [[len(text), 1] for text in texts]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


def failure(**how: Any) -> ProviderFailed:
    return ProviderFailed("scripted", "it rains", **how)


def test_texts_go_in_batches_and_come_back_in_order() -> None:
    provider = Scripted()
    texts = ["x" * n for n in range(8)]
    vectors = embed_with(provider, texts, "document", SOON)
    assert vectors.dtype == np.float32
    assert vectors[:, 0].tolist() == list(range(8))
    assert [batch for batch, _ in provider.asked] == [texts[:3], texts[3:6], texts[6:]]
    assert {kind for _, kind in provider.asked} == {"document"}
    assert provider.dimension == 2


@bounded(200)
@given(st.lists(st.text("x", max_size=9)), st.integers(1, 5), st.none() | st.integers(1, 12))
def test_batches_hold_all_texts_and_no_more_than_they_may(texts: list[str], most: int, characters: int | None) -> None:
    found = list(batches(texts, most, characters))
    assert [text for batch in found for text in batch] == texts
    for i, batch in enumerate(found):
        assert 1 <= len(batch) <= most
        if characters is not None:
            assert len(batch) == 1 or sum(map(len, batch)) <= characters
        if i + 1 < len(found):
            longer = [*batch, found[i + 1][0]]
            assert len(longer) > most or (characters is not None and sum(map(len, longer)) > characters)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([[1, 2]], "answered 2 texts with 1 vectors"),
        ([[1, 2]] * 3, "answered 2 texts with 3 vectors"),
        ([[1, 2], [np.nan, 1]], "a vector that cannot be used: it has a component that is NaN"),
        ([[1, 2], [np.inf, 1]], "NaN, infinite or beyond float32"),
        ([[1, 2], [1e300, 1]], "NaN, infinite or beyond float32"),
        ([[1, 2], [1e16, 1]], "beyond 1e[+]15 in magnitude"),
        ([[1, 2], [0, 0]], "is zero in float32"),
        ([[1, 2, 3]] * 2, "vectors of 3 components; before they had 2"),
        ([1, 2], r"an array of shape \(2,\)"),
        ([[], []], r"an array of shape \(2, 0\)"),
        ([[[1]], [[2]]], r"an array of shape \(2, 1, 1\)"),
        ([[1, 2], [1]], "no matrix of numbers"),
        ([["a", "b"]] * 2, "no matrix of numbers"),
        (None, r"an array of shape \(\)"),
        ({"a": 1}, "no matrix of numbers"),
    ],
)
def test_what_cannot_be_used_is_the_providers_failure(answer: Any, reason: str) -> None:
    provider = Scripted([[1, 2]], answer)
    embed_with(provider, ["first"], "document", SOON)
    with pytest.raises(ProviderFailed, match=reason) as failed:
        embed_with(provider, ["a", "b"], "document", SOON)
    assert not failed.value.transient
    assert "scripted" in str(failed.value)
    assert len(provider.asked) == 2, "what cannot be used is not asked for again"


def test_a_failure_that_may_pass_is_tried_again() -> None:
    provider = Scripted(failure(transient=True), failure(transient=True, retry_after=0.0))
    assert embed_with(provider, ["four"], "query", SOON).tolist() == [[4, 1]]
    assert provider.asked == [(["four"], "query")] * 3


def test_attempts_end_and_the_last_failure_is_told() -> None:
    provider = Scripted(*[failure(transient=True)] * 4, failure(transient=True))
    with pytest.raises(ProviderFailed, match="it rains"):
        embed_with(provider, ["text"], "query", Config(retries=3, first_wait=0))
    assert len(provider.asked) == 4


@pytest.mark.parametrize("error", [failure(), TextRefused("scripted", "too long")])
def test_what_will_not_pass_is_not_tried_again(error: Exception) -> None:
    provider = Scripted(error)
    with pytest.raises(type(error)):
        embed_with(provider, ["text"], "query", SOON)
    assert len(provider.asked) == 1


@pytest.mark.parametrize(
    "config",
    [Config(first_wait=3600), Config(timeout=0.001)],
)
def test_no_wait_begins_that_the_time_out_has_no_room_for(config: Config) -> None:
    provider = Scripted(failure(transient=True))
    with pytest.raises(ProviderFailed):
        embed_with(provider, ["text"], "query", config)
    assert len(provider.asked) == 1


def test_the_time_that_a_provider_names_is_kept_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    provider = Scripted(failure(transient=True, retry_after=3600.0))
    with pytest.raises(ProviderFailed) as failed:
        embed_with(provider, ["text"], "query", SOON)
    assert failed.value.retry_after == 3600.0
    # It is waited for, where there is room: the time named by the provider goes before the settings' own.
    embed_with(Scripted(failure(transient=True, retry_after=0.2)), ["text"], "query", Config(first_wait=3600))
    assert "Trying again in 0.2 s" in caplog.text


class Slow(Scripted):
    """Takes all the time that it is given."""

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        threading.Event().wait(timeout)
        return super().embed(texts, kind, timeout)


def test_the_time_out_is_over_all_batches() -> None:
    with pytest.raises(
        ProviderFailed, match=r"3 of 9 texts were embedded when the time-out of 0\.01 s was over"
    ) as late:
        embed_with(Slow(), ["x"] * 9, "document", Config(timeout=0.01))
    assert late.value.transient


def test_no_texts_are_no_vectors() -> None:
    assert embed("hashing", "hashing-64", [], "document").shape == (0, 64)


def query(text: str) -> Float32:
    return embed("hashing", "hashing-64", [text], "query")


def test_single_queries_are_cached_and_read_only() -> None:
    first = query("where is it")
    assert query("where is it") is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
    assert embed("hashing", "hashing-65", ["where is it"], "query").shape == (1, 65)
    assert query("where was it") is not first


def test_documents_and_batches_are_not_cached() -> None:
    document = embed("hashing", "hashing-64", ["where is it"], "document")
    batch = embed("hashing", "hashing-64", ["where", "is it"], "query")
    document[0, 0] = batch[0, 0] = 1
    assert query("where is it")[0, 0] != 1
    assert query("where")[0, 0] != 1


def test_the_cache_holds_the_queries_used_last(configure: Callable[..., Config]) -> None:
    configure(query_cache_size=3)
    a, b, c = query("a"), query("b"), query("c")
    assert query("a") is a
    d = query("d")
    assert query("b") is not b
    assert query("c") is not c
    assert query("d") is d


def test_a_long_query_is_not_cached() -> None:
    text = "x" * MAX_CACHED_CHARACTERS
    assert query(text) is query(text)
    assert query(text + "x") is not query(text + "x")


def test_threads_may_share_the_cache(configure: Callable[..., Config]) -> None:
    configure(query_cache_size=3)
    expected = {text: query(text).tolist() for text in map(str, range(6))}

    def find_wrong(seed: int) -> list[str]:
        texts = map(str, np.random.default_rng(seed).integers(0, 6, 2000))
        return [text for text in texts if query(text).tolist() != expected[text]]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(find_wrong, range(4))) == [[]] * 4


def test_the_cache_may_be_switched_off(configure: Callable[..., Config]) -> None:
    configure(query_cache_size=0)
    first = query("where is it")
    again = query("where is it")
    assert again is not first
    assert np.array_equal(again, first)
