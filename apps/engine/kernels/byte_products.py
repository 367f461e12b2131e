"""Products of the codes of rows and of queries, and the test of sixteen bounds at once, for `byte_scan`.

A row of a plane is w bytes of two 4-bit numbers, as `byte_codes` packs them; a query is 2 w signed bytes in the order
of the unpacked numbers. The product of both is a sum of whole numbers, exact in int32: a 4-bit number times a code is
1,905 at most, so a row would need more than a million dimensions to overflow.

They are written in LLVM's intermediate code, as `intrinsics` explains: numba alone takes four times as long for the
products, and a fifth longer for a batch of queries with the test of bounds or the totals in its way (docs/indexes.md,
"Compiled code"). tests/engine/test_kernels.py compares them with numpy, as compiled for this processor, for one with
AVX2 only and for one with neither.
"""

from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Rows of which the bounds are compared at once.
GROUP = 16
# Queries that share the unpacking of two rows.
QUERIES = 4

_BYTES = ir.VectorType(ir.IntType(8), 64)
_SUMS = ir.VectorType(ir.IntType(32), 16)
_PRODUCTS = ir.VectorType(ir.IntType(32), 64)


def _add_products(context: Any, builder: ir.IRBuilder, sums: ir.Value, numbers: ir.Value, codes: ir.Value) -> ir.Value:
    """`sums` (16 x int32) plus the products of 64 unsigned `numbers` below 16 with 64 signed `codes`, added to the
    lanes in any order: only the total over the lanes is used, and whole numbers have no rounding.

    AVX-512 VNNI: `vpdpbusd` does it in one instruction, lane j adding the products 4 j to 4 j + 3.
    AVX2: in each half, `pmaddubsw` adds pairs of products in int16 (3,810 at most, so nothing saturates), `pmaddwd`
    with ones adds pairs of those in int32.
    Elsewhere: widened to int32, multiplied, and reduced by LLVM in the way that suits the processor.
    """

    def call(name: str, result: ir.VectorType, *operands: ir.Value) -> ir.Value:
        function = ir.FunctionType(result, [operand.type for operand in operands])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}"), operands)

    features = context.codegen().magic_tuple()[2].split(",")
    if "+avx512vnni" in features:
        return call("x86.avx512.vpdpbusd.512", _SUMS, sums, numbers, codes)
    if "+avx2" in features:
        halves = []
        for lanes in (list(range(32)), list(range(32, 64))):
            parts = [_shuffle(builder, vector, vector, lanes) for vector in (numbers, codes)]
            pairs = call("x86.avx2.pmadd.ub.sw", ir.VectorType(ir.IntType(16), 16), *parts)
            ones = ir.Constant(pairs.type, [1] * 16)
            halves.append(call("x86.avx2.pmadd.wd", ir.VectorType(ir.IntType(32), 8), pairs, ones))
        return builder.add(sums, _shuffle(builder, halves[0], halves[1], list(range(16))))
    products = builder.mul(builder.zext(numbers, _PRODUCTS), builder.sext(codes, _PRODUCTS))
    return call("vector.partial.reduce.add.v16i32.v64i32", _SUMS, sums, products)


def _load(builder: ir.IRBuilder, pointer: ir.Value, vector: ir.VectorType) -> ir.Value:
    """The vector that begins at `pointer`, which need not be aligned."""
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = 1
    return value


def _shuffle(builder: ir.IRBuilder, one: ir.Value, other: ir.Value, lanes: list[int]) -> ir.Value:
    """A vector of those lanes of `one` and `other` that `lanes` names, counted through both."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _multiply_add(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    """x * y + total of vectors of float64, in one instruction where the processor has it; bounds cover either way."""
    function = ir.FunctionType(x.type, [x.type] * 3)
    name = f"llvm.fmuladd.v{GROUP}f64"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [x, y, total])


def _four_totals(builder: ir.IRBuilder, sums: list[ir.Value]) -> ir.Value:
    """A vector of the totals of four vectors of sixteen lanes: three additions of shuffled pairs of vectors leave four
    groups of four lanes, one for each vector; the groups are added in halves."""

    def add_pairs(one: ir.Value, other: ir.Value) -> ir.Value:
        """Of each four lanes: the sums of two pairs of `one`, then those of `other`."""
        even = [16 * source + quarter + i for quarter in (0, 4, 8, 12) for source in (0, 1) for i in (0, 2)]
        odd = [lane + 1 for lane in even]
        return builder.add(_shuffle(builder, one, other, even), _shuffle(builder, one, other, odd))

    total = add_pairs(add_pairs(sums[0], sums[1]), add_pairs(sums[2], sums[3]))
    for half in (8, 4):
        low, high = list(range(half)), list(range(half, 2 * half))
        total = builder.add(_shuffle(builder, total, total, low), _shuffle(builder, total, total, high))
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
        packed = [_load(builder, builder.gep(begin, [place]), _BYTES) for begin in numbers]
        low = [builder.and_(both, ir.Constant(_BYTES, [15] * 64)) for both in packed]
        high = [builder.lshr(both, ir.Constant(_BYTES, [4] * 64)) for both in packed]
        for query, begin in enumerate(begins):
            for unpacked, offset in ((low, 0), (high, 64)):
                where = builder.add(builder.mul(at(2), place), at(offset))
                code = _load(builder, builder.gep(begin, [where]), _BYTES)
                for row in range(len(rows)):
                    sums = builder.load(totals[row][query])
                    builder.store(_add_products(context, builder, sums, unpacked[row], code), totals[row][query])
    return [[builder.load(total) for total in of_row] for of_row in totals]


@intrinsic
def row_product(typing_context: Any, plane: Any, row: Any, codes: Any, query: Any) -> Any:
    """The product of a row of `plane` [n, w] and a query of `codes` [m, 2 * w], int32."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        planes, queries = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        [[sums]] = _products(context, builder, planes, [arguments[1]], queries, arguments[3], 1)
        function = ir.FunctionType(ir.IntType(32), [_SUMS])
        name = "llvm.vector.reduce.add.v16i32"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [sums])

    return types.int32(plane, row, codes, query), generate


@intrinsic
def multiply_four(
    typing_context: Any, plane: Any, row: Any, other: Any, codes: Any, query: Any, products: Any, i: Any, j: Any
) -> Any:
    """Write to rows `i` and `j` of `products` [c, 4] int32 those of `row` and `other` of `plane` [n, w] and the four
    queries of `codes` [m, 2 * w] from `query` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        planes, queries, out = (
            context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 3, 5)
        )
        rows = _products(context, builder, planes, list(arguments[1:3]), queries, arguments[4], QUERIES)
        for place, sums in zip(arguments[6:8], rows, strict=True):
            four = _four_totals(builder, sums)
            pointer = builder.gep(out.data, [builder.mul(place, ir.Constant(place.type, QUERIES))])
            builder.store(four, builder.bitcast(pointer, four.type.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(plane, row, other, codes, query, products, i, j), generate


@intrinsic
def find_passing(
    typing_context: Any, products: Any, which: Any, numbers: Any, at: Any, query: types.UniTuple, bounds: Any
) -> Any:
    """Write to `bounds` [16] those of the rows from `at` on, and return which are not below the floor, as bits.

    They are made of column `which` of `products` [c, 4] int32, of `numbers` [3, c] float64 by field, and of (step,
    offset of a product, t, Z, floor) of the query.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        lanes = ir.VectorType(ir.DoubleType(), GROUP)
        whole, fields, out = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 5))

        def splat(value: ir.Value) -> ir.Value:
            first = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            return _shuffle(builder, first, first, [0] * GROUP)

        def field(number: int) -> ir.Value:
            length = cgutils.unpack_tuple(builder, fields.shape)[1]
            place = builder.add(builder.mul(length, ir.Constant(length.type, number)), arguments[3])
            return _load(builder, builder.gep(fields.data, [place]), lanes)

        place = builder.add(builder.mul(arguments[3], ir.Constant(ir.IntType(64), QUERIES)), arguments[1])
        columns = _load(builder, builder.gep(whole.data, [place]), _PRODUCTS)
        column = list(range(0, QUERIES * GROUP, QUERIES))
        product = builder.sitofp(_shuffle(builder, columns, columns, column), lanes)
        step, offset, along, reach, floor = (splat(value) for value in cgutils.unpack_tuple(builder, arguments[4]))
        rest = _multiply_add(builder, field(1), along, builder.fmul(field(2), reach))
        bound = _multiply_add(builder, field(0), _multiply_add(builder, step, product, offset), rest)
        builder.store(bound, builder.bitcast(out.data, lanes.as_pointer())).align = 8
        passing = builder.fcmp_ordered(">=", bound, floor)
        return builder.zext(builder.bitcast(passing, ir.IntType(GROUP)), ir.IntType(64))

    return types.uint64(products, which, numbers, at, query, bounds), generate
