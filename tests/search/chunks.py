"""Chunks of three dimensions, written as clients write them."""

from typing import Any

import numpy as np

from apps.engine.vectors import Float32
from apps.libraries.inputs import ChunksWrite
from apps.libraries.services.chunks import upsert_chunks


def upsert(rows: dict[str, Any], library_id: str = "a") -> None:
    """Write the vectors of `rows`, which are named by the chunks' ids; None for a chunk without one."""
    chunks = [
        {"id": key, "embedding": None if vector is None else np.asarray(vector, float).tolist()}
        for key, vector in rows.items()
    ]
    upsert_chunks(library_id=library_id, write=ChunksWrite.model_validate({"chunks": chunks}))


def noise(names: list[str], seed: int = 0) -> dict[str, Float32]:
    """A random vector for each name."""
    vectors = np.random.default_rng(seed).standard_normal((len(names), 3)).astype(np.float32)
    return dict(zip(names, vectors, strict=True))
