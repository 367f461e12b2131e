"""Search by locality-sensitive hashing; `indexes/lsh.py` says what the arrays hold.

For each query: its projections; the buckets to look into, table by table; the set of their rows, one bit each, so that
rows come out once and in ascending order; the Hamming distances of their signatures; exact scores of those at the least
distances. Most of the time goes into waiting for buckets, signatures and rows to come from memory, so buckets and rows
are asked for ahead.
"""

import numpy as np
from numba import types
from numba.cpython.unsafe.numbers import trailing_zeros

from apps.engine.kernels import jit
from apps.engine.kernels.heap import heap_push, heap_sort
from apps.engine.kernels.intrinsics import borrow, prefetch
from apps.engine.kernels.scores import EUCLIDEAN, SPACE, norm, score

# The arrays of the index, after the vectors.
_ROWS = jit.read_only(types.int32, 2)
_ARRAYS = jit.REALS, jit.VECTORS, jit.read_only(types.uint64, 2), _ROWS, _ROWS
_WORDS = jit.read_only(types.uint64, 1)
WORDS = 8
_ONE = np.uint64(1)
# A query that is longer than the rows by this factor is at one distance from all of them, in float32.
_FAR = 2.0**30
# Elements of four bytes in a cache line, and how far ahead of their use buckets and rows are asked for.
_LINE, _BUCKETS_AHEAD, _SIGNATURES_AHEAD, _ROWS_AHEAD = 16, 8, 16, 4


@jit.inline
def _count_bits(word):
    """The number of bits of the uint64 `word` that are set, as sums of ever wider fields. LLVM knows this form, and
    makes it the processor's own instruction where it has one, for eight words at once."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@jit.inline
def _distance(signatures, row, signature):
    """The number of bits in which a row of `signatures` [n, 8] and `signature` [8] differ."""
    total = np.uint64(0)
    # A constant number of words would be unrolled, and then not made vectors.
    for word in range(signatures.shape[1]):
        total += _count_bits(signatures[row, word] ^ signature[word])
    return np.int64(total)


@jit.inline
def _fill_point(vectors, row, factor, extra, frame, point):
    """Fill `point` with the centred and lifted point that stands for a row of `vectors` [n, d]; see `lsh.py`."""
    d = vectors.shape[1]
    point[d + 2 :] = np.float32(0.0)
    for j in range(d):
        point[j] = np.float32(np.float64(vectors[row, j]) * factor - frame[j])
    point[d] = np.float32(extra - frame[d])
    point[d + 1] = np.float32(frame[d + 1])


@jit.inline
def _rotate(point, signs, spare):
    """`point` after rounds of `signs` and a Hadamard transform; both arrays [size] are written to, one is the answer.

    Each pass puts the sums of neighbours into one half and the differences into the other.
    """
    half = len(point) // 2
    for sign in range(len(signs)):
        for j in range(len(point)):
            point[j] *= signs[sign, j]
        length = 1
        while length < len(point):
            for j in range(half):
                spare[j] = point[2 * j] + point[2 * j + 1]
                spare[half + j] = point[2 * j] - point[2 * j + 1]
            point, spare = spare, point
            length *= 2
    return point


@jit.inline
def _fill_signature(projections, signature):
    """Write to `signature` [8] which of the first 512 `projections` are positive."""
    for word in range(WORDS):
        bits = np.uint64(0)
        for bit in range(64):
            bits |= np.uint64(projections[64 * word + bit] > 0) << np.uint64(bit)
        signature[word] = bits


@jit.kernel(types.void(jit.VECTORS, *[jit.REALS] * 3, jit.VECTORS, types.uint64[:, ::1]))
def fill_signatures(vectors, factors, extras, frame, signs, signatures):
    """Fill `signatures` [n, 8] with those of `vectors` [n, d], whose rows have `factors` and `extras` [n]."""
    point, spare = np.empty(signs.shape[1], np.float32), np.empty(signs.shape[1], np.float32)
    for row in range(len(vectors)):
        _fill_point(vectors, row, factors[row], extras[row], frame, point)
        _fill_signature(_rotate(point, signs, spare), signatures[row])


@jit.inline
def _fill_probes(margins, order, sums, flips, spare_sums, spare_flips):
    """Fill `flips` [probes] with the sets of bits whose `margins` [bits] have the least sums, ascending; return their
    number. One bit after another is added to copies of the sets so far, and both ascending lists are merged.
    """
    for i in range(len(margins)):
        at = i
        while at > 0 and margins[order[at - 1]] > margins[i]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = i
    sums[0], flips[0], count = np.float32(0.0), 0, 1
    for i in range(len(margins)):
        margin, flip = margins[order[i]], 1 << order[i]
        if count == len(sums) and margin >= sums[count - 1]:
            break
        total = min(2 * count, len(sums))
        old, new = 0, 0
        for at in range(total):
            if old < count and (new == count or sums[old] <= sums[new] + margin):
                spare_sums[at], spare_flips[at] = sums[old], flips[old]
                old += 1
            else:
                spare_sums[at], spare_flips[at] = sums[new] + margin, flips[new] | flip
                new += 1
        sums[:total], flips[:total] = spare_sums[:total], spare_flips[:total]
        count = total
    return count


@jit.inline
def _name_rows(starts, rows, buckets, probed, named):
    """Set the bits in `named` of all rows in the first `probed` [tables] of the `buckets` [tables, probes]."""
    named[:] = 0
    for table in range(len(rows)):
        entries = borrow(rows)[table]
        for i in range(probed[table]):
            bucket = buckets[table, i]
            if i + _BUCKETS_AHEAD < probed[table]:
                ahead = np.int64(starts[table, buckets[table, i + _BUCKETS_AHEAD]])
                prefetch(entries, ahead)
                prefetch(entries, ahead + _LINE)
            for at in range(starts[table, bucket], starts[table, bucket + 1]):
                row = np.uint64(entries[at])
                named[row >> np.uint64(6)] |= _ONE << (row & np.uint64(63))


@jit.inline
def _compare(named, allowed, signature, signatures, seen, distances, counts):
    """Write the rows whose bits are in both `named` and `allowed` to `seen`, their distances from `signature` to
    `distances`, and to `counts` the number at each distance; return their number."""
    count = 0
    for word in range(len(named)):
        left = named[word] & allowed[word]
        while left:
            seen[count] = (word << 6) + np.int64(trailing_zeros(left))
            left &= left - _ONE
            count += 1
    counts[:] = 0
    for i in range(count):
        if i + _SIGNATURES_AHEAD < count:
            prefetch(signatures, np.int64(seen[i + _SIGNATURES_AHEAD]))
        distance = _distance(signatures, np.int64(seen[i]), signature)
        distances[i] = distance
        counts[distance] += 1
    return count


@jit.inline
def _nearest_codes(seen, distances, counts, count, size):
    """Move the `size` rows at the least distances to the front of `seen`, of the last distance those that come first;
    return their number."""
    furthest, below = 0, 0
    while furthest + 1 < len(counts) and below + counts[furthest] < size:
        below += counts[furthest]
        furthest += 1
    ties = size - below
    chosen = 0
    for i in range(count):
        if distances[i] < furthest or (distances[i] == furthest and ties > 0):
            ties -= distances[i] == furthest
            seen[chosen] = seen[i]
            chosen += 1
    return chosen


@jit.kernel(types.void(jit.INT, jit.VECTORS, *_ARRAYS, jit.VECTORS, _WORDS, *[jit.INT] * 3, *jit.ANSWERS, jit.COUNTS))
def search(
    metric, vectors, frame, signs, signatures, starts, rows, queries, allowed, probes, held, size, places, scores, met
):
    """Find the k best of the `size` rows of `vectors` with the nearest signatures, for each of `queries` [m, d].

    A query looks into up to `probes` buckets of each table, until they hold `held` rows. It is compared with all rows
    where `probes` is 0, where the buckets hold n rows, counting repetitions, and where they hold fewer than k that are
    `allowed`, which has a bit for each. Fills `places` and `scores` [m, k], and `met` [m]: the signatures compared.
    """
    tables, n = rows.shape
    bits = 0
    while 1 << bits < starts.shape[1] - 1:
        bits += 1
    point, spare = np.empty(signs.shape[1], np.float32), np.empty(signs.shape[1], np.float32)
    query, lanes, by_position = np.empty(queries.shape[1]), np.empty(SPACE), np.empty(0, np.int64)
    margins, order = np.empty(bits, np.float32), np.empty(bits, np.int64)
    sums, spare_sums = np.empty(probes, np.float32), np.empty(probes, np.float32)
    flips, spare_flips = np.empty(probes, np.int64), np.empty(probes, np.int64)
    buckets, probed = np.empty((tables, probes), np.int64), np.empty(tables, np.int64)
    signature, named = np.empty(WORDS, np.uint64), np.empty(len(allowed), np.uint64)
    seen, distances, counts = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(64 * WORDS + 1, np.int64)
    for m in range(len(queries)):
        for j in range(len(query)):
            query[j] = queries[m, j]
        query_norm = norm(queries, m, query, lanes)
        length = query_norm if query_norm > 0.0 else 1.0
        factor = min(frame[-1], _FAR / length) if metric == EUCLIDEAN else 1.0 / length
        _fill_point(queries, m, factor, 0.0, frame, point)
        projections = _rotate(point, signs, spare)
        _fill_signature(projections, signature)
        entries = 0 if probes else n
        for table in range(tables if probes else 0):
            key = 0
            for bit in range(bits):
                projection = projections[table * bits + bit]
                margins[bit] = abs(projection)
                key |= np.int64(projection > 0) << bit
            probed[table] = 0
            left = held
            for i in range(_fill_probes(margins, order, sums, flips, spare_sums, spare_flips)):
                if left <= 0:
                    break
                bucket = key ^ flips[i]
                buckets[table, i] = bucket
                left -= starts[table, bucket + 1] - starts[table, bucket]
                probed[table] = i + 1
            entries += held - left
        count = 0
        if entries < n:
            _name_rows(starts, rows, buckets, probed, named)
            count = _compare(named, allowed, signature, signatures, seen, distances, counts)
        if count < places.shape[1]:
            count = _compare(allowed, allowed, signature, signatures, seen, distances, counts)
        met[m] = count
        chosen = _nearest_codes(seen, distances, counts, count, size)
        best_scores, best_places, found = scores[m], places[m], 0
        for i in range(chosen):
            if i + _ROWS_AHEAD < chosen:
                prefetch(vectors, np.int64(seen[i + _ROWS_AHEAD]))
            row = np.int64(seen[i])
            value = score(metric, vectors, row, query, query_norm, lanes)
            found = heap_push(best_scores, best_places, by_position, found, value, row)
        heap_sort(best_scores, best_places, by_position, found)
