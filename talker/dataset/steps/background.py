"""The background plate: what is behind the person, per pixel over time."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talker.dataset.steps.fill import continue_smoothly

SAMPLES = 96
"""Frames a plate is made of; more change nothing but memory."""

FREE = 0.12
"""Mask probability below which a pixel is background."""

MARGIN = 0.02
"""The mask is grown by this share of the side: its edge is soft and hair is finer than it."""


@dataclass(frozen=True)
class Plate:
    """A plate and how far to trust it."""

    rgb: np.ndarray  # [S, S, 3] uint8
    known: np.ndarray  # [S, S] bool: seen in some frame, not invented
    motion: float
    """Median over known pixels of the standard deviation over time, 0..255."""


def make_plate(frames: np.ndarray, masks: np.ndarray, index: np.ndarray) -> Plate:
    """Temporal median of the uncovered pixels of ``frames[index]``; never seen ones are continued inwards.

    Args:
        frames: [T, S, S, 3] uint8.
        masks: [T, S, S] uint8 person probability.
        index: Frames to use.
    """
    index = index[np.unique(np.linspace(0, len(index) - 1, min(len(index), SAMPLES)).round().astype(int))]
    size = frames.shape[1]
    reach = max(1, round(MARGIN * size))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    free = np.stack([cv2.dilate(np.asarray(masks[i]), kernel) < FREE * 255 for i in index])
    rgb, known, spread = _median(np.stack([frames[i] for i in index]), free)
    known &= free.sum(0) >= max(1, min(3, len(index) // 4))
    motion = float(np.median(spread[known])) if known.any() else 0.0
    if known.any():
        rgb = continue_smoothly(rgb, known).round().astype(np.uint8)
    return Plate(rgb, known, motion)


def _median(frames: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per-pixel median over free samples [S, S, 3], whether there was any, and the deviation over time."""
    size = frames.shape[1]
    rgb = np.zeros(frames.shape[1:], np.uint8)
    spread = np.zeros((size, size), np.float32)
    rows = max(1, 2**24 // (len(frames) * size * 3 * 4))
    for y in range(0, size, rows):
        block = frames[:, y : y + rows].astype(np.float32)
        block[~free[:, y : y + rows]] = np.inf
        block.sort(axis=0)
        count = free[:, y : y + rows].sum(0)
        middle = np.maximum(count - 1, 0)[None, ..., None] // 2
        value = np.take_along_axis(block, np.broadcast_to(middle, (1, *block.shape[1:])), 0)[0]
        value = np.where(np.isfinite(value), value, 0)
        rgb[y : y + rows] = value.astype(np.uint8)
        filled = np.where(np.isfinite(block), block, value)
        deviation = np.sqrt(((filled - value) ** 2).sum(0) / np.maximum(count, 1)[..., None])
        spread[y : y + rows] = deviation.mean(-1)
    return rgb, np.asarray(free.any(0)), spread
