"""A program: what a process does with an installation that it may not write to."""

import json
import sys

from apps.engine import kernels
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import index_type
from apps.engine.metrics import Metric
from tests.engine.approximate import embeddings

if __name__ == "__main__":
    kernels.load()
    vectors, queries = embeddings(9000, 80), embeddings(5, 80, seed=1)
    kind = "lsh" if kernels.are_loaded() else "brute_force"
    found = index_type(kind).build(Matrix.build(vectors, Metric.COSINE)).search(queries, 10)
    statistics = [kernels.get(kind).search.stats] if kernels.are_loaded() else []
    said = {
        "loaded": kernels.are_loaded(),
        "missing": kernels.are_missing(),
        "scanned": bool(found.scanned.all()),
        "exact": found.exact,
        "compiled": sum(one.cache_misses.total() for one in statistics),
    }
    sys.stdout.write(json.dumps(said))
