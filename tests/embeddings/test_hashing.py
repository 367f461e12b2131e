"""The provider `hashing`: the same everywhere, of unit length, and near for texts that share words or parts of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from apps.embeddings.config import Config
from apps.embeddings.errors import UnknownModel
from apps.embeddings.providers.hashing import Hashing, words
from apps.engine.vectors import Float32
from tests.engine.data import bounded

# Any text that can be stored: no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
dimensions = st.sampled_from([64, 100, 384, 4096])


def vectors(*texts: str, model: str = "hashing-384") -> Float32:
    return Hashing(model, Config()).embed(texts, "document")


def cosine(one: str, other: str, model: str = "hashing-384") -> float:
    first, second = vectors(one, other, model=model)
    return float(first @ second)


# Written down once: the first six elements that are not zero.
FIRST_SIX = {
    "Hello, world": (14**-0.5, {0: 1, 9: -1, 13: -1, 15: -1, 16: -1, 23: -1}),
    "": (1.0, {53: -1}),
    "Straße 東京 ﬁne naïve": (37**-0.5, {0: -1, 1: 2, 3: -1, 9: 1, 17: 1, 18: -1}),
}


@pytest.mark.parametrize("text", FIRST_SIX)
def test_vectors_are_those_that_they_always_were(text: str) -> None:
    vector = vectors(text, model="hashing-64")[0]
    length, signs = FIRST_SIX[text]
    found = {int(i): vector[i] for i in np.flatnonzero(vector)[:6]}
    assert found == {i: np.float32(sign * length) for i, sign in signs.items()}


def test_vectors_are_the_same_to_the_last_bit() -> None:
    many = [f"{i} {'word ' * (i % 5)}{chr(0x4E00 + i)}{chr(0x400 + i)}" for i in range(200)]
    assert xxhash.xxh3_64_hexdigest(vectors(*many).astype("<f4").tobytes()) == "898a32d7e6b51b16"


def test_another_process_with_another_hash_seed_makes_the_same_vectors() -> None:
    code = (
        "from apps.embeddings.config import Config; from apps.embeddings.providers.hashing import Hashing; "
        "print(Hashing('hashing-100', Config()).embed(['to be or not to be', 'Zürich'], 'query').tobytes().hex())"
    )
    command = [sys.executable, "-c", code]
    environment = {"PYTHONHASHSEED": "77", "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.strip() == vectors("to be or not to be", "Zürich", model="hashing-100").tobytes().hex()


@bounded(100)
@given(st.lists(texts, min_size=1, max_size=8), dimensions)
def test_every_text_has_a_unit_vector_the_same_alone_and_in_a_batch(batch: list[str], dimension: int) -> None:
    provider = Hashing(f"hashing-{dimension}", Config())
    together = provider.embed(batch, "document")
    assert together.shape == (len(batch), dimension)
    assert together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for text, vector in zip(batch, together, strict=True):
        assert np.array_equal(provider.embed([text], "query")[0], vector)


def test_blocks_do_not_show() -> None:
    many = [f"text number {i} of {i % 7} kinds" for i in range(3000)]
    together = vectors(*many, model="hashing-4096")
    for i in (0, 127, 128, 129, 2999):
        assert np.array_equal(together[i], vectors(many[i], model="hashing-4096")[0])


def test_a_long_text_takes_little_longer_than_its_length() -> None:
    long = "lorem ipsum " * 20_000 + "x" * 100_000
    assert np.isclose(np.linalg.norm(vectors(long)[0]), 1)


def test_words_whose_features_cancel_still_have_a_vector() -> None:
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 2000)]
    single = vectors(*letters, model="hashing-64")
    opposite = np.argwhere(single @ single.T < -0.9999)
    assert len(opposite), "the test needs two words that cancel"
    first, second = opposite[0]
    both = vectors(f"{letters[first]} {letters[second]}", model="hashing-64")[0]
    assert np.isclose(np.linalg.norm(both), 1)


def test_texts_that_share_words_are_nearer() -> None:
    about = "How do I reset my password?"
    assert cosine(about, "reset the password") > cosine(about, "Which trains go to Bern?") + 0.3
    assert cosine(about, about.upper()) == pytest.approx(1)
    assert cosine("the cat sat", "sat: the cat!") == pytest.approx(1)
    assert cosine("Große Straße", "STRASSE, GROSSE") == pytest.approx(1)


def test_words_that_share_parts_are_nearer() -> None:
    assert cosine("embedding", "embeddings") > cosine("embedding", "wedding") > cosine("embedding", "Zürich") + 0.1
    assert cosine("東京都の天気", "東京都の観光") > cosine("東京都の天気", "犬と猫") + 0.2


def test_a_word_that_comes_often_counts_less_each_time() -> None:
    apples = [cosine("apple", " ".join(["apple"] * n + ["zebra"] * 4)) for n in (1, 2, 4, 8, 2000)]
    assert apples == sorted(apples)
    assert apples[1] - apples[0] > apples[3] - apples[2]
    assert cosine("apple " * 2000, "apple") == pytest.approx(1)


@pytest.mark.parametrize(("text", "found"), [("", [""]), ("  ", [""]), (" ?! ", ["?!"]), ("a_b-C", ["a", "b", "c"])])
def test_a_text_without_words_is_one_word(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_texts_without_words_are_told_apart() -> None:
    assert cosine("", " \n") == pytest.approx(1)
    assert cosine("?", "!") < 0.9


@pytest.mark.parametrize("model", ["hashing-63", "hashing-4097", "hashing", "hashing-0384", "hashing-x", "", "bge"])
def test_other_models_are_refused_with_those_there_are(model: str) -> None:
    with pytest.raises(UnknownModel, match="There are hashing-64 to hashing-4096") as refused:
        Hashing(model, Config())
    assert str(refused.value).startswith(f"{model!r} is not a model")
    assert str(refused.value).startswith(repr(model))


def test_the_dimension_is_known_before_anything_is_embedded() -> None:
    assert Hashing("hashing-64", Config()).dimension == 64
    assert Hashing("hashing-4096", Config()).dimension == 4096
