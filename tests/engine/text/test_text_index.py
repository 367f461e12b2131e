"""Text search answers as a plain BM25 over all live rows does, however these are divided into parts."""

import math
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine import kernels
from apps.engine.text import bm25
from apps.engine.text.analyzer import MAX_LENGTH, MAX_PHRASE_WORDS, MAX_WORDS, TextQuery, parse_query, tokenize
from apps.engine.text.bm25 import K1, MAX_SCORED, B, TextHits, TextPart
from apps.engine.text.inverted_index import InvertedIndex
from tests.engine.data import bounded
from tests.engine.numpy_only import numpy_only

DOCS = Path(__file__).parents[3] / "docs" / "text.md"
VOCABULARY = ["a", "b", "c", "dd", "é", "東"]

# Few words, so that rows share them, repeat them and tie.
texts = st.lists(st.sampled_from(VOCABULARY), max_size=9).map(" ".join)


@pytest.fixture(autouse=True, scope="module")
def _kernels() -> None:
    kernels.load()


def search(parts: Sequence[TextPart], query: TextQuery, k: int) -> TextHits:
    """What is found; with and without kernels it is the same, bit for bit."""
    found = bm25.search_text(parts, query, k)
    with numpy_only():
        by_numpy = bm25.search_text(parts, query, k)
    assert (found.keys.tolist(), found.scores.tobytes()) == (by_numpy.keys.tolist(), by_numpy.scores.tobytes())
    assert found.matched == by_numpy.matched
    return found


@dataclass(frozen=True)
class Row:
    key: int
    text: str
    alive: bool
    allowed: bool


def plain(rows: Sequence[Row], query: TextQuery, k: int) -> tuple[list[tuple[int, float]], int]:
    """The k best rows and how many match, by the definition."""
    live = [(row, tokenize(row.text)) for row in rows if row.alive]
    matching = {}
    for row, found in live:
        has_phrases = all(
            any(tuple(found[i : i + len(phrase)]) == phrase for i in range(len(found))) for phrase in query.phrases
        )
        if row.allowed and has_phrases and set(found) & set(query.words):
            score = 0.0
            for word in query.words:
                df = sum(word in other for _, other in live)
                f = found.count(word)
                average = sum(len(other) for _, other in live) / len(live)
                idf = math.log(1 + (len(live) - df + 0.5) / (df + 0.5))
                score += idf * (f * (K1 + 1)) / (f + K1 * (1 - B + B * len(found) / average))
            matching[row.key] = float(np.float32(score))
    ranked = sorted(matching.items(), key=lambda item: (-item[1], item[0]))
    return ranked[:k], len(matching)


def pairs(hits: TextHits) -> list[tuple[int, float]]:
    assert hits.keys.dtype == np.int64
    assert hits.scores.dtype == np.float32
    return list(zip(hits.keys.tolist(), hits.scores.tolist(), strict=True))


def part(rows: Sequence[Row], index: InvertedIndex | None = None) -> TextPart:
    alive, allowed = np.array([r.alive for r in rows], bool), np.array([r.allowed for r in rows], bool)
    return TextPart(
        index=InvertedIndex.build([row.text for row in rows]) if index is None else index,
        keys=np.array([row.key for row in rows], np.int64),
        alive=None if alive.all() else alive,
        allowed=None if allowed.all() else allowed,
    )


def divided(rows: Sequence[Row], cuts: Sequence[int]) -> list[Sequence[Row]]:
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    return [rows[first:end] for first, end in pairwise(edges)]


def found_by(texts: Sequence[str], query: str, k: int = 10) -> list[int]:
    return search([TextPart(InvertedIndex.build(texts), np.arange(len(texts)))], parse_query(query), k).keys.tolist()


@st.composite
def row_lists(draw: st.DrawFn) -> list[Row]:
    drawn = draw(st.lists(st.tuples(texts, st.booleans(), st.booleans()), max_size=30))
    masks = draw(st.sampled_from(["none", "alive", "allowed", "both"]))
    keys = draw(st.permutations(range(len(drawn))))
    return [
        Row(key, text, alive or masks in ("none", "allowed"), allowed or masks in ("none", "alive"))
        for key, (text, alive, allowed) in zip(keys, drawn, strict=True)
    ]


@st.composite
def queries(draw: st.DrawFn) -> TextQuery:
    plain_words = draw(texts)
    phrases = draw(st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=3).map(" ".join), max_size=2))
    return parse_query(" ".join([plain_words, "unknown", *(f'"{phrase}"' for phrase in phrases)]))


@bounded(300)
@given(rows=row_lists(), cuts=st.lists(st.integers(0, 30), max_size=3), query=queries(), k=st.integers(1, 40))
def test_the_answer_is_that_of_a_plain_bm25_over_all_parts(
    rows: list[Row], cuts: list[int], query: TextQuery, k: int
) -> None:
    hits = search([part(piece) for piece in divided(rows, cuts)], query, k)
    assert (pairs(hits), hits.matched) == plain(rows, query, k)


@bounded(150)
@given(rows=row_lists(), cuts=st.lists(st.integers(0, 30), max_size=3), query=queries(), data=st.data())
def test_merged_and_saved_parts_answer_as_one_that_was_built(
    rows: list[Row], cuts: list[int], query: TextQuery, data: st.DataObject
) -> None:
    parts = [InvertedIndex.build([row.text for row in piece]) for piece in divided(rows, cuts)]
    shuffled = data.draw(st.permutations(range(len(rows))))
    order = shuffled[: data.draw(st.integers(0, len(rows)))]
    kept = [rows[i] for i in order]
    merged = InvertedIndex.merge(parts, np.array(order, np.int64))
    built = InvertedIndex.build([row.text for row in kept])
    assert len(merged) == len(kept)
    assert merged.nbytes == built.nbytes, "words of rows that were left out are gone"
    with tempfile.TemporaryDirectory() as name:
        merged.save(Path(name))
        loaded = InvertedIndex.load(Path(name))
        expected = plain(kept, query, 40)
        for index in (merged, built, loaded):
            hits = search([part(kept, index)], query, 40)
            assert (pairs(hits), hits.matched) == expected
        again = InvertedIndex.merge([loaded], np.arange(len(kept)))
        assert pairs(search([part(kept, again)], query, 40)) == expected[0]


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
@given(st.text())
def test_any_text_is_found_by_its_own_words(text: str) -> None:
    found = tokenize(text)
    assert all(0 < len(word) <= MAX_LENGTH and not re.search(r"\s", word) for word in found)
    assert parse_query(text) == parse_query(text)
    index = InvertedIndex.build(["other", text])
    assert index.tokens == len(found) + 1
    for query in (text, f'"{text.replace(chr(34), " ")}"'):
        hits = search([TextPart(index, np.arange(2))], parse_query(query), 1)
        assert hits.keys.tolist() == ([1] if found and found != ["other"] else [0] if found else [])


@bounded(300)
@given(st.text(st.characters(max_codepoint=0x7F)))
def test_the_short_way_of_ascii_is_the_long_way(text: str) -> None:
    assert tokenize(text) == tokenize(text + " é")[:-1]


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


def _saved(folder: Path) -> dict[str, np.ndarray]:
    InvertedIndex.build(["a b a", "", "c"]).save(folder)
    return {path.stem: np.load(path) for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["words", "ends", "rows", "frequencies", "tokens", "lengths"])
def test_files_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    array = _saved(tmp_path)[name]
    path = tmp_path / f"{name}.npy"
    whole = path.read_bytes()
    for wrong in (array[..., :-1], array.astype(np.float32), array[None], np.append(array, array)):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=r"\.npy"):
            InvertedIndex.load(tmp_path)
    for damaged in (b"", whole[:-1], b"x" * 200):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            InvertedIndex.load(tmp_path)
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        InvertedIndex.load(tmp_path)
    path.write_bytes(whole)
    assert len(InvertedIndex.load(tmp_path)) == 3


def test_an_index_says_what_it_holds(tmp_path: Path) -> None:
    index = InvertedIndex.build(["a b a", "c", ""])
    index.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
    loaded = InvertedIndex.load(tmp_path)
    assert (len(loaded), loaded.tokens, loaded.lengths.tolist()) == (3, 4, [3, 1, 0])
    assert loaded.nbytes == index.nbytes == 3 + 2 * 4 * 8 + 3 * 4 + 3 + 4 * 4 + 3 * 4
    assert loaded.locate([b"a", b"b", b"c", b"d", b""]) == [0, 1, 2, -1, -1]
