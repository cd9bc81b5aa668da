"""Kolmogorov-Arnold layers on uniform B-splines, with efficient-kan's parameter names and layout.

Every pair of an input and an output has its own learned function of one number,
``phi(x) = base_weight * silu(x) + spline_scaler * sum_k spline_weight_k * B_k(x)``, and an output is the sum
of its functions. So a layer is additive over its inputs and has no bias: see ``KANLinear.partial``.

The grid stays uniform. Then all basis functions are shifts of one polynomial bump and need no recursion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talker.errors import CheckpointError, ConfigError
from talker.fused import applies
from talker.model import kan_rows, kernels


def uniform_b_spline(u: Tensor, order: int) -> Tensor:
    """The B-spline of degree ``order`` on the knots 0, 1, ..., order + 1, at any ``u`` (any shape).

    The truncated-power form, folded about the middle so that nothing cancels:
    ``B(s) = sum_m (-1)^m C(order + 1, m) max(0, s - m)^order / order!``, s the distance to the nearer end.
    """
    half = (order + 1) / 2
    s = half - (u - half).abs()
    total = s.clamp_min(0) ** order
    for m in range(1, math.ceil(half)):
        total = total + (-1) ** m * math.comb(order + 1, m) * (s - m).clamp_min(0) ** order
    return total / math.factorial(order)


class KANLinear(nn.Module):
    """A layer of ``in_features * out_features`` learned one-dimensional functions.

    State: ``base_weight`` [out, in], ``spline_weight`` [out, in, grid_size + spline_order],
    ``spline_scaler`` [out, in] (if ``enable_standalone_scale_spline``), ``grid`` [in, grid_size +
    2 * spline_order + 1]. Outside the grid only the SiLU part is left.

    Args:
        in_features: Length of the input rows.
        out_features: Length of the output rows.
        grid_size: Intervals of the grid inside ``grid_range``.
        spline_order: Degree of the splines, at least 1.
        scale_noise: Height of the random functions the splines start as.
        scale_base: Scale of the SiLU part's start.
        scale_spline: Scale of the spline part's start.
        enable_standalone_scale_spline: Give every function a separate factor.
        grid_range: Interval the splines cover fully.
    """

    grid: Tensor

    def __init__(  # noqa: PLR0913 (the names are those of the public layout)
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        *,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        enable_standalone_scale_spline: bool = True,
        grid_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        if grid_size < 1 or spline_order < 1:
            raise ConfigError(
                "kan.grid",
                f"A KAN of grid size {grid_size} and spline order {spline_order}.",
                expected="Both at least 1.",
            )
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        self.scale_noise, self.scale_base, self.scale_spline = scale_noise, scale_base, scale_spline
        self.enable_standalone_scale_spline = enable_standalone_scale_spline
        step = (grid_range[1] - grid_range[0]) / grid_size
        knots = torch.arange(-spline_order, grid_size + spline_order + 1) * step + grid_range[0]
        self.register_buffer("grid", knots.expand(in_features, -1).contiguous())
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        self.spline_scaler = (
            nn.Parameter(torch.empty(out_features, in_features)) if enable_standalone_scale_spline else None
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Random start: Kaiming for the SiLU part, small random curves through the knots for the splines."""
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5) * self.scale_base)
        shape = (self.grid_size + 1, self.in_features, self.out_features)
        heights = (torch.rand(shape) - 0.5) * self.scale_noise / self.grid_size
        inner = self.grid[:, self.spline_order : self.spline_order + self.grid_size + 1]
        self.spline_weight.copy_(self.curve_to_coefficients(inner.T, heights))
        if self.spline_scaler is None:
            self.spline_weight.mul_(self.scale_spline)
        else:
            nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5) * self.scale_spline)

    @torch.no_grad()
    def zero_output(self) -> KANLinear:
        """Make every function zero while gradients still reach its weights (a deformation starts so)."""
        self.base_weight.zero_()
        self.spline_weight.zero_()
        return self

    @property
    def scaled_spline_weight(self) -> Tensor:
        """Spline coefficients [out, in, K] with the separate factor applied."""
        if self.spline_scaler is None:
            return self.spline_weight
        return self.spline_weight * self.spline_scaler[..., None]

    def b_splines(self, x: Tensor, inputs: slice = slice(None)) -> Tensor:
        """Values [N, in, grid_size + spline_order] of the basis at ``x`` [N, in]."""
        grid = self.grid[inputs]
        step = (grid[:, -1] - grid[:, 0]) / (grid.shape[1] - 1)
        shift = torch.arange(self.grid_size + self.spline_order, dtype=x.dtype, device=x.device)
        return uniform_b_spline(((x - grid[:, 0]) / step)[..., None] - shift, self.spline_order)

    def curve_to_coefficients(self, x: Tensor, y: Tensor) -> Tensor:
        """Least-squares coefficients [out, in, K] of curves through ``y`` [N, in, out] at ``x`` [N, in]."""
        bases = self.b_splines(x).transpose(0, 1)  # [in, N, K]
        # Minimum norm: the start has fewer points than coefficients, and gaps in x must stay harmless.
        solution = torch.linalg.lstsq(bases.cpu(), y.transpose(0, 1).cpu(), driver="gelsd").solution
        return solution.permute(2, 0, 1).to(y)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return self.partial(x, slice(None))

    def partial(self, x: Tensor, input_slice: slice) -> Tensor:
        """What the inputs of ``input_slice`` contribute: ``x`` [..., length of the slice] -> [..., out].

        The parts of a partition of the inputs add up to ``forward`` exactly, up to rounding.
        """
        rows = x.reshape(-1, x.shape[-1])
        if self._whole(rows):
            out = kan_rows.layer(
                rows,
                self.scaled_spline_weight[:, input_slice],
                self.base_weight[:, input_slice],
                *self._knots(input_slice),
            )
            return out.reshape(*x.shape[:-1], self.out_features)
        base = F.linear(F.silu(rows), self.base_weight[:, input_slice])
        spline = self._splines(rows, input_slice, self.scaled_spline_weight[:, input_slice])
        return (base + spline).reshape(*x.shape[:-1], self.out_features)

    def _whole(self, rows: Tensor) -> bool:
        """Whether splines and SiLU can be summed in one pass."""
        if self.spline_order != 3 or not applies(rows, self.base_weight):
            return False
        return kan_rows.applies(rows, rows.shape[1])

    def _knots(self, inputs: slice) -> tuple[Tensor, Tensor]:
        """First knot and knots per unit of the inputs' grids."""
        grid = self.grid[inputs]
        return grid[:, 0], (grid.shape[1] - 1) / (grid[:, -1] - grid[:, 0])

    def _splines(self, x: Tensor, inputs: slice, coefficients: Tensor) -> Tensor:
        if self.spline_order == 3 and applies(x, coefficients):
            return cast(Tensor, kernels.CubicSplines.apply(x, coefficients, *self._knots(inputs)))
        return F.linear(self.b_splines(x, inputs).flatten(1), coefficients.flatten(1))

    @torch.no_grad()
    def update_grid(self, x: Tensor, margin: float = 0.01) -> None:
        """Move every input's grid over the range of ``x`` [N, in] and refit the functions to it.

        The grid stays uniform per input (efficient-kan blends in quantiles; the closed form cannot).
        """
        curves = torch.einsum("nik,oik->nio", self.b_splines(x), self.scaled_spline_weight)
        low, high = x.amin(0) - margin, x.amax(0) + margin
        steps = torch.arange(-self.spline_order, self.grid_size + self.spline_order + 1).to(x)
        self.grid.copy_(low[:, None] + steps * ((high - low) / self.grid_size)[:, None])
        coefficients = self.curve_to_coefficients(x, curves)
        if self.spline_scaler is not None:
            self.spline_scaler.fill_(1)
        self.spline_weight.copy_(coefficients)

    def regularization_loss(self, activation: float = 1.0, entropy: float = 1.0) -> Tensor:
        """Size of the functions' coefficients plus the entropy of how it is spread: favours few functions."""
        size = self.spline_weight.abs().mean(-1)
        total = size.sum()
        share = size / total.clamp_min(1e-12)
        return activation * total - entropy * torch.special.xlogy(share, share.clamp_min(1e-12)).sum()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        grid = state_dict.get(prefix + "grid")
        if grid is not None and grid.shape == self.grid.shape:
            gaps = grid.diff(dim=-1)
            mean = gaps.mean(-1, keepdim=True)
            if not (mean > 0).all() or ((gaps - mean).abs() > 1e-3 * mean).any():
                raise CheckpointError(
                    "kan.grid",
                    "The checkpoint holds a KAN layer whose grid is not uniform.",
                    expected="Evenly spaced knots (adaptive grids are not supported).",
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class KAN(nn.Module):
    """Layers of ``KANLinear``: ``KAN((64, 64, 11))`` maps [..., 64] to [..., 11]."""

    def __init__(self, widths: Sequence[int], *, zero_last: bool = False, **options: Any) -> None:
        """``options`` go to every layer; ``zero_last`` makes the network start as zero."""
        super().__init__()
        if len(widths) < 2:
            raise ConfigError(
                "kan.widths", f"A KAN of widths {tuple(widths)}.", expected="At least two widths."
            )
        layers = [KANLinear(a, b, **options) for a, b in pairwise(widths)]
        if zero_last:
            layers[-1].zero_output()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., widths[0]] to [..., widths[-1]]."""
        for layer in self.layers:
            x = layer(x)
        return x

    def regularization_loss(self, activation: float = 1.0, entropy: float = 1.0) -> Tensor:
        """Sum of the layers' losses."""
        losses = [layer.regularization_loss(activation, entropy) for layer in self.layers]  # type: ignore[operator]
        return torch.stack(losses).sum()


def partial_linear(layer: nn.Linear | KANLinear, x: Tensor, input_slice: slice) -> Tensor:
    """What the inputs of ``input_slice`` contribute to a first layer over concatenated inputs [..., out].

    Over a partition of the inputs the parts add up to the layer: the spatial part is computed once per
    avatar, the few rows of sound once per frame. A linear layer's bias goes with the slice that starts at 0.
    """
    if isinstance(layer, KANLinear):
        return layer.partial(x, input_slice)
    first = input_slice.indices(layer.in_features)[0] == 0
    return F.linear(x, layer.weight[:, input_slice], layer.bias if first else None)
