"""Zero-phase smoothing of tracks that respects cuts: a weighted second-difference (Whittaker) smoother."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation

STEADY = 0.2
"""Smoothness of finished poses against their fidelity, per frame: trembling at the frame rate shrinks to a quarter,
motion slower than twice a second is kept to 1 %. A hand-held clip trembled more in its avatar than itself."""


def smooth_track(
    values: np.ndarray, weight: np.ndarray, segment: np.ndarray, *, noise: np.ndarray, accel: np.ndarray
) -> np.ndarray:
    """Smooth each column; minimises sum w (x - y)^2 / noise^2 + sum (second difference of x)^2 / accel^2.

    Args:
        values: [T, C].
        weight: [T] trust in each frame, 1 is usual; small where a value was filled in.
        segment: [T]; second differences across cuts cost nothing.
        noise: [C] standard deviation of the measurement.
        accel: [C] usual second difference.
    """
    if len(values) < 3:
        return values.copy()
    out = np.empty_like(values, dtype=np.float64)
    trust = np.maximum(weight, 1e-6)
    for column in range(values.shape[1]):
        banded = second_difference(segment, (noise[column : column + 1] / accel[column]) ** 2)
        banded[-1] += trust
        out[:, column] = solveh_banded(banded, trust * values[:, column])
    return out


def steady_poses(T: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """Poses [T, 4, 4] without the trembling that measurement leaves; nothing is smoothed over a cut."""
    mean = Rotation.from_matrix(T[:, :3, :3]).mean()
    turn = (mean.inv() * Rotation.from_matrix(T[:, :3, :3])).as_rotvec()
    values = np.concatenate([turn, T[:, :3, 3]], 1).astype(np.float64)
    one = np.ones(6)
    values = smooth_track(values, np.ones(len(T)), segment, noise=np.sqrt(STEADY) * one, accel=one)
    out = T.copy()
    out[:, :3, :3] = (mean * Rotation.from_rotvec(values[:, :3])).as_matrix()
    out[:, :3, 3] = values[:, 3:]
    return out


def second_difference(segment: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Banded upper form [2 D + 1, D T] of sum (second difference)^2 * inverse, for solveh_banded.

    Args:
        segment: [T]; second differences across cuts cost nothing.
        inverse: [D] weight of each of the D values of a frame.
    """
    on = bends(segment).astype(np.float64)
    n, width = len(segment), len(inverse)
    main, first, second = np.zeros(n), np.zeros(n), np.zeros(n)
    main[:-2] += on
    main[1:-1] += 4 * on
    main[2:] += on
    first[1:-1] -= 2 * on
    first[2:] -= 2 * on
    second[2:] += on
    banded = np.zeros((2 * width + 1, width * n))
    banded[-1] = np.outer(main, inverse).reshape(-1)
    banded[width] = np.outer(first, inverse).reshape(-1)
    banded[0] = np.outer(second, inverse).reshape(-1)
    return banded


def add_blocks(banded: np.ndarray, blocks: np.ndarray) -> None:
    """Add symmetric blocks [T, D, D] of each frame to a banded upper form in place."""
    width = blocks.shape[1]
    view = banded.reshape(len(banded), -1, width)
    for i in range(width):
        for j in range(i, width):
            view[-1 - (j - i), :, j] += blocks[:, i, j]


def bends(segment: np.ndarray) -> np.ndarray:
    """Where three neighbouring frames belong to one shot, [T - 2] bool."""
    return (segment[2:] == segment[1:-1]) & (segment[1:-1] == segment[:-2])
