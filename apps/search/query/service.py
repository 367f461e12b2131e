"""Queries: snapshot -> view -> engine -> rows. The hot path; two small statements and no ORM.

A query is answered whole from one snapshot: the view it searches and the rows it shows are of the same revision.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from apps.embeddings.services import embed
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.base import check_parameters
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.registry import search_parameters
from apps.engine.text.analyzer import parse_query
from apps.engine.vectors import Float32, usable
from apps.libraries.errors import EmbeddingRequired, Fault, Invalid, ModelChanged, NotFound
from apps.libraries.errors import pointer as json_pointer
from apps.libraries.models import EmbeddingModel
from apps.libraries.selectors import check_models, vector_array
from apps.libraries.vector_input import parse_vectors
from apps.search.cache import views
from apps.search.query import rerank as arrangement
from apps.search.query.rows import shown
from apps.search.query.search import NOTHING, Execution, Ranked, Search
from apps.search.query.spec import QuerySpec
from apps.search.snapshots import LibraryState, Snapshot, open_snapshot

_EXACT_SCAN = frozenset([BruteForce.kind])
# How often texts are embedded for one answer, where the library's model changes meanwhile.
_ATTEMPTS = 3


def query(*, library_id: str, spec: QuerySpec) -> dict[str, Any]:
    """The answer to one query, as the API shows it. Raises NotFound (library, chunk_id), Invalid."""
    return _answers(library_id, [spec], [""])[0]


def query_batch(*, library_id: str, specs: Sequence[QuerySpec]) -> list[dict[str, Any]]:
    """The answers to several queries, in order, all from one state of the library. Raises as `query`."""
    return _answers(library_id, specs, [f"/queries/{i}" for i in range(len(specs))])


def _answers(library_id: str, specs: Sequence[QuerySpec], pointers: Sequence[str]) -> list[dict[str, Any]]:
    began = time.perf_counter()
    for _ in range(_ATTEMPTS):
        model, embedded = _embedded(library_id, specs, pointers)
        with open_snapshot() as snapshot:
            current = views.current(snapshot, library_id)
            state = current.state
            if model is not None and state.embedding != model:
                continue
            asked = _searches(snapshot, state, specs, pointers, embedded)
            if current.view is None:
                found = [NOTHING] * len(specs)
            else:
                found = _found(Execution(current.view), snapshot, state, asked, specs)
            results = shown(snapshot, state, found, specs)
        took = round((time.perf_counter() - began) * 1000, 3)
        return [
            {"results": some, "meta": _meta(state, ranked, spec, took)}
            for some, ranked, spec in zip(results, found, specs, strict=True)
        ]
    raise ModelChanged("The library's embedding model changed while the query was embedded; send it again.")


def _meta(state: LibraryState, ranked: Ranked, spec: QuerySpec, took_ms: float) -> dict[str, Any]:
    meta = {
        "revision": state.position.seq,
        # Rows that are not in the index yet are scanned beside it.
        "index": ", ".join(sorted(ranked.kinds - _EXACT_SCAN)) or BruteForce.kind,
        "exact": ranked.exact,
        "plan": ranked.plan,
        "scanned": ranked.scanned,
        "took_ms": took_ms,
    }
    if spec.filter_mode == "post":
        meta["incomplete"] = ranked.incomplete
    return meta


def _found(
    execution: Execution,
    snapshot: Snapshot,
    state: LibraryState,
    asked: Sequence[tuple[Search, int | None]],
    specs: Sequence[QuerySpec],
) -> list[Ranked]:
    """What each query gets. Those that are one search each are executed together."""
    plain = [i for i, spec in enumerate(specs) if spec.group_by is None]
    ranked = dict(zip(plain, execution.run([asked[i][0] for i in plain]), strict=True))
    found = []
    for i, (spec, (search, left_out)) in enumerate(zip(specs, asked, strict=True)):
        if spec.group_by is not None:
            found.append(arrangement.grouped(execution, snapshot, search, spec, left_out))
        elif spec.mmr is not None:
            assert search.vector is not None
            vectors = partial(_vectors, snapshot, state)
            found.append(arrangement.diverse(ranked[i], spec, left_out, search.vector, vectors))
        else:
            found.append(arrangement.window(ranked[i], spec, left_out))
    return found


def _needs_model(spec: QuerySpec) -> bool:
    """Whether the query's text is to be embedded."""
    return spec.is_set("text") and not spec.is_set("vector") and spec.mode != "lexical"


def _embedded(
    library_id: str, specs: Sequence[QuerySpec], pointers: Sequence[str]
) -> tuple[EmbeddingModel | None, list[Float32]]:
    """The library's model and the vectors of the texts of queries, made before the snapshot that answers is opened: a
    provider may take its time."""
    asked = [(spec.text, at) for spec, at in zip(specs, pointers, strict=True) if _needs_model(spec)]
    if not asked:
        return None, []
    with open_snapshot() as snapshot:
        state = snapshot.library(library_id)
    if state is None:
        raise NotFound(f"There is no library {library_id!r}.")
    _check_models(state, specs, pointers)
    if state.embedding is None:
        faults = [Fault(f"{at}/text", "cannot be embedded: send a vector, or use mode lexical") for _, at in asked]
        raise EmbeddingRequired(
            "This library has no embedding model; POST to its /reembed gives it one, and its chunks vectors of it.",
            faults,
        )
    return state.embedding, list(embed(*state.embedding, [text for text, _ in asked], "query"))


def _searches(
    snapshot: Snapshot,
    state: LibraryState,
    specs: Sequence[QuerySpec],
    pointers: Sequence[str],
    embedded: Sequence[Float32],
) -> list[tuple[Search, int | None]]:
    """What the engine is asked for each query, and the key of a chunk to leave out."""
    for spec, at in zip(specs, pointers, strict=True):
        if spec.search_params:
            _check_search_params(state.index_type, spec.search_params, at)
    _check_models(state, specs, pointers)
    made = iter(embedded)
    given = [
        (spec.vector, f"{at}/vector") if spec.is_set("vector") else (next(made), f"{at}/text")
        for spec, at in zip(specs, pointers, strict=True)
        if spec.is_set("vector") or _needs_model(spec)
    ]
    vectors = iter(
        parse_vectors(
            [vector for vector, _ in given],
            [at for _, at in given],
            dimension=state.dimension,
            metric=state.metric,
        )
    )
    searches = []
    for spec, at in zip(specs, pointers, strict=True):
        vector, text, left_out = None, spec.text, None
        if spec.is_set("vector") or _needs_model(spec):
            vector = next(vectors)
        elif spec.is_set("chunk_id"):
            left_out, vector, text = _stored(snapshot, state, spec.chunk_id, f"{at}/chunk_id")
        fetch = max(spec.offset + spec.k, 0 if spec.mmr is None else spec.mmr.fetch_k)
        search = Search(
            # One more is fetched where the chunk itself may be among the nearest.
            fetch=fetch + (left_out is not None),
            mode=spec.mode,
            vector=vector,
            words=None if spec.mode == "vector" else parse_query(text),
            filter=spec.filter,
            filter_mode=spec.filter_mode,
            exact=spec.exact,
            params=spec.search_params,
            hybrid=spec.hybrid,
        )
        searches.append((search, left_out))
    return searches


def _check_models(state: LibraryState, specs: Sequence[QuerySpec], pointers: Sequence[str]) -> None:
    """Raise ModelMismatch where a query names another embedding model than the library's; one that may still get any
    has nothing to be found by another."""
    named = {
        f"{at}/embedding": spec.embedding.key
        for spec, at in zip(specs, pointers, strict=True)
        if spec.embedding is not None
    }
    if named and (state.embedding is not None or state.dimension is not None):
        check_models(state.embedding, named)


def _check_search_params(index_type: str, params: dict[str, Any], at: str) -> None:
    try:
        check_parameters(params, search_parameters(index_type), f"is no search parameter of {index_type}")
    except InvalidParameter as error:
        raise Invalid.at(at + json_pointer(["search_params", error.name]), error.reason) from None


def _stored(snapshot: Snapshot, state: LibraryState, chunk_id: str, pointer: str) -> tuple[int, Float32, str]:
    """Key, vector and text of a chunk."""
    found = snapshot.rows(
        "SELECT chunk.id, embedding.vector, chunk.text FROM vectordb_chunk AS chunk"
        " JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s"
        " WHERE chunk.library_id = %s AND chunk.public_id = %s",
        [state.generation, state.key, chunk_id],
    )
    if not found:
        detail = f"There is no chunk {chunk_id!r} with a vector in this library."
        raise NotFound(detail, [Fault(pointer, "names no chunk of this library")])
    key, blob, text = found[0]
    vector = vector_array(blob)
    if len(vector) != state.dimension or not usable(vector[np.newaxis], state.metric)[0]:
        detail = f"The chunk {chunk_id!r} has a vector that cannot be searched with; write it again."
        raise Invalid(detail, [Fault(pointer, "names a chunk whose stored vector cannot be used")])
    return key, vector, text


def _vectors(snapshot: Snapshot, state: LibraryState, keys: Sequence[int]) -> Float32:
    """The vectors of chunks, in the order of `keys`."""
    sql = "SELECT chunk_id, vector FROM vectordb_embedding WHERE generation = %s AND chunk_id IN ({})"
    found = dict(snapshot.rows(sql.format(", ".join(["%s"] * len(keys))), [state.generation, *keys]))
    return np.array([vector_array(found[key]) for key in keys])
