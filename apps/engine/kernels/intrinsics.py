"""Instructions that numba cannot emit from Python code. Each function here writes one as LLVM's intermediate code (IR),
from which numba's compiler makes machine code.

An `@intrinsic` is called when a kernel is compiled. It gets numba types, and returns the signature of the call and a
function `generate` that appends instructions where the call stands: `builder.add(x, y)` appends an addition and returns
its result. Arrays are structures with a pointer `data`, a `shape` and `strides`.
"""

from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def borrow(typing_context: Any, array: types.Array) -> Any:
    """The same array without its count of references. Counting costs more than a step of a heap.

    Only for an array that the caller of the kernel holds, and never to be returned: nothing keeps it alive.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        made.meminfo = ir.Constant(made.meminfo.type, None)
        return made._getvalue()

    return array(array), generate


def _append_prefetch(builder: ir.IRBuilder, pointer: ir.Value) -> None:
    """Append the instruction that asks for the cache line of `pointer`."""
    how = [ir.Constant(ir.IntType(32), number) for number in (0, 3, 1)]  # to read, to be kept in all caches, data
    function = ir.FunctionType(ir.VoidType(), [pointer.type, *(number.type for number in how)])
    builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0"), [pointer, *how])


@intrinsic
def prefetch(typing_context: Any, array: types.Array, row: types.Integer) -> Any:
    """Ask for the cache lines in which row `row` of `array` lies, without waiting for them. The row need not exist: the
    processor ignores an address that it may not read.

    Rows that are read in no order come from memory one after the other, some 100 ns each, unless asked for before.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, matrix.strides)[0]
        begin = builder.gep(builder.bitcast(matrix.data, cgutils.voidptr_t), [builder.mul(stride, arguments[1])])
        first, step = (ir.Constant(stride.type, number) for number in (0, 64))
        with cgutils.for_range_slice(builder, first, stride, step, stride.type) as (place, _):
            _append_prefetch(builder, builder.gep(begin, [place]))
        return context.get_dummy_value()

    return types.void(array, row), generate


@intrinsic
def prefetch_line(typing_context: Any, array: types.Array, row: types.Integer) -> Any:
    """The same, for the first cache line of the row only."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, matrix.strides)[0]
        begin = builder.bitcast(matrix.data, cgutils.voidptr_t)
        _append_prefetch(builder, builder.gep(begin, [builder.mul(stride, arguments[1])]))
        return context.get_dummy_value()

    return types.void(array, row), generate


@intrinsic
def lowest_bit(typing_context: Any, word: types.Integer) -> Any:
    """The number of the lowest bit of `word` that is set; `word` is not zero."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), True))

    return types.int64(word), generate


def read_only(dtype: types.Type, dimensions: int) -> types.Array:
    """The type of a C-contiguous array that is only read; arrays that may be written pass for it too."""
    return types.Array(dtype, dimensions, "C", readonly=True)
