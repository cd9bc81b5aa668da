"""A whole KAN layer of cubic splines without gradients, in one pass on the SIMD layer.

``KANLinear`` defines the result; training uses the kernels with gradients in ``kernels.py``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from talker.fused import share_out
from talker.jit.compile import inlined, kernel
from talker.jit.simd import (
    LANES,
    broadcast,
    floor,
    keep,
    load,
    load_strided,
    maximum,
    minimum,
    select,
    spread,
    store,
)
from talker.jit.vector_math import exp2

BLOCK = 64
"""Rows that walk through the inputs together; the table of two inputs then stays in the first-level cache."""

MIN_ROWS = LANES
_LOG2_E = 1.4426950408889634
_LOW, _HIGH = np.float32(-120), np.float32(120)  # where exp2 is defined


def applies(x: Tensor, n_in: int) -> bool:
    """Whether the kernel can take these rows [N, in]."""
    return not torch.is_grad_enabled() and n_in % 2 == 0 and x.shape[0] >= MIN_ROWS


def layer(x: Tensor, coefficients: Tensor, base: Tensor, origin: Tensor, rate: Tensor) -> Tensor:
    """Sums [N, out] over inputs of splines and weighted SiLU.

    Args:
        x: [N, in] float32, N at least ``MIN_ROWS``, an even number of inputs.
        coefficients: [out, in, K].
        base: [out, in], weights of the SiLU.
        origin: [in], first knots.
        rate: [in], knots per unit.
    """
    x = x.contiguous()
    n_out, n_in, k = coefficients.shape
    width = -(-n_out // LANES) * LANES
    # Row 0 of an input is its SiLU weight. Three zero rows at either end spare the kernel all tests there.
    table = torch.zeros(n_in, k + 7, width)
    table[:, 0, :n_out] = base.T
    table[:, 4 : 4 + k, :n_out] = coefficients.permute(1, 2, 0)
    out = torch.zeros(x.shape[0], width)
    arrays = [t.reshape(-1).numpy() for t in (x, origin.contiguous(), rate.contiguous(), table, out)]
    n_groups = x.shape[0] // LANES  # shares of whole groups; the last one takes the rest

    def task(_: int, start: int, stop: int) -> None:
        last = x.shape[0] if stop == n_groups else stop * LANES
        if stop > start:
            _layer(*arrays, n_in, k + 3, width, start * LANES, last)

    share_out(task, n_groups)
    return out[:, :n_out]


@kernel
def _layer(x, origin, rate, table, out, n_in, cells, width, start, stop):  # noqa: PLR0913, PLR0917
    weights = np.empty(2 * 5 * (BLOCK + LANES), np.float32)
    cell = np.empty(2 * (BLOCK + LANES), np.float32)
    first = start
    while first < stop:
        rows = stop - first
        if rows >= BLOCK + LANES:
            rows = BLOCK
        for i in range(0, n_in, 2):
            _weigh(x, origin, rate, weights, cell, n_in, cells, first, rows, i, 0)
            _weigh(x, origin, rate, weights, cell, n_in, cells, first, rows, i + 1, 1)
            _add_pair(table, weights, cell, out, (cells + 4) * width, width, first, rows, i)
        first += rows


@inlined
def _weigh(x, origin, rate, weights, cell, n_in, cells, first, rows, i, which):  # noqa: PLR0913, PLR0917
    """SiLU and the four spline weights of input ``i`` for all rows of a block, and the cell each is in.

    The last group overlaps the one before it: writing the same twice costs less than a second loop.
    """
    stride = 2 * (BLOCK + LANES)
    sixth = np.float32(1 / 6)
    for group in range(0, rows, LANES):
        n = min(group, rows - LANES)
        value = load_strided(x, (first + n) * n_in + i, n_in)
        u = (value - spread(origin[i])) * spread(rate[i])
        inside = (u >= 0.0) & (u < np.float32(cells))
        u = keep(inside, u)
        c = floor(u)
        f = u - c
        e = 1.0 - f
        s = select(inside, spread(sixth), spread(np.float32(0.0)))
        at = which * (BLOCK + LANES) + n
        store(cell, at, c)
        power = minimum(maximum(value * (-_LOG2_E), spread(_LOW)), spread(_HIGH))
        store(weights, at, value / (1.0 + exp2(power)))
        store(weights, stride + at, e * e * e * s)
        store(weights, 2 * stride + at, ((3.0 * f - 6.0) * f * f + 4.0) * s)
        store(weights, 3 * stride + at, (((1.0 - f) * f + 1.0) * 3.0 * f + 1.0) * s)
        store(weights, 4 * stride + at, f * f * f * s)


@inlined
def _add_pair(table, weights, cell, out, per_input, width, first, rows, i):  # noqa: PLR0913, PLR0917
    """Two inputs at once: each row of sums is read and written once for both."""
    stride, other = 2 * (BLOCK + LANES), BLOCK + LANES
    for n in range(rows):
        silu, low = i * per_input, (i + 1) * per_input
        a = silu + (1 + np.int64(cell[n])) * width
        b = low + (1 + np.int64(cell[other + n])) * width
        to, m = (first + n) * width, other + n
        w0, w1, w2 = broadcast(weights, n), broadcast(weights, stride + n), broadcast(weights, 2 * stride + n)
        w3, w4 = broadcast(weights, 3 * stride + n), broadcast(weights, 4 * stride + n)
        v0, v1, v2 = broadcast(weights, m), broadcast(weights, stride + m), broadcast(weights, 2 * stride + m)
        v3, v4 = broadcast(weights, 3 * stride + m), broadcast(weights, 4 * stride + m)
        for o in range(0, width, LANES):
            p = load(out, to + o) + w0 * load(table, silu + o)
            q = v0 * load(table, low + o) + v1 * load(table, b + o)
            p = p + w1 * load(table, a + o)
            q = q + v2 * load(table, b + width + o)
            p = p + w2 * load(table, a + width + o)
            q = q + v3 * load(table, b + 2 * width + o)
            p = p + w3 * load(table, a + 2 * width + o)
            q = q + v4 * load(table, b + 3 * width + o)
            p = p + w4 * load(table, a + 3 * width + o)
            store(out, to + o, p + q)
