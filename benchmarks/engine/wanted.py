"""What is wanted of the index types on the real data: batches, a graph beside the same one of its library, filters.

One thread. Each side of a row takes turns with its reference, and the round with the median ratio counts.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import AUTO, INDEX_TYPES, chosen_kind
from apps.engine.metadata import Attributes, Columns
from apps.engine.metadata.filters import parse_filter
from apps.engine.metrics import Metric
from apps.engine.storage.row_data import SealedRows
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.engine.text.inverted_index import InvertedIndex
from apps.engine.vectors import Mask
from benchmarks.dataset import Dataset, Float32
from benchmarks.engine.references import REFERENCES
from benchmarks.report import Row, Wanted, at_least, at_most, times_at_least, times_at_most
from benchmarks.timing import middle_round, milliseconds_each, seconds

K = 10
_GRAPH, _EFS = {"m": 16, "ef_construction": 128}, (64, 128)
_FILTERS: dict[str, dict[str, Any]] = {
    "topic = noun.animal": {"topic": "noun.animal"},
    "pos = noun": {"pos": "noun"},
    "topic = noun.motive": {"topic": "noun.motive"},
    "synonyms >= 4": {"synonyms": {"$gte": 4}},
}
# Milliseconds that the type which `auto` takes may need.
_MOST_MILLISECONDS = {"topic = noun.animal": 0.5, "pos = noun": 1.2}


@dataclass(frozen=True)
class _Library:
    """All rows as one segment of each type, over the same content."""

    data: Dataset
    row_data: SealedRows
    queries: Float32
    rounds: int

    @classmethod
    def of(cls, data: Dataset, quick: bool) -> "_Library":
        rows = [orjson.loads(line) for line in data.lines]
        attributes = [Attributes(row["id"], None, 0, orjson.dumps(row["metadata"])) for row in rows]
        row_data = SealedRows(Columns.build(attributes), InvertedIndex.build([""] * len(rows)))
        return cls(data, row_data, data.queries[: 64 if quick else 512], 3 if quick else 9)

    def view(self, kind: str) -> View:
        params = _GRAPH if kind == "hnsw" else {}
        segment = Segment.build(
            keys=np.arange(len(self.data)),
            matrix=Matrix.build(self.data.vectors, Metric.COSINE),
            row_data=self.row_data,
            kind=kind,
            params=params,
        )
        return View.of(dimension=self.data.dimension, metric=Metric.COSINE, segments=(segment,), built_at=0.0)

    def each(self, search: Callable[[Float32], Any], block: Float32) -> float:
        """Milliseconds of the median query."""
        return float(np.median(milliseconds_each(search, list(block[:, np.newaxis]))))

    def blocks(self) -> list[Float32]:
        return np.array_split(self.queries, self.rounds)


def run(data: Dataset, *, quick: bool) -> list[Row]:
    """The rows of the table."""
    library = _Library.of(data, quick)
    found: list[Row] = []
    for kind in INDEX_TYPES:
        print(f"{kind} ...", file=sys.stderr)
        view = library.view(kind)
        if kind == "brute_force":
            found += _batches(library, view)
        if kind == "hnsw":
            found += _graph(library, view)
        found += _filtered(library, view, kind)
    return found


def _batches(library: _Library, view: View) -> list[Row]:
    """Batches of 256 beside numpy's, and of 32 beside single queries."""
    vectors, many = library.data.vectors, library.data.queries[:256]

    def by_numpy(queries: Float32) -> np.ndarray:
        scores = queries @ vectors.T
        return np.argpartition(scores, scores.shape[1] - K, axis=1)[:, -K:]

    ours, theirs, batched, single = [], [], [], []
    for block in library.blocks():
        theirs.append(1000 * seconds(by_numpy, many))
        ours.append(1000 * seconds(lambda: view.search(many, K)))
        batched.append(32 / seconds(lambda part=library.queries[:32]: view.search(part, K)))
        single.append(1000 / library.each(lambda query: view.search(query, K), block))
    value, reference = middle_round(ours, theirs)
    rate, alone = middle_round(batched, single)
    return [
        Row(
            "brute_force, a batch of 256",
            value,
            "ms",
            "numpy: matrix product, argpartition",
            reference,
            times_at_most(1.1),
        ),
        Row("brute_force, batches of 32", rate, "queries/s", "single queries", alone, times_at_least(2.5)),
    ]


def _graph(library: _Library, view: View) -> list[Row]:
    """The graph through the view, text ids resolved, beside faiss's own with the same parameters."""
    ids = [f"row-{key}" for key in range(len(library.data))]
    walks = REFERENCES["faiss hnsw"](library.data.vectors, Metric.COSINE, _GRAPH)
    found = []
    for ef in _EFS:
        theirs = walks({"ef": ef})

        def ours(query: Float32, ef: int = ef) -> list[str]:
            [hits] = view.search(query, K, params={"ef": ef})
            return [ids[key] for key in hits.keys.tolist()]

        pairs = [
            (library.each(ours, block), library.each(lambda query, walk=theirs: walk(query[0], K), block))
            for block in library.blocks()
        ]
        value, reference = middle_round(*zip(*pairs, strict=True))
        found.append(Row(f"hnsw, ef {ef}, through the view", value, "ms", "faiss", reference, times_at_most(1.3)))
    return found


def _filtered(library: _Library, view: View, kind: str) -> list[Row]:
    """A query under each of the filters, which is evaluated for it, and its recall."""
    is_default = kind == chosen_kind(AUTO, len(library.data), library.data.dimension)
    found = []
    for name, raw in _FILTERS.items():
        filter = parse_filter(raw)
        allowed = view.matching(filter)
        rows = int(np.count_nonzero(allowed[0]))

        def search(query: Float32, filter: Any = filter) -> Any:
            return view.search(query, K, allowed=view.matching(filter))

        took = library.each(search, library.queries[: 32 if kind == "kd_tree" else 256])
        share = _recall(view, library.queries, allowed)
        most = _MOST_MILLISECONDS.get(name) if is_default else None
        least: Wanted = at_least(1.0 if rows * 10 < len(library.data) and (most or rows < 100) else 0.99)
        what = f"{kind}{' (auto)' if is_default else ''}, {name}, {rows:,} rows"
        found.append(Row(f"{what}: p50", took, "ms", wanted=at_most(most) if most else None))
        found.append(Row(f"{what}: recall@{K}", share, "", wanted=least))
    return found


def _recall(view: View, queries: Float32, allowed: Sequence[Mask]) -> float:
    """The share of the true nearest among the allowed rows that are found, by score."""
    truth = view.search(queries[:100], K, exact=True, allowed=allowed)
    found = view.search(queries[:100], K, allowed=allowed)
    hits = [np.mean(one.scores >= best.scores[-1]) for one, best in zip(found, truth, strict=True)]
    return float(np.mean(hits))
