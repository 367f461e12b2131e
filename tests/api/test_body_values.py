"""What a body may hold is bounded before it is built: values, items of lists, chunks of documents, faults."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest

from apps.api import vector_json
from apps.api.errors import MAX_ERRORS, Problem, problem_of
from apps.api.json_values import has_more_values
from apps.api.v1.chunks import ChunksCount, ChunksDelete, ChunksGet
from apps.libraries.errors import Fault
from apps.libraries.fields import Input
from apps.libraries.inputs import ChunksWrite, DocumentInput, DocumentsWrite, LibraryCreate
from apps.search.query.spec import QueryBatch, QuerySpec
from tests.engine.numpy_only import numpy_only

pytestmark = pytest.mark.any_database

VALUES = 20_000
# Each endpoint with a body that has a list, by that list; `...` stands for the items.
LISTS: dict[str, tuple[type[Input], str]] = {
    "chunks": (ChunksWrite, '{"chunks": [...]}'),
    "embedding": (ChunksWrite, '{"chunks": [{"embedding": [...]}]}'),
    "chunks of a document": (DocumentInput, '{"chunks": [...]}'),
    "documents": (DocumentsWrite, '{"documents": [...]}'),
    "ids to read": (ChunksGet, '{"ids": [...]}'),
    "ids to delete": (ChunksDelete, '{"ids": [...]}'),
    "include": (ChunksGet, '{"ids": ["a"], "include": [...]}'),
    "include of a query": (QuerySpec, '{"text": "a", "include": [...]}'),
    "queries": (QueryBatch, '{"queries": [...]}'),
    "filter": (ChunksCount, '{"filter": {"a": {"$in": [...]}}}'),
    "metadata": (LibraryCreate, '{"name": "a", "metadata": {"a": [...]}}'),
    "index_params": (LibraryCreate, '{"name": "a", "index_params": {"a": [...]}}'),
    "an unknown field": (QuerySpec, '{"text": "a", "b": [...]}'),
}


def refusal(model: type[Input], body: str) -> Problem:
    """What is said of a body that is refused."""
    with pytest.raises(Exception) as found:
        vector_json.validate(body.encode(), model)
    problem = problem_of(found.value)
    assert problem is not None
    assert problem.code == "invalid"
    return problem


@pytest.mark.parametrize(("model", "body"), LISTS.values(), ids=LISTS)
def test_a_body_of_too_many_values_is_refused_before_it_is_built(settings: Any, model: type[Input], body: str) -> None:
    settings.LIMITS = replace(settings.LIMITS, body_values=VALUES)
    # As numbers, an embedding's values are no values of the body.
    for item in ('"a"', "[]", "{}", '""', '{"a":1}', "null" if "embedding" in body else "1"):
        problem = refusal(model, body.replace("...", ",".join([item] * VALUES)))
        assert "VECTORDB_MAX_BODY_VALUES" in problem.detail


@pytest.mark.parametrize(
    ("model", "name", "limit"),
    [
        (ChunksWrite, "chunks", "2000 items, not 9000 (limit VECTORDB_MAX_CHUNKS_PER_WRITE)"),
        (DocumentInput, "chunks", "2000 items, not 9000 (limit VECTORDB_MAX_CHUNKS_PER_WRITE)"),
        (DocumentsWrite, "documents", "2000 items, not 9000 (limit VECTORDB_MAX_CHUNKS_PER_WRITE)"),
        (ChunksGet, "ids", "10000 items, not 11000"),
        (ChunksDelete, "ids", "10000 items, not 11000"),
        (QueryBatch, "queries", "256 items, not 9000 (limit VECTORDB_MAX_QUERIES_PER_BATCH)"),
    ],
)
def test_a_list_is_counted_before_its_items_are_looked_at(model: type[Input], name: str, limit: str) -> None:
    for item in (1, {"embedding": [1, 2, 3]}, {"colour": "red"}):
        problem = refusal(model, json.dumps({name: [item] * (11_000 if name == "ids" else 9000)}))
        assert problem.faults == (Fault(f"/{name}", f"must have at most {limit}"),)


@pytest.mark.parametrize("item", ["text", "colour"])
def test_a_query_includes_a_hundred_names_at_most(item: str) -> None:
    problem = refusal(QuerySpec, json.dumps({"text": "a", "include": [item] * 9000}))
    [fault] = problem.faults
    assert fault.pointer == ("/include" if item == "text" else "/include/0")


def test_the_chunks_of_all_documents_are_counted_as_they_come() -> None:
    for last in ({}, 1):
        documents = [{"chunks": [*[{}] * 1000, last]}] * 100
        problem = refusal(DocumentsWrite, json.dumps({"documents": documents}))
        assert "at most 2000 chunks in all" in problem.detail


@pytest.mark.parametrize("fields", [30, 60])
def test_faults_beyond_those_shown_are_not_built(fields: int) -> None:
    chunk = {f"unknown{i}": 1 for i in range(fields)}
    problem = refusal(ChunksWrite, json.dumps({"chunks": [chunk] * 2000}))
    if fields == 30:
        assert len(problem.faults) == MAX_ERRORS
        assert "/chunks/0/unknown0 is not a known field" in problem.detail
    else:
        assert problem.faults == ()
        assert f"{2000 * fields} faults" in problem.detail


@pytest.mark.parametrize("read_by", [nullcontext, numpy_only], ids=["kernel", "numpy"])
def test_numbers_of_vectors_do_not_count(settings: Any, read_by: Callable[[], AbstractContextManager[None]]) -> None:
    settings.LIMITS = replace(settings.LIMITS, body_values=VALUES)
    # Commas and brackets in texts do not either.
    chunk = {"embedding": [0.25, -1e-3] * 200, "text": ',[{"\\' * 100, "metadata": {"embedding": [1, 2]}}
    with read_by():
        body = json.dumps({"chunks": [chunk] * 100})
        write = vector_json.validate(body.encode(), ChunksWrite)
        assert write.chunks[-1].text == chunk["text"]
        assert write.chunks[-1].metadata == chunk["metadata"]
        assert len(write.chunks[-1].embedding) == 400


@pytest.mark.parametrize("read_by", [nullcontext, numpy_only], ids=["kernel", "numpy"])
def test_a_fault_in_the_syntax_keeps_its_place(read_by: Callable[[], AbstractContextManager[None]]) -> None:
    body = json.dumps({"chunks": [{"embedding": [0.5] * 100}] * 50}, indent=1)[:-2] + ",}"
    lines = body.splitlines()
    with read_by(), pytest.raises(Exception, match=f"line {len(lines)} column") as found:
        vector_json.validate(body.encode(), ChunksWrite)
    assert found.match(f"column {len(lines[-1])}")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('["a", 1, null]', 4),
        ('{"a": {"b": [1, 2]}, "c": "d"}', 6),
        (r'["[,{", "\"[,", "\\", "\\\",["]', 5),
        ("[[1], [2]]", 5),
    ],
)
def test_values_are_counted(text: str, values: int) -> None:
    padding = " " * 100
    assert not has_more_values(f"{text}{padding}".encode(), values)
    assert has_more_values(f"{text}{padding}".encode(), values - 1)
