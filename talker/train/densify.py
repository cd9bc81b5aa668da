"""Density control: where Gaussians are added, and which are taken away.

The gradient of the loss with respect to a Gaussian's projected position says how much the picture wants it
elsewhere, which is a sign of too few Gaussians there. The rules differ in how views are averaged:

* ``standard`` (3DGS): the mean over the views in which the Gaussian is visible.
* ``uniform``: not at all, Gaussians are chosen by lot: what the same number is worth anywhere.
* ``pixel_aware`` (PGSTalker; the rule of Pixel-GS, eq. 5): views weigh as many pixels as the Gaussian was
  blended into, ``score_i = sum_k m_ik |g_ik| / sum_k m_ik``, so that large Gaussians seen partly are not missed.

Gradients are in normalised device coordinates (the image is 2 x 2), so thresholds do not depend on its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from talker.errors import ConfigError
from talker.geometry import quat_to_matrix
from talker.types import RenderOutput


@dataclass(frozen=True)
class DensityConfig:
    """How the number of Gaussians changes during one stage.

    Attributes:
        kind: ``pixel_aware``, ``standard``, ``uniform`` or ``none``.
        grad_threshold: Score above which a Gaussian is duplicated or split.
        every: Steps between changes.
        start: Changes happen after this step,
        stop: and up to this one.
        max_gaussians: Never more than these; the highest scores come first.
        prune_opacity: Gaussians fainter than this go.
        split_extent: Gaussians longer than this share of the scene's extent are split, others duplicated.
        split_shrink: Divisor of the scales of the two halves.
        region_weight: Factor on the scores of Gaussians that project into the boxes of lips and eyes.
        exact: Grow linearly to exactly ``max_gaussians`` at ``stop`` by the highest scores, whatever the
            threshold: for comparing the kinds at an equal number.
    """

    kind: Literal["pixel_aware", "standard", "uniform", "none"] = "pixel_aware"
    grad_threshold: float = 2e-4
    every: int = 100
    start: int = 500
    stop: int = 15_000
    max_gaussians: int = 50_000
    prune_opacity: float = 0.005
    split_extent: float = 0.01
    split_shrink: float = 1.6
    region_weight: float = 1.0
    exact: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("pixel_aware", "standard", "uniform", "none"):
            raise ConfigError(
                "density.kind",
                f"There is no density control {self.kind!r}.",
                expected="One of pixel_aware, standard, uniform, none.",
            )
        if self.every < 1 or self.max_gaussians < 1 or self.grad_threshold <= 0:
            raise ConfigError(
                "density.range",
                f"Density control every {self.every} steps up to {self.max_gaussians} Gaussians, "
                f"threshold {self.grad_threshold}.",
                expected="All of them positive.",
            )


@dataclass(frozen=True)
class DensityChange:
    """What one step did; false if nothing."""

    duplicated: int = 0
    split: int = 0
    pruned: int = 0
    n: int = 0
    """Gaussians afterwards."""

    def __bool__(self) -> bool:
        return bool(self.duplicated or self.split or self.pruned)


class DensityControl:
    """Statistics of one branch between two changes, and the changes.

    Args:
        config: See ``DensityConfig``.
        extent: Radius of the scene in the unit of the means; fixed, independent of head motion.
        width: Pixels of the observed images.
        height: Pixels of the observed images.
    """

    def __init__(self, config: DensityConfig, extent: float, width: int, height: int) -> None:
        self.config, self.extent = config, extent
        self._to_ndc = (width / 2, height / 2)
        self._score_sum = torch.zeros(0)
        self._weight_sum = torch.zeros(0)
        self._n_start = 0

    @property
    def wants_pixel_counts(self) -> bool:
        """Whether ``observe`` needs ``pixel_count`` of the renderer."""
        return self.config.kind == "pixel_aware"

    @property
    def scores(self) -> Tensor:
        """Score [N] of every Gaussian over the views since the last change; 0 where it was not seen."""
        return self._score_sum / self._weight_sum.clamp_min(1e-12)

    @torch.no_grad()
    def observe(self, out: RenderOutput, region: Tensor | None = None) -> None:
        """Take note of a view, after ``backward``.

        Args:
            out: The branch's render; ``means2d.grad`` is filled (or None if nothing reached the branch).
            region: [H, W] bool, true where density matters ``region_weight`` times as much (lips, eyes).
        """
        gradient = out.means2d.grad
        if self.config.kind == "none" or gradient is None:
            return
        if len(self._score_sum) != len(gradient):
            self._score_sum = torch.zeros(len(gradient), device=gradient.device)
            self._weight_sum = torch.zeros_like(self._score_sum)
        size = (gradient * gradient.new_tensor(self._to_ndc)).norm(dim=-1)
        # One view with a broken gradient must not decide for a hundred.
        size = torch.nan_to_num(size, nan=0.0, posinf=0.0)
        if region is not None and self.config.region_weight != 1:
            size = torch.where(_inside(out.means2d, region), size * self.config.region_weight, size)
        if self.wants_pixel_counts:
            assert out.pixel_count is not None, "pixel-aware density control needs pixel counts"
            weight = out.pixel_count.to(size)
        else:
            weight = (out.radii > 0).to(size)
        self._score_sum += weight * size
        self._weight_sum += weight

    @torch.no_grad()
    def step(
        self,
        params: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        step: int,
        *,
        generator: torch.Generator | None = None,
    ) -> DensityChange:
        """Duplicate, split and prune if ``step`` is due.

        Args:
            params: Per-Gaussian parameters, all [N, ...]: ``means``, ``quats`` (any length), ``log_scales``,
                ``logit_opacities`` and any others. Changed in place: on a true return value it holds new
                parameters, which the optimizer holds too, its moments kept for the Gaussians that stay.
            optimizer: One parameter group per entry of ``params``, its ``name`` the key.
            step: Step just taken, counted from the start of the stage.
            generator: CPU generator for where the halves of split Gaussians go, and for the lots of ``uniform``.
        """
        config = self.config
        n = len(params["means"])
        self._n_start = self._n_start or n
        due = config.start < step <= config.stop and step % config.every == 0
        if config.kind == "none" or not due or len(self._score_sum) != n:
            return DensityChange(n=n)
        keep = torch.sigmoid(params["logit_opacities"]).reshape(n) >= config.prune_opacity
        if not keep.any():
            keep[:] = True  # an empty branch could never recover
        grow = self._chosen(keep, step, generator)
        large = params["log_scales"].exp().amax(-1) > config.split_extent * self.extent
        duplicate, split = grow & ~large, grow & large
        if grow.any() or not keep.all():
            self._rebuild(params, optimizer, keep & ~split, duplicate, split, generator)
        self._score_sum, self._weight_sum = torch.zeros(0), torch.zeros(0)
        counts = [int(mask.sum()) for mask in (duplicate, split, ~keep)]
        return DensityChange(*counts, n=len(params["means"]))

    def _chosen(self, keep: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        """Which Gaussians [N] (bool) become two: each adds one."""
        config, scores = self.config, self.scores
        if config.kind == "uniform":
            scores = torch.rand(len(keep), generator=generator).to(scores)
        scores = scores.masked_fill(~keep, -1.0)
        kept = int(keep.sum())
        if config.exact:
            share = (step - config.start) / max(config.stop - config.start, 1)
            last = step + config.every > config.stop
            goal = self._n_start + (config.max_gaussians - self._n_start) * (1.0 if last else share)
            candidates = keep
            room = math.floor(goal + 1e-6) - kept
        else:
            candidates = scores > config.grad_threshold
            room = config.max_gaussians - kept
        count = max(0, min(room, int(candidates.sum())))
        # A stable sort, so that ties do not depend on the machine.
        order = scores.masked_fill(~candidates, -2.0).argsort(descending=True, stable=True)
        grow = torch.zeros_like(keep)
        grow[order[:count]] = True
        return grow

    def _rebuild(
        self,
        params: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        stay: Tensor,
        duplicate: Tensor,
        split: Tensor,
        generator: torch.Generator | None,
    ) -> None:
        """New parameters: those that stay, then the copies, then two halves of each that is split."""
        halves = _halves(params, split, self.config.split_shrink, generator)
        groups = {group["name"]: group for group in optimizer.param_groups}
        for name, old in list(params.items()):
            pieces = (
                old[stay],
                old[duplicate],
                halves.get(name, old[split].repeat(2, *[1] * (old.dim() - 1))),
            )
            new = nn.Parameter(torch.cat(pieces).contiguous(), requires_grad=old.requires_grad)
            params[name] = new
            if name in groups:
                groups[name]["params"] = [new]
            state = optimizer.state.pop(old, None)
            if state is not None:
                # A newcomer has no history: its moments start at zero.
                optimizer.state[new] = {k: _resized(v, old, stay, len(new)) for k, v in state.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs to go on bit by bit."""
        return {
            "score_sum": self._score_sum.clone(),
            "weight_sum": self._weight_sum.clone(),
            "n_start": torch.tensor(self._n_start),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of ``state_dict``."""
        self._score_sum = state["score_sum"].clone()
        self._weight_sum = state["weight_sum"].clone()
        self._n_start = int(state["n_start"])


def _inside(means2d: Tensor, region: Tensor) -> Tensor:
    """Whether each projected centre [N, 2] (pixels) lies in a true pixel of ``region`` [H, W]."""
    height, width = region.shape
    finite = torch.nan_to_num(means2d.detach(), nan=-1.0)
    column, row = finite.clamp(-1, 1e6).floor().long().unbind(-1)
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return within & region.to(within.device)[row.clamp(0, height - 1), column.clamp(0, width - 1)].bool()


def _halves(
    params: dict[str, nn.Parameter], split: Tensor, shrink: float, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Means and log scales of two smaller Gaussians drawn from each of those in ``split``."""
    scales = params["log_scales"][split].exp().repeat(2, 1)
    rotation = quat_to_matrix(params["quats"][split]).repeat(2, 1, 1)
    # Drawn on the CPU: the same numbers on every device.
    noise = torch.randn(scales.shape, generator=generator).to(scales)
    shift = (rotation @ (scales * noise)[..., None])[..., 0]
    return {
        "means": params["means"][split].repeat(2, 1) + shift,
        "log_scales": (scales / shrink).log(),
    }


def _resized(value: object, old: Tensor, stay: Tensor, n: int) -> object:
    """An optimizer's per-entry tensor with the rows of ``stay``, then zeros, [n, ...]; others unchanged."""
    if not isinstance(value, Tensor) or value.shape != old.shape:
        return value
    kept = value[stay]
    return torch.cat((kept, kept.new_zeros(n - len(kept), *kept.shape[1:])))
