"""How much an approximate index finds, and at which speed: each query is asked once exactly and once by the index.

    python examples/evaluate.py [LIBRARY] [QUERIES]

Queries are vectors of chunks of the library. `manage.py evaluate` judges answers by people's judgements.
"""

import sys
import time

from vectordb_client import Client

K = 10
library = Client().library(sys.argv[1] if len(sys.argv) > 1 else "wordnet-sample")
count = int(sys.argv[2]) if len(sys.argv) > 2 else 100

queries = []
for chunk in library.chunks(include=["embedding"]):
    queries.append(chunk.embedding)
    if len(queries) == count:
        break

for recall in (None, 0.9, 0.99):
    found, taken = 0, 0.0
    for query in queries:
        exact = library.query(query, k=K, exact=True, include=[])
        began = time.perf_counter()
        params = {"recall": recall} if recall else None
        hits = library.query(query, k=K, include=[], search_params=params)
        taken += time.perf_counter() - began
        # By score: of equals, either is right.
        found += sum(hit.score >= exact[-1].score for hit in hits)
    aim = f"recall {recall}" if recall else "as it is"
    print(
        f"{aim}: {found / (K * len(queries)):.4f} of the best {K} found, {taken / len(queries) * 1000:.2f} ms a query"
    )
