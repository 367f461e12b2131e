"""What a search token may not see has no part in what its requests may cost, and is not read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from django.db import connections

from apps.access.requests import Principal, current_principal
from apps.engine.indexes.matrix import Matrix
from apps.engine.metadata.filters import HasKey, parse_filter
from apps.engine.metrics import Metric
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.engine.vectors import Int64
from apps.libraries.dialects import SNAPSHOT_ALIAS
from apps.libraries.errors import Invalid, NotFound
from apps.libraries.inputs import ChunksWrite, LibraryCreate
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.libraries import create_library
from apps.search.query.budget import RequestBudget
from apps.search.query.search import Searcher, SearchRequest
from apps.search.query.service import query_batch
from apps.search.query.spec import EVERYTHING, Hybrid, QuerySpec
from tests.engine.approximate import embeddings
from tests.engine.data import rows_of, sealed_rows_of

WHOLE, INSIDE = "whole", "inside"
ROWS, HIDDEN = 20, 600
FILTERS: dict[str, dict[str, Any]] = {
    "a condition": {"tenant": 1},
    "a substring": {"@id": {"$icontains": "IN-"}},
    "texts": {"@text": {"$contains": "shown"}},
}


def _chunks(where: str, count: int, tenant: int) -> list[dict[str, Any]]:
    text = "shown" if where == "in" else "hidden " * 100
    return [
        {"id": f"{where}-{n}", "text": text, "embedding": [1, n], "metadata": {"tenant": tenant}} for n in range(count)
    ]


@pytest.fixture
def libraries() -> None:
    """One library with rows inside and outside of the filters, and one with those inside alone."""
    for library, chunks in (
        (WHOLE, _chunks("in", ROWS, 1) + _chunks("out", HIDDEN, 2)),
        (INSIDE, _chunks("in", ROWS, 1)),
    ):
        create_library(create=LibraryCreate(id=library, name=library, dimension=2))
        upsert_chunks(library_id=library, write=ChunksWrite.model_validate({"chunks": chunks}))


@contextmanager
def search_token(filter: dict[str, Any]) -> Iterator[None]:
    """Ask as a search token with this filter, in a `with` block."""
    principal = Principal("token", frozenset(["read"]), "key", is_search_token=True, filter=parse_filter(filter))
    token = current_principal.set(principal)
    try:
        yield
    finally:
        current_principal.reset(token)


def largest(most: int, accepts: Callable[[int], object]) -> int:
    """The largest number below `most` that is not refused as Invalid."""
    accepted, refused = 0, most
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        try:
            accepts(middle)
            accepted = middle
        except Invalid:
            refused = middle
    return accepted


@pytest.mark.any_database
@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
@pytest.mark.parametrize("own", [{}, *FILTERS.values()], ids=["no filter", *FILTERS])
@pytest.mark.parametrize("filter", FILTERS.values(), ids=FILTERS)
def test_the_largest_batch_is_that_of_a_library_without_the_other_rows(
    settings: Any, libraries: None, filter: dict[str, Any], own: dict[str, Any]
) -> None:
    # The token's own filter costs more than a third of this, for all rows, and may.
    settings.LIMITS = replace(settings.LIMITS, request_cost=10_000)

    def ask(library: str, size: int) -> None:
        body = {"mode": "lexical", "k": 1, "filter": own}
        specs = [QuerySpec.model_validate(body | {"text": "." * n}) for n in (size // 2, size - size // 2)]
        query_batch(library_id=library, specs=specs)

    with search_token(filter):
        whole, inside = (largest(10_000, partial(ask, library)) for library in (WHOLE, INSIDE))
    assert whole == inside > 9_000


@pytest.mark.any_database
@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
def test_a_filter_of_a_token_has_a_limit_too(settings: Any, libraries: None) -> None:
    settings.LIMITS = replace(settings.LIMITS, request_cost=600)
    spec = QuerySpec.model_validate({"mode": "lexical", "k": 1, "text": "shown"})
    with search_token(FILTERS["a substring"]):
        assert len(query_batch(library_id=INSIDE, specs=[spec])) == 1
        with pytest.raises(Invalid, match="more than 600 points"):
            query_batch(library_id=WHOLE, specs=[spec])


@pytest.mark.any_database
def test_what_is_paid_apart_has_no_time_of_its_own(settings: Any) -> None:
    settings.LIMITS = replace(settings.LIMITS, request_ms=0)
    budget = RequestBudget()
    settings.LIMITS = replace(settings.LIMITS, request_ms=10_000)
    with pytest.raises(Invalid, match="VECTORDB_MAX_REQUEST_MS"):
        budget.apart().check_time()


PERMITTED, DIMENSION = 500, 64
_REQUEST = SearchRequest(
    10, "vector", embeddings(1, DIMENSION, seed=1)[0], None, EVERYTHING, "auto", False, {}, Hybrid()
)


def _segment(keys: Int64, kind: str) -> Segment:
    matrix = Matrix.build(embeddings(len(keys), DIMENSION), Metric.COSINE)
    return Segment.build(keys=keys, matrix=matrix, row_data=sealed_rows_of(keys), kind=kind)


def _view(*segments: Segment) -> View:
    return View.of(dimension=DIMENSION, metric=Metric.COSINE, segments=segments, built_at=0.0)


@pytest.mark.any_database
@pytest.mark.parametrize("kind", ["brute_force", "hnsw", "ivf", "lsh", "quantized"])
def test_rows_that_an_index_compares_count_as_the_permitted_ones(settings: Any, kind: str) -> None:
    settings.LIMITS = replace(settings.LIMITS, scanned_rows=10 * PERMITTED)
    view = _view(_segment(np.arange(3000), kind))

    def search(queries: int) -> None:
        Searcher(view).restrict(HasKey(np.arange(PERMITTED))).search([_REQUEST] * queries)

    assert largest(100, search) == 10


@pytest.mark.any_database
def test_parts_of_hidden_rows_alone_are_not_told_of() -> None:
    mine, others, newer = np.arange(3000), np.arange(3000, 3100), np.arange(3100, 3110)
    alone = _view(_segment(mine, "quantized"))
    vectors, rows = embeddings(len(newer), DIMENSION), rows_of(newer)
    beside = _view(_segment(mine, "quantized"), _segment(others, "brute_force")).apply(
        keys=newer, vectors=vectors, rows=rows, gone=np.empty(0, np.int64)
    )
    [whole] = Searcher(beside).search([_REQUEST])
    assert whole.kinds == {"quantized", "brute_force"}
    [expected], [hits], [nothing], [never] = (
        Searcher(view).restrict(HasKey(keys)).search([_REQUEST])
        for view, keys in ((alone, mine), (beside, mine), (beside, mine + 3110), (_view(), mine))
    )
    assert hits.kinds == {"quantized"}
    assert hits == expected
    assert nothing == never


@contextmanager
def statements(chunk_id: str) -> Iterator[list[str]]:
    """The statements that snapshots run in a `with` block, without the chunk's id."""
    found: list[str] = []
    connection = connections[SNAPSHOT_ALIAS]
    connection.ensure_connection()
    driver = connection.connection
    driver.set_trace_callback(lambda sql: found.append(sql.replace(chunk_id, "")))
    try:
        yield found
    finally:
        driver.set_trace_callback(None)


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
def test_nothing_is_read_of_a_chunk_that_a_token_may_not_see(libraries: None, mode: str) -> None:
    def ask(chunk_id: str) -> list[str]:
        spec = QuerySpec.model_validate({"chunk_id": chunk_id, "mode": mode})
        with statements(chunk_id) as found:
            query_batch(library_id=WHOLE, specs=[spec])
        return found

    def ask_in_vain(chunk_id: str) -> list[str]:
        spec = QuerySpec.model_validate({"chunk_id": chunk_id, "mode": mode})
        with statements(chunk_id) as found, pytest.raises(NotFound):
            query_batch(library_id=WHOLE, specs=[spec])
        return found

    with search_token(FILTERS["a condition"]):
        # The view is there then, and what else is read once.
        ask("in-1")
        assert any("embedding.vector, chunk.text" in sql for sql in ask("in-1"))
        hidden, absent = ask_in_vain("out-1"), ask_in_vain("absent-1")
    assert hidden == absent
    assert not any("text" in sql or "vector," in sql for sql in hidden)
    assert any("embedding.vector, chunk.text" in sql for sql in ask("out-1"))
