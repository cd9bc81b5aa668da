"""From Gaussians to a picture: one function in front of three back ends that draw the same.

``reference`` defines the result, ``cpu`` is the product's renderer without a GPU, ``gsplat`` the one with CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from talker.errors import BackendError, ConfigError
from talker.types import Camera, Gaussians, RenderOutput

Backend = Literal["auto", "reference", "cpu", "gsplat"]


def rasterize(
    gaussians: Gaussians,
    camera: Camera,
    *,
    backend: Backend = "auto",
    pixel_counts: bool = False,
    n_threads: int | None = None,
) -> RenderOutput:
    """Draw N Gaussians over black.

    Differentiable with respect to all five tensors of ``gaussians``. ``means2d`` of the result keeps its gradient,
    so after ``backward()`` its ``.grad`` holds dL/dmeans2d [N, 2]. Gaussians that are culled, or that hold a NaN or
    an infinity, are left out and get zero gradients.

    Args:
        gaussians: In the camera frame.
        camera: The view; intrinsics are not differentiated and skew is ignored.
        backend: ``auto`` takes ``gsplat`` for CUDA tensors and ``cpu`` otherwise.
        pixel_counts: Whether to count the pixels each Gaussian is blended into.
        n_threads: Threads of the ``cpu`` back end; by default as many as PyTorch uses. Never changes the result.

    Returns:
        rgb [H, W, 3], alpha [H, W, 1], means2d [N, 2], radii [N], pixel_count [N] or None.

    Raises:
        BackendError: The back end does not fit the tensors' device, or is not installed.
        ConfigError: There is no such back end.
    """
    device = gaussians.means.device.type
    if backend == "auto":
        backend = "gsplat" if device == "cuda" else "cpu"
    if backend == "reference":
        from talker.render.reference import rasterize_reference

        return rasterize_reference(gaussians, camera, pixel_counts=pixel_counts)
    if backend == "cpu":
        if device != "cpu":
            raise BackendError(
                "render.device",
                f"The cpu renderer was given Gaussians on {device}.",
                expected="It draws Gaussians in main memory.",
                todo="Move them with .to('cpu'), or choose backend='auto'.",
            )
        from talker.render.cpu.autograd import rasterize_cpu

        return rasterize_cpu(gaussians, camera, pixel_counts=pixel_counts, n_threads=n_threads)
    if backend == "gsplat":
        from talker.render.gsplat_backend import rasterize_gsplat

        return rasterize_gsplat(gaussians, camera, pixel_counts=pixel_counts)
    raise ConfigError(
        "render.backend",
        f"There is no renderer called {backend!r}.",
        expected="One of auto, reference, cpu, gsplat.",
    )


def rasterize_batch(
    frames: Sequence[Gaussians], camera: Camera, *, backend: Backend = "auto"
) -> list[RenderOutput]:
    """Draw several sets of Gaussians of one size in one view, without gradients.

    ``gsplat`` draws them in one call; the others one after the other, since one frame keeps every core busy.

    Args:
        frames: Sets of N Gaussians each, in the camera frame.
        camera: The view.
        backend: See ``rasterize``.

    Raises:
        BackendError: The back end does not fit the tensors' device, or is not installed.
        ConfigError: There is no such back end.
    """
    on_cuda = bool(frames) and frames[0].means.device.type == "cuda"
    if len(frames) > 1 and (backend == "gsplat" or (backend == "auto" and on_cuda)):
        from talker.render.gsplat_backend import rasterize_gsplat_batch

        return rasterize_gsplat_batch(frames, camera)
    return [rasterize(gaussians, camera, backend=backend) for gaussians in frames]


def warmup() -> None:
    """Compile the cpu back end, forward and backward, or load it from the cache on disk.

    Takes about ten seconds once per machine and version, well under a second afterwards. The cache folder is
    ``$TALKER_CACHE``, by default ``~/.cache/talker``. Rendering does the same when first called.
    """
    import torch

    n = 8
    gaussians = Gaussians(
        torch.tensor([[0.0, 0.0, 1.0]]).repeat(n, 1).requires_grad_(),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(n, 1),
        torch.full((n, 3), 0.1),
        torch.full((n,), 0.5),
        torch.full((n, 3), 0.5),
    )
    camera = Camera(torch.tensor([[8.0, 0.0, 4.0], [0.0, 8.0, 4.0], [0.0, 0.0, 1.0]]), 8, 8)
    with torch.enable_grad():
        rasterize(gaussians, camera, backend="cpu").rgb.sum().backward()
