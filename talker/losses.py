"""Terms of the training objective. Pure: tensors in, per-pixel maps or scalars out, weights are the caller's.

Images are [H, W, 3] in 0..1, as renderers return them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from talker.errors import BackendError
from talker.torchvision_fix import ensure_torchvision

SSIM_WINDOW = 11
"""Pixels; the Gaussian window of the original SSIM, standard deviation 1.5."""

_C1, _C2 = 0.01**2, 0.03**2
_LPIPS_TRUNK = "alexnet-owt-7be5be79.pth"


def l1(image: Tensor, truth: Tensor) -> Tensor:
    """Absolute difference, entry by entry."""
    return (image - truth).abs()


def ssim_map(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity [H, W, 3] around every pixel (Wang et al. 2004); black beyond the border.

    Gradients reach ``image`` only.
    """
    return cast(Tensor, _SSIM.apply(image, truth))


def dssim(image: Tensor, truth: Tensor) -> Tensor:
    """``1 - SSIM`` [H, W, 3], as 3DGS weighs it beside L1."""
    return 1 - ssim_map(image, truth)


def region_l1(image: Tensor, truth: Tensor, region: Tensor) -> Tensor:
    """Mean absolute difference under the weights ``region`` [H, W] or [H, W, 1]; 0 where all are zero."""
    weight = region.reshape(*image.shape[:2], 1)
    total = (weight * l1(image, truth)).sum() / image.shape[-1]
    return total / weight.sum().clamp_min(1e-8)


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


class _SSIM(torch.autograd.Function):
    """The map and its gradient written out: half the convolutions and a third of the memory of autograd's."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, truth: Tensor) -> Tensor:
        # Stacked along the channels the images are already in the layout a CPU convolves fastest.
        stack = torch.cat((image, truth, image * image, truth * truth, image * truth), -1)
        a, b, aa, bb, ab = _blur(stack).split(image.shape[-1], -1)
        mean = 2 * a * b + _C1
        spread = 2 * (ab - a * b) + _C2
        p = 1 / (a * a + b * b + _C1)
        q = 1 / (aa - a * a + bb - b * b + _C2)
        ssim = mean * spread * p * q
        ctx.save_for_backward(image, truth, a, b, mean, spread, p, q, ssim)
        return ssim

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        image, truth, a, b, mean, spread, p, q, ssim = ctx.saved_tensors
        weighted = grads[0] * ssim
        to_ab = 2 * grads[0] * mean * p * q
        to_aa = -weighted * q
        to_a = 2 * (grads[0] * b * (spread - mean) * p * q + weighted * a * (q - p))
        # The window is symmetric: its transpose is itself.
        a, aa, ab = _blur(torch.cat((to_a, to_aa, to_ab), -1)).split(image.shape[-1], -1)
        return a + 2 * image * aa + truth * ab, None


def _blur(stack: Tensor) -> Tensor:
    """Every channel of [H, W, C] under the Gaussian window."""
    channels = stack.shape[-1]
    window = _window(stack.dtype, stack.device)
    pad = SSIM_WINDOW // 2
    down = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    right = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    image = stack.permute(2, 0, 1)[None]
    image = F.conv2d(image, down, padding=(pad, 0), groups=channels)
    image = F.conv2d(image, right, padding=(0, pad), groups=channels)
    return image[0].permute(1, 2, 0)


@cache
def _window(dtype: torch.dtype, device: torch.device) -> Tensor:
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weight = torch.exp(-(offset**2) / (2 * 1.5**2))
    return (weight / weight.sum()).to(device, dtype)


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
