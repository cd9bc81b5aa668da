"""Similarities of the picture plane as rows (a, b, x, y): p -> [[a, -b], [b, a]] p + [x, y]."""

from __future__ import annotations

import numpy as np

IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])


def apply_map(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Similarities [..., 4] applied to points [P, 2]: [..., P, 2]."""
    a, b = maps[..., None, 0], maps[..., None, 1]
    return np.stack(
        [
            a * points[:, 0] - b * points[:, 1] + maps[..., None, 2],
            b * points[:, 0] + a * points[:, 1] + maps[..., None, 3],
        ],
        -1,
    )


def compose_maps(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Similarity [..., 4] that first applies ``inner``, then ``outer``."""
    a = outer[..., 0] * inner[..., 0] - outer[..., 1] * inner[..., 1]
    b = outer[..., 1] * inner[..., 0] + outer[..., 0] * inner[..., 1]
    x = outer[..., 0] * inner[..., 2] - outer[..., 1] * inner[..., 3] + outer[..., 2]
    y = outer[..., 1] * inner[..., 2] + outer[..., 0] * inner[..., 3] + outer[..., 3]
    return np.stack(np.broadcast_arrays(a, b, x, y), -1)


def invert_map(maps: np.ndarray) -> np.ndarray:
    """Inverse of similarities [..., 4]."""
    square = maps[..., 0] ** 2 + maps[..., 1] ** 2
    a, b = maps[..., 0] / square, -maps[..., 1] / square
    x = -(a * maps[..., 2] - b * maps[..., 3])
    y = -(b * maps[..., 2] + a * maps[..., 3])
    return np.stack([a, b, x, y], -1)


def relative_to(maps: np.ndarray, reference: int) -> np.ndarray:
    """The same motion with exactly nothing at the reference frame."""
    return compose_maps(maps, invert_map(maps[reference]))


def about_pivot(maps: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """The same similarities [..., 4] with x, y the displacement of ``pivot`` [2] instead of the origin.

    Around the middle of what was measured, scale and roll do not leak into the translation.
    """
    moved = apply_map(maps, pivot[None])[..., 0, :] - pivot
    return np.concatenate([maps[..., :2], moved], -1)


def from_pivot(local: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """Inverse of ``about_pivot``."""
    turned = apply_map(np.concatenate([local[..., :2], np.zeros_like(local[..., 2:])], -1), pivot[None])
    return np.concatenate([local[..., :2], pivot + local[..., 2:] - turned[..., 0, :]], -1)


class SimilarityWarp:
    """Maps as states of an alignment (see ``align``): scale, roll and shift about a pivot."""

    def __init__(self, pivot: np.ndarray) -> None:
        self.pivot = pivot

    def lift(self, points: np.ndarray) -> np.ndarray:
        """See ``align.Warp``; the pixels themselves."""
        return points

    def pixels(self, state: np.ndarray, lifted: np.ndarray) -> np.ndarray:
        """See ``align.Warp``."""
        return apply_map(state, lifted)

    def jacobian(self, points: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """See ``align.Warp``; [P, 4] by scale, roll, x and y."""
        arm = points - self.pivot
        turn = gradient[:, 1] * arm[:, 0] - gradient[:, 0] * arm[:, 1]
        return np.stack([(gradient * arm).sum(1), turn, gradient[:, 0], gradient[:, 1]], 1)

    def undo(self, state: np.ndarray, step: np.ndarray) -> np.ndarray:
        """See ``align.Warp``."""
        return compose_maps(state, invert_map(from_pivot(IDENTITY + step, self.pivot)))
