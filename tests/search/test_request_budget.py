"""What a request may cost: refused before its work is done, and given up when its time is up."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from apps.api.errors import problem_of
from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import parse_filter
from apps.libraries.chunk_fields import DEFAULT_ITEM
from apps.libraries.errors import Invalid, TooSlow
from apps.libraries.inputs import ChunksWrite, DocumentsWrite, LibraryCreate
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.documents import create_documents
from apps.libraries.services.libraries import create_library
from apps.libraries.services.metadata import MetadataChange
from apps.search import matching, reading
from apps.search.documents import list_documents
from apps.search.query import budget
from apps.search.query.service import query_batch
from apps.search.query.spec import QuerySpec
from tests.server import ROOT

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

DOCUMENTS, CHUNKS, DIMENSION = 200, 5, 4
ROWS = DOCUMENTS * CHUNKS


@pytest.fixture
def library() -> None:
    vectors = np.random.default_rng(0).standard_normal((DOCUMENTS, CHUNKS, DIMENSION)).astype(np.float32)
    create_library(create=LibraryCreate(id="a", name="A", dimension=DIMENSION))
    documents = [
        {
            "id": f"d{n}",
            "chunks": [
                {"id": f"d{n}-{i}", "embedding": vector, "metadata": {"n": n}, "text": "one of the rows"}
                for i, vector in enumerate(some)
            ],
        }
        for n, some in enumerate(vectors.tolist())
    ]
    create_documents(library_id="a", write=DocumentsWrite.model_validate({"documents": documents}))


def ask(count: int = 1, **fields: Any) -> list[dict[str, Any]]:
    """The answers to a batch of equal queries."""
    spec = QuerySpec.model_validate({"vector": [1.0, 0.5, 0.0, -0.5]} | fields)
    return query_batch(library_id="a", specs=[spec] * count)


# What a query costs; all but the first are what it costs besides a hit fetched and shown.
PRICES: dict[str, tuple[dict[str, Any], int]] = {
    "hits": ({"k": 100, "offset": 50}, 150 * 5 + 100 * 10),
    "hits beyond all rows": ({"k": 1000, "offset": 1000}, ROWS * 5),
    "a value": ({"k": 1, "filter": {"n": {"$in": [1, 2, 3]}}}, 15 + 10 + 3 * 2 + 2),
    "conditions": ({"k": 1, "filter": {"n": {"$gte": 1, "$lt": 9}}}, 15 + 2 * 12),
    # Read 100, 400 and 500 at a time, 115 characters each.
    "texts": ({"k": 1, "filter": {"@text": {"$ne": "x"}}}, 15 + 12 + 2 + ROWS * 3 + 57 + 230 + 287),
    "substrings": ({"k": 1, "filter": {"@id": {"$contains": "1"}}}, 15 + 10 + 2 + 50),
    "mmr": ({"k": 50, "mmr": {"fetch_k": 500}}, 500 * 5 + 50 * 10 + 500 * 50 * 4 // 2500),
    "words": ({"vector": "", "text": "the rows", "mode": "lexical", "k": 1}, 15 + 8),
    "fused hits": ({"text": "row", "mode": "hybrid", "k": 3}, 3 * 25 + 3),
    "a phrase": ({"vector": "", "text": '"the rows"', "mode": "lexical", "k": 1}, 15 + 10 + 2 * 15),
    "boosts": (
        {
            "k": 1,
            "depth": 50,
            "boost": [
                {"filter": {"n": 1}, "weight": 1},
                {"field": "n", "decay": {"half_life": 1, "origin": 0}, "weight": 1},
            ],
        },
        50 * 5 + 10 + 2 * 50 + (10 + 2 + 2),
    ),
    # Five hits to a group, so as many are fetched as are met.
    "groups": ({"k": 5, "group_by": "document"}, 21 * 7 + 5 * 10),
}


@pytest.mark.any_database
@pytest.mark.parametrize(("fields", "price"), PRICES.values(), ids=PRICES)
def test_a_query_costs_what_its_parts_cost(settings: Any, library: None, fields: dict[str, Any], price: int) -> None:
    if fields.get("vector") == "":
        spec = {name: value for name, value in fields.items() if name != "vector"}
        specs = [QuerySpec.model_validate(spec)]
    else:
        specs = [QuerySpec.model_validate({"vector": [1.0, 0.5, 0.0, -0.5]} | fields)]
    settings.LIMITS = replace(settings.LIMITS, request_cost=price)
    query_batch(library_id="a", specs=specs)
    settings.LIMITS = replace(settings.LIMITS, request_cost=price - 1)
    with pytest.raises(Invalid, match=rf"more than {price - 1} points \(limit VECTORDB_MAX_REQUEST_COST.*fewer"):
        query_batch(library_id="a", specs=specs)


def test_queries_of_a_batch_pay_together_and_an_equal_filter_once(settings: Any, library: None) -> None:
    settings.LIMITS = replace(settings.LIMITS, request_cost=10 * 15 + 12 + 2)
    assert len(ask(10, k=1, filter={"n": 1})) == 10
    with pytest.raises(Invalid, match="points"):
        ask(11, k=1, filter={"n": 1})


def test_what_only_matches_a_filter_pays_for_it(settings: Any, library: None) -> None:
    filter = parse_filter({"n": {"$in": [1, 2, 3]}})
    doors = (
        lambda: matching.count_chunks(library_id="a", filter=filter),
        lambda: reading.list_chunks(library_id="a", filter=filter, limit=1, after=(), shown=DEFAULT_ITEM),
        lambda: matching.count_values(library_id="a", field="n", filter=filter, page=ValuePage(1)),
        lambda: matching.delete_chunks(library_id="a", filter=filter),
    )
    settings.LIMITS = replace(settings.LIMITS, request_cost=17)
    for door in doors:
        with pytest.raises(Invalid, match="points"):
            door()
    assert matching.count_chunks(library_id="a", filter=parse_filter({})) == ROWS
    settings.LIMITS = replace(settings.LIMITS, request_cost=18)
    for door in doors:
        door()


def test_all_fields_of_rows_in_memory_are_paid_by_their_size(settings: Any, library: None) -> None:
    def summarize(names: list[str] | None) -> list[str]:
        filter = parse_filter({})
        found = matching.summarize_fields(library_id="a", names=names, filter=filter, limit=10)["fields"]
        return [field["field"] for field in found]

    # The rows are one block of three columns, of which one is summarized. A row has seven to nine characters, and two
    # of its document.
    characters = sum(CHUNKS * len(f'{{"n":{n}}}{{}}') for n in range(DOCUMENTS))
    named = 10 + 20
    price = ROWS * 5 + characters // 8 + 3 * 2 + named
    settings.LIMITS = replace(settings.LIMITS, request_cost=price)
    assert summarize(None) == ["n"]
    settings.LIMITS = replace(settings.LIMITS, request_cost=price - 1)
    with pytest.raises(Invalid, match="points"):
        summarize(None)
    settings.LIMITS = replace(settings.LIMITS, request_cost=named)
    assert summarize(["n"]) == ["n"]


@pytest.mark.parametrize(
    "fields",
    [{"k": 1}, {"k": 1, "filter": {"n": 1}}, {"k": 2, "group_by": "document"}, {"k": 2, "mmr": {"fetch_k": 5}}],
    ids=str,
)
def test_what_takes_too_long_is_given_up(settings: Any, library: None, fields: dict[str, Any]) -> None:
    settings.REQUEST_TIMEOUT = 0
    with pytest.raises(TooSlow, match="VECTORDB_REQUEST_TIMEOUT") as found:
        ask(2, **fields)
    problem = problem_of(found.value)
    assert problem is not None
    assert (problem.status, problem.code, problem.headers) == (503, "too_slow", {"Retry-After": "5"})


def test_rows_that_are_compared_are_limited_over_all_queries(settings: Any, library: None) -> None:
    settings.LIMITS = replace(settings.LIMITS, scanned_rows=3 * ROWS)
    assert len(ask(3, k=1)) == len(ask(3, k=1, exact=True)) == 3
    assert len(ask(12, k=1, filter={"n": {"$lt": DOCUMENTS // 4}})) == 12
    with pytest.raises(Invalid, match=rf"more than {3 * ROWS} rows .*VECTORDB_MAX_SCANNED_ROWS"):
        ask(4, k=1)


def test_what_takes_too_much_of_the_processor_is_given_up_and_writes_nothing(settings: Any, library: None) -> None:
    """Whatever the door: no time at all is too little for each."""
    settings.LIMITS = replace(settings.LIMITS, request_ms=0)
    filter = parse_filter({"n": {"$gte": 0}})
    change = MetadataChange({"n": -1}, "set")
    doors = (
        lambda: ask(2, k=1),
        lambda: ask(1, k=1, filter={"n": 1}),
        lambda: matching.count_chunks(library_id="a", filter=filter),
        lambda: matching.count_values(library_id="a", field="n", filter=filter, page=ValuePage(1)),
        lambda: matching.summarize_fields(library_id="a", names=["n"], filter=parse_filter({}), limit=1),
        lambda: matching.delete_chunks(library_id="a", filter=filter),
        lambda: matching.update_chunks(library_id="a", filter=filter, change=change),
        lambda: reading.list_chunks(library_id="a", filter=filter, limit=1, after=(), shown=DEFAULT_ITEM),
        lambda: list_documents(library_id="a", filter=parse_filter({"x": 1}), limit=1, after=()),
    )
    for door in doors:
        with pytest.raises(Invalid, match=r"0 ms of the processor \(limit VECTORDB_MAX_REQUEST_MS\)") as found:
            door()
        problem = problem_of(found.value)
        assert problem is not None
        assert (problem.status, problem.code) == (400, "invalid")
    settings.LIMITS = replace(settings.LIMITS, request_ms=10_000)
    assert matching.count_chunks(library_id="a", filter=filter) == ROWS


@pytest.mark.any_database
@pytest.mark.parametrize("filter", [{}, {"n": {"$lt": 150}}], ids=["all", "filtered"])
@pytest.mark.parametrize("mode", ["vector", "lexical"])
@pytest.mark.parametrize("size", [1, 3, 9])
def test_groups_are_those_of_the_whole_ranking(library: None, filter: dict[str, Any], mode: str, size: int) -> None:
    shared: dict[str, Any] = {"filter": filter, "mode": mode}
    if mode == "lexical":
        shared["text"] = "one of the rows"
    else:
        shared["vector"] = [1.0, 0.5, 0.0, -0.5]
    [whole] = query_batch(library_id="a", specs=[QuerySpec.model_validate(shared | {"k": 1000})])
    expected: dict[str, list[str]] = {}
    for result in whole["results"]:
        expected.setdefault(result["document_id"], []).append(result["id"])
    for k, offset in ((7, 0), (7, 7), (20, 120), (100, 100)):
        spec = shared | {"k": k, "offset": offset, "group_by": "document", "group_size": size}
        [grouped] = query_batch(library_id="a", specs=[QuerySpec.model_validate(spec)])
        chosen = list(expected.values())[offset : offset + k]
        assert [result["id"] for result in grouped["results"]] == [one for some in chosen for one in some[:size]]


def test_few_large_documents_do_not_cost_all_their_rows(settings: Any) -> None:
    """The query asks for more groups than there are. The search for more looks only among documents that have no group
    yet; there are none, so it costs nothing."""
    create_library(create=LibraryCreate(id="a", name="A", dimension=DIMENSION))
    vectors = np.random.default_rng(0).standard_normal((3, 600, DIMENSION)).astype(np.float32)
    documents = [{"chunks": [{"embedding": vector} for vector in some]} for some in vectors.tolist()]
    create_documents(library_id="a", write=DocumentsWrite.model_validate({"documents": documents}))
    settings.LIMITS = replace(settings.LIMITS, request_cost=2_000)
    [answer] = ask(k=4, group_by="document")
    assert len(answer["results"]) == 3


def test_the_costliest_request_that_passes_is_the_documented_one() -> None:
    """As many results as can be passed over, by as many queries as pass: 3.8 s of one core for 117,659 rows of 384
    dimensions."""
    create_library(create=LibraryCreate(id="a", name="A", dimension=3))
    for start in range(0, 10_000, 2000):
        upsert_chunks(
            library_id="a",
            write=ChunksWrite.model_validate(
                {"chunks": [{"embedding": [1.0, n, n % 7]} for n in range(start, start + 2000)]}
            ),
        )
    costliest: dict[str, Any] = {"vector": [1.0, 0.5, 0.0], "offset": 9_999, "k": 1}
    assert len(ask(79, **costliest)) == 79
    with pytest.raises(Invalid, match="would cost more than 4000000 points"):
        ask(80, **costliest)
    cost = (ROOT / "docs/api.md").read_text()
    assert "79 queries at `offset`\n9,999 3.8 s" in cost


def test_the_prices_are_documented() -> None:
    cost = (ROOT / "docs/api.md").read_text().partition("## Cost")[2].partition("\n## ")[0]
    assert [int(price) for price in re.findall(r"\| ([0-9]+) \|$", cost, re.MULTILINE)] == [
        budget.PER_FETCHED_HIT,
        budget.PER_FUSED_HIT,
        budget.PER_GROUPED_HIT,
        budget.PER_BOOSTED_HIT,
        budget.PER_RESULT,
        budget.PER_TEXT_BYTE,
        budget.PER_VALUE,
        budget.PER_CONDITION,
        budget.PER_CONDITION_AND_1000_ROWS,
        budget.PER_SUBSTRING_AND_1000_ROWS,
        budget.PER_FOLDED_SUBSTRING_AND_1000_ROWS,
        budget.PER_READ_TEXT,
        budget.PER_1000_CHARACTERS_AND_CONDITION,
        budget.PER_PHRASE_WORD_AND_1000_ROWS,
        budget.PER_FIELD_AND_1000_ROWS,
        budget.PER_READ_ROW,
        1,
        budget.PER_ORDER_AND_1000_ROWS,
        1,
    ]
    assert f"{budget.CHARACTERS_PER_POINT} characters" in cost
    assert f"{budget.PRODUCTS_PER_POINT:,} products" in cost
