"""Exact scores of rows, in one fixed order of summation; the best rows so far; and the k nearest rows of a matrix.

A sum over d terms is made in sixteen lanes: lane j adds the terms j, j + 16, j + 32 and so on of the first d - d % 16
terms, in that order; the lanes are folded in halves, and the last d % 16 terms are added one by one. `metrics` does
the same with numpy, and both get the same float64 bit for bit. The sums are written as vectors of LLVM's, which it may
not reorder. A product of two float32 is exact in float64, so it makes no difference whether the machine fuses it with
the addition; squared differences are rounded, and are never fused.

A better row has a higher score or, at the same score, a lower rank: its number in `order` [n], or its position where
`order` is empty. The best rows so far are a binary heap with the worst of them on top, in two arrays of k.

`nearest` goes through the rows once: a float32 product, of which `metrics` bounds the error, decides on all but a few,
and these are scored exactly. A row of 384 floats in the cache takes some 17 ns, an exact score 40 to 60.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

COSINE, DOT, EUCLIDEAN = 0, 1, 2
LANES = 16

_CHUNK = 256
_AHEAD = 4
# Rows of a chunk that are looked at one by one where one of them may be among the best.
_GROUP = 32
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_Term = Callable[[ir.IRBuilder, ir.Value, ir.Value, ir.Value], ir.Value]


def read_only(dtype: types.Type, dimensions: int) -> types.Array:
    """The type of a C-contiguous array that is only read; arrays that may be written pass for it too."""
    return types.Array(dtype, dimensions, "C", readonly=True)


def loaded(builder: ir.IRBuilder, pointer: ir.Value, vector: ir.VectorType) -> ir.Value:
    """The vector that begins at `pointer`, wherever that points."""
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = 1
    return value


@intrinsic
def borrowed(typing_context: Any, array: types.Array) -> Any:
    """The same array without a count of references, which costs more than a step of a heap. Only for an array that
    the caller of the function holds, and never to be returned."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        made.meminfo = ir.Constant(made.meminfo.type, None)
        return made._getvalue()

    return array(array), generate


@intrinsic
def fetch(typing_context: Any, array: Any, row: Any) -> Any:
    """Ask for the lines of the cache in which a row of `array` [n, w] lies; it need not exist."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, matrix.strides)[0]
        begin = builder.gep(builder.bitcast(matrix.data, cgutils.voidptr_t), [builder.mul(stride, arguments[1])])
        function = ir.FunctionType(ir.VoidType(), [begin.type, *[ir.IntType(32)] * 3])
        prefetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        # To read, to be kept, data.
        how = [ir.Constant(ir.IntType(32), number) for number in (0, 3, 1)]
        first, step = (ir.Constant(stride.type, number) for number in (0, 64))
        with cgutils.for_range_slice(builder, first, stride, step, stride.type) as (place, _):
            builder.call(prefetch, [builder.gep(begin, [place]), *how])
        return context.get_dummy_value()

    return types.void(array, row), generate


def _sum_in_lanes(term: _Term, lanes: ir.VectorType) -> Any:
    """A function of (vectors [n, d] float32, row, query) that adds up `term` over the blocks of sixteen.

    In float64 these are the first d - d % 16 elements. In float32, where the order does not matter, the last sixteen
    are added once more; `query` is laid out for that by `_padded`.
    """

    @intrinsic
    def summed(typing_context: Any, vectors: types.Array, row: types.Integer, query: types.Array) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
            other = context.make_array(signature.args[2])(context, builder, arguments[2])
            dimension = cgutils.unpack_tuple(builder, matrix.shape)[1]
            first = builder.gep(matrix.data, [builder.mul(arguments[1], dimension)])

            def at(number: int) -> ir.Constant:
                return ir.Constant(dimension.type, number)

            # In float32, where the order does not matter, several totals need not wait for one another.
            totals = [
                cgutils.alloca_once_value(builder, ir.Constant(lanes, [0.0] * LANES))
                for _ in range(1 if lanes is _DOUBLES else 4)
            ]

            def add(total: ir.Value, place: ir.Value, query_place: ir.Value) -> None:
                x = loaded(builder, builder.gep(first, [place]), _FLOATS)
                x = builder.fpext(x, lanes) if lanes is _DOUBLES else x
                y = loaded(builder, builder.gep(other.data, [query_place]), lanes)
                builder.store(term(builder, x, y, builder.load(total)), total)

            done, end = at(0), builder.and_(dimension, at(-LANES))
            for together in sorted({len(totals), 1}, reverse=True):
                start, done = done, builder.and_(dimension, at(-LANES * together))
                with cgutils.for_range_slice(builder, start, done, at(LANES * together), dimension.type) as (place, _):
                    for i in range(together):
                        block = builder.add(place, at(LANES * i))
                        add(totals[i], block, block)
            if lanes is _FLOATS:
                add(totals[0], builder.sub(dimension, at(LANES)), end)
            vector = builder.load(totals[0])
            for total in totals[1:]:
                vector = builder.fadd(vector, builder.load(total))
            return _folded(builder, vector)

        return (types.float64 if lanes is _DOUBLES else types.float32)(vectors, row, query), generate

    return summed


def _folded(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The sum of a vector's lanes: the upper half is added to the lower, until one is left."""
    half = LANES
    while half > 1:
        half //= 2
        low, high = (list(range(start, start + half)) for start in (0, half))
        kept = [ir.Constant(ir.VectorType(ir.IntType(32), half), lanes) for lanes in (low, high)]
        vector = builder.fadd(*(builder.shuffle_vector(vector, vector, lanes) for lanes in kept))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def product_added(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    """x * y + total of vectors of sixteen, fused where the machine does that as fast."""
    function = ir.FunctionType(x.type, [x.type] * 3)
    name = f"llvm.fmuladd.v{LANES}f{32 if x.type == _FLOATS else 64}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [x, y, total])


def _square_added(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    return product_added(builder, x, x, total)


def _squared_difference_added(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    difference = builder.fsub(x, y)
    return builder.fadd(total, builder.fmul(difference, difference))


_products = _sum_in_lanes(product_added, _DOUBLES)
_squares = _sum_in_lanes(_square_added, _DOUBLES)
_squared_differences = _sum_in_lanes(_squared_difference_added, _DOUBLES)
_quick_products = _sum_in_lanes(product_added, _FLOATS)


@njit(nogil=True, forceinline=True)
def inner_product(vectors, row, query):
    """x . q of row `row` of `vectors` [n, d] float32 and `query` [d] float64."""
    total = _products(vectors, row, query)
    for i in range(vectors.shape[1] // LANES * LANES, vectors.shape[1]):
        total += np.float64(vectors[row, i]) * query[i]
    return total


@njit(nogil=True, forceinline=True)
def norm(vectors, row, query):
    """|x| of row `row` of `vectors` [n, d] float32; of `query` [d] float64 nothing is used."""
    total = _squares(vectors, row, query)
    for i in range(vectors.shape[1] // LANES * LANES, vectors.shape[1]):
        total += np.float64(vectors[row, i]) * np.float64(vectors[row, i])
    return np.sqrt(total)


@njit(nogil=True, forceinline=True)
def distance(vectors, row, query):
    """|x - q| of row `row` of `vectors` [n, d] float32 and `query` [d] float64."""
    total = _squared_differences(vectors, row, query)
    for i in range(vectors.shape[1] // LANES * LANES, vectors.shape[1]):
        difference = np.float64(vectors[row, i]) - query[i]
        total += difference * difference
    return np.sqrt(total)


@njit(nogil=True, error_model="numpy", forceinline=True)
def score(metric, vectors, row, query, query_norm):
    """The exact score of a row, float32; `query_norm` is that of `query` [d] float64, for the cosine."""
    if metric == EUCLIDEAN:
        found = -distance(vectors, row, query)
    else:
        found = inner_product(vectors, row, query)
        if metric == COSINE:
            found = found / (norm(vectors, row, query) * query_norm)
    # Adding zero turns -0.0 into 0.0, which compare equal and would print differently.
    return np.float32(found) + np.float32(0.0)


@njit(
    types.void(
        types.int64,
        read_only(types.float32, 2),
        read_only(types.float32, 2),
        read_only(types.int64, 1),
        types.boolean,
        types.float32[::1],
    ),
    cache=True,
    nogil=True,
)
def scores(metric, vectors, query, positions, gather, found):
    """Write to `found` [m] the exact scores against `query` [1, d] of the rows at `positions` [m], or of all rows."""
    wide = query[0].astype(np.float64)
    query_norm = norm(query, 0, wide)
    for i in range(len(found)):
        # Rows that lie apart come from memory one after the other unless they are asked for before.
        if gather and i + _AHEAD < len(found):
            fetch(vectors, positions[i + _AHEAD])
        found[i] = score(metric, vectors, positions[i] if gather else i, wide, query_norm)


@njit(types.void(read_only(types.float32, 2), types.float64[::1]), cache=True, nogil=True)
def norms(vectors, found):
    """Write to `found` [n] the L2 norms of all rows."""
    for i in range(len(found)):
        found[i] = norm(vectors, i, found)


@njit(nogil=True, forceinline=True)
def _is_worse(found, rows, order, one, other):
    if found[one] != found[other]:
        return found[one] < found[other]
    if len(order):
        return order[rows[one]] > order[rows[other]]
    return rows[one] > rows[other]


@njit(nogil=True, forceinline=True)
def _swap(found, rows, one, other):
    found[one], found[other] = found[other], found[one]
    rows[one], rows[other] = rows[other], rows[one]


@njit(nogil=True, forceinline=True)
def _sink(found, rows, order, count):
    """Put the top of the heap of `count` rows where it belongs."""
    place = 0
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and _is_worse(found, rows, order, child + 1, child):
            child += 1
        if not _is_worse(found, rows, order, child, place):
            break
        _swap(found, rows, place, child)
        place = child


@njit(nogil=True, forceinline=True)
def offer(found, rows, order, count, value, row):
    """Take `row` into the heap of the `count` best so far if it is one of them; returns how many there are now."""
    if count < len(rows):
        place = count
        found[place], rows[place] = value, row
        while place > 0 and _is_worse(found, rows, order, place, (place - 1) // 2):
            _swap(found, rows, place, (place - 1) // 2)
            place = (place - 1) // 2
        return count + 1
    if value < found[0]:
        return count
    worst, its_row = found[0], rows[0]
    found[0], rows[0] = value, row
    if value == worst and (order[row] > order[its_row] if len(order) else row > its_row):
        found[0], rows[0] = worst, its_row
    else:
        _sink(found, rows, order, count)
    return count


@njit(nogil=True, forceinline=True)
def best_first(found, rows, order, count):
    """Turn the heap of `count` rows into a list, best first, and mark the places behind them as empty."""
    for last in range(count - 1, 0, -1):
        _swap(found, rows, 0, last)
        _sink(found, rows, order, last)
    found[count:] = -np.inf
    rows[count:] = -1


@njit(nogil=True, forceinline=True)
def bar(metric, worst, query_norm, dimension):
    """A row whose exact score is `worst` or better has x.q / |x| (cosine), x.q (dot; but for the rounding of a float64
    sum) or -|x - q|^2 / 2 (euclidean) at or above this number."""
    if worst == -np.inf:
        return -1e200
    # What rounds to `worst` or above lies above the float32 before it; float64 sums err by less than the slack.
    below = np.float64(np.nextafter(worst, np.float32(-np.inf)))
    slack = (dimension + 16) * 2.0**-52
    if metric == COSINE:
        return (below - slack) * query_norm
    if metric == DOT:
        return below
    return -0.5 * below * below * (1 + 4 * slack)


@njit(nogil=True, forceinline=True)
def _limits(metric, worst, query_norm, dimension):
    """Numbers (a, b, c): a row whose exact score is `worst` or better, whose L2 norm in float32 is n and whose product
    with the query in float32 is p, has p + (a * n + b) * n + c >= 0."""
    least = bar(metric, worst, query_norm, dimension)
    relative = 2.0 * (dimension + 16) * 2.0**-24 / (1.0 - (dimension + 16) * 2.0**-24)
    underflow = 4.0 * dimension * 2.0**-126 + query_norm * 2.0**-148
    if metric == COSINE:
        return 0.0, relative * query_norm - least, underflow
    if metric == DOT:
        return 0.0, relative * query_norm, underflow - least
    return (
        0.5 * relative - 0.5,
        relative * query_norm,
        underflow - least + (2.0**-40 - 0.5) * query_norm * query_norm,
    )


@njit(nogil=True, forceinline=True)
def _quick_product(vectors, row, query):
    """The product in float32 of a row of `vectors` [n, d] and a query that `_padded` has laid out."""
    dimension = vectors.shape[1]
    if dimension >= LANES:
        return _quick_products(vectors, row, query)
    total = np.float32(0)
    for i in range(dimension):
        total += vectors[row, i] * query[i]
    return total


@njit(nogil=True, forceinline=True)
def _padded(query, laid_out):
    """Write to `laid_out` the elements of `query` [d] in blocks of sixteen, and then those that are left over as the
    end of one more block, which goes with the last sixteen elements of a row."""
    dimension = len(query)
    laid_out[:] = 0
    if dimension < LANES:
        laid_out[:dimension] = query
    else:
        end = dimension // LANES * LANES
        laid_out[:end] = query[:end]
        laid_out[dimension:] = 0
        for i in range(end, dimension):
            laid_out[i + LANES - (dimension - end)] = query[i]


@njit(
    types.void(
        types.int64,
        read_only(types.float32, 2),
        read_only(types.float32, 1),
        read_only(types.float32, 2),
        read_only(types.int64, 1),
        types.boolean,
        read_only(types.int64, 1),
        types.int64[:, ::1],
        types.float32[:, ::1],
    ),
    cache=True,
    nogil=True,
)
def nearest(metric, vectors, norms, queries, rows, gather, order, positions, found):
    """Write to `positions` and `found` [m, k] the k best for each of `queries` [m, d] of the rows of `vectors` [n, d]
    with L2 norms `norms` [n]: of those at `rows`, or of all where `gather` is false."""
    vectors, order, positions, found = borrowed(vectors), borrowed(order), borrowed(positions), borrowed(found)
    number, dimension = queries.shape
    size = len(rows) if gather else len(vectors)
    wide = queries.astype(np.float64)
    laid_out = np.empty((number, dimension // LANES * LANES + LANES), np.float32)
    query_norms, counts = np.empty(number), np.zeros(number, np.int64)
    for j in range(number):
        _padded(queries[j], laid_out[j])
        query_norms[j] = norm(queries, j, wide[j])
    products, lengths = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.float32)
    for base in range(0, size, _CHUNK):
        chunk = min(_CHUNK, size - base)
        for i in range(chunk):
            lengths[i] = norms[rows[base + i] if gather else base + i]
        for j in range(number):
            query, heap_scores, heap_rows = wide[j], found[j], positions[j]
            for i in range(chunk):
                products[i] = _quick_product(vectors, rows[base + i] if gather else base + i, laid_out[j])
            worst = heap_scores[0] if counts[j] == len(heap_rows) else np.float32(-np.inf)
            a, b, c = _limits(metric, worst, query_norms[j], dimension)
            for first in range(0, chunk, _GROUP):
                group = slice(first, min(chunk, first + _GROUP))
                hopeful = 0
                for i in range(group.start, group.stop):
                    hopeful |= products[i] + (a * lengths[i] + b) * lengths[i] + c >= 0
                if not hopeful:
                    continue
                for i in range(group.start, group.stop):
                    if products[i] + (a * lengths[i] + b) * lengths[i] + c >= 0:
                        row = rows[base + i] if gather else base + i
                        value = score(metric, vectors, row, query, query_norms[j])
                        counts[j] = offer(heap_scores, heap_rows, order, counts[j], value, row)
                        if counts[j] == len(heap_rows):
                            a, b, c = _limits(metric, heap_scores[0], query_norms[j], dimension)
    for j in range(number):
        best_first(found[j], positions[j], order, counts[j])
