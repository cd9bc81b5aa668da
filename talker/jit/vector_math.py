"""Functions of whole vectors, written with the SIMD layer."""

from __future__ import annotations

from talker.jit.bits import scale_by_power, split_exponent, split_integer
from talker.jit.compile import inlined
from talker.jit.simd import first_lane, shuffle, store

# 2^f for f in -0.5..0.5: least-squares in relative error, 2.6e-6 at most. One degree less would be 7.5e-5.
_C0, _C1, _C2, _C3, _C4 = 0.99999926, 0.69312181, 0.24024745, 0.05591786, 0.0095701
# log2(m) = s * (L0 + L1 s^2 + L2 s^4 + L3 s^6), s = (m - 1) / (m + 1), |s| <= 0.172
_L0, _L1, _L2, _L3 = 2.885390043258667, 0.9617967009544373, 0.5770779848098755, 0.4121985912322998

_evens = shuffle([0, 2, 8, 10, 4, 6, 12, 14])
_odds = shuffle([1, 3, 9, 11, 5, 7, 13, 15])
_low_halves = shuffle([0, 1, 2, 3, 8, 9, 10, 11])
_high_halves = shuffle([4, 5, 6, 7, 12, 13, 14, 15])
_swap_pairs = shuffle([2, 3, 0, 1, 6, 7, 4, 5])
_swap_neighbours = shuffle([1, 0, 3, 2, 5, 4, 7, 6])
_low_pairs = shuffle([0, 8, 1, 9, 4, 12, 5, 13])
_high_pairs = shuffle([2, 10, 3, 11, 6, 14, 7, 15])
_low_quads = shuffle([0, 1, 8, 9, 4, 5, 12, 13])
_high_quads = shuffle([2, 3, 10, 11, 6, 7, 14, 15])


@inlined
def exp2(x):
    """2^x, relative error 2.6e-6, for -126 < x < 127; garbage (never a trap) outside."""
    m, f = split_integer(x)
    return scale_by_power((((_C4 * f + _C3) * f + _C2) * f + _C1) * f + _C0, m)


@inlined
def log2(x):
    """Logarithm of positive normal numbers, error about 2e-7."""
    exponent, m = split_exponent(x)
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    return exponent + s * (((_L3 * q + _L2) * q + _L1) * q + _L0)


@inlined
def _add_pairs(x, y):
    return _evens(x, y) + _odds(x, y)


@inlined
def sum_each(a, b, c, d, e, f, g, h):
    """One vector of eight sums: lane 0 is the sum of ``a``, lane 7 that of ``h``."""
    x = _add_pairs(_add_pairs(a, b), _add_pairs(c, d))
    y = _add_pairs(_add_pairs(e, f), _add_pairs(g, h))
    return _low_halves(x, y) + _high_halves(x, y)


@inlined
def sum_lanes(x):
    """The sum of the lanes, as a scalar; always added in the same order."""
    x = x + _high_halves(x, x)
    x = x + _swap_pairs(x, x)
    return first_lane(x + _swap_neighbours(x, x))


@inlined
def transpose(a, b, c, d, e, f, g, h):
    """Rows become columns: lane k of the eight arguments is the k-th result."""
    ab0, ab1, cd0, cd1 = _low_pairs(a, b), _high_pairs(a, b), _low_pairs(c, d), _high_pairs(c, d)
    ef0, ef1, gh0, gh1 = _low_pairs(e, f), _high_pairs(e, f), _low_pairs(g, h), _high_pairs(g, h)
    abcd0, abcd1, abcd2, abcd3 = (
        _low_quads(ab0, cd0),
        _high_quads(ab0, cd0),
        _low_quads(ab1, cd1),
        _high_quads(ab1, cd1),
    )
    efgh0, efgh1, efgh2, efgh3 = (
        _low_quads(ef0, gh0),
        _high_quads(ef0, gh0),
        _low_quads(ef1, gh1),
        _high_quads(ef1, gh1),
    )
    return (
        _low_halves(abcd0, efgh0),
        _low_halves(abcd1, efgh1),
        _low_halves(abcd2, efgh2),
        _low_halves(abcd3, efgh3),
        _high_halves(abcd0, efgh0),
        _high_halves(abcd1, efgh1),
        _high_halves(abcd2, efgh2),
        _high_halves(abcd3, efgh3),
    )


@inlined
def store_rows(array, first, stride, rows):
    """Write eight vectors, ``stride`` floats apart."""
    a, b, c, d, e, f, g, h = rows
    store(array, first, a)
    store(array, first + stride, b)
    store(array, first + 2 * stride, c)
    store(array, first + 3 * stride, d)
    store(array, first + 4 * stride, e)
    store(array, first + 5 * stride, f)
    store(array, first + 6 * stride, g)
    store(array, first + 7 * stride, h)
