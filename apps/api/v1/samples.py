"""Bodies that work on a fresh server, where they stand alone; shown in the browsable API and the schema."""

LIBRARY = {"id": "notes", "name": "Notes", "dimension": 3, "metric": "cosine"}
LIBRARY_UPDATE = {"name": "My notes", "description": "Things worth finding again"}
CHUNKS = {
    "chunks": [
        {"id": "apple", "text": "An apple a day", "embedding": [0.9, 0.1, 0.0], "metadata": {"kind": "fruit"}},
        {"id": "rose", "text": "A rose is a rose", "embedding": [0.1, 0.9, 0.2], "metadata": {"kind": "flower"}},
    ],
    "mode": "upsert",
}
CHUNK_UPDATE = {"metadata": {"kind": "fruit", "colour": "red"}}
CHUNKS_GET = {"ids": ["apple", "rose"], "include": ["embedding"]}
CHUNKS_DELETE = {"ids": ["rose"]}
DOCUMENT = {
    "id": "proverbs",
    "title": "Proverbs",
    "chunks": [
        {"id": "early-bird", "text": "The early bird catches the worm", "embedding": [0.2, 0.3, 0.9]},
        {"id": "rolling-stone", "text": "A rolling stone gathers no moss", "embedding": [0.5, 0.1, 0.7]},
    ],
}
DOCUMENTS = {"documents": [DOCUMENT]}
DOCUMENT_UPDATE = {"title": "English proverbs"}
QUERY = {"vector": [1.0, 0.0, 0.0], "k": 3, "include": ["text", "metadata"]}
QUERIES = {"queries": [{"vector": [1.0, 0.0, 0.0], "k": 1}, {"chunk_id": "apple", "k": 2}]}
