"""The entrance of the CPU back end: two autograd functions around the kernels.

Projection and blending are separate functions so that the projected means are an ordinary tensor between them,
whose gradient a caller can keep (density control needs it) and on which a loss may act.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from talker import threads
from talker.jit.simd import LANES
from talker.render.cpu.blend import blend
from talker.render.cpu.blend_backward import blend_backward, gather
from talker.render.cpu.layout import RECORD, ROW, view_of
from talker.render.cpu.lists import TileLists, sort_into_tiles
from talker.render.cpu.memory import keep_freed_memory
from talker.render.cpu.project import project
from talker.render.cpu.project_backward import project_backward
from talker.types import Camera, Gaussians, RenderOutput

keep_freed_memory()


@dataclass
class _Frame:
    """One rendering, handed from projection to blending beside the tensors."""

    camera: Camera
    n_threads: int
    records: np.ndarray | None = None  # [N * RECORD], set by projection
    radii: np.ndarray | None = None  # [N] int32, set by projection


def _flat(tensor: Tensor) -> np.ndarray:
    """The values as a flat, contiguous float32 array; shares memory where it can."""
    return tensor.detach().to(torch.float32).contiguous().numpy().reshape(-1)


class _Project(torch.autograd.Function):
    """(means, quats, scales) -> (means2d [N, 2], conics [N, 3]); fills the frame's records on the way.

    Records hold opacities and colours too, but no gradient of these passes here: that is the business of ``_Blend``.
    """

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, frame):
        n = means.shape[0]
        view = view_of(frame.camera.K.detach().numpy(), frame.camera.width, frame.camera.height)
        inputs = [_flat(t) for t in (means, quats, scales, opacities, colors)]
        means2d, conics = np.empty(n * 2, np.float32), np.empty(n * 3, np.float32)
        records, radii = np.empty(n * RECORD, np.float32), np.empty(n, np.int32)
        shares = threads.split(n, frame.n_threads, LANES)

        def share(i: int) -> None:
            project(*inputs, view, *shares[i], records, means2d, conics, radii)

        threads.run(share, frame.n_threads)
        frame.records, frame.radii = records, radii
        outputs = torch.from_numpy(means2d).view(n, 2), torch.from_numpy(conics).view(n, 3)
        ctx.view, ctx.shares = view, shares
        ctx.save_for_backward(means, quats, scales, outputs[1])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_means2d, grad_conics):
        means, quats, scales, conics = (_flat(t) for t in ctx.saved_tensors)
        upstream = _flat(grad_means2d), _flat(grad_conics)
        gradients = [np.empty_like(a) for a in (means, quats, scales)]

        def share(i: int) -> None:
            project_backward(means, quats, scales, ctx.view, *ctx.shares[i], conics, *upstream, *gradients)

        threads.run(share, len(ctx.shares))
        shaped = [torch.from_numpy(g).view(-1, width) for g, width in zip(gradients, (3, 4, 3), strict=True)]
        return *shaped, None, None, None


def _spread_counts(counts: np.ndarray, lists: TileLists, n: int) -> Tensor:
    """Counts of the sorted records as int32 [N] of all Gaussians."""
    pixel_count = torch.zeros(n, dtype=torch.int32)
    pixel_count[torch.from_numpy(lists.order).long()] = torch.from_numpy(counts)
    return pixel_count


class _Blend(torch.autograd.Function):
    """(means2d, conics, opacities, colors) -> (rgb [H, W, 3], alpha [H, W, 1], pixel counts [N] int32).

    The values come from the frame's records, which hold the same numbers.
    """

    @staticmethod
    def forward(ctx, means2d, conics, opacities, colors, frame, counting):
        width, height, n = frame.camera.width, frame.camera.height, len(opacities)
        lists = sort_into_tiles(frame.records, frame.radii, width, height, frame.n_threads)
        rgb, alpha = np.empty(height * width * 3, np.float32), np.empty(height * width, np.float32)
        counts = np.zeros(len(lists.order) if counting else 0, np.int32)
        work = lists.work()
        threads.run(lambda _: blend(*work, rgb, alpha, counts), frame.n_threads)
        pixel_count = _spread_counts(counts, lists, n) if counting else torch.zeros(0, dtype=torch.int32)
        image = torch.from_numpy(rgb).view(height, width, 3), torch.from_numpy(alpha).view(height, width, 1)
        ctx.lists, ctx.n_threads = lists, frame.n_threads
        ctx.save_for_backward(conics, opacities, *image)
        ctx.mark_non_differentiable(pixel_count)
        return *image, pixel_count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rgb, grad_alpha, _):
        conics, opacities, rgb, alpha = (_flat(t) for t in ctx.saved_tensors)
        lists, n = ctx.lists, len(opacities)
        upstream = _flat(grad_rgb), _flat(grad_alpha)
        sums = np.empty(len(lists.entries) * ROW, np.float32)
        work = lists.work()
        threads.run(lambda _: blend_backward(*work, (rgb, alpha), upstream, sums), ctx.n_threads)

        means2d, conics_, opacities_, colors = (np.zeros(n * width, np.float32) for width in (2, 3, 1, 3))
        shares = threads.split(len(lists.order), ctx.n_threads)

        def collect(i: int) -> None:
            gradients = means2d, conics_, opacities_, colors
            gather(sums, lists.places, lists.starts, lists.order, *shares[i], conics, opacities, *gradients)

        threads.run(collect, ctx.n_threads)
        shaped = [torch.from_numpy(g).view(n, -1) for g in (means2d, conics_, opacities_, colors)]
        return shaped[0], shaped[1], shaped[2].view(n), shaped[3], None, None


def _pad(gaussians: Gaussians, n: int) -> Gaussians:
    """Invisible Gaussians behind, so that there are ``n``."""
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
    few = n < LANES  # the kernels take eight at a time
    g = gaussians.map(lambda t: t.to(torch.float32))
    g = _pad(g, LANES) if few else g
    frame = _Frame(camera.to("cpu"), max(1, n_threads or threads.n_threads()))
    means2d, conics = _Project.apply(g.means, g.quats, g.scales, g.opacities, g.colors, frame)
    means2d = means2d[:n] if few else means2d
    if means2d.requires_grad:
        means2d.retain_grad()
    projected = F.pad(means2d, (0, 0, 0, LANES - n)) if few else means2d
    rgb, alpha, counts = _Blend.apply(projected, conics, g.opacities, g.colors, frame, pixel_counts)
    assert frame.radii is not None
    return RenderOutput(
        rgb, alpha, means2d, torch.from_numpy(frame.radii[:n]), counts[:n] if pixel_counts else None
    )
