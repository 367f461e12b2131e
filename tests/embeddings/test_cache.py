"""The cache of query vectors against a plain model of it, and from several threads."""

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.embeddings.cache import LONGEST_TEXT, Key, QueryCache
from apps.embeddings.config import Config
from tests.engine.data import bounded

THREE = Config(query_cache_size=3)


def key(text: str, config: Config = THREE) -> Key:
    return Key(config, "hashing", "hashing-64", text)


@bounded(200)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), min_size=10))
def test_it_keeps_what_was_used_last(steps: list[tuple[bool, str]]) -> None:
    cache = QueryCache()
    expected: list[str] = []
    for is_put, text in steps:
        if is_put:
            cache.put(key(text), np.full((1, 1), ord(text), np.float32))
        found = cache.get(key(text))
        if is_put or text in expected:
            expected = [*(kept for kept in expected if kept != text), text][-3:]
            assert found is not None
            assert found.tolist() == [[ord(text)]]
        else:
            assert found is None
        assert len(cache) == len(expected)


def test_a_long_text_is_not_kept() -> None:
    cache = QueryCache()
    cache.put(key("x" * LONGEST_TEXT), np.ones((1, 1), np.float32))
    cache.put(key("x" * (LONGEST_TEXT + 1)), np.ones((1, 1), np.float32))
    assert len(cache) == 1


def test_threads_may_share_it() -> None:
    cache = QueryCache()
    wrong: list[str] = []

    def use(number: int) -> None:
        rng = np.random.default_rng(number)
        for text in map(str, rng.integers(0, 6, 2000)):
            cache.put(key(text), np.full((1, 1), float(text), np.float32))
            found = cache.get(key(text))
            if len(cache) > 4 or (found is not None and found[0, 0] != float(text)):
                wrong.append(text)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) == 3
