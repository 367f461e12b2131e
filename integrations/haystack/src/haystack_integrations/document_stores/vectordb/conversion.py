"""Documents of Haystack as chunks of the server, and back.

`content` is the text of a chunk, `meta` its metadata. What a chunk has no place for is in the metadata under `OWN_KEY`:
the blob, the sparse embedding, and whether the text is an empty one. The server does not index it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from vectordb_client import Chunk, FieldSummary, Hit

from haystack_integrations.document_stores.vectordb.filters import DOCUMENT_KEY

OWN_KEY = "_haystack"
INCLUDE = ("text", "metadata", "document")


def to_row(document: Document, *, embeds: bool) -> dict[str, Any]:
    """The chunk of a document. Without an embedding it has none, unless the server `embeds`."""
    meta = dict(document.meta)
    own: dict[str, Any] = {}
    if document.content == "":
        own["is_empty_text"] = True
    if (blob := document.blob) is not None:
        own["blob"] = {"data": b64encode(blob.data).decode(), "meta": blob.meta, "mime_type": blob.mime_type}
    if document.sparse_embedding is not None:
        own["sparse_embedding"] = document.sparse_embedding.to_dict()
    row: dict[str, Any] = {"id": document.id, "text": document.content or ""}
    if DOCUMENT_KEY in meta:
        parent = meta.pop(DOCUMENT_KEY)
        if not isinstance(parent, Mapping) or "id" not in parent:
            raise ValueError(f"Document {document.id!r}: meta[{DOCUMENT_KEY!r}] is a dict with the id of a document.")
        row["document_id"] = parent["id"]
    if OWN_KEY in meta:
        raise ValueError(f"Document {document.id!r}: the key {OWN_KEY!r} of meta is this package's own.")
    if own:
        meta[OWN_KEY] = own
    if document.embedding is not None or not (embeds and document.content):
        row["embedding"] = document.embedding
    return row | {"metadata": meta}


def to_document(item: Chunk | Hit) -> Document:
    """The document of a chunk, or of a result with its score."""
    meta = dict(item.metadata or {})
    own = meta.pop(OWN_KEY, {})
    if item.document is not None:
        parent = item.document
        meta[DOCUMENT_KEY] = {
            "id": parent.id,
            "title": parent.title,
            "source": parent.source,
            "metadata": dict(parent.metadata),
        }
    blob, sparse = own.get("blob"), own.get("sparse_embedding")
    return Document(
        id=item.id,
        content=item.text or ("" if own.get("is_empty_text") else None),
        meta=meta,
        blob=None if blob is None else ByteStream(b64decode(blob["data"]), blob["meta"], blob["mime_type"]),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
        embedding=None if item.embedding is None else item.embedding.tolist(),
        score=item.score if isinstance(item, Hit) else None,
    )


def type_of(summary: FieldSummary) -> str | None:
    """The type of a field as Haystack names it; None where all values are null or objects, whose fields are others."""
    kinds = set(summary.types) - {"null", "object"}
    if not kinds:
        return None
    if kinds <= {"integer", "number"}:
        return "float" if "number" in kinds else "int"
    return "boolean" if kinds == {"boolean"} else "keyword"


def range_of(summary: FieldSummary) -> dict[str, Any]:
    """The least and the greatest value of a field: of numbers or of texts, and None where it has both or neither."""
    kinds = set(summary.types) - {"null", "boolean", "array", "object"}
    ends: list[Mapping[str, Any]] = [{"min": summary.types[kind].min, "max": summary.types[kind].max} for kind in kinds]
    if not ends or ("string" in kinds and len(kinds) > 1):
        return {"min": None, "max": None}
    return {"min": min(end["min"] for end in ends), "max": max(end["max"] for end in ends)}


def is_metadata(field: str) -> bool:
    """Whether a path is one of `meta`, not of the server's document and not of this package."""
    return not field.startswith("@") and field.partition(".")[0] != OWN_KEY
