"""The reference of a cold start: all vectors from the database's file into numpy, and one query, without Django.

Run as `python -m benchmarks.bare_scan DIMENSION` with VECTORDB_DATA_DIR set.
"""

import os
import sqlite3
import sys
from pathlib import Path

import numpy as np


def main(dimension: int) -> None:
    file = Path(os.environ["VECTORDB_DATA_DIR"], "vectordb.sqlite3").absolute()
    database = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    rows = database.execute(
        "SELECT vector FROM vectordb_embedding JOIN vectordb_chunk AS chunk ON chunk.id = chunk_id"
        " JOIN vectordb_library AS library ON library.id = library_id"
        " WHERE library.public_id = 'all'"
    )
    vectors = np.frombuffer(b"".join(vector for (vector,) in rows), np.float32).reshape(-1, dimension)
    scores = vectors @ vectors[0]
    print(np.argpartition(scores, len(scores) - 1)[-1])


if __name__ == "__main__":
    main(int(sys.argv[1]))
