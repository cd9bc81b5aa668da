"""Smooth continuation of a picture or a depth map into where nothing is known."""

from __future__ import annotations

import cv2
import numpy as np

RELAXATIONS = 40
"""Averaging passes a level; the start from the coarser level makes few enough."""


def continue_smoothly(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The membrane through the known pixels: Laplace's equation, coarse to fine.

    Args:
        values: [H, W] or [H, W, C]; anything where not known.
        known: [H, W] bool, true somewhere.

    Returns:
        float32 of the shape of ``values``, equal to it where known.
    """
    shape = values.shape
    values = np.where(known[..., None], values.reshape(*known.shape, -1), 0.0).astype(np.float32)
    totals, weights = [values], [known.astype(np.float32)]
    while min(weights[-1].shape) > 8:
        totals.append(_channels(cv2.pyrDown(totals[-1])))
        weights.append(np.asarray(cv2.pyrDown(weights[-1]), np.float32))
    surface = totals[-1].sum((0, 1)) / np.maximum(weights[-1].sum(), 1e-6)
    surface = np.broadcast_to(surface, totals[-1].shape)
    for total, weight in zip(reversed(totals), reversed(weights), strict=True):
        surface = _channels(cv2.resize(surface, weight.shape[::-1], interpolation=cv2.INTER_LINEAR))
        held = (weight > 0.25)[..., None]
        target = total / np.maximum(weight, 1e-6)[..., None]
        for _ in range(RELAXATIONS):
            surface = np.where(held, target, surface)
            surface = _channels(cv2.blur(surface, (3, 3), borderType=cv2.BORDER_REPLICATE))
        surface = np.where(held, target, surface)
    return surface.reshape(shape)


def _channels(picture: np.ndarray) -> np.ndarray:
    """The library drops a single channel; put it back."""
    return picture if picture.ndim == 3 else picture[..., None]
