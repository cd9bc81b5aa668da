"""Masks and the bits of vectors: the second half of the SIMD layer."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from talker.jit.simd import FLOATS, I8, I32, I64, LANES, float8, instruction, mask8

_INTS, _BYTES = ir.VectorType(I32, LANES), ir.VectorType(I8, LANES)

ROUND_MAGIC = 1.5 * 2.0**23
"""Adding and subtracting it rounds a float32 of moderate size to an integer."""


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INTS, [value] * LANES)


@instruction
def any_lane(typingctx, mask):
    """Whether the mask holds anywhere."""

    def emit(context, builder, sig, args):
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], I8), ir.Constant(I8, 0))

    return types.boolean(mask8), emit


@instruction
def count_lanes(typingctx, mask):
    """In how many lanes the mask holds."""

    def emit(context, builder, sig, args):
        return builder.zext(builder.ctpop(builder.bitcast(args[0], I8)), I64)

    return types.int64(mask8), emit


@instruction
def lowest_bit(typingctx, bits):
    """Number of the lowest set bit of a non-zero uint64."""

    def emit(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), emit


@instruction
def span_bits(typingctx, first, last, mask):
    """Byte k of the result has bits ``first[k]`` to ``last[k]`` set (0..7), or none where the mask is false."""

    def emit(context, builder, sig, args):
        low, high = builder.fptosi(args[0], _INTS), builder.fptosi(args[1], _INTS)
        up_to_high = builder.sub(builder.shl(_integers(2), high), _integers(1))
        below_low = builder.sub(builder.shl(_integers(1), low), _integers(1))
        span = builder.select(args[2], builder.and_(up_to_high, builder.not_(below_low)), _integers(0))
        return builder.bitcast(builder.trunc(span, _BYTES), I64)

    return types.uint64(float8, float8, mask8), emit


@instruction
def float_bits(typingctx, x):
    """The bits of a float32 as int32; they sort like the values when these are positive."""

    def emit(context, builder, sig, args):
        return builder.bitcast(args[0], I32)

    return types.int32(types.float32), emit


@instruction
def split_integer(typingctx, x):
    """(m, f): f = x - round(x) in -0.5..0.5, and m whose low bits hold round(x) for ``scale_by_power``."""
    pair = types.UniTuple(float8, 2)

    def emit(context, builder, sig, args):
        magic = ir.Constant(FLOATS, [ROUND_MAGIC] * LANES)
        shifted = builder.fadd(args[0], magic)  # without flags: nothing may be cancelled here
        fraction = builder.fsub(args[0], builder.fsub(shifted, magic))
        return context.make_tuple(builder, pair, [shifted, fraction])

    return pair(float8), emit


@instruction
def scale_by_power(typingctx, x, m):
    """Compute x * 2^n by adding to the exponent bits; n comes in the low bits of ``m`` from ``split_integer``."""

    def emit(context, builder, sig, args):
        power = builder.shl(builder.bitcast(args[1], _INTS), _integers(23))
        return builder.bitcast(builder.add(builder.bitcast(args[0], _INTS), power), FLOATS)

    return float8(float8, float8), emit


@instruction
def split_exponent(typingctx, x):
    """(e, m): x = m * 2^e with m in sqrt(1/2)..sqrt(2); x positive and normal."""
    pair = types.UniTuple(float8, 2)
    sqrt_half_bits = 0x3F3504F3

    def emit(context, builder, sig, args):
        offset = builder.sub(builder.bitcast(args[0], _INTS), _integers(sqrt_half_bits))
        exponent = builder.sitofp(builder.ashr(offset, _integers(23)), FLOATS)
        mantissa = builder.add(builder.and_(offset, _integers(0x7FFFFF)), _integers(sqrt_half_bits))
        return context.make_tuple(builder, pair, [exponent, builder.bitcast(mantissa, FLOATS)])

    return pair(float8), emit
