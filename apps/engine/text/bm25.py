"""BM25: the k best rows of several parts for the words of a query.

A row's score is the sum, over the distinct words of the query that it has, of

    idf * f * (k1 + 1) / (f + k1 * (1 - b + b * length / average))     idf = ln(1 + (N - df + 0.5) / (df + 0.5))

with k1 = 1.2 and b = 0.75 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009; the idf is Lucene's,
which is never negative). f is how often the row has the word, df how many rows do, and N rows have `average` words. N,
df and average are those of all live rows of all parts, whatever a filter lets through. Sums are made in float64 in the
order of the words and rounded to float32 once, so that a score is the same however rows are divided into parts.

Every row that holds a word is scored, so the answer is exact. Costs some 3 nanoseconds for each row of each word, and
some 5 microseconds for each word in each part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import log
from typing import NamedTuple

import numpy as np

from apps.engine import kernels
from apps.engine.selection import best, candidates
from apps.engine.text.analyzer import TextQuery
from apps.engine.text.inverted_index import InvertedIndex
from apps.engine.vectors import Float32, Float64, Int64, Mask

K1 = 1.2
B = 0.75
# Words of a query that count: those of phrases first, then the rarest.
MAX_SCORED = 256

_NO_MASK = np.empty(0, np.bool_)


@dataclass(frozen=True)
class TextPart:
    """Rows to search, named by `keys` int64 [n]; no live row of any part has the key of another.

    `alive` [n] masks the rows that exist, None where all do; the others count nowhere. `allowed` [n] masks the rows
    that may be found, None where all may; it changes no score.
    """

    index: InvertedIndex
    keys: Int64
    alive: Mask | None = None
    allowed: Mask | None = None


class TextHits(NamedTuple):
    """The best rows, best first, ties by ascending key: `keys` int64 [m], `scores` float32 [m], m <= k.

    `matched` is the number of rows that hold a word, have every phrase, and are alive and allowed.
    """

    keys: Int64
    scores: Float32
    matched: int


def search_text(parts: Sequence[TextPart], query: TextQuery, k: int) -> TextHits:
    """The k best rows of `parts` that have a word of `query`, and every phrase of it."""
    encoded = [word.encode() for word in query.words]
    parts = [part for part in parts if len(part.index)]
    numbers = [part.index.locate(encoded) for part in parts]
    spans = [part.index.spans(located) for part, located in zip(parts, numbers, strict=True)]
    frequencies = sum(map(_frequencies, parts, spans), np.zeros(len(encoded), np.int64))
    if not frequencies.any():
        return TextHits(np.empty(0, np.int64), np.empty(0, np.float32), 0)
    sizes = [_live_size(part) for part in parts]
    rows, tokens = (sum(column) for column in zip(*sizes, strict=True))
    idf = _idf(frequencies, rows, query)
    keys, scores, matched = [], [], 0
    for part, located, part_spans in zip(parts, numbers, spans, strict=True):
        if not np.diff(part_spans).any():
            continue
        mask = _mask(part, query, located)
        matching, part_scores = _score(part.index, part_spans, idf, tokens / rows, mask)
        matched += len(matching)
        chosen = candidates(part_scores, part_scores, k)
        scores.append(part_scores[chosen])
        keys.append(part.keys[matching[chosen]])
    all_keys, all_scores = np.concatenate(keys), np.concatenate(scores)
    order = best(all_scores, all_keys, k)
    return TextHits(all_keys[order], all_scores[order], matched)


def _frequencies(part: TextPart, spans: Int64) -> Int64:
    """int64 [words]: the number of live rows that hold each word; its rows lie in `spans`."""
    if part.alive is None:
        return spans[:, 1] - spans[:, 0]
    rows, alive = part.index.rows, part.alive
    if not (kernel := kernels.get("bm25")):
        return np.array([np.count_nonzero(alive[rows[first:end]]) for first, end in spans.tolist()], np.int64)
    counts = np.empty(len(spans), np.int64)
    kernel.count_alive(rows, spans, alive, counts)
    return counts


def _live_size(part: TextPart) -> tuple[int, int]:
    """The number of live rows of `part`, and of all their words."""
    if part.alive is None:
        return len(part.index), part.index.tokens
    dead = np.flatnonzero(~part.alive)
    return len(part.index) - len(dead), part.index.tokens - int(part.index.lengths[dead].sum(dtype=np.int64))


def _idf(frequencies: Int64, rows: int, query: TextQuery) -> Float64:
    """The weight of each word of `query`; 0 if it does not count. `frequencies` [words] of the `rows` hold it."""
    # Python's logarithm is one function on every machine; numpy's depends on the processor.
    idf = np.array([log(1 + (rows - df + 0.5) / (df + 0.5)) for df in frequencies.tolist()])
    if np.count_nonzero(frequencies) > MAX_SCORED:
        quoted = {word for phrase in query.phrases for word in phrase}
        is_plain = np.array([word not in quoted for word in query.words])
        order = np.lexsort((frequencies, is_plain, frequencies == 0))
        idf[order[MAX_SCORED:]] = 0.0
    return idf


def _mask(part: TextPart, query: TextQuery, numbers: Sequence[int]) -> Mask:
    """The rows of `part` that are alive, allowed and have every phrase; empty where all are. `numbers` are those of the
    query's words."""
    masks = [mask for mask in (part.alive, part.allowed) if mask is not None]
    known = dict(zip(query.words, numbers, strict=True))
    for phrase in query.phrases:
        having = np.zeros(len(part.index), np.bool_)
        having[part.index.rows_with([known[word] for word in phrase])] = True
        masks.append(having)
    return reduce(np.logical_and, masks) if masks else _NO_MASK


def _score(index: InvertedIndex, spans: Int64, idf: Float64, average: float, mask: Mask) -> tuple[Int64, Float32]:
    """The rows that `mask` allows and that have a word whose `idf` is not 0, in any order, and their scores."""
    if not (kernel := kernels.get("bm25")):
        return _score_by_numpy(index, spans, idf, average, mask)
    size = min(int((spans[:, 1] - spans[:, 0]).sum()), len(index))
    scores, found = np.zeros(len(index)), np.empty(size + 1, np.int64)
    columns = index.rows, index.frequencies, spans, idf, index.lengths
    count = kernel.add_scores(*columns, average, K1, B, mask, scores, found)
    matching = found[:count]
    return matching, scores[matching].astype(np.float32)


def _score_by_numpy(
    index: InvertedIndex, spans: Int64, idf: Float64, average: float, mask: Mask
) -> tuple[Int64, Float32]:
    """As `_score`, without the kernel."""
    pieces = [slice(first, end) for first, end in spans.tolist()]
    rows = np.concatenate([index.rows[piece] for piece in pieces])
    often = np.concatenate([index.frequencies[piece] for piece in pieces]).astype(np.float64)
    norms = index.lengths * np.float64(B)
    norms /= average
    norms += 1 - B
    norms *= K1
    below = norms[rows] + often
    often *= K1 + 1
    often *= np.repeat(idf, spans[:, 1] - spans[:, 0])
    often /= below
    # bincount adds one weight after the other: the words of a row in their order.
    scores = np.bincount(rows, often, minlength=len(index))
    matching = np.flatnonzero(scores * mask if len(mask) else scores)
    return matching, scores[matching].astype(np.float32)
