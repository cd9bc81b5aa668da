"""Layers on top of each other."""

from __future__ import annotations

from torch import Tensor

from talker.types import RenderOutput


def over(front: RenderOutput, back_rgb: Tensor) -> Tensor:
    """The picture [H, W, 3] of ``front`` before ``back_rgb`` [H, W, 3]; both linear in the same range."""
    return front.rgb + (1 - front.alpha) * back_rgb


def compose(face: RenderOutput, mouth: RenderOutput | None, plate: Tensor) -> Tensor:
    """Face before the inside of the mouth before the background plate [H, W, 3] (PGSTalker, two branches).

    The face's opacity between the lips decides what of the mouth is seen, so closed lips hide it.
    """
    return over(face, plate if mouth is None else over(mouth, plate))
