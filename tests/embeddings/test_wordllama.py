"""The provider `wordllama`: near for texts that are about the same; equal alone, in a batch and in a forked child."""

import os

import numpy as np
import pytest
from tokenizers import Tokenizer

from apps.embeddings.config import Config
from apps.embeddings.errors import UnknownModel
from apps.embeddings.providers import wordllama
from apps.embeddings.providers.wordllama import MODEL, WordLlama
from apps.embeddings.registry import load_before_fork
from apps.engine.vectors import Float32

pytestmark = pytest.mark.any_database

TEXTS = ["A rose is a rose", "", " ", "Zürich \U0001f600", "\0", "<s>", "word " * 9000, "a"]


def vectors(*texts: str) -> Float32:
    return WordLlama(MODEL, Config()).embed(texts, "document")


def nearest(query: str, *texts: str) -> str:
    return texts[int(np.argmax(vectors(*texts) @ vectors(query)[0]))]


@pytest.mark.parametrize(
    ("query", "right", "wrong"),
    [
        ("automobile", "The car needs petrol", "The cat needs milk"),
        ("How do I undo my last change?", "Revert the most recent edit", "Change trains at the last station"),
        ("doctor", "She went to see a physician", "She went to see a football match"),
    ],
)
def test_texts_of_one_meaning_are_near_whatever_their_words(query: str, right: str, wrong: str) -> None:
    assert nearest(query, wrong, right) == right


def test_a_vector_is_the_mean_of_the_vectors_of_its_tokens() -> None:
    tokenizer, table = wordllama.load()
    assert isinstance(tokenizer, Tokenizer)
    assert table.shape == (32_000, 256)
    for text in ("The quick brown fox", "word " * 9000):
        mean = table[tokenizer.encode(text, add_special_tokens=False).ids].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(vectors(text)[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_equal_texts_have_equal_vectors_alone_and_in_a_batch() -> None:
    together = vectors(*TEXTS)
    assert (together.shape, together.dtype) == ((len(TEXTS), 256), np.float32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(vectors(text)[0], vector)


def test_a_forked_child_embeds_with_what_its_parent_has_loaded() -> None:
    load_before_fork("wordllama")
    before = vectors(*TEXTS)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(vectors(*TEXTS), before) and wordllama.load.cache_info().misses == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_table_is_mapped() -> None:
    _, table = wordllama.load()
    assert not table.flags["OWNDATA"]
    assert not table.flags["WRITEABLE"]


@pytest.mark.parametrize("model", ["", "l2-supercat", "l2-supercat-512", "hashing-384"])
def test_another_model_is_refused_with_the_one_there_is(model: str) -> None:
    with pytest.raises(UnknownModel, match="There is l2-supercat-256"):
        WordLlama(model, Config())
