"""Locality-sensitive hashing by numpy, what `apps.engine.kernels.lsh` is compared with."""

import numpy as np

from apps.engine import selection
from apps.engine.indexes.base import NO_PARAMS, Params
from apps.engine.indexes.lsh import SIGNATURE_BITS, Int32, Lsh, Words, table_keys
from apps.engine.indexes.matrix import Neighbors
from apps.engine.metrics import Metric, exact_scores, row_norms
from apps.engine.vectors import Float32, Float64, Mask

# A query that is longer than the rows by this factor is at one distance from all of them, in float32.
FAR = 2.0**30


def search(index: Lsh, queries: Float32, k: int, allowed: Mask | None = None, params: Params = NO_PARAMS) -> Neighbors:
    """What `index.search` finds."""
    mask = np.ones(len(index), np.bool_) if allowed is None else allowed
    effort = index.effort(params, int(np.count_nonzero(mask)), k)
    if effort is None:
        return index.matrix.search(queries, k, allowed)
    probes, held, scored = effort
    m, metric = len(queries), index.matrix.metric
    positions, scores, compared = np.empty((m, k), np.int64), np.empty((m, k), np.float32), np.empty(m, np.int64)
    for i, projections in enumerate(project_queries(index, queries)):
        named = np.zeros(len(index), np.bool_)
        if probes:
            entries = probe(projections, index.arrays.starts, index.arrays.rows, probes, held)
            named[entries] = len(entries) < len(index)
        rows = np.flatnonzero(named & mask)
        if len(rows) < k:
            rows = np.flatnonzero(mask)
        differing = index.arrays.signatures[rows] ^ signatures_of(projections[None])
        nearest = rows[np.argsort(np.bitwise_count(differing).sum(axis=1), kind="stable")[:scored]]
        exact = exact_scores(metric, index.matrix.vectors, queries[i], nearest)
        best = selection.best(exact, nearest, k)
        positions[i], scores[i], compared[i] = nearest[best], exact[best], len(rows)
    return Neighbors(positions, scores, compared, proven=np.zeros(m, np.bool_), scanned=np.zeros(m, np.bool_))


def project(vectors: Float32, factors: Float64, extras: Float64, frame: Float64, signs: Float32) -> Float32:
    """Signed distances [n, 512] of the points that stand for `vectors` [n, d] from the hyperplanes."""
    d, size = vectors.shape[1], signs.shape[1]
    points = np.zeros((len(vectors), size), np.float32)
    points[:, :d] = vectors * factors[:, None] - frame[:d]
    points[:, d] = extras - frame[d]
    points[:, d + 1] = frame[d + 1]
    for signs_of_round in signs:
        points *= signs_of_round
        for _ in range(size.bit_length() - 1):
            even, odd = points[:, ::2], points[:, 1::2]
            points = np.concatenate([even + odd, even - odd], axis=1)
    return points[:, :SIGNATURE_BITS]


def signatures_of(projections: Float32) -> Words:
    """Signatures [n, 8] of `projections` [n, 512]: which are positive."""
    return np.packbits(projections > 0.0, axis=1, bitorder="little").view(np.uint64)


def row_signatures(index: Lsh) -> Words:
    """The signatures [n, 8] of the index's rows."""
    vectors, metric, frame = index.matrix.vectors, index.matrix.metric, index.arrays.frame
    norms = row_norms(vectors)
    factors, extras = np.full(len(norms), frame[-1]), np.zeros(len(norms))
    with np.errstate(divide="ignore"):
        if metric is Metric.COSINE:
            factors = 1.0 / norms
        elif metric is Metric.DOT:
            factors = np.minimum(factors, 1.0 / norms)
            extras = np.sqrt(np.maximum(0.0, 1.0 - (norms * factors) ** 2))
    return signatures_of(project(vectors, factors, extras, frame, index.arrays.signs))


def project_queries(index: Lsh, queries: Float32) -> Float32:
    """Projections [m, 512] of `queries` [m, d]."""
    frame, norms = index.arrays.frame, row_norms(queries)
    lengths = np.where(norms > 0.0, norms, 1.0)
    factors = np.minimum(frame[-1], FAR / lengths) if index.matrix.metric is Metric.EUCLIDEAN else 1.0 / lengths
    return project(queries, factors, np.zeros(len(queries)), frame, index.arrays.signs)


def probe(projections: Float32, starts: Int32, rows: Int32, probes: int, held: int) -> Int32:
    """The rows, with repetitions, of the buckets that a query with these `projections` [512] looks into."""
    tables, bits = len(rows), (starts.shape[1] - 1).bit_length() - 1
    signature = signatures_of(projections[None])
    keys = np.stack([table_keys(signature, table, bits) for table in range(tables)]).astype(np.int64)
    margins = np.abs(projections[: tables * bits]).reshape(tables, bits)
    order = np.argsort(margins, axis=1, kind="stable")
    # Sets of flipped bits in each table, those with the least sums of margins first: bit by bit, each set so far is
    # taken with it too.
    sums, flips = np.zeros((tables, 1), np.float32), np.zeros((tables, 1), np.int64)
    for i in range(bits):
        bit = order[:, i : i + 1]
        sums = np.concatenate([sums, sums + np.take_along_axis(margins, bit, 1)], axis=1)
        flips = np.concatenate([flips, flips | (1 << bit)], axis=1)
        least = np.argsort(sums, axis=1, kind="stable")[:, :probes]
        sums, flips = np.take_along_axis(sums, least, 1), np.take_along_axis(flips, least, 1)
    buckets = keys ^ flips
    begin, end = (np.take_along_axis(starts, buckets + after, 1) for after in (0, 1))
    sizes = (end - begin).astype(np.int64)
    within = np.cumsum(sizes, axis=1) - sizes < held
    parts = zip(np.nonzero(within)[0], begin[within], end[within], strict=True)
    return np.concatenate([rows[table, first:last] for table, first, last in parts])
