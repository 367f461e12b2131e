"""Approximate index types that index few rows already."""

from apps.engine.indexes.hnsw import Hnsw
from apps.engine.indexes.ivf import Ivf
from apps.engine.indexes.lsh import Lsh
from apps.engine.indexes.quantized import Quantized


class SmallLsh(Lsh):
    scan_size = 200 * 12


class SmallHnsw(Hnsw):
    fewest_nodes = 150
    walk_cost = 1


class SmallQuantized(Quantized):
    # Of rows of few dimensions, a short list of the best by their codes holds fewer than a build usually wants.
    fewest_rows = 640
    enough = 0.9


class SmallIvf(Ivf):
    fewest_rows = 640
    enough = 0.9


TYPES = {one.kind: f"{one.__module__}:{one.__name__}" for one in (SmallLsh, SmallHnsw, SmallQuantized, SmallIvf)}
