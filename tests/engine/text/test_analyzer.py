"""What is a word, and what a query asks for."""

# ruff: noqa: RUF001

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
        ("٣ ½", ["3", "1", "2"]),
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
    words = tokenize(text)
    assert sorted(tokenize("é " + text)) == sorted(["e", *words])
    assert tokenize("é " + text)[1:] == words


@pytest.mark.parametrize(
    ("stored", "typed"),
    [
        ("Łódź", "lodz"),
        ("smørrebrød", "smorrebrod"),
        ("IŞIK ışık", "isik isik"),
        ("Đà Nẵng", "da nang"),
        ("Ærø Þór Œuvre Straße", "aero thor oeuvre strasse"),
        ("Bəxtiyar ɓaŋ ȷ", "bextiyar ban j"),
        ("Hawaiʻi ʿAlī", "hawaii ali"),
        ("п\u02bcять", "п'ять"),
        ("مُحَمَّدٌ", "محمد"),
        ("أحمد إسلام آب ٱسم", "احمد اسلام اب اسم"),
        ("مدرسة هدى كتــاب", "مدرسه هدي كتاب"),
        ("کتاب فارسی", "كتاب فارسي"),
        ("שָׁלוֹם", "שלום"),
        ("ज़रूर", "जरूर"),
        ("٢٠٢٤ ۱۴۰۳ २०२४ ２０２４ \U0001d7da", "2024 1403 2024 2024 2"),
        ("ﬁne ＦＵＬＬ Ⅷ", "fine full viii"),
    ],
)
def test_what_people_leave_out_when_they_type_does_not_count(stored: str, typed: str) -> None:
    assert tokenize(stored) == tokenize(typed)
    assert parse_query(stored) == parse_query(typed)


@pytest.mark.parametrize(("one", "other"), [("が", "か"), ("ไก", "ไก่"), ("कि", "क"), ("й", "к"), ("ھ", "ه")])
def test_marks_that_make_another_word_count(one: str, other: str) -> None:
    assert tokenize(one) != tokenize(other)


@pytest.mark.parametrize(
    ("text", "words", "parts"),
    [
        ("call getUserById now", "call getuserbyid now", ["get user by id"]),
        ("HTTPServer utf8Decode", "httpserver utf8decode", ["http server", "utf8 decode"]),
        ("URLs 3D B2B NASA Nasa x1", "urls 3d b2b nasa nasa x1", []),
        ("getÜberUser é", "getuberuser e", ["get uber user"]),
        ("a hyphen-\nated word", "a hyphenated word", ["hyphen ated"]),
        ("well-\r\n  known", "wellknown", ["well known"]),
        ("über-\u2010 grö\u00ad\nße", "uber grosse", ["gro sse"]),
        ("2020-\n2021 - \nx -- \ny x-\n\ny", "2020 2021 x y x y", []),
        ("aB" * 40, ("ab" * 40)[:MAX_LENGTH], []),
    ],
)
def test_compound_words_are_found_whole_and_by_their_parts(text: str, words: str, parts: list[str]) -> None:
    expected = words.split()
    for part in parts:
        expected += ["", *part.split()]
    assert tokenize(text) == expected
    assert parse_query(f'"{text}"').phrases == (tuple(words.split()),)


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
    assert list(query.words) == sorted(set(tokenize(text.lower())))


def test_phrases_together_have_so_many_words() -> None:
    query = parse_query(" ".join(f'"{i} and {i + 1}"' for i in range(MAX_PHRASE_WORDS)))
    assert sum(map(len, query.phrases)) == MAX_PHRASE_WORDS
    assert query.phrases[-1] == (str(MAX_PHRASE_WORDS // 3),), "the last one is cut"
    assert str(MAX_PHRASE_WORDS) in query.words
