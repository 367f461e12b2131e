"""What each tool gives, for its schema. Tests compare answers with it."""

from typing import Any

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from apps.api.v1.schemas import Count, Output, Timestamp

_Absent = SkipJsonSchema[None]


class Noted(Output):
    """What may have a note."""

    note: str | _Absent = Field(None, description="What is not shown, and how to get it.")


class Paged(Noted):
    """A page."""

    next_cursor: str | None = Field(description="Sent as cursor, it asks for the next page; null on the last one.")


class FoundLibrary(Output):
    """A library in a list."""

    id: str = Field(description="Its id, which the other tools take.")
    name: str = Field(description="A title.")
    description: str = Field(description="What it is about; may be empty.")


class LibrariesListed(Paged):
    """Libraries."""

    libraries: list[FoundLibrary] = Field(description="In order of creation.")


class FieldDescribed(Output):
    """A field of metadata."""

    field: str = Field(description="Its path, as filters take it.")
    count: Count = Field(description="How many chunks have it.")
    distinct: Count = Field(description="How many different values there are.")
    types: dict[str, dict[str, Any]] = Field(description="By type: how many chunks, least and greatest value.")
    examples: list[Any] = Field(description="The most frequent values.")


class LibraryDescribed(Noted):
    """A library and what is in it."""

    id: str = Field(description="Its id.")
    name: str = Field(description="A title.")
    description: str = Field(description="What it is about; may be empty.")
    dimension: int | None = Field(description="Components of its vectors; null while it has none.")
    metric: str = Field(description="By what vectors are compared.")
    embedding_model: str | None = Field(description="The model that makes vectors of texts; null without one.")
    documents: Count = Field(description="How many documents it has.")
    chunks: Count = Field(description="How many chunks it has.")
    fields: list[FieldDescribed] = Field(description="Fields of metadata, those that most chunks have first.")
    more_fields: Count = Field(description="How many fields are not listed.")


class ChunkShown(Output):
    """A chunk."""

    id: str = Field(description="Its id.")
    document_id: str | None = Field(description="Its document; null if it stands alone.")
    position: int | None = Field(None, description="Its place in the document, from 0.")
    created_at: Timestamp | _Absent = Field(None, description="When it was stored.")
    expires_at: Timestamp | None = Field(None, description="When it will be gone.")
    score: float | _Absent = Field(None, description="Higher is better; of one search only.")
    next_text_from: int | _Absent = Field(None, description="The text is cut: get_chunks shows it from here on.")
    text: str | _Absent = Field(None, description="Its text.")
    embed_text: str | None = Field(None, description="What the model was given of it; null for the text itself.")
    metadata: dict[str, Any] | _Absent = Field(None, description="Its metadata.")
    document: dict[str, Any] | None = Field(None, description="Its document: id, title, source, metadata.")


class Found(Noted):
    """What a search found."""

    results: list[ChunkShown] = Field(description="The best chunks, best first.")
    next_offset: int | None = Field(description="The offset of the next page; null if there is none.")


class ChunksShown(Paged):
    """Chunks."""

    chunks: list[ChunkShown] = Field(description="In the order asked for.")
    missing: list[str] = Field(description="The ids that no chunk has.")


class DocumentShown(Output):
    """A document, without its chunks."""

    id: str = Field(description="Its id.")
    title: str = Field(description="Its title; may be empty.")
    source: str = Field(description="Where it came from; may be empty.")
    chunk_count: Count = Field(description="How many chunks it has.")
    created_at: Timestamp = Field(description="When it was stored.")
    updated_at: Timestamp = Field(description="When it was last changed.")
    expires_at: Timestamp | None = Field(description="When it will be gone; null for never.")
    metadata: dict[str, Any] = Field(description="Its own metadata.")


class DocumentsListed(Paged):
    """Documents."""

    documents: list[DocumentShown] = Field(description="In order of creation.")


class Remembered(Output):
    """What was stored."""

    id: str = Field(description="Its id, by which forget deletes it.")
    created: bool = Field(description="Whether it is new; false if it replaced what had this id.")
    expires_at: Timestamp | None = Field(description="When it will be gone; null for never.")


class Forgotten(Output):
    """What was deleted."""

    deleted: Count = Field(description="How many chunks.")


class DocumentPut(Output):
    """What became of the document's chunks."""

    id: str = Field(description="The document's id.")
    is_new: bool = Field(description="Whether there was none of this id.")
    created: Count = Field(description="Chunks that are new.")
    updated: Count = Field(description="Chunks that were changed.")
    unchanged: Count = Field(description="Chunks that were kept.")
    deleted: Count = Field(description="Chunks that the document had before.")


class RpcFault(Output):
    """An error of the protocol."""

    code: int = Field(description="The code that JSON-RPC or the Model Context Protocol has for it.")
    message: str = Field(description="What is wrong.")
    data: dict[str, Any] | _Absent = Field(None, description="Of an unknown version: those that are known.")


class McpAnswer(Output):
    """The answer to a message: a result, or an error."""

    jsonrpc: str = Field(description="The version of JSON-RPC, 2.0.")
    id: str | int | None = Field(description="The id of the request; null where it could not be read.")
    result: dict[str, Any] | _Absent = Field(None, description="The result of the method.")
    error: RpcFault | _Absent = Field(None, description="Why there is none.")
