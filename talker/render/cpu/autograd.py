"""The entrance of the CPU back end: two autograd functions around the kernels.

Projection and blending are separate functions so that the projected means are an ordinary tensor between them,
whose gradient a caller can keep (density control needs it) and on which a loss may act.
"""

# ruff: noqa: PLR0913, PLR0917 - kernels take flat arrays, not objects

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talker.render.cpu import threads
from talker.render.cpu.binning import BOX, fill, place_shares, sort_and_count
from talker.render.cpu.blend import blend
from talker.render.cpu.blend_backward import blend_backward, gather
from talker.render.cpu.depth_sort import depth_sort
from talker.render.cpu.layout import RECORD, ROW, TILE, view_of
from talker.render.cpu.project import project
from talker.render.cpu.project_backward import project_backward
from talker.render.cpu.simd import LANES
from talker.types import Camera, Gaussians, RenderOutput

_NO_COUNT = np.zeros(0, np.int32)


def _flat(tensor: Tensor) -> np.ndarray:
    """The values as a flat, contiguous float32 array; shares memory where it can."""
    return tensor.detach().to(torch.float32).contiguous().numpy().reshape(-1)


@dataclass
class _Frame:
    """What the steps of one rendering hand to each other; NumPy, because kernels read it."""

    width: int
    height: int
    view: np.ndarray  # [VIEW]
    n_threads: int
    records: np.ndarray  # [N * RECORD], in depth order after ``bin_records``
    radii: np.ndarray  # [N] int32
    order: np.ndarray  # [M] int32 Gaussian of each sorted record
    entries: np.ndarray  # [E] int32
    places: np.ndarray  # [E] int32
    starts: np.ndarray  # [M + 1] int64
    offsets: np.ndarray  # [T + 1] int64
    tile_order: np.ndarray  # [T] int64

    def queue(self) -> np.ndarray:
        """A fresh counter of tiles."""
        return np.zeros(1, np.int64)


def _bin(frame: _Frame, records: np.ndarray, n: int) -> None:
    """Steps 2 and 3: depth order and the lists of the tiles."""
    keys, spare, order = np.empty(n, np.uint64), np.empty(n, np.uint64), np.empty(n, np.int32)
    n_visible = depth_sort(records, frame.radii, keys, spare, order)
    frame.order = order[:n_visible]
    frame.records = np.empty(n_visible * RECORD, np.float32)
    frame.starts = np.zeros(n_visible + 1, np.int64)
    boxes = np.empty(n_visible * BOX, np.int32)
    n_tiles = -(-frame.width // TILE) * -(-frame.height // TILE)
    frame.offsets = np.empty(n_tiles + 1, np.int64)
    counts = np.empty((frame.n_threads, n_tiles), np.int64)
    totals = np.empty(frame.n_threads + 1, np.int64)
    totals[0] = 0
    shares = threads.split(n_visible, frame.n_threads)

    def count(i: int) -> None:
        totals[i + 1] = sort_and_count(
            records, order, *shares[i], frame.width, frame.height, frame.records, boxes, counts[i]
        )

    threads.run(count, frame.n_threads)
    place_shares(counts, frame.offsets)
    pairs_before = np.cumsum(totals)
    n_pairs = int(frame.offsets[-1])
    frame.entries, frame.places = np.empty(n_pairs, np.int32), np.empty(n_pairs, np.int32)
    frame.tile_order = np.argsort(-np.diff(frame.offsets), kind="stable")

    def place(i: int) -> None:
        lists = frame.entries, frame.places, frame.starts
        fill(boxes, *shares[i], frame.width, int(pairs_before[i]), counts[i], *lists)

    threads.run(place, frame.n_threads)


class _Project(torch.autograd.Function):
    """(means, quats, scales) -> (means2d [N, 2], conics [N, 3]); fills the frame on the way."""

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, camera, n_threads, holder):
        n = means.shape[0]
        view = view_of(camera.K.detach().cpu().numpy(), camera.width, camera.height)
        arrays = [_flat(t) for t in (means, quats, scales)]
        means2d, conics = np.empty(n * 2, np.float32), np.empty(n * 3, np.float32)
        records, radii = np.empty(n * RECORD, np.float32), np.empty(n, np.int32)
        shares = threads.split(n, n_threads, LANES)
        opacities, colors = _flat(opacities), _flat(colors)

        def share(i: int) -> None:
            project(*arrays, opacities, colors, view, *shares[i], records, means2d, conics, radii)

        threads.run(share, n_threads)
        none = np.empty(0, np.int64)
        frame = _Frame(camera.width, camera.height, view, n_threads, records, radii, *[none] * 6)
        _bin(frame, records, n)
        holder.append(frame)
        ctx.frame, ctx.shares = frame, shares
        conics = torch.from_numpy(conics).view(n, 3)
        ctx.save_for_backward(means, quats, scales, conics)
        return torch.from_numpy(means2d).view(n, 2), conics

    @staticmethod
    def backward(ctx, grad_means2d, grad_conics):
        means, quats, scales, conics = (_flat(t) for t in ctx.saved_tensors)
        gradients = [np.empty_like(a) for a in (means, quats, scales)]
        upstream = _flat(grad_means2d), _flat(grad_conics)

        def share(i: int) -> None:
            project_backward(
                means, quats, scales, ctx.frame.view, *ctx.shares[i], conics, *upstream, *gradients
            )

        threads.run(share, ctx.frame.n_threads)
        shaped = [torch.from_numpy(g).view(-1, width) for g, width in zip(gradients, (3, 4, 3), strict=True)]
        return *shaped, None, None, None, None, None


class _Blend(torch.autograd.Function):
    """(means2d, conics, opacities, colors) -> (rgb [H, W, 3], alpha [H, W, 1], pixel counts [N] int32)."""

    @staticmethod
    def forward(ctx, means2d, conics, opacities, colors, frame, counting):
        rgb = np.empty(frame.height * frame.width * 3, np.float32)
        alpha = np.empty(frame.height * frame.width, np.float32)
        counts = np.zeros(len(frame.order), np.int32) if counting else _NO_COUNT
        queue = frame.queue()

        def share(_: int) -> None:
            blend(
                frame.records,
                frame.entries,
                frame.offsets,
                frame.tile_order,
                queue,
                frame.width,
                frame.height,
                rgb,
                alpha,
                counts,
            )

        threads.run(share, frame.n_threads)
        ctx.frame = frame
        pixel_count = torch.zeros(len(opacities) if counting else 0, dtype=torch.int32)
        if counting:
            pixel_count[torch.from_numpy(frame.order).long()] = torch.from_numpy(counts)
        ctx.mark_non_differentiable(pixel_count)
        shape = (frame.height, frame.width)
        image = torch.from_numpy(rgb).view(*shape, 3), torch.from_numpy(alpha).view(*shape, 1)
        ctx.save_for_backward(conics, opacities, *image)
        return *image, pixel_count

    @staticmethod
    def backward(ctx, grad_rgb, grad_alpha, _):
        frame = ctx.frame
        conics, opacities, rgb, alpha = (_flat(t) for t in ctx.saved_tensors)
        n, m = len(opacities), len(frame.order)
        sums = np.empty(len(frame.entries) * ROW, np.float32)
        queue, upstream = frame.queue(), (_flat(grad_rgb), _flat(grad_alpha))

        def differentiate(_: int) -> None:
            blend_backward(
                frame.records,
                frame.entries,
                frame.offsets,
                frame.tile_order,
                queue,
                frame.width,
                frame.height,
                (rgb, alpha),
                upstream,
                sums,
            )

        threads.run(differentiate, frame.n_threads)
        gradients = [np.zeros(n * width, np.float32) for width in (2, 3, 1, 3)]
        shares = threads.split(m, frame.n_threads)

        def collect(i: int) -> None:
            gather(sums, frame.places, frame.starts, frame.order, *shares[i], conics, opacities, *gradients)

        threads.run(collect, frame.n_threads)
        g_means2d, g_conics, g_opacities, g_colors = (torch.from_numpy(g) for g in gradients)
        return g_means2d.view(n, 2), g_conics.view(n, 3), g_opacities, g_colors.view(n, 3), None, None


def _pad(gaussians: Gaussians, n: int) -> Gaussians:
    """Invisible Gaussians behind, so that there are at least ``n``: the kernels take eight at a time."""
    missing = n - len(gaussians)
    return gaussians.map(lambda t: F.pad(t, (0, 0) * (t.dim() - 1) + (0, missing)))


def rasterize_cpu(
    gaussians: Gaussians, camera: Camera, *, pixel_counts: bool = False, n_threads: int | None = None
) -> RenderOutput:
    """Draw Gaussians with the CPU kernels; see ``talker.render.rasterize``.

    Args:
        gaussians: In the camera frame, on the CPU; other floating types are converted to float32.
        camera: The view.
        pixel_counts: Whether to fill ``RenderOutput.pixel_count``.
        n_threads: Threads to use; by default as many as PyTorch uses. The result does not depend on it.
    """
    n = len(gaussians)
    gaussians = gaussians.map(lambda t: t.to(torch.float32))
    if n < LANES:
        gaussians = _pad(gaussians, LANES)
    g, frames = gaussians, []
    n_threads = max(1, n_threads or torch.get_num_threads())
    means2d, conics = _Project.apply(
        g.means, g.quats, g.scales, g.opacities, g.colors, camera, n_threads, frames
    )
    means2d = means2d[:n] if n < LANES else means2d
    if means2d.requires_grad:
        means2d.retain_grad()
    padded = F.pad(means2d, (0, 0, 0, LANES - n)) if n < LANES else means2d
    frame = frames[0]
    rgb, alpha, counts = _Blend.apply(padded, conics, g.opacities, g.colors, frame, pixel_counts)
    radii = torch.from_numpy(frame.radii)[:n]
    return RenderOutput(rgb, alpha, means2d, radii, counts[:n] if pixel_counts else None)
