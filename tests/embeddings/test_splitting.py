"""Splitting: chunks cover the text, fit, come in order, cut no character, and take bounded time whatever the text."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from apps.embeddings.splitting import TooManyChunks, estimate_tokens, split_text

MIB = 1 << 20


def chunks(
    text: str,
    max_tokens: int = 256,
    overlap: int = 0,
    *,
    max_chunks: int = MIB,
    max_characters: int = 1 << 16,
    count_tokens: Callable[[str], int] = estimate_tokens,
) -> list[str]:
    return split_text(
        text,
        count_tokens=count_tokens,
        max_tokens=max_tokens,
        overlap=overlap,
        max_chunks=max_chunks,
        max_characters=max_characters,
    )


def places(text: str, found: list[str], overlap: int) -> list[tuple[int, int]]:
    """Where each chunk is in the text, the leftmost way that leaves no letter out."""
    result: list[tuple[int, int]] = []
    end = 0
    for chunk in found:
        gap = len(text[end:]) - len(text[end:].lstrip())
        # It begins behind the one before, or in it where chunks overlap.
        first = result[-1][0] + 1 if result and overlap else end
        start = max((i for i in range(first, end + gap + 1) if text.startswith(chunk, i)), default=-1)
        assert start >= 0, f"{chunk!r} does not go on where the text is at {end}"
        end = start + len(chunk)
        result.append((start, end))
    assert not text[end:].strip()
    return result


LETTERS = "ab \n.,é\u0301漢字😀\u200d\u3000_-ß"
TEXTS = st.one_of(
    st.text(), st.text(LETTERS, max_size=400), st.lists(st.sampled_from(["word", ". ", "\n\n", " " * 90])).map("".join)
)


@given(text=TEXTS, max_tokens=st.integers(1, 40), overlap=st.integers(0, 39))
@example(text="a\n\n\x1f", max_tokens=1, overlap=0)
@example(text="a" + " " * 5000 + "b", max_tokens=1, overlap=0)
@example(text=" " * 5000 + "ab cd", max_tokens=2, overlap=1)
@example(text="wordword " * 300, max_tokens=3, overlap=2)
@example(text="\n".join("a b c d e f" for _ in range(200)), max_tokens=4, overlap=0)
def test_chunks_cover_the_text_in_order_and_fit(text: str, max_tokens: int, overlap: int) -> None:
    overlap = min(overlap, max_tokens - 1)
    found = chunks(text, max_tokens, overlap)
    for chunk in found:
        assert chunk.strip()
        assert not any(end.isspace() and end not in "\x1c\x1d\x1e\x1f" for end in (chunk[0], chunk[-1]))
        assert estimate_tokens(chunk) <= max_tokens
        assert len(chunk) <= 16 * max_tokens
    for (_, end), (start, _) in pairwise(places(text, found, overlap)):
        assert estimate_tokens(text[start:end]) <= overlap
    assert found == chunks(text, max_tokens, overlap)


@pytest.mark.parametrize("overlap", [0, 8])
def test_windows_leave_no_trace(overlap: int) -> None:
    text = "".join(f"Sentence number {i} has a few words. " + "\n\n" * (i % 7 == 0) for i in range(1000))
    at_once = TextSplitter.from_callback(estimate_tokens, 64, overlap=overlap).chunks(text)
    assert len(text) > 8 * 64 * 64
    assert chunks(text, 64, overlap) == at_once


def test_boundaries_are_the_highest_that_fit() -> None:
    text = "One two three. Four five six.\n\nSeven eight nine. Ten eleven twelve.\n\nEnd."
    assert chunks(text, 8) == [
        "One two three. Four five six.",
        "Seven eight nine. Ten eleven twelve.",
        "End.",
    ]
    assert chunks(text, 4)[:2] == ["One two three.", "Four five six."]
    assert chunks("incomprehensibilities", 2) == ["incomprehens", "ibilities"]


def test_overlap_repeats_the_end_of_the_chunk_before() -> None:
    text = " ".join(f"w{i}" for i in range(30))
    found = [chunk.split() for chunk in chunks(text, 10, 3)]
    assert [before[-3:] == after[:3] for before, after in pairwise(found)] == [True] * 3
    assert found[-1][-1] == "w29"


def test_characters_as_people_see_them_stay_whole() -> None:
    family, accented = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "e\u0301\u0302"
    for unit in (family, accented, "🇫🇷", "한"):
        for chunk in chunks(unit * 200, 20):
            assert chunk == unit * (len(chunk) // len(unit))
    assert chunks("漢字仮名交じり文" * 4, 8) == ["漢字仮名交じり文"] * 4


def test_a_text_put_in_changes_few_pieces() -> None:
    paragraphs = [" ".join(f"Word{i} and word{i * j} stand here." for j in range(3 + i % 5)) for i in range(200)]
    before = chunks("\n\n".join(paragraphs), 128, 16)
    paragraphs[3] += " A sentence more."
    after = chunks("\n\n".join(paragraphs), 128, 16)
    assert len(before) > 50
    assert 1 <= len(set(after) - set(before)) <= 10


def test_a_chunk_is_no_longer_than_allowed() -> None:
    found = chunks("word " * 100, max_tokens=50, max_characters=12)
    assert found == ["word word"] * 50
    assert chunks("aaaaaaaa" * 5, max_tokens=50, max_characters=12) == ["a" * 12] * 3 + ["a" * 4]


def test_there_may_be_too_many() -> None:
    text = "word " * 1000
    assert len(chunks(text, 10, max_chunks=100)) == 100
    with pytest.raises(TooManyChunks) as refused:
        chunks(text, 10, max_chunks=50)
    assert refused.value.about == pytest.approx(100, rel=0.05)
    with pytest.raises(TooManyChunks) as refused:
        chunks(text, 10, max_chunks=99)
    assert refused.value.about >= 100


# Large enough that each of several kinds is measured too often where there are no windows.
SIZE = MIB // 4
HOSTILE = {
    "one word": "a" * SIZE,
    "white space": " " * SIZE,
    "letters far apart": ("a" + " " * 1000) * (SIZE // 1001),
    "lines": "a\n" * (SIZE // 2),
    "ever more newlines": "".join("a" + "\n" * i for i in range(1, 724)),
    "marks on one letter": "e" + "\u0301" * (SIZE // 2),
    "joined emoji": "\U0001f468\u200d" * (SIZE // 7),
    "ideographs": "漢" * (SIZE // 3),
    "sentences of one letter": '"a." ' * (SIZE // 5),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_work_is_bounded_whatever_the_text(kind: str) -> None:
    measured = 0

    def count_tokens(part: str) -> int:
        nonlocal measured
        measured += len(part)
        return estimate_tokens(part)

    try:
        chunks(HOSTILE[kind], 256, 32, max_chunks=2000, count_tokens=count_tokens)
    except TooManyChunks:
        assert kind != "white space"
    # Without windows, one endless word is measured quadratically often.
    assert measured < 100 * len(HOSTILE[kind])
