"""Bodies that show the shape of a request, in the schema and behind the empty forms of the browsable API.

They are harmless where they are sent as they are: what they write has ids of its own and replaces nothing, and what
they delete is only what they wrote.
"""

from typing import Any, TypeAlias

Body: TypeAlias = dict[str, Any]

LIBRARY: Body = {"id": "example", "name": "Example", "dimension": 3, "metric": "cosine"}
LIBRARY_UPDATE: Body = {"description": "Things worth finding again"}
KEY: Body = {"name": "The website's search", "scopes": ["read"], "libraries": ["example"]}
KEY_UPDATE: Body = {"name": "The website's search, the old one"}
KEY_ROTATION: Body = {"overlap_seconds": 3600}
BACKUP: Body = {"test_restore": False}
SEARCH_TOKEN: Body = {
    "libraries": ["example"],
    "filter": {"kind": "fruit"},
    "include": ["text"],
    "expires_at": "2030-01-01T00:00:00Z",
}
REINDEX: Body = {"index_type": "auto"}
REEMBED: Body = {"embedding": {"provider": "hashing", "model": "hashing-1024"}}
CHUNKS: Body = {
    "chunks": [
        {"id": "example-1", "text": "An apple a day", "embedding": [0.9, 0.1, 0.0], "metadata": {"kind": "fruit"}},
        {"id": "example-2", "text": "A rose is a rose", "embedding": [0.1, 0.9, 0.2], "metadata": {"kind": "flower"}},
    ],
    "mode": "insert",
}
CHUNK_UPDATE: Body = {"metadata": {"kind": "fruit", "colour": "red"}}
CHUNKS_GET: Body = {"ids": ["example-1", "example-2"], "include": ["embedding"]}
CHUNKS_DELETE: Body = {"ids": ["example-2"]}
CHUNKS_UPDATE: Body = {"filter": {"kind": "example"}, "metadata": {"reviewed": True}}
CHUNKS_COUNT: Body = {"filter": {"kind": "fruit"}}
CHUNKS_LIST: Body = {"order_by": [{"field": "kind"}, {"field": "@created_at", "direction": "desc"}], "limit": 10}
CHUNKS_FIELDS: Body = {"fields": ["kind", "colour"]}
CHUNKS_FACETS: Body = {"field": "kind"}
DOCUMENT: Body = {
    "title": "Proverbs",
    "chunks": [
        {"text": "The early bird catches the worm", "embedding": [0.2, 0.3, 0.9]},
        {"text": "A rolling stone gathers no moss", "embedding": [0.5, 0.1, 0.7]},
    ],
}
DOCUMENTS: Body = {
    "documents": [DOCUMENT, {"title": "Sayings", "chunks": [{"text": "A watched pot never boils", "embedding": None}]}]
}
DOCUMENT_UPDATE: Body = {"title": "English proverbs"}
# By words, which every library can be asked for.
QUERY: Body = {"text": "search", "mode": "lexical", "k": 3}
QUERIES: Body = {"queries": [QUERY, {"text": "animal", "mode": "lexical", "k": 3}]}
# A line of JSON for each chunk.
IMPORT = """\
{"id": "example-3", "text": "Every rose has its thorn", "embedding": [0.1, 0.8, 0.4], "metadata": {"kind": "flower"}}
{"id": "example-4", "text": "The apple never falls far from the tree", "embedding": [0.8, 0.2, 0.3]}
"""
MCP: Body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}

SAMPLE = "handbook-sample"
# The names say which sample library answers the query, and what it shows.
SAMPLE_QUERIES: dict[str, Body] = {
    "handbook-sample: by meaning and by words": {"text": "what if the power goes out?", "mode": "hybrid", "k": 3},
    "handbook-sample: by meaning": {"text": "what if the power goes out?", "k": 3, "include": ["text", "document"]},
    "handbook-sample: by words": {"text": '"embedding model" vectors', "mode": "lexical", "k": 3},
    "handbook-sample: the best documents": {"text": "how to copy the data", "group_by": "document", "group_size": 2},
    "handbook-sample: results unlike each other": {"text": "search", "mmr": {"lambda": 0.5, "fetch_k": 20}, "k": 5},
    "wordnet-sample: by words, with a filter": {
        "text": "small dog",
        "mode": "lexical",
        "filter": {"topic": "noun.animal", "synonyms": {"$gte": 2}},
    },
    "wordnet-sample: like a chunk": {"chunk_id": "n02084071", "k": 5, "include": ["text"]},
}
SAMPLE_BATCHES: dict[str, Body] = {
    "handbook-sample: by meaning, and by words": {
        "queries": [{"text": "what if the power goes out?", "k": 3}, {"text": "backup", "mode": "lexical", "k": 3}]
    }
}
