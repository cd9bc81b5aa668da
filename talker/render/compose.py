"""Layers on top of each other."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from talker.fused import applies, share_out
from talker.jit.compile import sum_kernel
from talker.types import RenderOutput


def over(front: RenderOutput, back_rgb: Tensor) -> Tensor:
    """The picture [H, W, 3] of ``front`` before ``back_rgb`` [H, W, 3]; both linear in the same range."""
    if applies(front.rgb, front.alpha, back_rgb) and not back_rgb.requires_grad:
        return cast(Tensor, _Over.apply(front.rgb, front.alpha, back_rgb))
    return front.rgb + (1 - front.alpha) * back_rgb


def compose(face: RenderOutput, mouth: RenderOutput | None, plate: Tensor) -> Tensor:
    """Face before the inside of the mouth before the background plate [H, W, 3] (PGSTalker, two branches).

    The face's opacity between the lips decides what of the mouth is seen, so closed lips hide it.
    """
    return over(face, plate if mouth is None else over(mouth, plate))


def compose_uint8(face: RenderOutput, mouth: RenderOutput | None, plate: Tensor) -> Tensor:
    """``to_uint8(compose(face, mouth, plate))`` [H, W, 3], in one pass over the pixels where there is a kernel."""
    back = plate if mouth is None else over(mouth, plate)
    if not applies(face.rgb, face.alpha, back):
        return to_uint8(over(face, back))
    out = torch.empty(face.rgb.shape, dtype=torch.uint8)
    arrays = [t.detach().contiguous().view(-1).numpy() for t in (face.rgb, face.alpha, back)]
    pixels = out.view(-1).numpy()
    share_out(lambda _, start, stop: _over_uint8(*arrays, pixels, start, stop), face.alpha.numel())
    return out


def to_uint8(rgb: Tensor) -> Tensor:
    """Displayable [H, W, 3] uint8 of RGB 0..1."""
    return (rgb.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8)


class _Over(torch.autograd.Function):
    """A layer before a picture that is given: sum and gradient in one pass each."""

    @staticmethod
    def forward(ctx: Any, rgb: Tensor, alpha: Tensor, back: Tensor) -> Tensor:
        out = torch.empty(rgb.shape)
        ctx.back = back.detach().contiguous()
        flat = [t.detach().contiguous().view(-1).numpy() for t in (rgb, alpha, ctx.back, out)]
        share_out(lambda _, start, stop: _over(*flat, start, stop), alpha.numel())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad = grads[0].contiguous()
        to_alpha = torch.empty(*grad.shape[:2], 1)
        flat = [t.view(-1).numpy() for t in (grad, ctx.back, to_alpha)]
        share_out(lambda _, start, stop: _over_to_alpha(*flat, start, stop), to_alpha.numel())
        return grad, to_alpha, None


@sum_kernel
def _over(rgb, alpha, back, out, start, stop):
    one = np.float32(1)
    for pixel in range(start, stop):
        behind = one - alpha[pixel]
        for at in range(3 * pixel, 3 * pixel + 3):
            out[at] = rgb[at] + behind * back[at]


@sum_kernel
def _over_to_alpha(grad, back, out, start, stop):
    for pixel in range(start, stop):
        at = 3 * pixel
        out[pixel] = -(grad[at] * back[at] + grad[at + 1] * back[at + 1] + grad[at + 2] * back[at + 2])


@sum_kernel
def _over_uint8(rgb, alpha, back, out, start, stop):
    zero, one, half, full = np.float32(0), np.float32(1), np.float32(0.5), np.float32(255)
    for pixel in range(start, stop):
        behind = one - alpha[pixel]
        for at in range(3 * pixel, 3 * pixel + 3):
            value = rgb[at] + behind * back[at]
            out[at] = np.uint8(min(max(value, zero), one) * full + half)
