"""From ranked keys to results as the API shows them: one statement for each hundred rows, no ORM instance per row."""

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from apps.libraries.chunk_fields import ChunkStatement, Render, Row, Shown, chunk_statement, vector_array
from apps.libraries.response_budget import ResponseBudget
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_RESULT
from apps.search.query.search import RankedHits
from apps.search.query.spec import QuerySpec
from apps.search.snapshots import Snapshot

# Rows are read in blocks of this number, and the size of each block is checked before the next is read. An answer that
# is one block is checked when it is written.
_ROWS_PER_BLOCK = 100
# JSON of a result's own names, score and distance.
_RESULT_BYTES = 100


def hydrate(
    library: OpenLibrary, found: Sequence[RankedHits], specs: Sequence[QuerySpec]
) -> list[list[dict[str, Any]]]:
    """The results of each query, with the fields it asked for. Raises Invalid for too many or too large ones."""
    snapshot, metric = library.snapshot, library.state.metric
    library.budget.spend(PER_RESULT * sum(len(hits.keys) for hits in found))
    shown = [Shown.of(spec.include, spec.vectors) for spec in specs]
    statement = chunk_statement(frozenset(chain.from_iterable(one.fields for one in shown)), snapshot.dialect)
    keys = list(dict.fromkeys(chain.from_iterable(hits.keys for hits in found)))
    is_small = sum(len(hits.keys) for hits in found) <= _ROWS_PER_BLOCK
    times = {} if is_small else Counter(chain.from_iterable(hits.keys for hits in found))
    # Four bytes of a vector are some twelve characters of an array.
    per_byte = 3.0 if any(one.vectors == "array" for one in shown) else 4 / 3
    rows: dict[int, Row] = {}
    budget = ResponseBudget()
    for block in read_blocks(snapshot, statement, keys):
        library.budget.check_time()
        if not is_small:
            budget.spend(sum(times[row[0]] * _size(row, per_byte) for row in block))
        rows |= {row[0]: row for row in block}
    return [
        _results(hits, rows, statement.renderers(one), spec, metric)
        for hits, one, spec in zip(found, shown, specs, strict=True)
    ]


def read_blocks(snapshot: Snapshot, statement: ChunkStatement, keys: Sequence[int]) -> Iterator[list[Row]]:
    """The rows of chunks, in no order, some at a time."""
    for start in range(0, len(keys), _ROWS_PER_BLOCK):
        some = keys[start : start + _ROWS_PER_BLOCK]
        yield snapshot.rows(_of_keys(statement.sql, len(some)), some)


@lru_cache(maxsize=256)
def _of_keys(sql: str, number: int) -> str:
    """The statement `sql`, on the condition that a chunk's key is among a `number` of them."""
    return f"{sql}chunk.id IN ({', '.join(['%s'] * number)})"


def read_vectors(library: OpenLibrary, keys: Sequence[int]) -> dict[int, Float32]:
    """The vectors of those of the chunks that have one of the library's dimension, by key."""
    sql = "SELECT chunk_id, vector FROM vectordb_embedding WHERE generation = %s AND chunk_id IN ({})"
    marks = ", ".join(["%s"] * len(keys))
    found = library.snapshot.rows(sql.format(marks), [library.state.generation, *keys])
    vectors = {key: vector_array(vector) for key, vector in found}
    return {key: vector for key, vector in vectors.items() if len(vector) == library.state.dimension}


def _size(row: Row, per_byte: float) -> int:
    """About how many bytes of JSON a row makes; each byte of a vector is `per_byte` of them."""
    size = _RESULT_BYTES
    for value in row:
        if type(value) is str:
            size += len(value) if value.isascii() else len(value.encode())
        elif type(value) in (bytes, memoryview):
            size += int(per_byte * len(value))
    return size


def _results(
    hits: RankedHits,
    rows: dict[int, Row],
    fields: list[tuple[str, Render]],
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
