"""From ranked keys to results as the API shows them: one statement for each hundred rows, no ORM instance per row."""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import orjson

from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from apps.libraries.dialects.base import Dialect
from apps.libraries.response_budget import ResponseBudget
from apps.libraries.selectors import vector_array
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_RESULT
from apps.search.query.search import RankedHits
from apps.search.query.spec import QuerySpec

# Rows are read in blocks of this number, and the size of each block is checked before the next is read. An answer that
# is one block is checked when it is written.
_ROWS_PER_BLOCK = 100
# JSON of a result's own names, score and distance.
_RESULT_BYTES = 100

# Makes a field of a result from a row of the statement that reads it.
_Render: TypeAlias = Callable[[tuple[Any, ...]], Any]


def hydrate(
    library: OpenLibrary, found: Sequence[RankedHits], specs: Sequence[QuerySpec]
) -> list[list[dict[str, Any]]]:
    """The results of each query, with the fields it asked for. Raises Invalid for too many or too large ones."""
    snapshot, state = library.snapshot, library.state
    library.budget.spend(PER_RESULT * sum(len(hits.keys) for hits in found))
    columns = _columns(frozenset(chain.from_iterable(spec.include for spec in specs)), snapshot.dialect)
    keys = list(dict.fromkeys(chain.from_iterable(hits.keys for hits in found)))
    is_small = sum(len(hits.keys) for hits in found) <= _ROWS_PER_BLOCK
    times = Counter[int]() if is_small else Counter(chain.from_iterable(hits.keys for hits in found))
    rows: dict[int, tuple[Any, ...]] = {}
    budget = ResponseBudget()
    for start in range(0, len(keys), _ROWS_PER_BLOCK):
        library.budget.check_time()
        some = keys[start : start + _ROWS_PER_BLOCK]
        params = [state.generation, *some] if columns.of_generation else some
        read = snapshot.rows(columns.sql.format(", ".join(["%s"] * len(some))), params)
        if not is_small:
            budget.spend(sum(times[row[0]] * _size(row) for row in read))
        rows |= {row[0]: row for row in read}
    return [
        _results(hits, rows, [(field, columns.render[field]) for field in spec.include], spec, state.metric)
        for hits, spec in zip(found, specs, strict=True)
    ]


def read_vectors(library: OpenLibrary, keys: Sequence[int]) -> Float32:
    """The vectors of chunks, float32 [n, dimension], in the order of `keys`."""
    sql = "SELECT chunk_id, vector FROM vectordb_embedding WHERE generation = %s AND chunk_id IN ({})"
    marks = ", ".join(["%s"] * len(keys))
    found = dict(library.snapshot.rows(sql.format(marks), [library.state.generation, *keys]))
    return np.array([vector_array(found[key]) for key in keys])


def _size(row: tuple[Any, ...]) -> int:
    """About how many bytes of JSON a row makes."""
    size = _RESULT_BYTES
    for value in row:
        if type(value) is str:
            size += len(value) if value.isascii() else len(value.encode())
        elif type(value) in (bytes, memoryview):
            # Four bytes of a vector are some twelve characters.
            size += 3 * len(value)
    return size


def _results(
    hits: RankedHits,
    rows: dict[int, tuple[Any, ...]],
    fields: list[tuple[str, _Render]],
    spec: QuerySpec,
    metric: Metric,
) -> list[dict[str, Any]]:
    results = []
    # The scores of words and of fused ranks are no similarities of vectors.
    distance = metric.distance if spec.mode == "vector" else operator.neg
    for key, score in zip(hits.keys, hits.scores, strict=True):
        row = rows[key]
        base = score if hits.base_scores is None else hits.base_scores[key]
        result = {"id": row[1], "document_id": row[2], "score": score, "distance": distance(base)}
        if hits.base_scores is not None:
            result["base_score"] = base
        if hits.groups is not None:
            result["group"] = hits.groups[key]
        if spec.mode == "hybrid":
            result["vector_rank"], result["lexical_rank"] = hits.ranks[key]
        for field, render in fields:
            result[field] = render(row)
        results.append(result)
    return results


@dataclass(frozen=True)
class _Columns:
    """What is read of chunks: a statement with a place for the keys' marks, and how each field comes from its row.

    The first three columns are the chunk's key, its id and its document's id.
    """

    sql: str
    of_generation: bool
    render: dict[str, _Render]


@lru_cache(maxsize=64)
def _columns(fields: frozenset[str], dialect: Dialect) -> _Columns:
    columns = ["chunk.id", "chunk.public_id", "document.public_id"]
    joins = "LEFT JOIN vectordb_document AS document ON document.id = chunk.document_id"
    render: dict[str, _Render] = {}
    for field in sorted(fields):
        at = len(columns)
        if field == "text":
            columns.append("chunk.text")
            render[field] = itemgetter(at)
        elif field == "metadata":
            columns.append(dialect.json_text("chunk.metadata"))
            render[field] = partial(_json, at)
        elif field == "embedding":
            columns.append("embedding.vector")
            joins += (
                " LEFT JOIN vectordb_embedding AS embedding"
                " ON embedding.chunk_id = chunk.id AND embedding.generation = %s"
            )
            render[field] = partial(_vector, at)
        else:
            columns += ["document.title", "document.source", dialect.json_text("document.metadata")]
            render[field] = partial(_document, at)
    sql = f"SELECT {', '.join(columns)} FROM vectordb_chunk AS chunk {joins} WHERE chunk.id IN ({{}})"
    return _Columns(sql, "embedding" in fields, render)


def _json(at: int, row: tuple[Any, ...]) -> orjson.Fragment:
    return orjson.Fragment(row[at])


def _vector(at: int, row: tuple[Any, ...]) -> Float32:
    return vector_array(row[at])


def _document(at: int, row: tuple[Any, ...]) -> dict[str, Any] | None:
    if row[2] is None:
        return None
    title, source, metadata = row[at : at + 3]
    return {"id": row[2], "title": title, "source": source, "metadata": orjson.Fragment(metadata)}
