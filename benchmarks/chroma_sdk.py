"""What Chroma's own client takes, in its own virtual environment: `PYTHON chroma_sdk.py PORT FOLDER ROWS` reads lines,
and answers each with a number. `query` is the median time of 500 queries in milliseconds, and `upload` rows a second.

FOLDER holds the data (benchmarks/dataset.py). A collection of the thousand rows of the library `small`, with their
texts and metadata, is queried, and shows both, as that library does; another is filled with vectors and ids by upserts
of as many rows as the server takes at once. A list in the metadata is its JSON text, as in benchmarks/peers.py.
"""

import gzip
import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np


class Chroma:
    """Chroma's client, and a collection of a thousand rows."""

    def __init__(self, port: int, folder: Path) -> None:
        import chromadb  # type: ignore[import-not-found, unused-ignore]

        with gzip.open(folder / "rows.jsonl.gz") as file:
            lines = file.read().splitlines()
        some = range(0, len(lines), len(lines) // 1000)[:1000]
        chunks = [json.loads(lines[row]) for row in some]
        self._vectors = np.load(folder / "vectors.f16.npy").astype(np.float32)
        self._queries = np.load(folder / "queries.f16.npy").astype(np.float32)[:500]
        self._client = chromadb.HttpClient(host="127.0.0.1", port=port)
        self._small = self._client.create_collection("small", embedding_function=None)
        self._small.upsert(
            ids=[chunk["id"] for chunk in chunks],
            embeddings=self._vectors[list(some)],
            documents=[chunk["text"] for chunk in chunks],
            metadatas=[
                {name: json.dumps(one) if isinstance(one, list) else one for name, one in chunk["metadata"].items()}
                for chunk in chunks
            ],
        )

    def query(self) -> float:
        """The median time of a query, in milliseconds."""
        times = []
        for query in self._queries:
            began = time.perf_counter()
            self._small.query(query_embeddings=query[None], n_results=10)
            times.append(time.perf_counter() - began)
        return median(times) * 1000

    def upload(self, rows: int) -> float:
        """Rows a second."""
        large = self._client.create_collection("large", embedding_function=None)
        size = self._client.get_max_batch_size()
        began = time.perf_counter()
        for start in range(0, rows, size):
            batch = self._vectors[start : min(start + size, rows)]
            large.upsert(ids=[str(start + row) for row in range(len(batch))], embeddings=batch)
        took = time.perf_counter() - began
        assert large.count() == rows
        return rows / took


if __name__ == "__main__":
    chroma = Chroma(int(sys.argv[1]), Path(sys.argv[2]))
    for line in sys.stdin:
        print(chroma.query() if line == "query\n" else chroma.upload(int(sys.argv[3])), flush=True)
