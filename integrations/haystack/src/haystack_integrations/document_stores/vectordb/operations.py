"""What the methods of the store do, each written once, for sync and async: a generator that yields functions of the
client's library, and is sent what they return, which the async client awaits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from operator import methodcaller
from typing import Any, TypeAlias, TypeVar

from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from vectordb_client import Conflict

from haystack_integrations.document_stores.vectordb.conversion import (
    INCLUDE,
    OWN_KEY,
    is_metadata,
    range_of,
    to_document,
    to_row,
    type_of,
)
from haystack_integrations.document_stores.vectordb.filters import DOCUMENT_KEY, EVERYTHING, path_of, translate

T = TypeVar("T")
Call: TypeAlias = Callable[[Any], Any]
Steps: TypeAlias = Generator[Call, Any, T]
Filters: TypeAlias = dict[str, Any] | None

# Documents that are one request, and one transaction.
_BATCH = 1000


def count(filters: Filters) -> Steps[int]:
    """The number of documents that match."""
    matching = translate(filters)
    number: int = yield methodcaller("count", matching)
    return number


def find(filters: Filters) -> Steps[list[Document]]:
    """The documents that match, by creation."""
    matching = translate(filters)
    chunks = yield lambda library: library.chunks(filter=matching, include=[*INCLUDE, "embedding"]).all()
    return [to_document(chunk) for chunk in chunks]


def query(filters: Filters, return_embedding: bool, options: dict[str, Any]) -> Steps[list[Document]]:
    """The documents that a query finds, with their scores."""
    matching = translate(filters)
    include = [*INCLUDE, "embedding"] if return_embedding else INCLUDE
    hits = yield methodcaller("query", filter=matching, include=include, **options)
    return [to_document(hit) for hit in hits]


def write(documents: list[Document], policy: DuplicatePolicy, *, embeds: bool) -> Steps[int]:
    """Write documents; return how many were written, or given under OVERWRITE."""
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        raise ValueError("write_documents takes a list of Documents")
    # The last one of an id wins under OVERWRITE, the first one under SKIP.
    ordered = documents if policy is DuplicatePolicy.OVERWRITE else documents[::-1]
    unique = {document.id: document for document in ordered}
    if len(unique) < len(documents) and policy not in (DuplicatePolicy.OVERWRITE, DuplicatePolicy.SKIP):
        raise DuplicateDocumentError("Two of the documents have the same id; nothing was written.")
    kept = [document for document in documents if unique[document.id] is document]
    rows = [to_row(document, embeds=embeds) for document in kept]
    if policy is DuplicatePolicy.OVERWRITE:
        for batch in _batches(rows):
            yield methodcaller("upsert", batch)
        return len(documents)
    written = 0
    for batch in _batches(rows):
        written += yield from _insert(batch, skips=policy is DuplicatePolicy.SKIP)
    return written


def _insert(rows: list[dict[str, Any]], *, skips: bool) -> Steps[int]:
    attempts = 5
    while True:
        if skips:
            present = yield methodcaller("get", [row["id"] for row in rows], include=[])
            taken = {chunk.id for chunk in present}
            rows = [row for row in rows if row["id"] not in taken]
        if not rows:
            return 0
        try:
            result = yield methodcaller("insert", rows)
        except Conflict as error:
            if not any(pointer.endswith("/id") for pointer in error.pointers):
                raise
            # Another has written one of them since they were looked for.
            attempts -= 1
            if skips and attempts:
                continue
            taken_ids = ", ".join(_ids_at(rows, error.pointers))
            raise DuplicateDocumentError(f"There are documents with these ids already: {taken_ids}") from error
        return int(result.created)


def delete(document_ids: list[str]) -> Steps[None]:
    """Delete documents by their ids."""
    yield methodcaller("delete", document_ids)


def delete_all() -> Steps[None]:
    """Delete all documents."""
    yield methodcaller("delete", filter=EVERYTHING)


def delete_matching(filters: dict[str, Any]) -> Steps[int]:
    """Delete the documents that match; return their number."""
    matching = translate(filters) or {}
    number: int = yield methodcaller("delete", filter=matching)
    return number


def update_matching(filters: dict[str, Any], meta: dict[str, Any]) -> Steps[int]:
    """Set fields of `meta` in the documents that match; return their number."""
    matching = translate(filters) or {}
    if taken := meta.keys() & {OWN_KEY, DOCUMENT_KEY}:
        raise ValueError(f"The key {taken.pop()!r} of meta cannot be set: it is this package's own.")
    number: int = yield methodcaller("update_metadata", meta, filter=matching)
    return number


def count_unique(filters: dict[str, Any], metadata_fields: list[str]) -> Steps[dict[str, int]]:
    """The number of different values of each field, without null."""
    paths = [path_of(field) for field in metadata_fields]
    matching = translate(filters)
    if not paths:
        return {}
    found = yield methodcaller("fields", paths, filter=matching)
    numbers = {summary.field: summary.distinct - ("null" in summary.types) for summary in found}
    names = [field.removeprefix("meta.") for field in metadata_fields]
    return {name: numbers.get(path, 0) for name, path in zip(names, paths, strict=True)}


def fields_info() -> Steps[dict[str, dict[str, str]]]:
    """The types of the fields of `meta`."""
    found = yield methodcaller("fields")
    kinds = {summary.field: type_of(summary) for summary in found if is_metadata(summary.field)}
    return {field: {"type": kind} for field, kind in kinds.items() if kind is not None}


def min_max(metadata_field: str) -> Steps[dict[str, Any]]:
    """The least and the greatest value of a field."""
    path = path_of(metadata_field)
    found = yield methodcaller("fields", [path])
    return range_of(found[0]) if found else {"min": None, "max": None}


def unique_values(
    metadata_field: str, search_term: str | None, from_: int, size: int, filters: Filters
) -> Steps[tuple[list[Any], int]]:
    """A page of the different values of a field, and how many there are, without null."""
    path = path_of(metadata_field)
    conditions = [{path: {"$ne": None}}, translate(filters) or {}]
    options = {"search": search_term, "order_by": "value", "limit": size, "offset": from_}
    facets = yield methodcaller("facets", path, filter={"$and": conditions}, **options)
    return [facet.value for facet in facets], facets.values


def _batches(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for begin in range(0, len(rows), _BATCH):
        yield rows[begin : begin + _BATCH]


def _ids_at(rows: list[dict[str, Any]], pointers: tuple[str, ...]) -> list[str]:
    """The ids at such pointers as /chunks/3/id."""
    return [rows[int(pointer.split("/")[2])]["id"] for pointer in pointers if pointer.endswith("/id")]
