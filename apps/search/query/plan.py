"""From specs to search requests: models and vectors checked, texts embedded, stored vectors read."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from apps.access.requests import current_principal
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.registry import check_search_params
from apps.engine.text.analyzer import parse_query
from apps.engine.vectors import Float32, usable
from apps.libraries.chunk_fields import vector_array
from apps.libraries.errors import EmbeddingRequired, Fault, Invalid, NotFound, pointer
from apps.libraries.expiry import IS_EXPIRED, JOIN_DOCUMENT
from apps.libraries.fields import AnyVector
from apps.libraries.models import EmbeddingModel
from apps.libraries.selectors import check_models
from apps.libraries.services.embedding import embed_named
from apps.libraries.vector_input import parse_vectors
from apps.search.backend import OpenLibrary
from apps.search.query.budget import PER_TEXT_BYTE
from apps.search.query.search import SearchRequest
from apps.search.query.spec import QuerySpec
from apps.search.snapshots import LibraryState, open_snapshot
from apps.search.unindexed import Paths, check_field, check_filter


class EmbeddedTexts(NamedTuple):
    """The vectors of a request's texts, by the pointer of their query, and the model that made them, if any did.

    None are made for a library that was never written to: it may still get a model, and has nothing to compare with.
    """

    model: EmbeddingModel | None
    vectors: Mapping[str, Float32]
    is_never_written: bool = False

    def fits(self, state: LibraryState) -> bool:
        """Whether queries of the library in this state can use these."""
        if self.is_never_written:
            return _is_never_written(state)
        return self.model is None or self.model == state.embedding


# Of the candidates of boosts, this part are the first ranks for certain, as far as an index is certain of any.
_SURE_SHARE = 8
_NO_TEXTS = EmbeddedTexts(None, {})
# No chunk's.
_NO_KEY = 0


def embed_texts(library_id: str, specs: Mapping[str, QuerySpec]) -> EmbeddedTexts:
    """Embed the texts of queries by the library's model. Raises NotFound, ModelMismatch, EmbeddingRequired.

    Called before the snapshot that answers is opened: a provider may take its time.
    """
    texts = {at: spec.text for at, spec in specs.items() if _needs_model(spec)}
    if not texts:
        return _NO_TEXTS
    with open_snapshot() as snapshot:
        state = snapshot.existing_library(library_id)
    _check_models(state, specs)
    if _is_never_written(state):
        return EmbeddedTexts(None, {}, is_never_written=True)
    if state.embedding is None:
        raise EmbeddingRequired(
            "This library has no embedding model; POST to its /reembed gives it one, and its chunks vectors of it.",
            [Fault(f"{at}/text", "cannot be embedded: send a vector, or use mode lexical") for at in texts],
        )
    pointers = {f"{at}/text": text for at, text in texts.items()}
    vectors = embed_named(state.embedding, pointers, "query")
    return EmbeddedTexts(state.embedding, dict(zip(texts, vectors, strict=True)))


def make_requests(
    library: OpenLibrary, specs: Mapping[str, QuerySpec], embedded: Mapping[str, Float32]
) -> list[SearchRequest]:
    """The search request of each query, `specs` and `embedded` by the query's pointer. Raises Invalid, NotFound,
    ModelMismatch."""
    state = library.state
    for at, spec in specs.items():
        if state.unindexed:
            _check_indexed(state.unindexed, spec, at)
        if spec.search_params:
            _check_search_params(state.index_type, spec, at)
    _check_models(state, specs)
    given: dict[str, AnyVector] = {}
    pointers = []
    for at, spec in specs.items():
        if spec.is_set("vector"):
            given[at] = spec.vector
            pointers.append(f"{at}/vector")
        elif at in embedded:
            given[at] = embedded[at]
            pointers.append(f"{at}/text")
    checked = parse_vectors(list(given.values()), pointers, dimension=state.dimension, metric=state.metric)
    vectors = dict(zip(given, checked, strict=True))
    return [_request(library, spec, vectors.get(at), f"{at}/chunk_id") for at, spec in specs.items()]


def _request(library: OpenLibrary, spec: QuerySpec, vector: Float32 | None, at: str) -> SearchRequest:
    left_out, text = None, spec.text
    if spec.is_set("chunk_id"):
        left_out, vector, text = _read_chunk(library, spec, at)
        library.budget.spend(PER_TEXT_BYTE * len(text))
    is_ranking = spec.mmr is None and spec.group_by is None and not spec.boost
    return SearchRequest(
        fetch=_candidates(spec),
        mode=spec.mode,
        vector=vector,
        words=None if spec.mode == "vector" else parse_query(text),
        filter=spec.filter,
        filter_mode=spec.filter_mode,
        exact=spec.exact,
        params=spec.search_params,
        hybrid=spec.hybrid,
        left_out=left_out,
        # Groups, boosted and diverse results are made from the beginning of the ranking on.
        offset=spec.offset if is_ranking else 0,
        first=spec.mmr_ranks,
        sure=max(1, spec.depth // _SURE_SHARE) if spec.boost else None,
    )


def _candidates(spec: QuerySpec) -> int:
    """How many of the best chunks a query needs to know."""
    if spec.boost:
        return spec.depth
    return max(spec.offset + spec.k, spec.mmr_ranks or 0)


def _is_never_written(state: LibraryState) -> bool:
    """Whether the library has no model, no dimension, and never had a chunk."""
    return state.embedding is None and state.dimension is None and state.position.seq == 0


def _needs_model(spec: QuerySpec) -> bool:
    """Whether the query's text is to be embedded."""
    return spec.is_set("text") and not spec.is_set("vector") and spec.mode != "lexical"


def _check_models(state: LibraryState, specs: Mapping[str, QuerySpec]) -> None:
    """Raise ModelMismatch where a query names another embedding model than the library's. A library that may still get
    any model has no vectors that another one made."""
    named = {f"{at}/embedding": spec.embedding.key for at, spec in specs.items() if spec.embedding is not None}
    if named and (state.embedding is not None or state.dimension is not None):
        check_models(state.embedding, named)


def _check_indexed(unindexed: Paths, spec: QuerySpec, at: str) -> None:
    """Raise Invalid where a query looks at metadata that is not indexed."""
    check_filter(unindexed, spec.filter, f"{at}/filter")
    if spec.group_by is not None:
        check_field(unindexed, spec.group_by, f"{at}/group_by")
    for i, boost in enumerate(spec.boost):
        check_filter(unindexed, boost.filter, f"{at}/boost/{i}/filter")
        if boost.is_set("field"):
            check_field(unindexed, boost.field, f"{at}/boost/{i}/field")


def _check_search_params(index_type: str, spec: QuerySpec, at: str) -> None:
    try:
        check_search_params(index_type, spec.search_params)
    except InvalidParameter as error:
        raise Invalid.at(at + pointer(["search_params", error.name]), error.reason) from None


def _read_chunk(library: OpenLibrary, spec: QuerySpec, at: str) -> tuple[int, Float32 | None, str]:
    """Key, vector and text of the chunk that a query names; a search for words needs no vector. Raises NotFound,
    Invalid."""
    state, chunk_id = library.state, spec.chunk_id
    found = _may_show(library, chunk_id) and library.snapshot.rows(
        "SELECT chunk.id, embedding.vector, chunk.text FROM vectordb_chunk AS chunk"
        " LEFT JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s"
        f" {JOIN_DOCUMENT} WHERE chunk.library_id = %s AND chunk.public_id = %s AND {IS_EXPIRED} IS NOT TRUE",
        [state.generation, state.key, chunk_id, *[library.snapshot.moment] * 2],
    )
    if not found:
        detail = f"There is no chunk {chunk_id!r} in this library."
        raise NotFound(detail, [Fault(at, "names no chunk of this library")])
    key, blob, text = found[0]
    if spec.mode == "lexical":
        return key, None, text
    if blob is None:
        detail = f"The chunk {chunk_id!r} has no vector to search with; use mode lexical, or write its vector."
        raise Invalid(detail, [Fault(at, "names a chunk without a vector: use mode lexical")])
    vector = vector_array(blob)
    if len(vector) != state.dimension or not usable(vector[np.newaxis], state.metric)[0]:
        detail = f"The chunk {chunk_id!r} has a vector that cannot be searched with; write it again."
        raise Invalid(detail, [Fault(at, "names a chunk whose stored vector cannot be used")])
    return key, vector, text


def _may_show(library: OpenLibrary, chunk_id: str) -> bool:
    """Whether a search token may see a chunk of that id; what it may see is known by now. One that it may not see is as
    one that is not there, also by how long that takes to say: so nothing of the row is read."""
    if current_principal.get().filter is None:
        return True
    found = library.snapshot.rows(
        "SELECT id FROM vectordb_chunk WHERE library_id = %s AND public_id = %s", [library.state.key, chunk_id]
    )
    return library.searcher.has(found[0][0] if found else _NO_KEY)
