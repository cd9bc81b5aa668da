"""Scenes for the renderer's tests, and how far they stay away from the places where a picture jumps."""

from __future__ import annotations

import torch
from torch import Tensor

from talker.render import rasterize
from talker.render.constants import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from talker.types import Camera, Gaussians, RenderOutput

NAMES = ("means", "quats", "scales", "opacities", "colors")


def camera(width: int, height: int, focal: float = 1.0) -> Camera:
    """A view whose principal point is a little off the middle; ``focal`` in image widths."""
    f = focal * width
    return Camera(
        torch.tensor([[f, 0, width / 2 - 1], [0, 1.1 * f, height / 2 + 2], [0, 0, 1.0]]), width, height
    )


def cloud(
    n: int, seed: int = 0, *, opacity: tuple[float, float] = (0.1, 0.95), spread: float = 1.3
) -> Gaussians:
    """Random Gaussians in and around the view, float64; quaternions of any length."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    z = 2 + 2 * uniform(n)
    xy = (uniform(n, 2) - 0.5) * spread * z[:, None]
    low, high = opacity
    return Gaussians(
        torch.cat((xy, z[:, None]), 1),
        uniform(n, 4) - 0.5,
        0.02 + 0.1 * uniform(n, 3),
        low + (high - low) * uniform(n),
        uniform(n, 3),
    )


def with_grad(gaussians: Gaussians, dtype: torch.dtype) -> Gaussians:
    """Leaves of the given type that collect gradients."""
    return gaussians.map(lambda t: t.detach().to(dtype).clone().requires_grad_())


def random_loss(output: RenderOutput, seed: int = 7) -> Tensor:
    """A weighted sum of all pixels, so that every one has its own gradient."""
    g = torch.Generator().manual_seed(seed)
    weights = torch.randn(*output.rgb.shape[:2], 4, generator=g, dtype=torch.float64).to(output.rgb)
    return (output.rgb * weights[..., :3]).sum() + (output.alpha * weights[..., 3:]).sum()


def relative(value: Tensor | None, truth: Tensor | None) -> float:
    """Length of the error over the length of the truth."""
    assert value is not None
    assert truth is not None
    return ((value.double() - truth.double()).norm() / truth.double().norm()).item()


def cut_margin(gaussians: Gaussians, view: Camera) -> float:
    """Smallest relative distance of any alpha or transmittance of the scene to a rule's limit.

    A pair closer than float32 can resolve may fall on either side, which says nothing about a renderer.
    """
    g = gaussians.map(lambda t: t.detach().double())
    order = g.means[:, 2].argsort(stable=True)
    output = rasterize(g, view, backend="reference")
    g, means2d, radii = g.select(order), output.means2d[order], output.radii[order]
    from talker.render.reference import _project

    _, covariances, _ = _project(g, view)
    x, y = torch.arange(view.width).double() + 0.5, torch.arange(view.height).double() + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)
    d = pixels[None] - means2d[:, None]
    sigma = 0.5 * torch.einsum("mpi,mij,mpj->mp", d, covariances.inverse(), d)
    raw = torch.where((radii > 0)[:, None], g.opacities[:, None] * torch.exp(-sigma), 0)
    alpha = torch.where(raw >= MIN_ALPHA, raw.clamp(max=MAX_ALPHA), 0)
    transmittance = torch.cumprod(1 - alpha, 0)
    margins = ((raw / MIN_ALPHA - 1), (raw / MAX_ALPHA - 1), (transmittance / MIN_TRANSMITTANCE - 1))
    return min(m.abs().min().item() for m in margins)
