"""Fused CPU kernels of the encodings and the KAN layer: float32, forward and backward.

Their definitions with tensors are in ``encoding.py`` and ``kan.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from talker.fused import SHARES, share_out
from talker.jit.compile import inlined_sum, sum_kernel

_BLOCK = 32  # rows whose sums stay in the first-level cache while the inputs are walked through
_LANES = 8

# --- planes: rows of one table, read bilinearly. `groups` [G, 6]: axis, axis, cells, first row, stride, mask ---


@inlined_sum
def _corners(x, n, groups, g):
    """Four table rows around point ``n`` on plane ``g``, and the fractions of the cell."""
    cells = groups[g, 2]
    u = min(max((x[n, groups[g, 0]] + np.float32(1)) * np.float32(0.5), np.float32(0)), np.float32(1))
    v = min(max((x[n, groups[g, 1]] + np.float32(1)) * np.float32(0.5), np.float32(0)), np.float32(1))
    u, v = u * np.float32(cells), v * np.float32(cells)
    # The lower bound is for NaN, whose integer is anything: the row stays inside, the result stays NaN.
    cu, cv = max(min(np.int64(u), cells - 1), 0), max(min(np.int64(v), cells - 1), 0)
    fu, fv = u - np.float32(cu), v - np.float32(cv)
    first, stride, mask = groups[g, 3], groups[g, 4], groups[g, 5]
    if mask == 0:
        low = first + cu + cv * stride
        return low, low + 1, low + stride, low + stride + 1, fu, fv
    low, high = (cv * stride) & mask, ((cv + 1) * stride) & mask
    left, right = cu & mask, (cu + 1) & mask
    return first + (left ^ low), first + (right ^ low), first + (left ^ high), first + (right ^ high), fu, fv


@sum_kernel
def _planes_forward(x, groups, table, out, start, stop):
    features = table.shape[1]
    one = np.float32(1)
    for n in range(start, stop):
        for g in range(groups.shape[0]):
            a, b, c, d, fu, fv = _corners(x, n, groups, g)
            wa, wb, wc, wd = (one - fu) * (one - fv), fu * (one - fv), (one - fu) * fv, fu * fv
            for k in range(features):
                out[n, g, k] = wa * table[a, k] + wb * table[b, k] + wc * table[c, k] + wd * table[d, k]


@sum_kernel
def _planes_backward_table(x, groups, grad, grad_table, start, stop):
    features = grad_table.shape[1]
    one = np.float32(1)
    for g in range(start, stop):  # a plane owns its rows, so threads never meet
        for n in range(x.shape[0]):
            a, b, c, d, fu, fv = _corners(x, n, groups, g)
            wa, wb, wc, wd = (one - fu) * (one - fv), fu * (one - fv), (one - fu) * fv, fu * fv
            for k in range(features):
                value = grad[n, g, k]
                grad_table[a, k] += wa * value
                grad_table[b, k] += wb * value
                grad_table[c, k] += wc * value
                grad_table[d, k] += wd * value


@sum_kernel
def _planes_backward_x(x, groups, table, grad, grad_x, start, stop):
    features = table.shape[1]
    one = np.float32(1)
    for n in range(start, stop):
        for g in range(groups.shape[0]):
            a, b, c, d, fu, fv = _corners(x, n, groups, g)
            du, dv = np.float32(0), np.float32(0)
            for k in range(features):
                value, ta, tb, tc, td = grad[n, g, k], table[a, k], table[b, k], table[c, k], table[d, k]
                du += value * ((tb - ta) * (one - fv) + (td - tc) * fv)
                dv += value * ((tc - ta) * (one - fu) + (td - tb) * fu)
            half = np.float32(0.5) * np.float32(groups[g, 2])
            if abs(x[n, groups[g, 0]]) <= one:
                grad_x[n, groups[g, 0]] += half * du
            if abs(x[n, groups[g, 1]]) <= one:
                grad_x[n, groups[g, 1]] += half * dv


class Planes(torch.autograd.Function):
    """Bilinear reads [N, G, C] of ``table`` [R, C] at ``x`` [N, 3] on the planes of ``groups`` [G, 6]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, groups: Tensor) -> Tensor:
        """Read the table."""
        x, table = x.detach().contiguous(), table.detach().contiguous()
        out = torch.empty(x.shape[0], groups.shape[0], table.shape[1])
        arrays = x.numpy(), groups.numpy(), table.numpy(), out.numpy()
        share_out(lambda _, start, stop: _planes_forward(*arrays, start, stop), x.shape[0])
        ctx.save_for_backward(x, table, groups)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of positions and table, where asked for."""
        x, table, groups = ctx.saved_tensors
        points, planes, values = x.numpy(), groups.numpy(), grads[0].contiguous().numpy()
        grad_x = grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            rows = grad_table.numpy()
            share_out(
                lambda _, start, stop: _planes_backward_table(points, planes, values, rows, start, stop),
                groups.shape[0],
            )
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x)
            array, axes = table.numpy(), grad_x.numpy()
            share_out(
                lambda _, start, stop: _planes_backward_x(points, planes, array, values, axes, start, stop),
                x.shape[0],
            )
        return grad_x, grad_table, None


# --- uniform cubic splines: four of the basis functions are non-zero anywhere ---


@sum_kernel
def _splines_forward(x, origin, rate, table, out, start, stop):
    cells = table.shape[1] - 3
    width = out.shape[1]
    sixth, one = np.float32(1 / 6), np.float32(1)
    three, four, six = np.float32(3), np.float32(4), np.float32(6)
    for block in range(start, stop, _BLOCK):
        end = min(block + _BLOCK, stop)
        for i in range(x.shape[1]):
            for n in range(block, end):
                u = (x[n, i] - origin[i]) * rate[i]
                if not (u >= 0 and u < cells):
                    continue
                c = np.int64(u)
                f = u - np.float32(c)
                e = one - f
                wa, wd = e * e * e * sixth, f * f * f * sixth
                wb = ((three * f - six) * f * f + four) * sixth
                wc = (((one - f) * f + one) * three * f + one) * sixth
                for o in range(width):
                    out[n, o] += (
                        wa * table[i, c, o]
                        + wb * table[i, c + 1, o]
                        + wc * table[i, c + 2, o]
                        + wd * table[i, c + 3, o]
                    )


@sum_kernel
def _splines_backward(x, origin, rate, table, grad, grad_x, grad_table, start, stop):  # noqa: PLR0913, PLR0917
    cells = table.shape[1] - 3
    width = grad.shape[1]
    sixth, half, one = np.float32(1 / 6), np.float32(0.5), np.float32(1)
    two, three, four, six = np.float32(2), np.float32(3), np.float32(4), np.float32(6)
    for block in range(start, stop, _BLOCK):
        end = min(block + _BLOCK, stop)
        for i in range(x.shape[1]):
            for n in range(block, end):
                u = (x[n, i] - origin[i]) * rate[i]
                if not (u >= 0 and u < cells):
                    continue
                c = np.int64(u)
                f = u - np.float32(c)
                e = one - f
                wa, wd = e * e * e * sixth, f * f * f * sixth
                wb = ((three * f - six) * f * f + four) * sixth
                wc = (((one - f) * f + one) * three * f + one) * sixth
                da, dd = -half * e * e, half * f * f
                db = half * (three * f - four) * f
                dc = half * ((two - three * f) * f + one)
                slope = np.float32(0)
                for o in range(width):
                    slope += grad[n, o] * (
                        da * table[i, c, o]
                        + db * table[i, c + 1, o]
                        + dc * table[i, c + 2, o]
                        + dd * table[i, c + 3, o]
                    )
                grad_x[n, i] = slope * rate[i]
                # One loop per row: the compiler cannot know that four rows of one array do not overlap.
                for o in range(width):
                    grad_table[i, c, o] += wa * grad[n, o]
                for o in range(width):
                    grad_table[i, c + 1, o] += wb * grad[n, o]
                for o in range(width):
                    grad_table[i, c + 2, o] += wc * grad[n, o]
                for o in range(width):
                    grad_table[i, c + 3, o] += wd * grad[n, o]


class CubicSplines(torch.autograd.Function):
    """Sums [N, out] over inputs of cubic splines on uniform grids.

    ``x`` [N, in], ``coefficients`` [out, in, K], ``origin`` [in] the first knots, ``rate`` [in] knots per unit.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficients: Tensor, origin: Tensor, rate: Tensor) -> Tensor:
        """Evaluate and sum the splines."""
        x, origin, rate = x.detach().contiguous(), origin.contiguous(), rate.contiguous()
        n_out, n_in, k = coefficients.shape
        # Three zero rows at either side spare the kernel all tests at the ends, whole lanes those at the rest.
        table = torch.zeros(n_in, k + 6, -(-n_out // _LANES) * _LANES)
        table[:, 3 : 3 + k, :n_out] = coefficients.detach().permute(1, 2, 0)
        out = torch.zeros(x.shape[0], table.shape[2])
        arrays = x.numpy(), origin.numpy(), rate.numpy(), table.numpy(), out.numpy()
        share_out(lambda _, start, stop: _splines_forward(*arrays, start, stop), x.shape[0])
        ctx.save_for_backward(x, origin, rate, table)
        ctx.shape = coefficients.shape
        return out[:, :n_out].contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of inputs and coefficients."""
        x, origin, rate, table = ctx.saved_tensors
        n_out, _, k = ctx.shape
        padded = torch.zeros(x.shape[0], table.shape[2])
        padded[:, :n_out] = grads[0]
        grad_x, sums = torch.zeros_like(x), torch.zeros(SHARES, *table.shape)
        arrays = x.numpy(), origin.numpy(), rate.numpy(), table.numpy(), padded.numpy(), grad_x.numpy()
        each = sums.numpy()
        share_out(lambda i, start, stop: _splines_backward(*arrays, each[i], start, stop), x.shape[0])
        return grad_x, sums.sum(0)[:, 3 : 3 + k, :n_out].permute(2, 0, 1), None, None
