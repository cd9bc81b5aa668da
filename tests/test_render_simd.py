"""The SIMD layer: every operation against NumPy, and that the kernels really are made of wide instructions."""

from __future__ import annotations

import re

import llvmlite.binding
import numba
import numpy as np
import pytest

from talker.jit import bits, simd, vector_math
from talker.jit.compile import OPTIONS
from talker.render import warmup
from talker.render.cpu.blend import blend
from talker.render.cpu.blend_backward import blend_backward
from talker.render.cpu.project import project
from talker.render.cpu.project_backward import project_backward

njit = numba.njit(**OPTIONS)
RNG = np.random.default_rng(3)
X = RNG.normal(size=8).astype(np.float32)
Y = RNG.normal(size=8).astype(np.float32)


@njit
def _arithmetic(a, b, out):
    x, y = simd.load(a, 0), simd.load(b, 0)
    simd.store(out, 0, x + y)
    simd.store(out, 8, x - y)
    simd.store(out, 16, x * y)
    simd.store(out, 24, x / y)
    simd.store(out, 32, 2.0 * x + 1.0)
    simd.store(out, 40, -x)
    simd.store(out, 48, simd.minimum(x, y))
    simd.store(out, 56, simd.maximum(x, y))
    simd.store(out, 64, simd.sqrt(x * x))
    simd.store(out, 72, simd.floor(x * 3.0))
    simd.store(out, 80, simd.ceil(x * 3.0))
    simd.store(out, 88, simd.multiply_add(x, y, x))


def test_arithmetic_works_lane_by_lane() -> None:
    out = np.zeros(96, np.float32)
    _arithmetic(X, Y, out)
    expected = [X + Y, X - Y, X * Y, X / Y, 2 * X + 1, -X, np.minimum(X, Y), np.maximum(X, Y), np.abs(X)]
    expected += [np.floor(3 * X), np.ceil(3 * X), X * Y + X]
    np.testing.assert_allclose(out.reshape(-1, 8), np.stack(expected), rtol=3e-7, atol=1e-7)


@njit
def _masks(a, b, out, numbers):
    x, y = simd.load(a, 0), simd.load(b, 0)
    simd.store(out, 0, simd.keep(x < y, x))
    simd.store(out, 8, simd.select((x > 0.0) & (y > 0.0), x, y))
    simd.store(out, 16, simd.keep((x >= y) | (x <= -1.0), y))
    numbers[0] = bits.count_lanes(x < y)
    numbers[1] = bits.any_lane(x > 1e9)
    numbers[2] = bits.any_lane(x >= simd.broadcast(a, 5))


def test_masks_select_and_count() -> None:
    out, numbers = np.zeros(24, np.float32), np.zeros(3, np.int64)
    _masks(X, Y, out, numbers)
    expected = [
        np.where(X < Y, X, 0),
        np.where((X > 0) & (Y > 0), X, Y),
        np.where((X >= Y) | (X <= -1), Y, 0),
    ]
    np.testing.assert_array_equal(out.reshape(-1, 8), np.stack(expected))
    assert list(numbers) == [(X < Y).sum(), 0, 1]


def test_comparisons_with_nan_are_false_and_keep_drops_it() -> None:
    out, numbers = np.ones(24, np.float32), np.zeros(3, np.int64)
    x = X.copy()
    x[2] = np.nan
    _masks(x, Y, out, numbers)
    assert out[2] == 0
    assert out[8 + 2] == Y[2]
    assert out[16 + 2] == 0


@njit
def _memory(a, out):
    simd.store(out, 1, simd.load(a, 3))
    simd.store(out, 10, simd.load_strided(a, 1, 3))
    simd.store_strided(out, 20, 2, simd.broadcast(a, 7))
    simd.store(out, 40, simd.load_halves(a, 0, 9))
    simd.store_halves(out, 50, 60, simd.load(a, 0))
    simd.put(out, 70, simd.get(a, 2))
    simd.store(out, 72, simd.spread(a[4]))


def test_loads_and_stores_touch_only_their_elements() -> None:
    a, out = np.arange(32, dtype=np.float32), np.full(96, -1, np.float32)
    expected = out.copy()
    expected[1:9] = a[3:11]
    expected[10:18] = a[1:25:3]
    expected[20:36:2] = 7
    expected[40:48] = [0, 1, 2, 3, 9, 10, 11, 12]
    expected[50:54], expected[60:64] = a[:4], a[4:8]
    expected[70] = 2
    expected[72:80] = 4
    _memory(a, out)
    np.testing.assert_array_equal(out, expected)


@njit
def _functions(a, out):
    for i in range(0, a.shape[0], 8):
        x = simd.load(a, i)
        simd.store(out[0], i, vector_math.exp2(x))
        simd.store(out[1], i, vector_math.log2(vector_math.exp2(x)))


def test_exponential_and_logarithm_keep_their_precision() -> None:
    x = np.linspace(-30, 3, 80_000).astype(np.float32)
    out = np.empty((2, len(x)), np.float32)
    _functions(x, out)
    truth = np.exp2(x.astype(np.float64))
    assert np.abs(out[0] / truth - 1).max() < 3e-6
    np.testing.assert_allclose(out[1], np.log2(out[0].astype(np.float64)), rtol=3e-7, atol=3e-7)


@njit
def _sums(a, out, columns):
    rows = (
        simd.load(a, 0),
        simd.load(a, 8),
        simd.load(a, 16),
        simd.load(a, 24),
        simd.load(a, 32),
        simd.load(a, 40),
        simd.load(a, 48),
        simd.load(a, 56),
    )
    simd.store(out, 0, vector_math.sum_each(*rows))
    out[8] = vector_math.sum_lanes(rows[3])
    vector_math.store_rows(columns, 0, 8, vector_math.transpose(*rows))


def test_sums_and_transposition() -> None:
    a = RNG.normal(size=(8, 8)).astype(np.float32)
    out, columns = np.empty(9, np.float32), np.empty(64, np.float32)
    _sums(a.reshape(-1), out, columns)
    np.testing.assert_allclose(out[:8], a.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[8], a[3].sum(dtype=np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(columns.reshape(8, 8), a.T)


@njit
def _bits(first, last, numbers):
    x, y = simd.load(first, 0), simd.load(last, 0)
    numbers[0] = bits.span_bits(x, y, x <= y)
    numbers[1] = bits.lowest_bit(np.uint64(numbers[2]))


def test_spans_become_bits() -> None:
    first = np.array([0, 3, 7, 0, 5, 2, 1, 4], np.float32)
    last = np.array([7, 3, 7, 0, 4, 6, 0, 5], np.float32)
    numbers = np.array([0, 0, 0b1011000], np.uint64)
    _bits(first, last, numbers)
    expected = [sum(1 << b for b in range(int(f), int(g) + 1)) for f, g in zip(first, last, strict=True)]
    assert list(numbers[:1].view(np.uint8)) == expected
    assert numbers[1] == 3


@njit
def _count_up(counter, n):
    for _ in range(n):
        simd.atomic_add(counter, 0, np.int64(2))
    return simd.atomic_add(counter, 0, np.int64(1))


def test_atomic_add_returns_the_value_before() -> None:
    counter = np.zeros(1, np.int64)
    assert _count_up(counter, 5) == 10
    assert counter[0] == 11


def test_a_constant_needs_eight_values() -> None:
    with pytest.raises(ValueError, match="3 values"):
        simd.lanes([1, 2, 3])


@pytest.mark.skipif(
    not llvmlite.binding.get_host_cpu_features().get("fma", False),
    reason="this processor has no AVX2 with FMA",
)
@pytest.mark.parametrize(
    ("kernel", "n_wide"), [(project, 20), (blend, 30), (blend_backward, 30), (project_backward, 45)]
)
def test_kernels_are_made_of_wide_fused_multiply_adds(kernel, n_wide) -> None:
    # A kernel that lost its vectors still draws the right picture, eight times slower. Code that comes from the
    # cache cannot be inspected, so it is compiled again.
    warmup()
    fresh = numba.njit(nogil=True, **OPTIONS)(kernel.py_func)
    fresh.compile(kernel.signatures[0])
    (assembly,) = fresh.inspect_asm().values()
    wide = re.findall(r"vfn?m(?:add|sub)\d+ps\s.*ymm", assembly)
    calls = re.findall(r"\$(?:exp2?|fma|sqrt|floor|ceil|log2?)f\b", assembly)
    assert len(wide) >= n_wide
    assert not calls, "a lane-by-lane call of the mathematics library"
