"""Calls by the client of openapi-python-client, which sends every optional field that has a default."""

import sys
from http import HTTPStatus
from typing import TypeVar

from vectordb_client import Client
from vectordb_client.api.chunks import delete_chunk, get_chunk, list_chunks, write_chunks
from vectordb_client.api.documents import create_document, delete_document
from vectordb_client.api.libraries import create_library, library_stats, update_library
from vectordb_client.api.query import query
from vectordb_client.models import (
    ChunkInput,
    ChunkInputMetadata,
    ChunksWrite,
    DocumentWrite,
    Embedding,
    LibraryCreate,
    LibraryCreateIndexType,
    LibraryUpdate,
    Problem,
    QuerySpec,
    QuerySpecFilter,
    QuerySpecMode,
)

T = TypeVar("T")


def ok(answer: T | Problem | None) -> T:
    """The answer, which is no problem."""
    assert answer is not None
    assert not isinstance(answer, Problem), answer
    return answer


def chunk(name: str, text: str, kind: str) -> ChunkInput:
    """A chunk whose metadata have one field."""
    return ChunkInput(id=name, text=text, metadata=ChunkInputMetadata.from_dict({"kind": kind}))


client = Client(base_url=sys.argv[1], headers={"Authorization": sys.argv[2]}, raise_on_unexpected_status=True)

hashing = Embedding(provider="hashing", model="hashing-1024")
create = LibraryCreate(id="python", name="Python", index_type=LibraryCreateIndexType.LSH, embedding=hashing)
library = ok(create_library.sync(client=client, body=create))
assert library.dimension == 1024
assert library.created_at.tzinfo is not None

renamed = ok(update_library.sync("python", client=client, body=LibraryUpdate(name="Python's")))
assert (renamed.name, renamed.index_type) == ("Python's", "lsh")

chunks = [
    chunk("apple", "An apple a day keeps the doctor away", "fruit"),
    chunk("rose", "A rose is a rose is a rose", "flower"),
    chunk("pear", "The pear does not fall far from the tree", "fruit"),
]
written = ok(write_chunks.sync("python", client=client, body=ChunksWrite(chunks=chunks)))
assert (written.ids, written.created) == (["apple", "rose", "pear"], 3)

rose = ok(get_chunk.sync("python", "rose", client=client, include=["embedding"]))
assert isinstance(rose.embedding, list)
assert rose.document_id is None

fruit = QuerySpecFilter.from_dict({"kind": "fruit"})
by_vector = ok(query.sync("python", client=client, body=QuerySpec(vector=rose.embedding, filter_=fruit)))
assert {result.id for result in by_vector.results} == {"apple", "pear"}
assert by_vector.meta.revision > 0

by_text = ok(query.sync("python", client=client, body=QuerySpec(text="a rose")))
assert by_text.results[0].id == "rose"

spec = QuerySpec(text="the doctor", mode=QuerySpecMode.HYBRID, k=1)
[hit] = ok(query.sync("python", client=client, body=spec)).results
assert (hit.id, hit.vector_rank, hit.lexical_rank) == ("apple", 1, 1)

page = ok(list_chunks.sync("python", client=client, limit=2))
assert page.next_cursor is not None
rest = ok(list_chunks.sync("python", client=client, limit=2, cursor=page.next_cursor))
assert [item.id for item in page.items + rest.items] == ["apple", "rose", "pear"]
assert rest.next_cursor is None

document = DocumentWrite(id="proverbs", text="A watched pot never boils. Many hands make light work.")
assert ok(create_document.sync("python", client=client, body=document)).chunk_count == 1

url = "https://example.com/a//b?c=d e#f%2F"
ok(write_chunks.sync("python", client=client, body=ChunksWrite(chunks=[chunk(url, "A page", "page")])))
assert ok(get_chunk.sync("python", url, client=client)).id == url
assert delete_chunk.sync_detailed("python", url, client=client).status_code == HTTPStatus.NO_CONTENT

stats = ok(library_stats.sync("python", client=client))
assert (stats.documents, stats.chunks, stats.reembedding) == (1, 4, None)

deleted = delete_document.sync_detailed("python", "proverbs", client=client)
assert deleted.status_code == HTTPStatus.NO_CONTENT

refused = query.sync("python", client=client, body=QuerySpec(vector=[1.0]))
assert isinstance(refused, Problem)
assert (refused.status, refused.code, refused.errors[0].pointer) == (400, "invalid", "/vector")
