"""Queries: snapshot -> view -> engine -> rows. The hot path; two small statements and no ORM.

A query is answered whole from one snapshot: the view it searches and the rows it shows are of the same revision.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import orjson

from apps.engine.brute_force import BruteForce
from apps.engine.errors import InvalidParameter
from apps.engine.index import Params, check_parameters
from apps.engine.metrics import Metric
from apps.engine.registry import search_parameters
from apps.engine.vectors import Float32, usable
from apps.engine.view import Hits
from apps.libraries.dialects.base import Dialect
from apps.libraries.errors import Fault, Invalid, NotFound
from apps.libraries.errors import pointer as json_pointer
from apps.libraries.selectors import vector_array
from apps.libraries.vectors import parse_vectors
from apps.search.cache import Current, views
from apps.search.snapshots import LibraryState, Snapshot, open_snapshot
from apps.search.specs import QuerySpec

_KEYS_PER_STATEMENT = 2000
_EXACT_SCAN = frozenset([BruteForce.kind])
_NOTHING = Hits(np.empty(0, np.int64), np.empty(0, np.float32), compared=0, exact=True, kinds=frozenset())

# Makes a field of a result from a row of the statement that reads it.
_Render: TypeAlias = Callable[[tuple[Any, ...]], Any]


def query(*, library_id: str, spec: QuerySpec) -> dict[str, Any]:
    """The answer to one query, as the API shows it. Raises NotFound (library, chunk_id), Invalid."""
    return _answers(library_id, [spec], [""])[0]


def query_batch(*, library_id: str, specs: Sequence[QuerySpec]) -> list[dict[str, Any]]:
    """The answers to several queries, in order, all from one state of the library. Raises as `query`."""
    return _answers(library_id, specs, [f"/queries/{i}" for i in range(len(specs))])


@dataclass(frozen=True)
class _Search:
    """What the engine is asked for one query: the `fetch` best for `vector`, how, and a chunk to leave out."""

    vector: Float32
    fetch: int
    left_out: int | None
    exact: bool
    params: Params


def _answers(library_id: str, specs: Sequence[QuerySpec], pointers: Sequence[str]) -> list[dict[str, Any]]:
    began = time.perf_counter()
    with open_snapshot() as snapshot:
        current = views.current(snapshot, library_id)
        searches = _searches(snapshot, current.state, specs, pointers)
        found = _searched(current, searches)
        chosen = [_window(hits, search, spec) for hits, search, spec in zip(found, searches, specs, strict=True)]
        shown = _shown(snapshot, current.state, chosen, specs)
    took = round((time.perf_counter() - began) * 1000, 3)
    return [
        {"results": results, "meta": _meta(current.state, hits, took)}
        for results, hits in zip(shown, found, strict=True)
    ]


def _meta(state: LibraryState, hits: Hits, took_ms: float) -> dict[str, Any]:
    return {
        "revision": state.position.seq,
        "index": _kind(hits),
        "exact": hits.exact,
        "plan": " + ".join(sorted(hits.kinds)) if hits.kinds - _EXACT_SCAN else "exact scan of all vectors",
        "scanned": hits.compared,
        "took_ms": took_ms,
    }


def _kind(hits: Hits) -> str:
    """The type of index that answered; rows that are not in it yet are scanned beside it."""
    return max(hits.kinds - _EXACT_SCAN, default=BruteForce.kind)


def _searches(
    snapshot: Snapshot, state: LibraryState, specs: Sequence[QuerySpec], pointers: Sequence[str]
) -> list[_Search]:
    for spec, at in zip(specs, pointers, strict=True):
        if spec.search_params:
            _check_search_params(state.index_type, spec.search_params, at)
    given = [(spec, at) for spec, at in zip(specs, pointers, strict=True) if spec.names("vector")]
    vectors = iter(
        parse_vectors(
            [spec.vector for spec, _ in given],
            [f"{at}/vector" for _, at in given],
            dimension=state.dimension,
            metric=state.metric,
        )
    )
    searches = []
    for spec, at in zip(specs, pointers, strict=True):
        fetch = spec.offset + spec.k
        if spec.names("vector"):
            searches.append(_Search(next(vectors), fetch, None, spec.exact, spec.search_params))
        else:
            # One more is fetched, since the chunk itself may be among the nearest.
            key, vector = _stored_vector(snapshot, state, spec.chunk_id, f"{at}/chunk_id")
            searches.append(_Search(vector, fetch + 1, key, spec.exact, spec.search_params))
    return searches


def _check_search_params(index_type: str, params: dict[str, Any], at: str) -> None:
    try:
        check_parameters(params, search_parameters(index_type), f"is no search parameter of {index_type}")
    except InvalidParameter as error:
        raise Invalid.at(at + json_pointer(["search_params", error.name]), error.reason) from None


def _stored_vector(snapshot: Snapshot, state: LibraryState, chunk_id: str, pointer: str) -> tuple[int, Float32]:
    found = snapshot.rows(
        "SELECT chunk.id, embedding.vector FROM chunk"
        " JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s"
        " WHERE chunk.library_id = %s AND chunk.public_id = %s",
        [state.generation, state.key, chunk_id],
    )
    if not found:
        detail = f"There is no chunk {chunk_id!r} with a vector in this library."
        raise NotFound(detail, [Fault(pointer, "names no chunk of this library")])
    key, blob = found[0]
    vector = vector_array(blob)
    if len(vector) != state.dimension or not usable(vector[np.newaxis], state.metric)[0]:
        detail = f"The chunk {chunk_id!r} has a vector that cannot be searched with; write it again."
        raise Invalid(detail, [Fault(pointer, "names a chunk whose stored vector cannot be used")])
    return key, vector


def _searched(current: Current, searches: Sequence[_Search]) -> list[Hits]:
    """Hits in the order of `searches`; those that share their options are searched as one matrix."""
    if current.view is None:
        return [_NOTHING] * len(searches)
    if len(searches) == 1:
        [one] = searches
        return current.view.search(one.vector[np.newaxis], one.fetch, exact=one.exact, params=one.params)
    found = [_NOTHING] * len(searches)
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, search in enumerate(searches):
        groups[search.fetch, search.exact, *sorted(search.params.items())].append(i)
    for (fetch, exact, *_), members in groups.items():
        queries = np.array([searches[i].vector for i in members])
        answers = current.view.search(queries, fetch, exact=exact, params=searches[members[0]].params)
        for i, hits in zip(members, answers, strict=True):
            found[i] = hits
    return found


def _window(hits: Hits, search: _Search, spec: QuerySpec) -> list[tuple[int, float]]:
    """Keys and scores of the results that the query asked for."""
    pairs = zip(hits.keys.tolist(), hits.scores.tolist(), strict=True)
    threshold = -np.inf if spec.score_threshold is None else spec.score_threshold
    wanted = [(key, score) for key, score in pairs if key != search.left_out and score >= threshold]
    return wanted[spec.offset : spec.offset + spec.k]


def _shown(
    snapshot: Snapshot, state: LibraryState, chosen: Sequence[list[tuple[int, float]]], specs: Sequence[QuerySpec]
) -> list[list[dict[str, Any]]]:
    """The results of each query, with the fields it asked for."""
    columns = _columns(frozenset(chain.from_iterable(spec.include for spec in specs)), snapshot.dialect)
    keys = list({key for pairs in chosen for key, _ in pairs})
    rows: dict[int, tuple[Any, ...]] = {}
    for start in range(0, len(keys), _KEYS_PER_STATEMENT):
        some = keys[start : start + _KEYS_PER_STATEMENT]
        params = [state.generation, *some] if columns.of_generation else some
        rows.update((row[0], row) for row in snapshot.rows(columns.sql.format(", ".join(["%s"] * len(some))), params))
    return [
        _results(pairs, rows, [(field, columns.render[field]) for field in spec.include], state.metric)
        for pairs, spec in zip(chosen, specs, strict=True)
    ]


def _results(
    pairs: list[tuple[int, float]], rows: dict[int, tuple[Any, ...]], fields: list[tuple[str, _Render]], metric: Metric
) -> list[dict[str, Any]]:
    results = []
    for key, score in pairs:
        row = rows[key]
        result = {"id": row[1], "document_id": row[2], "score": score, "distance": metric.distance(score)}
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
    joins = "LEFT JOIN document ON document.id = chunk.document_id"
    render: dict[str, _Render] = {}
    for field in sorted(fields):
        at = len(columns)
        if field == "text":
            columns.append("chunk.text")
            render[field] = itemgetter(at)
        elif field == "metadata":
            columns.append(dialect.json_text("chunk.metadata"))
            render[field] = partial(_json_at, at)
        elif field == "embedding":
            columns.append("embedding.vector")
            joins += " LEFT JOIN embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s"
            render[field] = partial(_vector_at, at)
        else:
            columns += ["document.title", "document.source", dialect.json_text("document.metadata")]
            render[field] = partial(_document_at, at)
    sql = f"SELECT {', '.join(columns)} FROM chunk {joins} WHERE chunk.id IN ({{}})"
    return _Columns(sql, "embedding" in fields, render)


def _json_at(at: int, row: tuple[Any, ...]) -> orjson.Fragment:
    return orjson.Fragment(row[at])


def _vector_at(at: int, row: tuple[Any, ...]) -> Float32:
    return vector_array(row[at])


def _document_at(at: int, row: tuple[Any, ...]) -> dict[str, Any] | None:
    if row[2] is None:
        return None
    title, source, metadata = row[at : at + 3]
    return {"id": row[2], "title": title, "source": source, "metadata": orjson.Fragment(metadata)}
