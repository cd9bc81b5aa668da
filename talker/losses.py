"""Terms of the training objective. Pure: tensors in, per-pixel maps or scalars out, weights are the caller's.

Images are [H, W, 3] in 0..1, as renderers return them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from talker.errors import BackendError
from talker.fused import SHARES, applies, share_out
from talker.jit.compile import sum_kernel
from talker.ssim import mean_ssim
from talker.torchvision_fix import ensure_torchvision

_LPIPS_TRUNK = "alexnet-owt-7be5be79.pth"


def l1(image: Tensor, truth: Tensor) -> Tensor:
    """Absolute difference, entry by entry."""
    return (image - truth).abs()


def dssim(image: Tensor, truth: Tensor) -> Tensor:
    """``1 - SSIM``, its mean over the image, as 3DGS weighs it beside L1."""
    return 1 - mean_ssim(image, truth)


def weighted_l1(image: Tensor, truth: Tensor, weight: np.ndarray) -> tuple[Tensor, Tensor]:
    """Absolute difference summed under the weights of the pixels, and the mean squared difference beside it.

    One weight map stands for the means over the frame and any number of boxes; on a CPU one pass gives sum and
    gradient.

    Args:
        image: [H, W, 3].
        truth: [H, W, 3].
        weight: [H, W] float32.

    Returns:
        The sum, differentiable with respect to ``image``, and the mean square, which is not.
    """
    if applies(image, truth):
        return _WeightedL1.apply(image, truth, weight)  # pyright: ignore[reportReturnType]
    difference = image - truth
    sum_ = (torch.from_numpy(weight).to(image.device)[..., None] * difference.abs()).sum()
    return sum_, difference.detach().square().mean()


@sum_kernel
def _weighted_l1(image, truth, weight, grad, sums, start, stop):
    total, square = 0.0, 0.0
    for pixel in range(start, stop):
        w = weight[pixel]
        for at in range(3 * pixel, 3 * pixel + 3):
            d = image[at] - truth[at]
            total += w * abs(d)
            square += d * d
            grad[at] = w * (np.float32(d > 0) - np.float32(d < 0))
    sums[0], sums[1] = total, square


class _WeightedL1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, truth: Tensor, weight: np.ndarray) -> tuple[Tensor, Tensor]:
        grad, sums = torch.empty(image.shape), np.zeros((SHARES, 2))
        flat = [v.detach().contiguous().view(-1).numpy() for v in (image, truth)]
        arrays = *flat, np.ascontiguousarray(weight, np.float32).reshape(-1), grad.view(-1).numpy()
        share_out(lambda i, start, stop: _weighted_l1(*arrays, sums[i], start, stop), weight.size)
        ctx.grad = grad
        total, square = sums.sum(0)
        outputs = torch.tensor(total, dtype=image.dtype), torch.tensor(square / image.numel())
        ctx.mark_non_differentiable(outputs[1])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.grad * grads[0], None, None


def mask_loss(alpha: Tensor, mask: Tensor) -> Tensor:
    """Coverage outside and lack of it inside a soft mask, per pixel [H, W, 1].

    ``alpha`` [H, W, 1] and ``mask`` [H, W] or [H, W, 1] are 0..1.
    """
    mask = mask.reshape(alpha.shape)
    return alpha * (1 - mask) + (1 - alpha) * mask


def offset_size(offsets: Iterable[Tensor]) -> Tensor:
    """Mean size of every attribute's offsets, summed: what need not move does not."""
    return torch.stack([offset.abs().mean() for offset in offsets]).sum()


def temporal_difference(now: Iterable[Tensor], then: Iterable[Tensor]) -> Tensor:
    """Mean squared change of every attribute's offsets between neighbouring frames, summed: no flicker."""
    changes = [(a - b).square().mean() for a, b in zip(now, then, strict=True)]
    return torch.stack(changes).sum()


def lpips_available() -> bool:
    """Whether LPIPS (AlexNet) can be computed here. Nothing is downloaded to find out, or later."""
    return _trunk_file().is_file() and ensure_torchvision() and _has_lpips()


def lpips(image: Tensor, truth: Tensor) -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018, AlexNet, version 0.1) of two images: a scalar.

    Raises:
        BackendError: The trained AlexNet is not on this machine (see ``lpips_available``).
    """
    if not lpips_available():
        raise BackendError(
            "lpips.unavailable",
            "LPIPS needs the trained AlexNet, and it is not on this machine.",
            todo=f"Put {_LPIPS_TRUNK} into torch's cache of checkpoints, or leave LPIPS out.",
        )
    network = _lpips_network(image.device)
    pair = [(2 * x - 1).permute(2, 0, 1)[None] for x in (image, truth)]
    return network(*pair).reshape(())


def _trunk_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_TRUNK


@cache
def _has_lpips() -> bool:
    try:
        import lpips as _  # noqa: F401 (only whether it can be)
    except ImportError:
        return False
    return True


@cache
def _lpips_network(device: torch.device) -> Any:
    import lpips as package

    with warnings.catch_warnings():
        # It asks torchvision for AlexNet in a way that is deprecated; nothing a user could change.
        warnings.simplefilter("ignore")
        network = package.LPIPS(net="alex", version="0.1", verbose=False).eval().to(device)
    return network.requires_grad_(False)
