"""Filters find what Haystack's own evaluator finds."""

from datetime import datetime, timezone
from itertools import product
from typing import Any

import pytest
from haystack.dataclasses import Document
from haystack.errors import FilterError
from haystack.utils.filters import document_matches_filter
from vectordb_client import Client

from haystack_integrations.document_stores.vectordb import VectorDBDocumentStore
from haystack_integrations.document_stores.vectordb.filters import translate

DATES = ["2020-05-01", "2020-05-01T00:00:00", "2020-05-01T02:00:00+02:00", "2020-05-01T00:00:01Z", "2019-12-31 23:59"]
LISTS: list[Any] = [["x"], ["x", "y"], [["x"]], [], [None]]
STORED: list[Any] = [None, 2, 2.5, -3, True, "x", "", *LISTS, {"b": 2}, {"b": None}, *DATES]
NOON = datetime(2020, 5, 1, tzinfo=timezone.utc)
SOUGHT: list[Any] = [None, 2, 2.5, True, "x", "", ["x"], [], [None], ["x", None, 2], "2020-05-01T00:00:00+00:00", NOON]
ODD = {"@type": 2, "$ref": 2, "back\\slash": 2, "": 2, "id": "x", "content": "x"}


def found(filters: dict[str, Any], documents: list[Document]) -> list[str]:
    """Ids of the documents that match by Haystack's own evaluator, which matches nothing that it cannot compare."""

    def matches(document: Document) -> bool:
        try:
            return document_matches_filter(filters, document)
        except (FilterError, TypeError):
            return False

    return [document.id for document in documents if matches(document)]


@pytest.fixture
def documents(store: VectorDBDocumentStore) -> list[Document]:
    made = [Document(id=f"d{i}", content=f"text {i}", meta={"a": value}) for i, value in enumerate(STORED)]
    made += [Document(id="none", content="x"), Document(id="x", meta=ODD)]
    store.write_documents(made)
    return made


def test_comparisons_are_those_of_haystack(store: VectorDBDocumentStore, documents: list[Document]) -> None:
    fields = ["meta.a", "meta.a.b", "id", "content"]
    comparisons: list[dict[str, Any]] = []
    for field, operator, value in product(fields, ["==", "!=", "in", "not in", ">", ">=", "<", "<="], SOUGHT):
        is_list = isinstance(value, list)
        if ("in" in operator and not is_list) or (operator[0] in "<>" and (is_list or field in ("id", "content"))):
            continue
        # To Python, True is greater than 0; and content that is missing is an empty text here.
        if operator[0] in "<>" and (value in ("x", "") or value is True or operator[0] == "<"):
            continue
        if field == "content" and ("" in (value, operator) or (is_list and None in value)):
            continue
        comparisons.append({"field": field, "operator": operator, "value": value})
    comparisons += [{"field": f"meta.{key}", "operator": "==", "value": 2} for key in ODD]
    comparisons += [{"field": "a", "operator": "<", "value": value} for value in ("2020-05-01T00:00:01Z", NOON)]
    with Client() as client:
        library = client.library(store.library)
        for filters in comparisons:
            ids = [chunk.id for chunk in library.chunks(filter=translate(filters), include=[])]
            assert ids == found(filters, documents), filters


@pytest.mark.parametrize("operator", ["AND", "OR", "NOT"])
def test_conditions_are_those_of_haystack(
    store: VectorDBDocumentStore, documents: list[Document], operator: str
) -> None:
    is_x = {"field": "meta.a", "operator": "==", "value": "x"}
    not_two = {"field": "meta.a", "operator": "!=", "value": 2}
    nested = {"operator": "NOT", "conditions": [{"operator": "OR", "conditions": [is_x, not_two]}]}
    for conditions in [], [is_x], [is_x, not_two], [nested, is_x], [{"operator": "OR", "conditions": []}]:
        filters = {"operator": operator, "conditions": conditions}
        assert [document.id for document in store.filter_documents(filters)] == found(filters, documents), filters


@pytest.mark.parametrize(
    ("field", "operator", "value", "message"),
    [
        ("meta.a", ">", "soon", "compares texts only if they are dates by ISO 8601, not 'soon'"),
        ("meta.a", "<=", {"b": 1}, "compares with a number or a date"),
        ("meta.a", "==", {"b": 1}, "compared with a text, a number"),
        ("meta.a", "like", "x", "'like' is no operator of a field; there are =="),
        ("content", ">", 1, "'content' is a text"),
        ("embedding", "==", None, "'embedding' cannot be filtered by"),
        ("author.name", "==", "x", "fields of meta are written 'meta.author.name'"),
        ("meta.@document.title", "==", "x", "'meta.@document.id' and 'meta.@document.metadata.a' can"),
        ("meta.a", "in", list(range(10_001)), "takes at most 10000 values"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    store: VectorDBDocumentStore, field: str, operator: str, value: Any, message: str
) -> None:
    with pytest.raises(FilterError, match=message):
        store.filter_documents({"field": field, "operator": operator, "value": value})


def test_a_change_by_a_filter_of_everything_is_refused(store: VectorDBDocumentStore) -> None:
    with pytest.raises(FilterError, match="must not be empty"):
        store.delete_by_filter({})
