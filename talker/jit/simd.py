"""Eight float32 lanes as one value inside numba code.

Numba's own vectoriser gives up on the blending loops (it must assume that arrays overlap), which costs a factor
of ten. This module adds two types, ``Float8`` (LLVM ``<8 x float>``) and ``Mask8`` (``<8 x i1>``), with arithmetic
and comparison operators, loads, stores, selects and shuffles, each of which becomes one or two LLVM instructions.
LLVM lowers eight lanes to whatever the processor has: one AVX register, or pairs of SSE and NEON ones.

No operation may assume that values are finite: only contraction to fused multiply-add is allowed, so comparisons
with NaN are false and rounding by a magic number survives.

Arrays are one-dimensional and C-contiguous, indices are never negative, and bounds are never checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 8

I8, I32, I64, F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, BOOLS = ir.VectorType(F32, LANES), ir.VectorType(ir.IntType(1), LANES)
_FLAGS = ("contract",)


def instruction(function: Callable) -> Any:
    """A numba intrinsic; the first argument of the definition is numba's own and not passed by callers."""
    return intrinsic(function)


class Float8(types.Type):
    """Numba type of eight float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="Float8")


class Mask8(types.Type):
    """Numba type of eight booleans."""

    def __init__(self) -> None:
        super().__init__(name="Mask8")


float8, mask8 = Float8(), Mask8()


@register_model(Float8)
class _Float8Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, FLOATS)


@register_model(Mask8)
class _Mask8Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, BOOLS)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [float(value)] * LANES)


def _spread(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    undefined = ir.Constant(FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


# --- operators -----------------------------------------------------------------------------------------------


def _lift(builder: Any, value: Any, kind: types.Type) -> Any:
    """Numbers beside a vector are spread over its lanes (a float64 literal costs nothing: LLVM folds it)."""
    if kind == float8:
        return value
    if kind == types.float64:
        value = builder.fptrunc(value, F32)
    return _spread(builder, value)


_PAIRS = [(float8, float8)] + [
    pair for scalar in (types.float32, types.float64) for pair in ((float8, scalar), (scalar, float8))
]


def _operator(function: Callable, pairs: Sequence[tuple], result: types.Type, emit: Callable) -> None:
    """Type and lower a Python operator for every pair of operand types."""
    cases = [signature(result, *pair) for pair in pairs]
    register: Any = infer_global(function)
    register(type("_Template", (ConcreteTemplate,), {"cases": cases}))
    for pair in pairs:

        def lower(context, builder, sig, args, emit=emit):
            operands = [
                _lift(builder, v, t) if t != mask8 else v for v, t in zip(args, sig.args, strict=True)
            ]
            return emit(builder, *operands)

        lower_builtin(function, *pair)(lower)


for _function, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _PAIRS, float8, lambda b, x, y, n=_name: getattr(b, n)(x, y, flags=_FLAGS))
for _function, _name in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _operator(_function, _PAIRS, mask8, lambda b, x, y, n=_name: b.fcmp_ordered(n, x, y))
_operator(operator.and_, [(mask8, mask8)], mask8, lambda b, x, y: b.and_(x, y))
_operator(operator.or_, [(mask8, mask8)], mask8, lambda b, x, y: b.or_(x, y))
_operator(operator.neg, [(float8,)], float8, lambda b, x: b.fneg(x))


# --- memory --------------------------------------------------------------------------------------------------


def _address(context: Any, builder: ir.IRBuilder, kind: types.Type, array: ir.Value, index: ir.Value) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


@instruction
def load(typingctx, array, index):
    """Eight consecutive floats of ``array`` from ``index``; needs no alignment."""

    def emit(context, builder, sig, args):
        pointer = _address(context, builder, sig.args[0], args[0], args[1])
        value = builder.load(builder.bitcast(pointer, FLOATS.as_pointer()))
        value.align = 4
        return value

    return float8(array, types.intp), emit


@instruction
def store(typingctx, array, index, value):
    """Write eight consecutive floats of ``array`` from ``index``; needs no alignment."""

    def emit(context, builder, sig, args):
        pointer = _address(context, builder, sig.args[0], args[0], args[1])
        instruction = builder.store(args[2], builder.bitcast(pointer, FLOATS.as_pointer()))
        instruction.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, float8), emit


def _half_pointer(
    context: Any, builder: ir.IRBuilder, kind: types.Type, array: ir.Value, index: ir.Value
) -> Any:
    half = ir.VectorType(F32, LANES // 2)
    return builder.bitcast(_address(context, builder, kind, array, index), half.as_pointer())


@instruction
def load_halves(typingctx, array, low, high):
    """Four consecutive floats from ``low`` in lanes 0 to 3, four from ``high`` in lanes 4 to 7."""

    def emit(context, builder, sig, args):
        halves = []
        for index in args[1:]:
            half = builder.load(_half_pointer(context, builder, sig.args[0], args[0], index))
            half.align = 4
            halves.append(half)
        return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, LANES), list(range(LANES))))

    return float8(array, types.intp, types.intp), emit


@instruction
def store_halves(typingctx, array, low, high, value):
    """Write lanes 0 to 3 to four consecutive floats from ``low``, lanes 4 to 7 from ``high``."""

    def emit(context, builder, sig, args):
        for index, first in ((args[1], 0), (args[2], LANES // 2)):
            order = ir.Constant(ir.VectorType(I32, LANES // 2), list(range(first, first + LANES // 2)))
            half = builder.shuffle_vector(args[3], args[3], order)
            pointer = _half_pointer(context, builder, sig.args[0], args[0], index)
            builder.store(half, pointer).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, float8), emit


@instruction
def load_strided(typingctx, array, index, stride):
    """Lane k is ``array[index + k * stride]``: one column of eight rows."""

    def emit(context, builder, sig, args):
        value, position = ir.Constant(FLOATS, ir.Undefined), args[1]
        for lane in range(LANES):
            item = builder.load(_address(context, builder, sig.args[0], args[0], position))
            value = builder.insert_element(value, item, ir.Constant(I32, lane))
            position = builder.add(position, args[2])
        return value

    return float8(array, types.intp, types.intp), emit


@instruction
def store_strided(typingctx, array, index, stride, value):
    """Write lane k to ``array[index + k * stride]``: one column of eight rows."""

    def emit(context, builder, sig, args):
        position = args[1]
        for lane in range(LANES):
            item = builder.extract_element(args[3], ir.Constant(I32, lane))
            builder.store(item, _address(context, builder, sig.args[0], args[0], position))
            position = builder.add(position, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, float8), emit


@instruction
def get(typingctx, array, index):
    """``array[index]`` without Python's negative-index handling, which would break up tight loops."""

    def emit(context, builder, sig, args):
        return builder.load(_address(context, builder, sig.args[0], args[0], args[1]))

    return array.dtype(array, types.intp), emit


@instruction
def put(typingctx, array, index, value):
    """``array[index] = value`` without Python's negative-index handling."""

    def emit(context, builder, sig, args):
        builder.store(args[2], _address(context, builder, sig.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), emit


@instruction
def broadcast(typingctx, array, index):
    """``array[index]`` in all lanes."""

    def emit(context, builder, sig, args):
        return _spread(builder, builder.load(_address(context, builder, sig.args[0], args[0], args[1])))

    return float8(array, types.intp), emit


@instruction
def prefetch(typingctx, array, index):
    """Hint that ``array[index]`` will be read soon."""

    def emit(context, builder, sig, args):
        pointer = builder.bitcast(_address(context, builder, sig.args[0], args[0], args[1]), I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data = (ir.Constant(I32, v) for v in (0, 3, 1))
        builder.call(function, [pointer, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@instruction
def atomic_add(typingctx, array, index, amount):
    """Add to an integer that several threads share; returns the value before."""

    def emit(context, builder, sig, args):
        pointer = _address(context, builder, sig.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "monotonic")

    return array.dtype(array, types.intp, array.dtype), emit


# --- making and combining vectors ----------------------------------------------------------------------------


@instruction
def spread(typingctx, scalar):
    """The float32 ``scalar`` in all lanes."""

    def emit(context, builder, sig, args):
        return _spread(builder, args[0])

    return float8(types.float32), emit


def lanes(values: Sequence[float]) -> Callable:
    """A function that returns the constant vector ``values``."""
    if len(values) != LANES:
        raise ValueError(f"{len(values)} values, expected {LANES}")
    numbers = [float(v) for v in values]

    @instruction
    def constant(typingctx):
        def emit(context, builder, sig, args):
            return ir.Constant(FLOATS, numbers)

        return float8(), emit

    return constant


def shuffle(order: Sequence[int]) -> Callable:
    """A function (x, y) -> vector whose lane k is lane ``order[k]`` of the sixteen lanes of x and y."""
    indices = ir.Constant(ir.VectorType(I32, LANES), list(order))

    @instruction
    def shuffled(typingctx, x, y):
        def emit(context, builder, sig, args):
            return builder.shuffle_vector(args[0], args[1], indices)

        return float8(float8, float8), emit

    return shuffled


@instruction
def first_lane(typingctx, x):
    """Lane 0 as a float32."""

    def emit(context, builder, sig, args):
        return builder.extract_element(args[0], ir.Constant(I32, 0))

    return types.float32(float8), emit


def _named(name: str, n_args: int) -> Callable:
    """An LLVM intrinsic on whole vectors."""

    def emit(context, builder, sig, args):
        kind = ir.FunctionType(FLOATS, [FLOATS] * n_args)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v8f32")
        return builder.call(function, args, fastmath=_FLAGS)

    if n_args == 1:

        @instruction
        def one(typingctx, x):
            return float8(float8), emit

        return one

    @instruction
    def three(typingctx, x, y, z):
        return float8(float8, float8, float8), emit

    return three


sqrt, floor, ceil = _named("sqrt", 1), _named("floor", 1), _named("ceil", 1)
multiply_add = _named("fmuladd", 3)
"""x * y + z, fused where the processor can (a plain ``fma`` would become eight library calls where it cannot)."""


@instruction
def select(typingctx, mask, x, y):
    """Lanes of ``x`` where ``mask`` holds, of ``y`` elsewhere."""

    def emit(context, builder, sig, args):
        return builder.select(args[0], args[1], args[2])

    return float8(mask8, float8, float8), emit


@instruction
def keep(typingctx, mask, x):
    """Lanes of ``x`` where ``mask`` holds, zero elsewhere (also where ``x`` is NaN)."""

    def emit(context, builder, sig, args):
        return builder.select(args[0], args[1], _constant(0.0))

    return float8(mask8, float8), emit


def _extremum(sign: str) -> Callable:
    # Compare-and-select is exactly what one x86 min/max instruction does; LLVM's own minnum must treat NaN.
    @instruction
    def extremum(typingctx, x, y):
        def emit(context, builder, sig, args):
            return builder.select(builder.fcmp_ordered(sign, args[0], args[1]), args[0], args[1])

        return float8(float8, float8), emit

    return extremum


minimum, maximum = _extremum("<"), _extremum(">")
"""Lane-wise; the second argument where either is NaN."""
