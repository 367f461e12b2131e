"""Search in the 8-bit copy of the rows that `byte_codes.ByteCodes` makes; docs/indexes.md derives the bound.

A query is decided on in steps, each of which leaves few rows for the next:
1. the product with a row's coarse plane gives a bound on its score: all rows, 2 ns each for 384 dimensions;
2. rows whose bound reaches the k-th best score known wait, and from time to time the most promising of them are scored,
   which raises the bar for the others;
3. the fine plane gives a closer bound: hundreds of rows;
4. the exact score: tens of rows.
Rows are taken in chunks, so that a batch reads each from memory once.

Products of codes are whole numbers, added up without error in 32 bits, and written as vectors of LLVM's, which does not
choose the best instructions for them by itself. Where the machine has AVX-512 VNNI, `vpdpbusd` multiplies 64 numbers
and adds them; with AVX2 that takes six instructions, and elsewhere what LLVM makes of a sum of products.
"""

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from apps.engine.kernels import exact
from apps.engine.kernels.exact import (
    bar,
    best_first,
    borrowed,
    fetch,
    loaded,
    norm,
    offer,
    product_added,
    read_only,
    score,
)

_CHUNK = 512
# Rows of which the bounds are compared at once.
_GROUP = 16
# So many rows ahead, a single query asks for the next.
_AHEAD = 64
# So many queries share the unpacking of two rows.
_TOGETHER = 4

_BYTES = ir.VectorType(ir.IntType(8), 64)
_SUMS = ir.VectorType(ir.IntType(32), 16)
_PRODUCTS = ir.VectorType(ir.IntType(32), 64)

# What is held of a query, in this order; the letters are those of the derivation.
_NORM, _SHIFT, _ALONG, _REACH, _STEP, _COARSE, _FINE = range(7)


def _accumulated(context: Any, builder: ir.IRBuilder, sums: ir.Value, numbers: ir.Value, codes: ir.Value) -> ir.Value:
    """`sums` and the products of 64 unsigned `numbers` below 16 with 64 signed `codes`, added in any order."""

    def called(name: str, result: ir.VectorType, *operands: ir.Value) -> ir.Value:
        function = ir.FunctionType(result, [operand.type for operand in operands])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}"), operands)

    features = context.codegen().magic_tuple()[2].split(",")
    if "+avx512vnni" in features:
        return called("x86.avx512.vpdpbusd.512", _SUMS, sums, numbers, codes)
    if "+avx2" in features:
        halves = []
        for lanes in (list(range(32)), list(range(32, 64))):
            # Sums of two products, which fit into 16 bits, and then of four.
            parts = [_shuffled(builder, vector, vector, lanes) for vector in (numbers, codes)]
            pairs = called("x86.avx2.pmadd.ub.sw", ir.VectorType(ir.IntType(16), 16), *parts)
            ones = ir.Constant(pairs.type, [1] * 16)
            halves.append(called("x86.avx2.pmadd.wd", ir.VectorType(ir.IntType(32), 8), pairs, ones))
        return builder.add(sums, _shuffled(builder, halves[0], halves[1], list(range(16))))
    products = builder.mul(builder.zext(numbers, _PRODUCTS), builder.sext(codes, _PRODUCTS))
    return called("vector.partial.reduce.add.v16i32.v64i32", _SUMS, sums, products)


def _shuffled(builder: ir.IRBuilder, one: ir.Value, other: ir.Value, lanes: list[int]) -> ir.Value:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _four_totals(builder: ir.IRBuilder, sums: list[ir.Value]) -> ir.Value:
    """A vector of the totals of four vectors of sixteen lanes."""

    def paired(one: ir.Value, other: ir.Value) -> ir.Value:
        """Of each four lanes: the sums of two pairs of `one`, then those of `other`."""
        even = [16 * source + quarter + i for quarter in (0, 4, 8, 12) for source in (0, 1) for i in (0, 2)]
        odd = [lane + 1 for lane in even]
        return builder.add(_shuffled(builder, one, other, even), _shuffled(builder, one, other, odd))

    total = paired(paired(sums[0], sums[1]), paired(sums[2], sums[3]))
    for half in (8, 4):
        low, high = list(range(half)), list(range(half, 2 * half))
        total = builder.add(_shuffled(builder, total, total, low), _shuffled(builder, total, total, high))
    return total


def _products(
    context: Any, builder: ir.IRBuilder, plane: Any, rows: list[ir.Value], codes: Any, first: ir.Value, queries: int
) -> list[list[ir.Value]]:
    """Sixteen partial sums for each of `rows` of `plane` [n, w] and of `queries` queries of `codes` [m, 2 * w]."""
    width, stride = (cgutils.unpack_tuple(builder, array.shape)[1] for array in (plane, codes))

    def at(number: int) -> ir.Constant:
        return ir.Constant(width.type, number)

    numbers = [builder.gep(plane.data, [builder.mul(row, width)]) for row in rows]
    begins = [builder.gep(codes.data, [builder.mul(builder.add(first, at(query)), stride)]) for query in range(queries)]
    nothing = ir.Constant(_SUMS, [0] * 16)
    totals = [[cgutils.alloca_once_value(builder, nothing) for _ in range(queries)] for _ in rows]
    with cgutils.for_range_slice(builder, at(0), width, at(64), width.type) as (place, _):
        packed = [loaded(builder, builder.gep(begin, [place]), _BYTES) for begin in numbers]
        low = [builder.and_(both, ir.Constant(_BYTES, [15] * 64)) for both in packed]
        high = [builder.lshr(both, ir.Constant(_BYTES, [4] * 64)) for both in packed]
        for query, begin in enumerate(begins):
            for unpacked, offset in ((low, 0), (high, 64)):
                where = builder.add(builder.mul(at(2), place), at(offset))
                code = loaded(builder, builder.gep(begin, [where]), _BYTES)
                for row in range(len(rows)):
                    sums = builder.load(totals[row][query])
                    builder.store(_accumulated(context, builder, sums, unpacked[row], code), totals[row][query])
    return [[builder.load(total) for total in of_row] for of_row in totals]


@intrinsic
def _product(typing_context: Any, plane: Any, row: Any, codes: Any, query: Any) -> Any:
    """The product of a row of `plane` [n, w] and a query of `codes` [m, 2 * w], int32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        planes, queries = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        [[sums]] = _products(context, builder, planes, [arguments[1]], queries, arguments[3], 1)
        function = ir.FunctionType(ir.IntType(32), [_SUMS])
        name = "llvm.vector.reduce.add.v16i32"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [sums])

    return types.int32(plane, row, codes, query), generate


@intrinsic
def _multiply(
    typing_context: Any, plane: Any, row: Any, other: Any, codes: Any, query: Any, products: Any, i: Any, j: Any
) -> Any:
    """Write to rows `i` and `j` of `products` [c, 4] int32 those of `row` and `other` of `plane` [n, w] and the four
    queries of `codes` [m, 2 * w] from `query` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        planes, queries, out = (
            context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 3, 5)
        )
        rows = _products(context, builder, planes, list(arguments[1:3]), queries, arguments[4], _TOGETHER)
        for place, sums in zip(arguments[6:8], rows, strict=True):
            four = _four_totals(builder, sums)
            pointer = builder.gep(out.data, [builder.mul(place, ir.Constant(place.type, _TOGETHER))])
            builder.store(four, builder.bitcast(pointer, four.type.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(plane, row, other, codes, query, products, i, j), generate


@intrinsic
def _passing(
    typing_context: Any, products: Any, which: Any, numbers: Any, at: Any, query: types.UniTuple, bounds: Any
) -> Any:
    """Write to `bounds` [16] those of the rows from `at` on, and return which are not below the floor, as bits.

    They are made of column `which` of `products` [c, 4] int32, of `numbers` [3, c] float64 by field, and of (step,
    offset of a product, t, Z, floor) of the query.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        lanes = ir.VectorType(ir.DoubleType(), _GROUP)
        whole, fields, out = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 5))

        def splat(value: ir.Value) -> ir.Value:
            first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            return _shuffled(builder, first, first, [0] * _GROUP)

        def field(number: int) -> ir.Value:
            length = cgutils.unpack_tuple(builder, fields.shape)[1]
            place = builder.add(builder.mul(length, ir.Constant(length.type, number)), arguments[3])
            return loaded(builder, builder.gep(fields.data, [place]), lanes)

        place = builder.add(builder.mul(arguments[3], ir.Constant(ir.IntType(64), _TOGETHER)), arguments[1])
        columns = loaded(builder, builder.gep(whole.data, [place]), _PRODUCTS)
        column = list(range(0, _TOGETHER * _GROUP, _TOGETHER))
        product = builder.sitofp(_shuffled(builder, columns, columns, column), lanes)
        step, offset, along, reach, floor = (splat(value) for value in cgutils.unpack_tuple(builder, arguments[4]))
        rest = product_added(builder, field(1), along, builder.fmul(field(2), reach))
        bound = product_added(builder, field(0), product_added(builder, step, product, offset), rest)
        builder.store(bound, builder.bitcast(out.data, lanes.as_pointer())).align = 8
        passing = builder.fcmp_ordered(">=", bound, floor)
        return builder.zext(builder.bitcast(passing, ir.IntType(_GROUP)), ir.IntType(64))

    return types.int64(products, which, numbers, at, query, bounds), generate


@intrinsic
def _lowest(typing_context: Any, bits: Any) -> Any:
    """The number of the lowest bit of `bits`, which are not all zero."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), True))

    return types.int64(bits), generate


@njit(nogil=True, forceinline=True)
def _length(values):
    total = 0.0
    for value in values:
        total += value * value
    return np.sqrt(total)


@njit(nogil=True, forceinline=True)
def _prepare(metric, queries, wide, mean, longest, codes, prepared):
    """Fill `codes` [m, w] int8 and `prepared` [m, 7] from `queries` [m, d] and `wide`, the same in float64.

    norm    |q|
    shift   by how much what `exact.bar` asks of a row is more than what T must reach
    along   t
    reach   Z
    step    u
    coarse  what is added to u times a product with the coarse plane: for the offset of its numbers, and |c||h|
    fine    the same for both planes
    """
    dimension = len(mean)
    centre = _length(mean)
    rest = np.empty(dimension)
    for j in range(len(queries)):
        length, along = norm(queries, j, wide[j]), 1.0
        if metric == exact.EUCLIDEAN:
            rest[:] = wide[j] - mean
            reach = _length(rest)
            shift = -0.5 * reach * reach * (1 - 2.0**-38)
        else:
            rest[:] = wide[j]
            along = 0.0
            if centre > 0.0:
                for i in range(dimension):
                    along += wide[j, i] * (mean[i] / centre)
                for i in range(dimension):
                    rest[i] -= along * (mean[i] / centre)
            shift = along * centre + 2.0**-36 * centre * length
            reach = _length(rest) + 2.0**-12 * length
        step, total = np.abs(rest).max() / 127.0, 0.0
        if step > 0.0:
            for i in range(dimension):
                code = np.rint(rest[i] / step)
                codes[j, i] = np.int8(code)
                rest[i] -= step * code
                total += code
        lost = longest * _length(rest)
        prepared[j, _NORM], prepared[j, _SHIFT], prepared[j, _ALONG] = length, shift, along
        prepared[j, _REACH], prepared[j, _STEP] = reach * (1 + 2.0**-20), step
        prepared[j, _COARSE], prepared[j, _FINE] = lost - 112 * step * total, lost - 120 * step * total


@njit(nogil=True, forceinline=True)
def _refined(plane, numbers, row, product, codes, query, j):
    """The closer bound on a row, from its products with the coarse plane and with the fine one, `plane`."""
    product = 16 * product + _product(plane, row, codes, j)
    return (
        numbers[row, 0] * (query[_STEP] * product + query[_FINE])
        + numbers[row, 1] * query[_ALONG]
        + numbers[row, 3] * query[_REACH]
    )


@njit(nogil=True)
def _settled(matrix, asked, waiting, best, j, left, count, floor, final):
    """Score the most promising of the `left` rows that wait on query `j`, and all that may be among the best if this
    is `final`, or else as many as it takes to be left with half of them.

    Returns how many still wait, how many rows the heap of the best has, which had `count`, and what a bound must reach
    now, which was `floor`.
    """
    plane, numbers, vectors = borrowed(matrix[0]), borrowed(matrix[1]), borrowed(matrix[2])
    metric, codes, query, wide = asked[0], borrowed(asked[1]), borrowed(asked[2])[j], borrowed(asked[3])[j]
    bounds, rows, products = borrowed(waiting[0])[j], borrowed(waiting[1])[j], borrowed(waiting[2])[j]
    found, positions, none = borrowed(best[0])[j], borrowed(best[1])[j], borrowed(waiting[5])
    enough, most, refined = left // 2, len(found), 0
    while left:
        most = min(most, left)
        highest, places, chosen = borrowed(waiting[3])[:most], borrowed(waiting[4])[:most], 0
        for i in range(left):
            if chosen < most or bounds[i] >= highest[0]:
                chosen = offer(highest, places, none, chosen, np.float32(bounds[i]), i)
        for i in places:
            fetch(plane, rows[i])
            fetch(numbers, rows[i])
        for i in places:
            bound = bounds[i]
            if i >= refined:
                bound = _refined(plane, numbers, rows[i], products[i], codes, query, j)
            if bound >= floor:
                value = score(metric, vectors, rows[i], wide, query[_NORM])
                count = offer(found, positions, none, count, value, rows[i])
                if count == len(found):
                    reached = bar(metric, found[0], query[_NORM], vectors.shape[1]) - query[_SHIFT]
                    floor = max(floor, reached)
            bounds[i] = -np.inf
        if final:
            for i in range(refined, left):
                if bounds[i] >= floor:
                    fetch(plane, rows[i])
                    fetch(numbers, rows[i])
        kept = 0
        for i in range(left):
            bound = bounds[i]
            if final and i >= refined and bound >= floor:
                bound = _refined(plane, numbers, rows[i], products[i], codes, query, j)
            if bound >= floor:
                bounds[kept], rows[kept], products[kept] = bound, rows[i], products[i]
                kept += 1
        left = kept
        if final:
            refined = left
        elif left <= enough:
            break
        most *= 2
    return left, count, floor


@njit(types.int64(types.int64, types.int64), cache=True, nogil=True)
def capacity(k, rows):
    """How many rows may wait on a query, of 20 bytes each."""
    return 1024 + min(64 * k, rows)


@njit(
    types.void(
        types.int64,
        read_only(types.uint8, 3),
        read_only(types.float32, 2),
        read_only(types.float64, 1),
        types.float64,
        read_only(types.float32, 2),
        read_only(types.float32, 2),
        read_only(types.int64, 1),
        types.boolean,
        read_only(types.boolean, 1),
        types.int64[:, ::1],
        types.float32[:, ::1],
    ),
    cache=True,
    nogil=True,
)
def nearest(metric, planes, numbers, mean, longest, vectors, queries, rows, gather, allowed, positions, found):
    """Write to `positions` and `found` [m, k] the k best rows for each of `queries` [m, d].

    Looks at all rows or, where `gather` is true, at those of the list `rows`, which ascends. Of these, only rows that
    are true in `allowed` [n] are results, unless it is empty. The copy is that of `byte_codes.ByteCodes`.
    """
    number, size = len(queries), len(rows) if gather else len(numbers)
    wide = queries.astype(np.float64)
    prepared = np.empty((number, 7))
    # Codes of whole fours of queries, aligned to lines of the cache.
    fours, width = (number + _TOGETHER - 1) // _TOGETHER * _TOGETHER, 2 * planes.shape[2]
    memory = np.zeros(fours * width + 64, np.int8)
    aligned = -memory.ctypes.data % 64
    codes = memory[aligned : aligned + fours * width].reshape(fours, width)
    _prepare(metric, queries, wide, mean, longest, codes, prepared)

    plane, most = planes[0], capacity(positions.shape[1], size)
    bounds, candidates = np.empty((number, most)), np.empty((number, most), np.int64)
    their_products = np.empty((number, most), np.int32)
    chosen = (np.empty(most, np.float32), np.empty(most, np.int64), np.empty(0, np.int64))
    matrix, asked, best = (planes[1], numbers, vectors), (metric, codes, prepared, wide), (found, positions)
    waiting = (bounds, candidates, their_products, chosen[0], chosen[1], chosen[2])
    left, counts, floors = np.zeros(number, np.int64), np.zeros(number, np.int64), np.full(number, -1e200)

    here, fields = np.empty(_CHUNK + _AHEAD, np.int64), np.zeros((3, _CHUNK))
    # One row more, as sixteen of a column are loaded with those of the columns beside it.
    products, sixteen = np.zeros((_CHUNK + 1, _TOGETHER), np.int32), np.empty(_GROUP)
    for base in range(0, size, _CHUNK):
        chunk = min(_CHUNK, size - base)
        for i in range(chunk + _AHEAD):
            here[i] = rows[min(base + i, size - 1)] if gather else base + i
        # A line of the cache holds the numbers of four rows.
        for i in range(base + _CHUNK, base + 2 * _CHUNK, 1 if gather else 4):
            fetch(numbers, rows[min(i, size - 1)] if gather else i)
        if gather:
            for i in range(chunk):
                for field in range(3):
                    fields[field, i] = numbers[here[i], field]
        else:
            these = numbers[base : base + chunk]
            for i in range(chunk):
                for field in range(3):
                    fields[field, i] = these[i, field]
        # No row passes that is not there.
        fields[2, chunk:] = -np.inf
        for first in range(0, number, _TOGETHER):
            if number > 1:
                for i in range(0, chunk, 2):
                    other = min(i + 1, chunk - 1)
                    _multiply(plane, here[i], here[other], codes, first, products, i, other)
            else:
                for i in range(chunk):
                    fetch(plane, here[i + _AHEAD])
                    products[i, 0] = _product(plane, here[i], codes, 0)
            for j in range(first, min(first + _TOGETHER, number)):
                step, offset = 16 * prepared[j, _STEP], prepared[j, _COARSE]
                along, reach = prepared[j, _ALONG], prepared[j, _REACH]
                for group in range(0, chunk, _GROUP):
                    query = (step, offset, along, reach, floors[j])
                    bits = _passing(products, j - first, fields, group, query, sixteen)
                    while bits:
                        i = _lowest(bits)
                        bits &= bits - 1
                        row = here[group + i]
                        if len(allowed) == 0 or allowed[row]:
                            place = left[j]
                            bounds[j, place], candidates[j, place] = sixteen[i], row
                            their_products[j, place] = products[group + i, j - first]
                            left[j] = place + 1
                    if left[j] > most - _GROUP:
                        left[j], counts[j], floors[j] = _settled(
                            matrix, asked, waiting, best, j, left[j], counts[j], floors[j], False
                        )
    for j in range(number):
        _, count, _ = _settled(matrix, asked, waiting, best, j, left[j], counts[j], floors[j], True)
        best_first(found[j], positions[j], np.empty(0, np.int64), count)
