"""The definition of the picture in plain PyTorch: any floating type, any device, differentiated by autograd.

Slow on purpose (every Gaussian meets every pixel of a block of rows); tests compare the other back ends with it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from talker.geometry import quat_to_matrix
from talker.render import constants
from talker.types import Camera, Gaussians, RenderOutput

_ROWS = 16


def _usable(g: Gaussians) -> Tensor:
    """Finite Gaussians between the near and the far plane that can reach the smallest alpha that counts; bool [N]."""
    values = torch.cat((g.means, g.quats, g.scales, g.opacities[:, None], g.colors), 1)
    depth = g.means[:, 2]
    in_depth = (depth >= constants.NEAR) & (depth <= constants.FAR)
    return values.isfinite().all(1) & in_depth & (g.opacities >= constants.MIN_ALPHA)


def _project(g: Gaussians, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Means [N, 2] in pixels, covariances [N, 2, 2] in pixels^2, and ceiled radii [N, 2] (EWA splatting)."""
    fx, fy, cx, cy = (camera.K[i].to(g.means) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x, y, z = g.means.unbind(-1)
    margin_x, margin_y = (constants.FOV_MARGIN * size / 2 for size in (camera.width, camera.height))
    u = torch.clamp(x / z, -(cx + margin_x) / fx, (camera.width - cx + margin_x) / fx)
    v = torch.clamp(y / z, -(cy + margin_y) / fy, (camera.height - cy + margin_y) / fy)
    zero = torch.zeros_like(z)
    J = torch.stack((fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z), -1).view(-1, 2, 3)
    half = J @ (quat_to_matrix(g.quats) * g.scales[:, None, :])
    covariances = half @ half.transpose(1, 2) + constants.BLUR * torch.eye(2).to(half)
    means2d = torch.stack((fx * x / z + cx, fy * y / z + cy), -1)
    with torch.no_grad():
        extent = torch.sqrt(2 * torch.log(g.opacities / constants.MIN_ALPHA))
        radii = torch.ceil(extent[:, None] * torch.diagonal(covariances, dim1=1, dim2=2).sqrt())
    return means2d, covariances, radii


def _blend(
    means2d: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor, pixels: Tensor
) -> tuple[Tensor, ...]:
    """Blend M sorted Gaussians over P pixel centres: rgb [P, 3], alpha [P], pixels each was blended into [M]."""
    d = pixels[None] - means2d[:, None]  # [M, P, 2]
    sigma = 0.5 * torch.einsum("mpi,mij,mpj->mp", d, conics, d)
    alpha = torch.clamp(opacities[:, None] * torch.exp(-sigma), max=constants.MAX_ALPHA)
    alpha = torch.where(alpha >= constants.MIN_ALPHA, alpha, 0.0)
    with torch.no_grad():
        # Transmittance only falls: after the first Gaussian that is too much, all others are too.
        blended = torch.cumprod(1 - alpha, 0) > constants.MIN_TRANSMITTANCE
    alpha = torch.where(blended, alpha, 0.0)
    before = torch.cumprod(torch.cat((alpha.new_ones(1, alpha.shape[1]), 1 - alpha))[: len(alpha)], 0)
    weights = alpha * before
    return weights.T @ colors, 1 - (1 - alpha).prod(0), (alpha > 0).sum(1)


def rasterize_reference(gaussians: Gaussians, camera: Camera, *, pixel_counts: bool = False) -> RenderOutput:
    """Draw Gaussians by definition; see ``talker.render.rasterize``."""
    height, width, n = camera.height, camera.width, len(gaussians)
    means = gaussians.means
    index = _usable(gaussians).nonzero()[:, 0]
    g = gaussians.select(index)
    projected, covariances, reach = _project(g, camera)
    size = means.new_tensor((width, height))
    inside = ((projected + reach > 0) & (projected - reach < size) & (reach > 0)).all(1)
    index, g, projected, covariances, reach = (
        index[inside],
        g.select(inside),
        projected[inside],
        covariances[inside],
        reach[inside],
    )
    means2d = means.new_zeros(n, 2).index_put((index,), projected)
    if means2d.requires_grad:
        means2d.retain_grad()
    radii = torch.zeros(n, dtype=torch.int32, device=means.device)
    radii[index] = reach.amax(1).to(torch.int32)

    order = torch.argsort(g.means[:, 2].detach(), stable=True)
    index, g, conics = index[order], g.select(order), torch.linalg.inv(covariances[order])
    centers, reach_y = means2d[index], reach[order, 1]
    counts = torch.zeros(n, dtype=torch.int32, device=means.device)
    columns = torch.arange(width).to(means) + 0.5
    blocks_rgb, blocks_alpha = [], []
    for top in range(0, height, _ROWS):
        rows = torch.arange(top, min(top + _ROWS, height)).to(means) + 0.5
        y = centers[:, 1].detach()
        near = ((y + reach_y >= rows[0]) & (y - reach_y <= rows[-1])).nonzero()[:, 0]
        pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).view(-1, 2)
        block = checkpoint(
            _blend,
            centers[near],
            conics[near],
            g.opacities[near],
            g.colors[near],
            pixels,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        assert block is not None
        blocks_rgb.append(block[0].view(len(rows), width, 3))
        blocks_alpha.append(block[1].view(len(rows), width, 1))
        counts[index[near]] += block[2].to(torch.int32)
    return RenderOutput(
        torch.cat(blocks_rgb), torch.cat(blocks_alpha), means2d, radii, counts if pixel_counts else None
    )
