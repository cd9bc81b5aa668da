"""The CUDA back end: the kernels of gsplat 1.5.3 behind the seam.

Its steps are called one by one rather than through ``gsplat.rasterization``: that keeps the projected means as a
tensor [N, 2] in the graph, so that their gradient can be kept, and gives the pixel counts from the same lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import ModuleType

import torch
from torch import Tensor

from talker.errors import BackendError
from talker.render import constants
from talker.types import Camera, Gaussians, RenderOutput

_TILE = 16
_ALL = 1 << 30
"""More batches than any tile has."""


def require_gsplat() -> ModuleType:
    """The library with its kernels built, or a ``BackendError`` that says how to get it."""
    expected = "Gaussians on a CUDA device are drawn by gsplat 1.5.3."
    todo = 'Install it with: pip install "gsplat==1.5.3", beside a CUDA toolkit (nvcc) that fits PyTorch.'
    try:
        import gsplat
        from gsplat.cuda import _backend
    except (ImportError, OSError, RuntimeError) as error:
        # The package compiles its kernels when first imported; each of these is a way in which that fails.
        found = "gsplat is not installed, or its CUDA kernels cannot be built."
        raise BackendError("render.gsplat", found, expected=expected, todo=todo) from error
    if getattr(_backend, "_C", None) is None:  # what it leaves behind where it found no CUDA toolkit
        raise BackendError("render.gsplat", "gsplat has no CUDA kernels here.", expected=expected, todo=todo)
    return gsplat


def _check_device(gaussians: Gaussians) -> None:
    device = gaussians.means.device
    if device.type != "cuda":
        raise BackendError(
            "render.device",
            f"The gsplat renderer was given Gaussians on {device.type}.",
            expected="It draws Gaussians on a CUDA device.",
            todo="Move them with .to('cuda'), or choose backend='auto'.",
        )


def _without_broken(gaussians: Gaussians) -> Gaussians:
    """Zeros in place of Gaussians with a NaN or an infinity, which gsplat would spread over whole tiles.

    Zeros are behind the near plane, hence culled. One row of them is added where there are no Gaussians at all.
    """
    g = gaussians
    values = torch.cat((g.means, g.quats, g.scales, g.opacities[:, None], g.colors), 1)
    finite = values.isfinite().all(1)

    def clean(tensor: Tensor) -> Tensor:
        rows = finite.view(-1, *[1] * (tensor.dim() - 1))
        tensor = torch.where(rows, tensor, torch.zeros_like(tensor)).float()
        return tensor if len(tensor) else torch.cat((tensor, tensor.new_zeros(1, *tensor.shape[1:])))

    return g.map(clean)


def rasterize_gsplat(gaussians: Gaussians, camera: Camera, *, pixel_counts: bool = False) -> RenderOutput:
    """Draw Gaussians with gsplat's CUDA kernels; see ``talker.render.rasterize``.

    Raises:
        BackendError: The tensors are not on a CUDA device, or gsplat is not installed or not built.
    """
    _check_device(gaussians)
    gsplat = require_gsplat()
    n, device = len(gaussians), gaussians.means.device
    g = _without_broken(gaussians)
    width, height = camera.width, camera.height
    splats = _project(gsplat, g.map(lambda tensor: tensor[None]), camera)
    means2d, conics, opacities = splats.means2d[0], splats.conics, g.opacities[None]
    if means2d.requires_grad:
        means2d.retain_grad()
    offsets, flatten_ids = _tiles(gsplat, splats, width, height)
    rgb, alpha = gsplat.rasterize_to_pixels(
        means2d[None], conics, g.colors[None], opacities, width, height, _TILE, offsets, flatten_ids
    )
    count = None
    if pixel_counts:
        with torch.no_grad():
            untouched = torch.ones(1, height, width, device=device)
            indices, _, _ = gsplat.rasterize_to_indices_in_range(
                0,
                _ALL,
                untouched,
                means2d[None],
                conics,
                opacities,
                width,
                height,
                _TILE,
                offsets,
                flatten_ids,
            )
            count = torch.bincount(indices, minlength=len(g)).to(torch.int32)[:n]
    if n == 0:
        means2d = means2d[:0]
    return RenderOutput(rgb[0], alpha[0], means2d, splats.radius[0, :n], count)


@torch.no_grad()
def rasterize_gsplat_batch(frames: Sequence[Gaussians], camera: Camera) -> list[RenderOutput]:
    """Draw B sets of N Gaussians in one call of every kernel, without gradients or pixel counts.

    Raises:
        BackendError: The tensors are not on a CUDA device, or gsplat is not installed or not built.
    """
    for gaussians in frames:
        _check_device(gaussians)
    gsplat = require_gsplat()
    g = [_without_broken(gaussians) for gaussians in frames]
    stacked = Gaussians(*(torch.stack([getattr(one, f.name) for one in g]) for f in fields(Gaussians)))
    n, width, height = len(frames[0]), camera.width, camera.height
    splats = _project(gsplat, stacked, camera)
    offsets, flatten_ids = _tiles(gsplat, splats, width, height)
    rgb, alpha = gsplat.rasterize_to_pixels(
        splats.means2d,
        splats.conics,
        stacked.colors,
        stacked.opacities,
        width,
        height,
        _TILE,
        offsets,
        flatten_ids,
    )
    return [
        RenderOutput(rgb[b], alpha[b], splats.means2d[b, :n], splats.radius[b, :n])
        for b in range(len(frames))
    ]


@dataclass(frozen=True)
class _Splats:
    """B sets of N Gaussians on the picture."""

    radii: Tensor  # [B, N, 2] pixels, 0 where culled
    means2d: Tensor  # [B, N, 2] pixels, 0 where culled
    depths: Tensor  # [B, N]
    conics: Tensor  # [B, N, 3]

    @property
    def radius(self) -> Tensor:
        """The larger of the two [B, N], 0 where either is."""
        return torch.where((self.radii > 0).all(-1), self.radii.amax(-1), 0)


def _project(gsplat: ModuleType, g: Gaussians, camera: Camera) -> _Splats:
    """Splats of B sets of Gaussians (every tensor [B, N, ...]) in one view."""
    batch, device = len(g.means), g.means.device
    projected = gsplat.fully_fused_projection(
        g.means,
        None,
        g.quats,
        g.scales,
        torch.eye(4, device=device).expand(batch, 1, 4, 4).contiguous(),
        camera.K.to(device=device, dtype=torch.float32).expand(batch, 1, 3, 3).contiguous(),
        camera.width,
        camera.height,
        eps2d=constants.BLUR,
        near_plane=constants.NEAR,
        far_plane=constants.FAR,
        packed=False,
        opacities=g.opacities,
    )
    radii, means2d, depths, conics = (value[:, 0].contiguous() for value in projected[:4])
    # gsplat leaves culled rows uninitialised.
    means2d = torch.where((radii > 0).all(-1, keepdim=True), means2d, torch.zeros_like(means2d))
    return _Splats(radii, means2d, depths, conics)


def _tiles(gsplat: ModuleType, splats: _Splats, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Where each tile's list starts [B, tiles, tiles], and the lists."""
    tiles_x, tiles_y = -(-width // _TILE), -(-height // _TILE)
    _, isect_ids, flatten_ids = gsplat.isect_tiles(
        splats.means2d.detach(), splats.radii, splats.depths, _TILE, tiles_x, tiles_y
    )
    return gsplat.isect_offset_encode(isect_ids, len(splats.radii), tiles_x, tiles_y), flatten_ids
