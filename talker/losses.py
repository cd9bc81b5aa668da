"""Terms of the training objective. Pure: tensors in, per-pixel maps or scalars out, weights are the caller's.

Images are [H, W, 3] in 0..1, as renderers return them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from talker.errors import BackendError
from talker.ssim import ssim_map
from talker.torchvision_fix import ensure_torchvision

_LPIPS_TRUNK = "alexnet-owt-7be5be79.pth"


def l1(image: Tensor, truth: Tensor) -> Tensor:
    """Absolute difference, entry by entry."""
    return (image - truth).abs()


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
