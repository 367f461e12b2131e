"""What each tool takes. An agent reads these descriptions: the first line of a class is its tool's.

What goes on to an endpoint's own model, such as a filter, is checked there, so that a refusal has the same words.
"""

from contextlib import suppress
from typing import Annotated, Any

from django.utils import timezone
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import to_json

from apps.api.cursors import parse_cursor
from apps.api.mcp.bounds import LIMIT, MAX_ITEMS
from apps.engine.errors import InvalidFilter
from apps.engine.metadata.operands import parse_time
from apps.libraries.chunk_fields import ABOUT_INCLUDE, NAMES, timestamp
from apps.libraries.fields import BoundedInt, Identifier, Input, NotNull, validation_error
from apps.libraries.selectors import PageKey
from apps.search.query.spec import Filter as ParsedFilter
from apps.search.query.spec import Mode

# What include may name; vectors are not shown to agents.
_SHOWN = tuple(name for name in NAMES if name != "embedding")
_MOST_SECONDS = 10 * 365 * 24 * 3600


def body_of(data: dict[str, Any]) -> bytes:
    """The body that a request with `data` has; numbers that JSON or 64 bits cannot hold stay what they are."""
    return to_json(data, inf_nan_mode="constants")


def _check_include(names: list[str]) -> list[str]:
    for i, name in enumerate(names):
        if name not in _SHOWN and not name.startswith("metadata."):
            known = f"must be one of {', '.join(_SHOWN)}, or a part of the metadata such as metadata.topic"
            never = "; vectors are not shown to agents" if name == "embedding" else ""
            raise validation_error(known + never, path=(i,))
    return names


def _check_text(value: str) -> str:
    if not value.strip():
        raise validation_error("must not be blank")
    return value


def _check_expiry(value: str | None) -> str | None:
    # A model may not know which year it is.
    with suppress(InvalidFilter):
        now = timezone.now()
        if value is not None and parse_time(value) <= now.timestamp() * 1_000_000:
            raise validation_error(f"is past: it is {timestamp(now)} now")
    return value


def _parse_cursor(value: Any) -> PageKey:
    if not isinstance(value, str):
        raise validation_error("must be a string")
    return parse_cursor(value)


Library = Annotated[str, Field(description="The id of a library, as list_libraries gives it.")]
Filter = Annotated[
    dict[str, Any],
    Field(
        description="Conditions on metadata; describe_library lists the fields. A value means equal, several keys mean "
        "and. Operators: $eq $ne $gt $gte $lt $lte $in $nin $exists $contains $icontains $prefix $all $empty, and "
        "$and $or $not around filters. Dots lead into objects. @id, @document_id, @created_at and @document.<field> "
        "are fields too.",
        examples=[{"topic": "animals", "year": {"$gte": 2000}}],
    ),
]
DocumentFilter = Annotated[
    ParsedFilter,
    WithJsonSchema(
        {"type": "object", "description": "As that of search, on the documents' own metadata, @id and @created_at."}
    ),
]
Include = Annotated[
    list[str],
    AfterValidator(_check_include),
    Field(description=ABOUT_INCLUDE.replace(", `embedding`", "") + " Left out: text and metadata."),
]
Limit = Annotated[int, BoundedInt(1, MAX_ITEMS, LIMIT), Field(description="The most items to return.")]
_DEFAULT_LIMIT = min(20, MAX_ITEMS)
Cursor = Annotated[
    PageKey,
    BeforeValidator(_parse_cursor),
    WithJsonSchema({"type": "string", "description": "The next_cursor of the page before."}),
]
Metadata = Annotated[dict[str, Any], Field(description="JSON to filter by later, such as topic, person or source.")]
ExpiresAt = Annotated[
    str | None,
    AfterValidator(_check_expiry),
    Field(description="From then on it is gone: RFC 3339 with offset; null or left out for never."),
]


class ListLibraries(Input):
    """List the libraries that you may search, with what each is about. Start here."""

    limit: Limit = _DEFAULT_LIMIT
    cursor: Cursor = Field(default_factory=tuple)


class DescribeLibrary(Input):
    """Say what a library holds: how many documents and chunks, its embedding model, and the fields of metadata with
    types, ranges and examples of values. Call it before you write a filter."""

    library: Library


class Search(Input):
    """Find the chunks of a library that answer a text: by meaning, by words, or by both. Long texts are cut; get_chunks
    shows them whole."""

    library: Library
    text: str = Field(description="What to look for, in plain words: a question, a statement, or names.")
    mode: Annotated[Mode | None, NotNull()] = Field(
        None,
        description="`vector` finds by meaning, `lexical` by words (names, codes, quotes), `hybrid` by both. Left out: "
        "hybrid, or lexical in a library without an embedding model.",
    )
    filter: Filter = Field(default_factory=dict)
    k: Annotated[int, BoundedInt(1, MAX_ITEMS, LIMIT)] = Field(
        min(5, MAX_ITEMS), description="How many chunks to return."
    )
    offset: int = Field(0, description="How many to pass over, for the next page.")
    include: Include = Field(default_factory=list)


class GetChunks(Input):
    """Read chunks whole: by their ids, or page by page those of a document in order, or those that match a filter."""

    library: Library
    ids: Annotated[list[str], Field(max_length=MAX_ITEMS)] = Field(
        default_factory=list, description="Ids of chunks, as search gives them."
    )
    document_id: Annotated[str | None, NotNull()] = Field(None, description="The chunks of this document, in order.")
    filter: Filter = Field(default_factory=dict)
    limit: Limit = _DEFAULT_LIMIT
    cursor: str = Field("", description="The next_cursor of the page before; the other arguments must be the same.")
    include: Include = Field(default_factory=list)
    text_from: int = Field(
        0, ge=0, description="The first character to show of each text, to read on where one was cut: next_text_from."
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> "GetChunks":
        if self.is_set("ids") and (self.is_set("document_id") or self.is_set("filter") or self.is_set("cursor")):
            raise validation_error("cannot be sent together with document_id, filter or cursor", path=("ids",))
        return self


class ListDocuments(Input):
    """List the documents of a library with title, source and metadata. get_chunks with document_id reads one."""

    library: Library
    filter: DocumentFilter
    limit: Limit = _DEFAULT_LIMIT
    cursor: Cursor = Field(default_factory=tuple)


class Remember(Input):
    """Store a text, so that search finds it later, in this and other conversations. One fact or note each time, in
    words that make sense alone."""

    library: Library
    text: Annotated[str, AfterValidator(_check_text)] = Field(description="What to remember.")
    metadata: Metadata = Field(default_factory=dict)
    id: Annotated[str | None, NotNull()] = Field(
        None, description="To replace what has this id, or to choose one; left out, a new one is made."
    )
    ttl_seconds: Annotated[int | None, NotNull(), BoundedInt(1, _MOST_SECONDS, "of ten years")] = Field(
        None, description="Seconds after which it is forgotten; left out, never."
    )
    expires_at: ExpiresAt = None
    create_library: bool = Field(
        False, description="Make the library first if there is none of this id; needs the scope admin."
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> "Remember":
        if self.is_set("ttl_seconds") and self.is_set("expires_at"):
            raise validation_error("cannot be sent together with expires_at", path=("ttl_seconds",))
        return self


class Forget(Input):
    """Delete chunks for good: by their ids, or all that match a filter."""

    library: Library
    ids: list[str] = Field(default_factory=list, description="Ids of chunks; unknown ones are passed over.")
    filter: Filter = Field(default_factory=dict)


class PutDocument(Input):
    """Store a document under an id, or make the stored one exactly this: its text is split into chunks, which search
    finds. Chunks whose text is unchanged are kept."""

    library: Library
    id: Identifier = Field(description="The document's id, such as a path, a URL or a short name.")
    text: str = Field(description="The whole text.")
    title: str = Field("", description="A title for people.")
    source: str = Field("", description="Where it came from, such as a path or URL.")
    metadata: Metadata = Field(default_factory=dict)
    expires_at: ExpiresAt = None
