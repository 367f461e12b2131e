"""The samples that are shipped: `wordnet-sample`, entries of a dictionary with vectors, and `handbook-sample`, articles
on this server that it splits and embeds itself.

`sample_data/rows.jsonl.gz` holds id, text and metadata of 2,000 WordNet synsets, a line each;
`sample_data/vectors.f16.npy` their all-MiniLM-L6-v2 vectors, float16 [2000, 384], in the same order;
`sample_data/LICENSE` WordNet's licence. `sample_data/handbook.jsonl` holds documents as requests write them.
"""

import base64
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
from django.conf import settings
from django.db import transaction

from apps.embeddings.config import Config, built_in_provider
from apps.engine.vectors import DTYPE
from apps.libraries.inputs import ChunkInput, ChunksWrite, DocumentsWrite, Embedding, LibraryCreate
from apps.libraries.models import Library
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.documents import create_documents
from apps.libraries.services.libraries import create_library

WORDNET, HANDBOOK = "wordnet-sample", "handbook-sample"
# A query for each that answers well.
QUERIES = {
    HANDBOOK: {"text": "what if the power goes out?", "mode": "hybrid", "k": 3},
    WORDNET: {"text": "small dog", "mode": "lexical", "filter": {"topic": "noun.animal"}, "k": 3},
}

_FOLDER = Path(__file__).with_name("sample_data")
_ROWS_PER_WRITE = 500


def missing() -> list[str]:
    """The samples' libraries that do not exist."""
    there = set(Library.objects.filter(public_id__in=_LOAD).values_list("public_id", flat=True))
    return [library_id for library_id in _LOAD if library_id not in there]


def load(library_id: str) -> Iterator[int]:
    """Make a sample's library; yields how many rows each write stored. WordNet's is made whole or not at all.

    Raises Conflict where it exists, Invalid or pydantic's ValidationError where a limit of the settings is too low.
    """
    return _LOAD[library_id]()


def _load_wordnet() -> Iterator[int]:
    with transaction.atomic():
        yield from _wordnet_writes()


def _wordnet_writes() -> Iterator[int]:
    vectors = np.load(_FOLDER / "vectors.f16.npy", allow_pickle=False).astype(DTYPE)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with gzip.open(_FOLDER / "rows.jsonl.gz") as file:
        rows = [orjson.loads(line) for line in file]
    create_library(
        create=LibraryCreate(
            id=WORDNET,
            name="WordNet sample",
            description="2,000 WordNet 3.0 synsets, embedded with all-MiniLM-L6-v2. WordNet (c) Princeton University.",
            dimension=vectors.shape[1],
            metadata={"source": "WordNet 3.0", "embedding_model": "all-MiniLM-L6-v2"},
        )
    )
    step = min(_ROWS_PER_WRITE, settings.LIMITS.chunks_per_write)
    for start in range(0, len(rows), step):
        part = range(start, min(start + step, len(rows)))
        chunks = [ChunkInput(**rows[i], embedding=base64.b64encode(vectors[i].tobytes()).decode()) for i in part]
        upsert_chunks(library_id=WORDNET, write=ChunksWrite(chunks=chunks))
        yield len(part)


def _load_handbook() -> Iterator[int]:
    # A model that is here and loads at once, whatever model the settings name for others.
    provider, model = Config(provider=built_in_provider()).default
    with (_FOLDER / "handbook.jsonl").open("rb") as file:
        documents = [orjson.loads(line) | {"chunking": {"max_tokens": 128, "overlap": 16}} for line in file]
    create = LibraryCreate(
        id=HANDBOOK,
        name="Handbook sample",
        description="Articles on vector search and on this server, split and embedded by it.",
        embedding=Embedding(provider=provider, model=model),
        metadata={"source": "vectordb"},
    )
    write = DocumentsWrite(documents=documents)
    create_library(create=create)
    created = create_documents(library_id=HANDBOOK, write=write)
    yield sum(len(document["chunk_ids"]) for document in created)


_LOAD: dict[str, Callable[[], Iterator[int]]] = {WORDNET: _load_wordnet, HANDBOOK: _load_handbook}
