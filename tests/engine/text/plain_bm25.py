"""BM25 by its definition, and the rows and queries that it is tried on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from apps.engine.text import bm25
from apps.engine.text.analyzer import TextQuery, parse_query, tokenize
from apps.engine.text.bm25 import K1, B, TextHits, TextPart
from apps.engine.text.inverted_index import InvertedIndex
from tests.engine.numpy_only import numpy_only

VOCABULARY = ["a", "b", "c", "dd", "é", "東"]


# Few words, so that rows share them, repeat them and tie.
texts = st.lists(st.sampled_from(VOCABULARY), max_size=9).map(" ".join)


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
