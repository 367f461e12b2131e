"""The tools that read. Each calls what the endpoint of the same meaning calls."""

from collections.abc import Mapping
from typing import Any

import orjson

from apps.access.requests import current_principal
from apps.api.mcp.arguments import DescribeLibrary, GetChunks, ListDocuments, ListLibraries, Search, body_of
from apps.api.mcp.bounds import LIMIT, MAX_ITEMS, clip, fit, length
from apps.api.parameters import page_data
from apps.api.renderers import dumps
from apps.api.v1.chunks import ChunksGet, ChunksList, list_page
from apps.api.v1.query import answer_query
from apps.api.vector_json import validate
from apps.engine.metadata.facets import ValuePage
from apps.indexing.stats import library_stats
from apps.libraries import selectors
from apps.libraries.fields import Input
from apps.search import matching, reading
from apps.search.documents import list_documents as find_documents
from apps.search.query.spec import EVERYTHING, parse_field

_MOST_FIELDS = min(30, MAX_ITEMS)
_EXAMPLES = ValuePage(limit=5)
# Longer paths and values are no help to who writes a filter.
_LONGEST_FIELD, _LONGEST_VALUE = 200, 80
_ITEM = (
    "id",
    "document_id",
    "position",
    "created_at",
    "expires_at",
    "score",
    "text",
    "embed_text",
    "metadata",
    "document",
)
_DOCUMENT = ("id", "title", "source", "chunk_count", "created_at", "updated_at", "expires_at", "metadata")
_CUT = f"Long values are cut (…), since the characters of an answer are limited ({LIMIT}): ask for fewer at once"

# A filter that can match nothing is none that is wrong.
_NOTHING = (
    "Nothing was found with this filter. describe_library lists the fields, with their types and examples: values are "
    "compared by type, one of several is $in, and a field is named without metadata before it."
)


def list_libraries(asked: ListLibraries) -> dict[str, Any]:
    """A page of the libraries that whoever asks may see."""
    page = page_data(selectors.libraries(limit=asked.limit, after=asked.cursor))
    libraries, is_cut = fit([_pick(item, ("id", "name", "description")) for item in page["items"]])
    return _noted({"libraries": libraries, "next_cursor": page["next_cursor"]}, is_cut, f"{_CUT}.")


def describe_library(asked: DescribeLibrary) -> dict[str, Any]:
    """What a library is, and what is in it. Its parts are read one after another, each from its newest state."""
    library = selectors.library_data(selectors.library_row(asked.library))
    stats = library_stats(library_id=asked.library)
    found = matching.summarize_fields(library_id=asked.library, names=None, filter=EVERYTHING, limit=_MOST_FIELDS)
    summaries = [one for one in found["fields"] if len(one["field"]) <= _LONGEST_FIELD]
    fields = [_field(asked.library, _plain(one)) for one in summaries]
    data = {
        "id": library["id"],
        "name": library["name"],
        "description": clip(library["description"], MAX_ITEMS * 20),
        "dimension": library["dimension"],
        "metric": library["metric"],
        "embedding_model": library["embedding"] and library["embedding"]["model"],
        "documents": stats["documents"],
        "chunks": stats["chunks"],
        "more_fields": found["omitted"] + len(found["fields"]) - len(fields),
    }
    data["fields"], is_cut = fit(fields, spent=length(data))
    return _noted(data, is_cut, "Examples are cut (…).")


def _field(library_id: str, summary: dict[str, Any]) -> dict[str, Any]:
    """A field with the most frequent of its values; numbers have their least and greatest."""
    types, examples = summary["types"], []
    if types.keys() & {"string", "boolean", "array"}:
        name = parse_field(summary["field"])
        counted = matching.count_values(library_id=library_id, field=name, filter=EVERYTHING, page=_EXAMPLES)
        examples = [facet["value"] for facet in _plain(counted)["facets"]]
    short = {kind: {name: clip(value, _LONGEST_VALUE) for name, value in of.items()} for kind, of in types.items()}
    return summary | {"types": short, "examples": [clip(value, _LONGEST_VALUE) for value in examples]}


def search(asked: Search) -> dict[str, Any]:
    """The chunks that a query finds."""
    mode = asked.mode or ("lexical" if selectors.library_row(asked.library).embedding is None else "hybrid")
    body = {"k": asked.k, "mode": mode} | _given(asked, "text", "filter", "offset", "include")
    answer = orjson.loads(answer_query(current_principal.get(), asked.library, body_of(body)))
    found, warning = answer["results"], answer["meta"].get("warning")
    results, is_cut = fit([_pick(item, _ITEM) for item in found])
    data = {"results": results, "next_offset": asked.offset + asked.k if len(found) == asked.k else None}
    note = warning or (_NOTHING if not found and asked.filter and not asked.offset else "")
    return _noted(data, is_cut, f"{_CUT}, or read on by get_chunks.") | ({"note": note} if note else {})


def get_chunks(asked: GetChunks) -> dict[str, Any]:
    """Chunks by their ids, or a page of them."""
    shown = _given(asked, "include")
    missing: list[str] = []
    if asked.is_set("ids"):
        get = validate(body_of({"ids": asked.ids} | shown), ChunksGet)
        items, missing = reading.get_chunks(library_id=asked.library, ids=get.ids, shown=get.shown_item)
        cursor = None
    else:
        given = {"limit": asked.limit} | shown | _given(asked, "document_id", "filter", "cursor")
        page = list_page(asked.library, validate(body_of(given), ChunksList))
        items, cursor = page["items"], page["next_cursor"]
    found = [_pick(_plain(item), _ITEM) for item in items]
    for item in found:
        if "text" in item:
            item["text"] = item["text"][asked.text_from :]
    chunks, is_cut = fit(found, text_from=asked.text_from, spent=length(missing))
    data = {"chunks": chunks, "missing": missing, "next_cursor": cursor}
    if not chunks and asked.filter and not asked.cursor:
        data["note"] = _NOTHING
    return _noted(data, is_cut, f"{_CUT}, or for the rest of a text by text_from with its next_text_from.")


def list_documents(asked: ListDocuments) -> dict[str, Any]:
    """A page of documents."""
    page = page_data(
        find_documents(library_id=asked.library, filter=asked.filter, limit=asked.limit, after=asked.cursor)
    )
    documents, is_cut = fit([_pick(_plain(item), _DOCUMENT) for item in page["items"]])
    return _noted({"documents": documents, "next_cursor": page["next_cursor"]}, is_cut, f"{_CUT}.")


def _given(asked: Input, *names: str) -> dict[str, Any]:
    """Those of the arguments that were sent."""
    return {name: getattr(asked, name) for name in names if asked.is_set(name)}


def _pick(item: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: item[name] for name in names if name in item}


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """An item whose metadata is no ready-made JSON."""
    plain: dict[str, Any] = orjson.loads(dumps(item))
    return plain


def _noted(data: dict[str, Any], is_cut: bool, note: str) -> dict[str, Any]:
    return data | {"note": note} if is_cut else data
