"""Structural similarity (Wang et al. 2004) and its gradient written out, with a fused pass on the CPU.

Autograd's own gradient takes twice the convolutions and three times the memory. Convolving fifteen channels with
tensors still moves each of them four times; the kernels below keep a row of all five sums in the first-level cache.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talker.fused import applies, share_out
from talker.jit.compile import sum_kernel

SSIM_WINDOW = 11
"""Pixels; the Gaussian window of the original SSIM, standard deviation 1.5."""

_C1, _C2 = 0.01**2, 0.03**2


def ssim_map(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity [H, W, C] around every pixel of [H, W, C] in 0..1; black beyond the border.

    Gradients reach ``image`` only.
    """
    if applies(image, truth):
        return cast(Tensor, _FusedSSIM.apply(image, truth))
    return cast(Tensor, _SSIM.apply(image, truth))


def mean_ssim(image: Tensor, truth: Tensor) -> Tensor:
    """``ssim_map(image, truth).mean()``; one number needs no map of gradients multiplied out."""
    if applies(image, truth):
        return cast(Tensor, _FusedMeanSSIM.apply(image, truth))
    return ssim_map(image, truth).mean()


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


# --- the same, row by row. A row [W * C] is contiguous, so both passes of the window run along it. Pictures come with
# a black border as wide as the window reaches; loops over the window have a constant length and are unrolled ---


@sum_kernel
def _forward(image, truth, window, channels, ssim, slopes, start, stop):
    """SSIM of rows ``start`` to ``stop`` and its derivatives by the means of image, image^2, image * truth."""
    width = ssim.shape[1]
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    c1, c2 = np.float32(_C1), np.float32(_C2)
    border = SSIM_WINDOW // 2
    down = np.empty((5, image.shape[1]), np.float32)
    for y in range(start, stop):
        for x in range(image.shape[1]):
            a, b, aa, bb, ab = zero, zero, zero, zero, zero
            for k in range(SSIM_WINDOW):
                u, v = image[y + k, x], truth[y + k, x]
                wu, wv = window[k] * u, window[k] * v
                a += wu
                b += wv
                aa += wu * u
                bb += wv * v
                ab += wu * v
            down[0, x], down[1, x], down[2, x], down[3, x], down[4, x] = a, b, aa, bb, ab
        inner = slopes[:, y + border, border * channels : border * channels + width]
        for x in range(width):
            a, b, aa, bb, ab = zero, zero, zero, zero, zero
            for k in range(SSIM_WINDOW):
                w, at = window[k], x + k * channels
                a += w * down[0, at]
                b += w * down[1, at]
                aa += w * down[2, at]
                bb += w * down[3, at]
                ab += w * down[4, at]
            mean = two * a * b + c1
            spread = two * (ab - a * b) + c2
            p = one / (a * a + b * b + c1)
            q = one / (aa - a * a + bb - b * b + c2)
            value = mean * spread * p * q
            ssim[y, x] = value
            inner[0, x] = two * (b * (spread - mean) * p * q + value * a * (q - p))
            inner[1, x] = -value * q
            inner[2, x] = two * mean * p * q


@sum_kernel
def _backward(image, truth, window, channels, slopes, out, start, stop):
    """Gradient of the image in rows ``start`` to ``stop``; the window is symmetric, so its transpose is itself."""
    width = out.shape[1]
    zero, two = np.float32(0), np.float32(2)
    down = np.empty((3, slopes.shape[2]), np.float32)
    for y in range(start, stop):
        for x in range(slopes.shape[2]):
            a, aa, ab = zero, zero, zero
            for k in range(SSIM_WINDOW):
                w = window[k]
                a += w * slopes[0, y + k, x]
                aa += w * slopes[1, y + k, x]
                ab += w * slopes[2, y + k, x]
            down[0, x], down[1, x], down[2, x] = a, aa, ab
        for x in range(width):
            a, aa, ab = zero, zero, zero
            for k in range(SSIM_WINDOW):
                w, at = window[k], x + k * channels
                a += w * down[0, at]
                aa += w * down[1, at]
                ab += w * down[2, at]
            out[y, x] = a + two * image[y, x] * aa + truth[y, x] * ab


class _Slopes:
    """What the gradient needs of a forward pass.

    Attributes:
        image: [H, W * C] rows.
        truth: [H, W * C] rows.
        slopes: [3, H + border, (W + border) * C], zero on the border.
    """

    def __init__(self, image: Tensor, truth: Tensor) -> None:
        self.shape, self.channels = image.shape, image.shape[-1]
        self.image, self.truth = (v.detach().contiguous().flatten(1) for v in (image, truth))
        height, width, _ = image.shape
        border = 2 * (SSIM_WINDOW // 2)
        self.slopes = np.zeros((3, height + border, (width + border) * self.channels), np.float32)

    def forward(self) -> Tensor:
        """The map [H, W, C]; fills ``slopes``."""
        ssim = torch.empty_like(self.image)
        framed = [_framed(value, self.channels).numpy() for value in (self.image, self.truth)]
        arrays = *framed, _taps(), self.channels, ssim.numpy(), self.slopes
        share_out(lambda _, start, stop: _forward(*arrays, start, stop), len(ssim))
        return ssim.view(self.shape)

    def backward(self, slopes: np.ndarray) -> Tensor:
        """Gradient [H, W, C] of the image."""
        out = torch.empty_like(self.image)
        arrays = self.image.numpy(), self.truth.numpy(), _taps(), self.channels, slopes, out.numpy()
        share_out(lambda _, start, stop: _backward(*arrays, start, stop), len(out))
        return out.view(self.shape)


class _FusedSSIM(torch.autograd.Function):
    """``_SSIM`` by the kernels."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, truth: Tensor) -> Tensor:
        ctx.pass_ = _Slopes(image, truth)
        return ctx.pass_.forward()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        weight = _framed(grads[0].contiguous().flatten(1), ctx.pass_.channels).numpy()
        return ctx.pass_.backward(ctx.pass_.slopes * weight), None


class _FusedMeanSSIM(torch.autograd.Function):
    """Its mean: the gradient from above is one number, a factor at the end."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, truth: Tensor) -> Tensor:
        ctx.pass_ = _Slopes(image, truth)
        return ctx.pass_.forward().mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        out = ctx.pass_.backward(ctx.pass_.slopes)
        return out.mul_(grads[0] / out.numel()), None


def _framed(rows: Tensor, channels: int) -> Tensor:
    """[..., H, W * C] with a black border half the window wide."""
    pad = SSIM_WINDOW // 2
    return F.pad(rows, (pad * channels, pad * channels, pad, pad))


def _taps() -> np.ndarray:
    return _window(torch.float32, torch.device("cpu")).numpy()
