"""Search in the 8-bit copy of the rows that `scan.Codes` makes; its layout and the bound are derived there.

A query is decided on in steps, each of which leaves few rows for the next:
1. the product with a row's coarse plane gives a bound on its score (all rows; 2 ns for 384 dimensions, 1.5 in a batch);
2. rows whose bound reaches the k-th best score known are collected, and from time to time the most promising of them
   tried, which raises the bar for the others;
3. the fine plane gives a closer bound (hundreds of rows);
4. the exact score (tens of rows).
Rows are taken in chunks, so that a batch reads each from memory once.

Products of codes are whole numbers, added up without error in 32 bits. They are written as vectors of LLVM's. Where the
machine has AVX-512 VNNI they are its `vpdpbusd`, which LLVM does not choose by itself; elsewhere they are what it makes
of a sum of products, with some four times as many instructions.
"""

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from apps.engine.kernels.exact import EUCLIDEAN, bar, best_first, loaded, norm, offer, read_only, score

_CHUNK = 512
# Rows of which the bounds are compared at once.
_GROUP = 16
# So many queries share the unpacking of a row, and so many rows the loading of their codes.
_TOGETHER = 4
_ROWS = 2
# So many promising rows, and k more, are collected before some are tried.
_PENDING = 1024

_BYTES = ir.VectorType(ir.IntType(8), 64)
_SUMS = ir.VectorType(ir.IntType(32), 16)
_PRODUCTS = ir.VectorType(ir.IntType(32), 64)

# A query as the scan uses it; the letters are those of the derivation in `scan`.
_query = np.dtype(
    [
        ("norm", np.float64),  # |q|
        ("shift", np.float64),  # by how much a bar for the score is above the one for T
        ("along", np.float64),  # t
        ("reach", np.float64),  # Z
        ("step", np.float64),  # u
        ("coarse", np.float64),  # what is added to a coarse product
        ("fine", np.float64),  # and to a fine one
    ]
)
# A row that may be among the best: a bound on T, its position, and its product with the coarse plane.
_candidate = np.dtype([("bound", np.float64), ("row", np.int64), ("product", np.int32), ("refined", np.int32)])


def _accumulated(context: Any, builder: ir.IRBuilder, sums: ir.Value, numbers: ir.Value, codes: ir.Value) -> ir.Value:
    """`sums` and the products of 64 unsigned `numbers` with 64 signed `codes`, added in any order."""
    _, _, features = context.codegen().magic_tuple()
    if "+avx512vnni" in features.split(","):
        name, operands = "llvm.x86.avx512.vpdpbusd.512", [sums, numbers, codes]
    else:
        products = builder.mul(builder.zext(numbers, _PRODUCTS), builder.sext(codes, _PRODUCTS))
        name, operands = "llvm.vector.partial.reduce.add.v16i32.v64i32", [sums, products]
    function = ir.FunctionType(_SUMS, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), operands)


def _constant(numbers: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)


def _four_totals(builder: ir.IRBuilder, sums: list[ir.Value]) -> list[ir.Value]:
    """The totals of four vectors of sixteen lanes."""

    def paired(one: ir.Value, other: ir.Value) -> ir.Value:
        """Of each four lanes: the sums of two pairs of `one`, then those of `other`."""
        even = [16 * source + quarter + i for quarter in (0, 4, 8, 12) for source in (0, 1) for i in (0, 2)]
        lanes = (even, [i + 1 for i in even])
        return builder.add(*(builder.shuffle_vector(one, other, _constant(of)) for of in lanes))

    total = paired(paired(sums[0], sums[1]), paired(sums[2], sums[3]))
    for half in (8, 4):
        lanes = (list(range(half)), list(range(half, 2 * half)))
        total = builder.add(*(builder.shuffle_vector(total, total, _constant(of)) for of in lanes))
    return [builder.extract_element(total, ir.Constant(ir.IntType(32), i)) for i in range(4)]


def _products(
    context: Any, builder: ir.IRBuilder, plane: Any, rows: list[ir.Value], codes: Any, first: ir.Value, queries: int
) -> list[list[ir.Value]]:
    """Sixteen partial sums for each of `rows` of `plane` [n, w] and of `queries` queries of `codes` [m, 2 * w]."""
    width, stride = (cgutils.unpack_tuple(builder, array.shape)[1] for array in (plane, codes))

    def at(number: int) -> ir.Constant:
        return ir.Constant(width.type, number)

    numbers = [builder.gep(plane.data, [builder.mul(row, width)]) for row in rows]
    begins = [builder.gep(codes.data, [builder.mul(builder.add(first, at(query)), stride)]) for query in range(queries)]
    totals = [[cgutils.alloca_once_value(builder, ir.Constant(_SUMS, [0] * 16)) for _ in range(queries)] for _ in rows]
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


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _product(typing_context: Any, plane: Any, row: Any, codes: Any, query: Any) -> Any:
    """The product of a row of `plane` [n, w] and a query of `codes` [m, 2 * w], int32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2)]
        [[sums]] = _products(context, builder, arrays[0], [arguments[1]], arrays[1], arguments[3], 1)
        function = ir.FunctionType(ir.IntType(32), [_SUMS])
        name = "llvm.vector.reduce.add.v16i32"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [sums])

    return types.int32(plane, row, codes, query), generate


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _eight_products(typing_context: Any, plane: Any, row: Any, other: Any, codes: Any, query: Any) -> Any:
    """The products of two rows of `plane` [n, w] and four queries of `codes` [m, 2 * w] from `query` on, int32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3)]
        sums = _products(context, builder, arrays[0], list(arguments[1:3]), arrays[1], arguments[4], _TOGETHER)
        totals = [_four_totals(builder, of_row) for of_row in sums]
        return context.make_tuple(builder, signature.return_type, [*totals[0], *totals[1]])

    return types.UniTuple(types.int32, _ROWS * _TOGETHER)(plane, row, other, codes, query), generate


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _passing(typing_context: Any, products: Any, numbers: Any, at: Any, query: Any) -> Any:
    """Of sixteen rows from `at` on, those whose bound is not below the floor, as the bits of a whole number.

    `products` [c] int32, `numbers` [3, c] float32 as in `scan.Codes`; `query` is (step, coarse, along, reach, floor).
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        lanes = ir.VectorType(ir.DoubleType(), _GROUP)
        whole, fields = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1))
        length = cgutils.unpack_tuple(builder, fields.shape)[1]

        def splat(value: ir.Value) -> ir.Value:
            undefined = ir.Constant(lanes, ir.Undefined)
            first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first, undefined, _constant([0] * _GROUP))

        def field(number: int) -> ir.Value:
            place = builder.add(builder.mul(length, ir.Constant(length.type, number)), arguments[2])
            floats = ir.VectorType(ir.FloatType(), _GROUP)
            return builder.fpext(loaded(builder, builder.gep(fields.data, [place]), floats), lanes)

        product = builder.sitofp(loaded(builder, builder.gep(whole.data, [arguments[2]]), _SUMS), lanes)
        step, coarse, along, reach, floor = (splat(value) for value in cgutils.unpack_tuple(builder, arguments[3]))
        bound = builder.fmul(field(0), builder.fadd(builder.fmul(step, product), coarse))
        bound = builder.fadd(bound, builder.fmul(field(1), along))
        bound = builder.fadd(bound, builder.fmul(field(2), reach))
        passing = builder.fcmp_ordered(">=", bound, floor)
        return builder.zext(builder.bitcast(passing, ir.IntType(_GROUP)), ir.IntType(64))

    return types.int64(products, numbers, at, query), generate


@njit(nogil=True, forceinline=True)
def _length(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for value in values:
        total += value * value
    return np.sqrt(total)


@njit(nogil=True, forceinline=True)
def _prepared(metric, queries, wide, mean, longest, codes, prepared):  # type: ignore[no-untyped-def]
    """Fill `codes` [m, w] int8 and `prepared` [m] from `queries` [m, d] and `wide`, the same in float64."""
    dimension = len(mean)
    centre = _length(mean)
    rest = np.empty(dimension)
    for j in range(len(queries)):
        query = prepared[j]
        query.norm = norm(queries, j, wide[j])
        if metric == EUCLIDEAN:
            rest[:] = wide[j] - mean
            length = _length(rest)
            query.along = 1.0
            query.shift = -0.5 * length * length * (1 - 2.0**-38)
            query.reach = length * (1 + 2.0**-20)
        else:
            rest[:] = wide[j]
            query.along = 0.0
            if centre > 0.0:
                for i in range(dimension):
                    query.along += wide[j, i] * (mean[i] / centre)
                for i in range(dimension):
                    rest[i] -= query.along * (mean[i] / centre)
            query.shift = query.along * centre + 2.0**-36 * centre * query.norm
            query.reach = (_length(rest) + 2.0**-12 * query.norm) * (1 + 2.0**-20)
        query.step, total = np.abs(rest).max() / 127.0, 0.0
        if query.step > 0.0:
            for i in range(dimension):
                code = np.rint(rest[i] / query.step)
                codes[j, i] = np.int8(code)
                rest[i] -= query.step * code
                total += code
        lost = longest * _length(rest)
        query.coarse = lost - 112 * query.step * total
        query.fine = lost - 120 * query.step * total


@njit(nogil=True, forceinline=True)
def _floor(metric, query, dimension, count, found):  # type: ignore[no-untyped-def]
    """What the bound of a row must reach for it to be among the best, of which `count` are in the heap `found`."""
    worst = found[0] if count == len(found) else np.float32(-np.inf)
    return bar(metric, worst, query.norm, dimension) - query.shift


@njit(nogil=True, forceinline=True)
def _refined(fine_plane, numbers, codes, j, query, candidate):  # type: ignore[no-untyped-def]
    """Replace the bound of a candidate by the one of the fine plane."""
    product = 16 * candidate.product + _product(fine_plane, candidate.row, codes, j)
    candidate.bound = (
        numbers[candidate.row, 0] * (query.step * product + query.fine)
        + numbers[candidate.row, 1] * query.along
        + numbers[candidate.row, 3] * query.reach
    )
    candidate.refined = True


@njit(nogil=True)
def _scored(  # type: ignore[no-untyped-def]
    metric, planes, numbers, vectors, codes, j, query, wide, candidates, most, found, positions, count
):
    """Score the `most` candidates with the highest bounds, if they may be among the best, and give them up.

    Returns the size of the heap of the best, `found` and `positions`, which had `count` rows before.
    """
    none = np.empty(0, np.int64)
    bounds, places = np.empty(most, np.float32), np.empty(most, np.int64)
    chosen, floor = 0, _floor(metric, query, len(wide), count, found)
    for i in range(len(candidates)):
        chosen = offer(bounds, places, none, chosen, np.float32(candidates[i].bound), i)
    for i in range(chosen):
        candidate = candidates[places[i]]
        if not candidate.refined:
            _refined(planes[1], numbers, codes, j, query, candidate)
        if candidate.bound >= floor:
            value = score(metric, vectors, candidate.row, wide, query.norm)
            count = offer(found, positions, none, count, value, candidate.row)
            floor = _floor(metric, query, len(wide), count, found)
        candidate.bound = -np.inf
    return count


@njit(nogil=True)
def _kept(candidates, floor):  # type: ignore[no-untyped-def]
    """Move the candidates whose bound is not below the floor to the front, in their order; returns how many."""
    kept = 0
    for i in range(len(candidates)):
        if candidates[i].bound >= floor:
            candidates[kept] = candidates[i]
            kept += 1
    return kept


@njit(nogil=True)
def _settled(  # type: ignore[no-untyped-def]
    metric, planes, numbers, vectors, codes, j, query, wide, candidates, final, found, positions, count
):
    """Score the most promising candidates, and all that may be among the best if this is `final`; or else as many as
    it takes to be left with half of them. Returns how many are left, and how many rows the heap of the best has."""
    dimension, most, left = len(wide), len(found), len(candidates)
    while left:
        count = _scored(
            metric, planes, numbers, vectors, codes, j, query, wide, candidates[:left], most, found, positions, count
        )
        left = _kept(candidates[:left], _floor(metric, query, dimension, count, found))
        if final:
            for i in range(left):
                if not candidates[i].refined:
                    _refined(planes[1], numbers, codes, j, query, candidates[i])
            left = _kept(candidates[:left], _floor(metric, query, dimension, count, found))
        elif left <= len(candidates) // 2:
            break
        most *= 2
    return left, count


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
        types.int64,
        types.int64,
        types.int64[:, ::1],
        types.float32[:, ::1],
    ),
    cache=True,
    nogil=True,
)
def nearest(  # type: ignore[no-untyped-def]
    metric, planes, numbers, mean, longest, vectors, queries, rows, gather, allowed, begin, end, positions, found
):
    """Write to `positions` and `found` [m, k] the k best rows for each of `queries` [m, d].

    Looks at the rows from `begin` to `end`; where `gather` is true, at those of the list `rows`. Of these, only rows
    that are true in `allowed` [n] are results, unless it is empty. The copy is that of `scan.Codes`.
    """
    number, dimension = queries.shape
    wide = queries.astype(np.float64)
    prepared = np.empty(number, _query)
    # Codes of whole fours of queries, aligned to lines of the cache.
    fours, width = (number + _TOGETHER - 1) // _TOGETHER * _TOGETHER, 2 * planes.shape[2]
    memory = np.zeros(fours * width + 64, np.int8)
    aligned = -memory.ctypes.data % 64
    codes = memory[aligned : aligned + fours * width].reshape(fours, width)
    _prepared(metric, queries, wide, mean, longest, codes, prepared)

    plane = planes[0]
    capacity = _PENDING + min(16 * positions.shape[1], end - begin)
    candidates = np.empty((number, capacity), _candidate)
    pending, counts, floors = np.zeros(number, np.int64), np.zeros(number, np.int64), np.full(number, -1e200)
    here, fields = np.empty(_CHUNK, np.int64), np.zeros((3, _CHUNK), np.float32)
    products = np.zeros((_TOGETHER, _CHUNK), np.int32)
    for base in range(begin, end, _CHUNK):
        chunk = min(_CHUNK, end - base)
        for i in range(chunk):
            here[i] = rows[base + i] if gather else base + i
        # The numbers of the chunk, by field; behind its end, such that no row passes.
        fields[2, chunk:] = -np.inf
        if gather:
            for i in range(chunk):
                for field in range(3):
                    fields[field, i] = numbers[here[i], field]
        else:
            these = numbers[base : base + chunk]
            for i in range(chunk):
                for field in range(3):
                    fields[field, i] = these[i, field]
        for first in range(0, number, _TOGETHER):
            if number == 1 and gather:
                for i in range(chunk):
                    products[0, i] = _product(plane, here[i], codes, 0)
            elif number == 1:
                for i in range(chunk):
                    products[0, i] = _product(plane, base + i, codes, 0)
            else:
                for i in range(0, chunk, _ROWS):
                    other = min(i + 1, chunk - 1)
                    eight = _eight_products(plane, here[i], here[other], codes, first)
                    products[0, i], products[1, i], products[2, i], products[3, i] = eight[:4]
                    products[0, other], products[1, other], products[2, other], products[3, other] = eight[4:]
            for j in range(first, min(first + _TOGETHER, number)):
                query, its_products = prepared[j], products[j - first]
                for group in range(0, chunk, _GROUP):
                    scalars = (16 * query.step, query.coarse, query.along, query.reach, floors[j])
                    bits = _passing(its_products, fields, group, scalars)
                    i = group
                    while bits:
                        while not bits & 1:
                            bits >>= 1
                            i += 1
                        if len(allowed) == 0 or allowed[here[i]]:
                            candidate = candidates[j, pending[j]]
                            candidate.row, candidate.product, candidate.refined = here[i], its_products[i], False
                            candidate.bound = (
                                fields[0, i] * (16 * query.step * its_products[i] + query.coarse)
                                + fields[1, i] * query.along
                                + fields[2, i] * query.reach
                            )
                            pending[j] += 1
                        bits >>= 1
                        i += 1
                    if pending[j] > capacity - _GROUP:
                        pending[j], counts[j] = _settled(
                            metric,
                            planes,
                            numbers,
                            vectors,
                            codes,
                            j,
                            query,
                            wide[j],
                            candidates[j, : pending[j]],
                            False,
                            found[j],
                            positions[j],
                            counts[j],
                        )
                        floors[j] = _floor(metric, query, dimension, counts[j], found[j])
    for j in range(number):
        _, count = _settled(
            metric,
            planes,
            numbers,
            vectors,
            codes,
            j,
            prepared[j],
            wide[j],
            candidates[j, : pending[j]],
            True,
            found[j],
            positions[j],
            counts[j],
        )
        best_first(found[j], positions[j], np.empty(0, np.int64), count)
