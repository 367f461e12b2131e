"""The sample that is shipped: 2,000 WordNet synsets with their all-MiniLM-L6-v2 embeddings.

`sample_data/rows.jsonl.gz` holds id, text and metadata, a line each; `sample_data/vectors.f16.npy` their vectors,
float16 [2000, 384], in the same order; `sample_data/LICENSE` WordNet's licence.
"""

import base64
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
from django.conf import settings
from django.db import transaction

from apps.engine.vectors import DTYPE
from apps.libraries.inputs import ChunkInput, ChunksWrite, LibraryCreate
from apps.libraries.models import Library
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.libraries import create_library

LIBRARY_ID = "wordnet-sample"
ROWS = 2000
EXAMPLE_ID = "n02084071"  # dog

_FOLDER = Path(__file__).with_name("sample_data")
_ROWS_PER_WRITE = 500


def is_loaded() -> bool:
    """Whether the sample's library exists."""
    return Library.objects.filter(public_id=LIBRARY_ID).exists()


def load() -> Iterator[int]:
    """Make the sample's library, whole or not at all; yields how many rows each write stored.

    Raises Conflict where it exists, pydantic's ValidationError where a limit of the settings is too low for it.
    """
    with transaction.atomic():
        yield from _load()


def _load() -> Iterator[int]:
    vectors = np.load(_FOLDER / "vectors.f16.npy", allow_pickle=False).astype(DTYPE)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with gzip.open(_FOLDER / "rows.jsonl.gz") as file:
        rows = [orjson.loads(line) for line in file]
    create_library(
        create=LibraryCreate(
            id=LIBRARY_ID,
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
        upsert_chunks(library_id=LIBRARY_ID, write=ChunksWrite(chunks=chunks))
        yield len(part)
