"""Instructions that numba cannot emit from Python code, written as LLVM's intermediate code (IR), from which numba's
compiler makes machine code.

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


@intrinsic
def prefetch(typing_context: Any, array: types.Array, row: types.Integer) -> Any:
    """Ask for the cache lines in which row `row` of `array` lies, without waiting for them. The row need not exist: the
    processor ignores an address that it may not read.

    Rows that are read in no order come from memory one after the other, some 100 ns each, unless asked for before.
    They go into the processor's second cache. The first one can wait for a dozen or two lines at a time, which may be
    fewer than a row has, and whoever asks it for more has to wait.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        matrix = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, matrix.strides)[0]
        begin = builder.gep(builder.bitcast(matrix.data, cgutils.voidptr_t), [builder.mul(stride, arguments[1])])
        first, step = (ir.Constant(stride.type, number) for number in (0, 64))
        with cgutils.for_range_slice(builder, first, stride, step, stride.type) as (place, _):
            pointer = builder.gep(begin, [place])
            how = [ir.Constant(ir.IntType(32), number) for number in (0, 2, 1)]  # read it, into the second cache, data
            function = ir.FunctionType(ir.VoidType(), [pointer.type, *(number.type for number in how)])
            builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0"), [pointer, *how])
        return context.get_dummy_value()

    return types.void(array, row), generate
