"""What Chroma's own client takes, in its own virtual environment: `PYTHON chroma_sdk.py PORT FOLDER ROWS` prints JSON.

FOLDER holds the vectors (benchmarks/dataset.py). The collection of the first thousand rows is queried, another is
filled by upserts of as many rows as the server takes at once.
"""

import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np


def measure(port: int, folder: Path, rows: int) -> dict[str, float]:
    import chromadb  # type: ignore[import-not-found, unused-ignore]

    vectors = np.load(folder / "vectors.f16.npy")[:rows].astype(np.float32)
    queries = np.load(folder / "queries.f16.npy").astype(np.float32)[:500]
    client = chromadb.HttpClient(host="127.0.0.1", port=port)
    small = client.create_collection("small", embedding_function=None)
    small.upsert(ids=[str(row) for row in range(1000)], embeddings=vectors[:1000])
    times = []
    for query in [*queries, *queries]:
        began = time.perf_counter()
        small.query(query_embeddings=query[None], n_results=10)
        times.append(time.perf_counter() - began)
    large = client.create_collection("large", embedding_function=None)
    size = client.get_max_batch_size()
    began = time.perf_counter()
    for start in range(0, rows, size):
        batch = vectors[start : start + size]
        large.upsert(ids=[str(start + row) for row in range(len(batch))], embeddings=batch)
    took = time.perf_counter() - began
    assert large.count() == rows
    return {"query_ms": median(times[len(queries) :]) * 1000, "rows_per_second": rows / took}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
