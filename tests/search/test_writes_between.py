"""An answer is of one state even where somebody writes between any two statements that it takes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from django.db import connections

from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import parse_filter
from apps.engine.metadata.ordering import OrderBy
from apps.indexing.upkeep import delete_expired_rows
from apps.libraries.chunk_fields import DEFAULT_ITEM
from apps.libraries.inputs import ChunksWrite, DocumentInput, LibraryCreate
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.documents import replace_document
from apps.libraries.services.libraries import create_library
from apps.search.documents import get_document, list_documents
from apps.search.matching import count_chunks, count_values, summarize_fields
from apps.search.query.service import query
from apps.search.query.spec import EVERYTHING, QuerySpec
from apps.search.reading import get_chunks, list_chunks, list_ordered_chunks

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


@pytest.fixture(autouse=True)
def library() -> None:
    """A library of dimension 2."""
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))


class Driver:
    """The connection on which snapshots run their statements, past Django's cursors; calls `after` after each."""

    def __init__(self, connection: Any, after: Callable[[], None]) -> None:
        self._connection, self._after = connection, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *statement: Any) -> Any:
        """Run a statement."""
        result = self._connection.execute(*statement)
        self._after()
        return result


@contextmanager
def writing_between_statements(write: Callable[[], object]) -> Iterator[list[str]]:
    """Call `write` after each statement but those of its own; yields those that Django's cursors ran."""
    statements: list[str] = []
    is_writing = False

    def write_once() -> None:
        nonlocal is_writing
        if not is_writing:
            is_writing = True
            try:
                write()
            finally:
                is_writing = False

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if not is_writing:
            statements.append(sql)
            write_once()
        return result

    with ExitStack() as stack:
        for alias in ("default", "snapshot"):
            # A new connection gets wrappers of its own, and the end of the block takes away the last one.
            connections[alias].ensure_connection()
            stack.enter_context(connections[alias].execute_wrapper(wrapper))
        snapshots = connections["snapshot"]
        driver = snapshots.connection
        snapshots.connection = Driver(driver, write_once)
        try:
            yield statements
        finally:
            snapshots.connection = driver


class Growing:
    """A document whose metadata say how many chunks it has, as these do."""

    def __init__(self) -> None:
        self._count = 0
        self.write()

    def write(self) -> None:
        """Give it one chunk more."""
        self._count += 1
        common = {"embedding": [1.0, 0.0], "metadata": {"chunks": self._count}}
        chunks = [{"id": f"c{i}"} | common for i in range(self._count)]
        document = DocumentInput.model_validate({"metadata": {"chunks": self._count}, "chunks": chunks})
        replace_document(library_id="a", document_id="d", document=document)


def test_a_document_is_shown_with_the_chunks_that_it_had() -> None:
    document = Growing()
    with writing_between_statements(document.write) as statements:
        shown, _ = get_document(library_id="a", document_id="d")
    assert shown["chunk_count"] == shown["metadata"]["chunks"]
    assert len(statements) > 1


def test_the_documents_of_a_list_are_shown_with_the_chunks_that_they_had() -> None:
    document = Growing()
    for condition in ({}, {"chunks": {"$exists": True}}):
        with writing_between_statements(document.write) as statements:
            page = list_documents(library_id="a", filter=parse_filter(condition), limit=10, after=())
        assert [item["chunk_count"] for item in page.items] == [item["metadata"]["chunks"] for item in page.items]
        assert statements


EXISTS = parse_filter({"@document.chunks": {"$exists": True}})
LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "all": lambda: list_chunks(library_id="a", filter=EVERYTHING, limit=99, after=(), shown=DEFAULT_ITEM).items,
    "those that match": lambda: (
        list_chunks(library_id="a", filter=EXISTS, limit=99, after=(), shown=DEFAULT_ITEM).items
    ),
    "those of a document": lambda: (
        list_chunks(library_id="a", filter=EXISTS, limit=99, after=(), shown=DEFAULT_ITEM, document_id="d").items
    ),
    "in an order": lambda: (
        list_ordered_chunks(
            library_id="a", filter=EXISTS, order=[OrderBy("chunks")], limit=99, after=None, shown=DEFAULT_ITEM
        ).items
    ),
    "by id": lambda: get_chunks(library_id="a", ids=[f"c{i}" for i in range(99)], shown=DEFAULT_ITEM)[0],
    "found": lambda: query(library_id="a", spec=QuerySpec.model_validate({"vector": [1.0, 0.0], "k": 99}))["results"],
}


@pytest.mark.parametrize("read", LISTS.values(), ids=LISTS)
def test_chunks_are_shown_as_they_were_at_once(read: Callable[[], list[dict[str, Any]]]) -> None:
    document = Growing()
    for _ in range(3):
        with writing_between_statements(document.write):
            chunks = orjson.loads(orjson.dumps(read()))
        assert [chunk["metadata"]["chunks"] for chunk in chunks] == [len(chunks)] * len(chunks)
        assert chunks


def test_values_are_counted_as_they_were_at_once() -> None:
    document = Growing()
    for name in ("chunks", "@document.chunks"):
        with writing_between_statements(document.write):
            [facet] = count_values(library_id="a", field=name, filter=EXISTS, page=ValuePage(10))["facets"]
        assert facet["count"] == facet["value"]
    with writing_between_statements(document.write):
        fields = summarize_fields(library_id="a", names=None, filter=EVERYTHING, limit=10)["fields"]
    assert [field["types"]["integer"] for field in fields] == [
        {"count": field["count"], "min": field["count"], "max": field["count"]} for field in fields
    ]
    assert len(fields) == 2


class Expiring:
    """Chunks that never expire, and others that have expired, which are there and deleted by turns."""

    def __init__(self) -> None:
        self._are_there = False
        self._put("live", None)

    def write(self) -> None:
        """Delete what has expired, or put it back."""
        if self._are_there:
            delete_expired_rows()
        else:
            self._put("expired", datetime(2001, 1, 1, tzinfo=UTC))
        self._are_there = not self._are_there

    def _put(self, prefix: str, expires_at: datetime | None) -> None:
        chunks = [{"id": f"{prefix}{i}", "embedding": [1.0, 0.0], "expires_at": expires_at} for i in range(5)]
        upsert_chunks(library_id="a", write=ChunksWrite.model_validate({"chunks": chunks}))


def test_chunks_are_counted_while_those_that_have_expired_are_deleted() -> None:
    expiring = Expiring()
    for _ in range(2):
        with writing_between_statements(expiring.write) as statements:
            assert count_chunks(library_id="a", filter=parse_filter({})) == 5
        assert len(statements) > 1
        expiring.write()
