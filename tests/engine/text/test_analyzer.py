"""What is a word, and what a query asks for."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.text.analyzer import MAX_LENGTH, MAX_PHRASE_WORDS, MAX_WORDS, parse_query, tokenize
from apps.engine.text.bm25 import MAX_SCORED
from tests.engine.data import bounded
from tests.server import ROOT

DOCS = ROOT / "docs" / "text.md"


def examples() -> list[tuple[str, list[str]]]:
    section = DOCS.read_text().split("## What a word is")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    return [(cells[0][1:-1], re.findall("`([^`]+)`", cells[1])) for cells in (row[2:-2].split(" | ") for row in table)]


@pytest.mark.parametrize(("text", "expected"), examples())
def test_words_are_as_documented(text: str, expected: list[str]) -> None:
    assert tokenize(text) == expected


@pytest.mark.parametrize("limit", [MAX_LENGTH, MAX_WORDS, MAX_PHRASE_WORDS, MAX_SCORED])
def test_limits_are_documented(limit: int) -> None:
    assert f"| {limit:,} " in DOCS.read_text().split("## Limits")[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\x00 \t\n\x7f", []),
        ("a\x00b", ["a", "b"]),
        ("co\u00adop can\u200bnot me\u200djoin", ["coop", "can", "not", "mejoin"]),
        ("e\u0301 \u00e9 \u1e9b\u0323", ["e", "e", "s"]),
        ("\ufb01ne İ \U0001d400", ["fine", "i", "a"]),
        ("か\u3099 が", ["が", "が"]),
        ("\u1100\u1161 가", ["가", "가"]),
        ("x東京y", ["x", "東", "東京", "京", "y"]),
        ("東、京", ["東", "京"]),
        ("\ud800 a\udfffb", ["a", "b"]),
        ("٣ ½", ["٣", "1", "2"]),
        ("\u0301", []),
        ("❤\ufe0f \U0001f468\u200d\U0001f469", []),
        ("\U00020000\U00020001", ["\U00020000", "\U00020000\U00020001", "\U00020001"]),
    ],
)
def test_words_of_awkward_texts(text: str, expected: list[str]) -> None:
    assert tokenize(text) == expected


@bounded(300)
@given(st.text(st.characters(max_codepoint=0x7F)))
def test_the_short_way_of_ascii_is_the_long_way(text: str) -> None:
    assert tokenize(text) == tokenize(text + " é")[:-1]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("one two", []),
        ('"one two"', ["one two"]),
        ('x "one" y "Two, three" z', ["one", "two three"]),
        ('one "two', []),
        ('"one" two "three four', ["one"]),
        ('"" "?" "one" "ONE"', ["one"]),
        ('NOT (one OR "two*") AND col:x ^ -y', ["two"]),
    ],
)
def test_phrases_lie_between_quotes(text: str, phrases: list[str]) -> None:
    query = parse_query(text)
    assert [" ".join(phrase) for phrase in query.phrases] == phrases
    assert list(query.words) == sorted(set(tokenize(text)))


def test_phrases_together_have_so_many_words() -> None:
    query = parse_query(" ".join(f'"{i} and {i + 1}"' for i in range(MAX_PHRASE_WORDS)))
    assert sum(map(len, query.phrases)) == MAX_PHRASE_WORDS
    assert query.phrases[-1] == (str(MAX_PHRASE_WORDS // 3),), "the last one is cut"
    assert str(MAX_PHRASE_WORDS) in query.words
