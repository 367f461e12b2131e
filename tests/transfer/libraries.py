"""A library with everything that a file must keep, and what is compared of two."""

from typing import Any

import numpy as np

from apps.libraries import selectors
from apps.libraries.inputs import ChunksWrite, DocumentInput, LibraryCreate
from apps.libraries.models import Chunk, Document, Embedding, Library
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.documents import create_document, replace_document
from apps.libraries.services.libraries import create_library

_OF_CHUNK = ("public_id", "document__public_id", "position", "text", "embed_text", "expires_at", "created_at")
_OF_DOCUMENT = ("public_id", "title", "source", "expires_at", "created_at")


def make_library(id: str = "a", *, rows: int = 5) -> None:
    """Documents with and without chunks, one whose chunks were moved; chunks alone, without a vector, expired."""
    fields: dict[str, Any] = {"name": "Ä", "description": "d", "dimension": 3, "metric": "dot", "unindexed": ["body"]}
    create_library(create=LibraryCreate(id=id, metadata={"n": 1}, **fields))

    def chunk(name: str, **fields: Any) -> dict[str, Any]:
        return {"id": name, "text": f"text of {name}\nand \u2028 \U0001f600", "embedding": [1, 0.1, -3e8], **fields}

    def document(*chunks: dict[str, Any], **fields: Any) -> DocumentInput:
        return DocumentInput.model_validate({"chunks": list(chunks), **fields})

    kept = document(chunk("d/1"), chunk("d/2"), id="d", title="T", source="s", metadata={"x": [1, 1.0, True, 1e300]})
    create_document(library_id=id, document=kept)
    moved = document(chunk("d/2"), chunk("d/0"), chunk("d/1"), title="T", source="s", metadata=kept.metadata)
    replace_document(library_id=id, document_id="d", document=moved)
    create_document(library_id=id, document=document(chunk("gone"), id="empty", expires_at="2999-01-01T00:00:00Z"))
    Chunk.objects.filter(public_id="gone").delete()
    alone = [
        chunk(f"c{i}", metadata={"i": i, "null": None}, embed_text=f"e{i}", embedding=[i, 0.1, -3e8])
        for i in range(rows)
    ]
    alone += [chunk("bare", embedding=None), chunk("late", expires_at="2999-01-01T00:00:00.5Z")]
    upsert_chunks(library_id=id, write=ChunksWrite.model_validate({"chunks": alone}))
    upsert_chunks(library_id=id, write=ChunksWrite.model_validate({"chunks": [chunk("over")]}))
    Chunk.objects.filter(public_id="over").update(expires_at="2000-01-01T00:00:00Z")


def content(id: str) -> dict[str, Any]:
    """All that is kept of a library's rows, in their order, without what has expired."""
    library = Library.objects.get(public_id=id)
    data = selectors.library_data(library)
    chunks = Chunk.objects.filter(library=library).exclude(public_id="over")
    vectors = dict(Embedding.objects.filter(chunk__in=chunks).values_list("chunk__public_id", "vector"))
    return {
        "library": {name: data[name] for name in data if name not in ("id", "created_at", "updated_at")},
        "documents": list(Document.objects.filter(library=library).values_list(*_OF_DOCUMENT)),
        "chunks": list(chunks.values_list(*_OF_CHUNK)),
        # As JSON text: 1, 1.0 and true are equal in Python.
        "metadata": [repr(row.metadata) for row in [*Document.objects.filter(library=library), *chunks]],
        "vectors": {name: np.frombuffer(vector, np.float32).tolist() for name, vector in vectors.items()},
    }
