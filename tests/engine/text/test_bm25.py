"""Text search answers as a plain BM25 over all live rows does, however these are divided into parts."""

import math
import re
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.text.analyzer import MAX_LENGTH, MAX_PHRASE_WORDS, MAX_WORDS, TextQuery, parse_query, tokenize
from apps.engine.text.bm25 import K1, MAX_SCORED, B, TextPart
from apps.engine.text.inverted_index import InvertedIndex
from tests.engine.data import bounded
from tests.engine.text.plain_bm25 import Row, divided, found_by, pairs, part, plain, queries, row_lists, search
from tests.server import ROOT

DOCS = ROOT / "docs" / "text.md"


@bounded(300)
@given(rows=row_lists(), cuts=st.lists(st.integers(0, 30), max_size=3), query=queries(), k=st.integers(1, 40))
def test_the_answer_is_that_of_a_plain_bm25_over_all_parts(
    rows: list[Row], cuts: list[int], query: TextQuery, k: int
) -> None:
    hits = search([part(piece) for piece in divided(rows, cuts)], query, k)
    assert (pairs(hits), hits.matched) == plain(rows, query, k)


@pytest.mark.parametrize("common", [1, 5, 100, 1990])
def test_words_of_few_and_of_many_rows_are_counted_alike(common: int) -> None:
    """Where words have more rows than there are, what a length adds is computed once a row; phrases are looked up row
    by row or read along all words."""
    rng = np.random.default_rng(common)
    rows = [
        Row(i, " ".join(rng.choice(["x", "y", "z"], rng.integers(1, 6))) if i < common else "o " * (i % 4), True, True)
        for i in range(2000)
    ]
    parts = [part(rows)]
    for text in ("x y z", 'z "x y"', '"x x"', '"y z x y"'):
        hits = search(parts, parse_query(text), 2000)
        live, average = len(rows), sum(len(tokenize(row.text)) for row in rows) / len(rows)
        df = Counter(word for row in rows for word in set(tokenize(row.text)))
        expected = {}
        for row in rows:
            found = tokenize(row.text)
            if all(f" {' '.join(phrase)} " in f" {' '.join(found)} " for phrase in parse_query(text).phrases):
                score = 0.0
                for word in parse_query(text).words:
                    idf = math.log(1 + (live - df[word] + 0.5) / (df[word] + 0.5))
                    f = found.count(word)
                    score += idf * (f * (K1 + 1)) / (f + K1 * (1 - B + B * len(found) / average))
                if score:
                    expected[row.key] = float(np.float32(score))
        assert pairs(hits) == sorted(expected.items(), key=lambda item: (-item[1], item[0]))
        assert hits.matched == len(expected)


def test_ties_are_in_order_of_the_keys_across_parts() -> None:
    index = InvertedIndex.build(["same words"] * 50)
    keys = np.random.default_rng(0).permutation(200)[:100]
    hits = search([TextPart(index, keys[:50]), TextPart(index, keys[50:])], parse_query("words"), 7)
    assert hits.keys.tolist() == sorted(keys.tolist())[:7]
    assert len(set(hits.scores.tolist())) == 1
    assert hits.matched == 100


def test_a_filter_changes_no_score_and_dead_rows_do() -> None:
    rows = [Row(0, "a b", True, True), Row(1, "a", True, True), Row(2, "b b b c", True, True)]
    query = parse_query("a b")
    everything = dict(pairs(search([part(rows)], query, 5)))
    index, keys = InvertedIndex.build([row.text for row in rows]), np.arange(3)
    allowed = search([TextPart(index, keys, None, np.array([True, False, False]))], query, 5)
    assert pairs(allowed) == [(0, everything[0])]
    nothing = search([TextPart(index, keys, None, np.zeros(3, bool))], query, 5)
    assert (len(nothing.keys), nothing.matched) == (0, 0)
    without = search([TextPart(index, keys, np.array([True, True, False]))], query, 5)
    assert pairs(without) == pairs(search([part(rows[:2])], query, 5))
    assert dict(pairs(without))[0] != everything[0]


def test_the_caller_s_arrays_are_left_alone() -> None:
    rows = [Row(i, text, i != 1, i != 2) for i, text in enumerate(["a b", "b", "a", "b a a"])]
    made = part(rows)
    for array in (made.keys, made.alive, made.allowed):
        assert array is not None
        array.flags.writeable = False
    assert search([made], parse_query('a "b a"'), 2).keys.tolist() == [3]


def test_nothing_is_found_where_there_is_nothing() -> None:
    empty = TextPart(InvertedIndex.build([]), np.empty(0, np.int64))
    blank = TextPart(InvertedIndex.build(["", "?!"]), np.arange(2))
    dead = TextPart(InvertedIndex.build(["a"]), np.array([7]), np.zeros(1, bool))
    for parts in ([], [empty], [blank], [dead], [empty, blank, dead]):
        for text in ("a", "", '"a"', "!"):
            hits = search(parts, parse_query(text), 3)
            assert (len(hits.keys), len(hits.scores), hits.matched) == (0, 0, 0)
    assert len(InvertedIndex.merge([], np.empty(0, np.int64))) == 0
    assert len(InvertedIndex.merge([empty.index, blank.index], np.empty(0, np.int64))) == 0


def test_a_phrase_does_not_reach_from_one_row_into_the_next() -> None:
    """Neither where rows are looked at one by one, nor where all words are read."""
    filling = [f"word{i}" for i in range(100)]
    assert found_by(["x a", "", "b x", "a b"], '"a b"') == [3]
    assert found_by(["x a", "", "b x", "a b", *filling], '"a b"') == [3]
    assert found_by(["a"], '"a a"') == []
    assert found_by(["a a a", "a"], '"a a"') == [0]
    assert found_by(["b a", "b", "c b"], '"a b c"') == []


def test_a_phrase_of_a_script_without_spaces_is_a_substring() -> None:
    rows = ["東京都庁", "京都", "東と京", "สวัสดีครับ"]
    assert found_by(rows, '"京都"') == [1, 0]
    assert found_by(rows, "庁") == [0]
    assert found_by(rows, '"東京都"') == [0]
    assert found_by(rows, '"ดีค"') == [3]


def test_frequencies_and_lengths_have_no_ceiling() -> None:
    rows = [Row(0, "a " * 70_000, True, True), Row(1, "a " * 300 + "b", True, True), Row(2, "b", True, True)]
    query = parse_query("a b")
    assert (pairs(search([part(rows)], query, 3)), 3) == plain(rows, query, 3)


@bounded(300)
@given(st.text())
def test_any_text_is_found_by_its_own_words(text: str) -> None:
    found = tokenize(text)
    assert all(len(word) <= MAX_LENGTH and not re.search(r"\s", word) for word in found)
    assert parse_query(text) == parse_query(text)
    index = InvertedIndex.build(["other", text])
    assert index.tokens == len(found) + 1
    for query in (text, f'"{text.replace(chr(34), " ")}"'):
        hits = search([TextPart(index, np.arange(2))], parse_query(query), 1)
        assert hits.keys.tolist() == ([1] if found and found != ["other"] else [0] if found else [])


LARGE = 262_144


@pytest.mark.parametrize(
    "text",
    [
        "a" * LARGE,
        "a " * (LARGE // 2),
        "." * LARGE,
        '"' * LARGE,
        '"a' * (LARGE // 2),
        '"a b' * (LARGE // 4),
        "é" * (LARGE // 2),
        "東" * (LARGE // 3),
        "aB" * (LARGE // 2),
        "a" * (LARGE - 1) + "B",
        "aB " * (LARGE // 3),
        "a-\n" * (LARGE // 3),
        "a-\n" + " " * (LARGE - 3),
        "\ufdfa" * (LARGE // 3),
        "a" + "\u0301\u0316" * (LARGE // 4),
        "\u0591\u05b0" * (LARGE // 4),
        " ".join(f"w{i}" for i in range(LARGE // 7)),
        "".join(map(chr, range(sys.maxunicode + 1))),
    ],
    ids=lambda text: repr(text[:4]),
)
def test_large_hostile_texts_are_rows_and_queries(text: str) -> None:
    """Takes hours where anything is quadratic."""
    index = InvertedIndex.build([text, "a b", ""])
    query = parse_query(text)
    assert len(query.words) <= MAX_WORDS
    assert sum(map(len, query.phrases)) <= MAX_PHRASE_WORDS
    hits = search([TextPart(index, np.arange(3))], query, 3)
    assert set(hits.keys.tolist()) <= {0, 1}
    if tokenize(text):
        assert 0 in hits.keys
    assert len(InvertedIndex.merge([index, index], np.array([5, 3, 0]))) == 3


def test_a_long_word_is_cut() -> None:
    rows = ["a" * MAX_LENGTH, "a" * (MAX_LENGTH - 1), "é" * (MAX_LENGTH + 5)]
    assert found_by(rows, "a" * 1000) == [0]
    assert found_by(rows, "é" * MAX_LENGTH) == [2]


def test_of_many_words_those_of_phrases_and_then_the_rarest_score() -> None:
    rare = [f"rare{i}" for i in range(MAX_SCORED - 1)]
    rows = ["quoted common", "quoted common", "common", *rare, "another"]
    # Words that no row has take no room.
    text = " ".join(["common", *rare, *(f"unknown{i}" for i in range(MAX_SCORED))])
    assert sorted(found_by(rows, text, 1000)) == list(range(len(rows) - 1))
    # One word more, and the most common one does not score.
    assert sorted(found_by(rows, f"{text} another", 1000)) == list(range(3, len(rows)))
    assert found_by(rows, f'{text} another "common"', 1000) == [2, 0, 1]
    assert found_by(rows, f'{text} another "quoted"', 1000) == [0, 1]
    assert len(parse_query(" ".join(f"w{i}" for i in range(5000))).words) == MAX_WORDS


def test_parts_of_compound_words_are_found_and_join_no_phrase() -> None:
    texts = ["call getUserById now", "by id, a user", "the serial-\nized form getUserById"]
    assert sorted(found_by(texts, "user")) == [0, 1, 2]
    assert found_by(texts, '"call getuserbyid now"') == found_by(texts, '"CALL GETUSERBYID NOW"') == [0]
    assert sorted(found_by(texts, '"user by id"')) == [0, 2]
    assert found_by(texts, '"the serialized form"') == [2]
    assert found_by(texts, '"now get"') == found_by(texts, '"ized get"') == []
    assert found_by(texts, '""') == []
