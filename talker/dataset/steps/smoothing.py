"""Zero-phase smoothing of tracks that respects cuts: a weighted second-difference (Whittaker) smoother."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded


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
    n = len(values)
    if n < 3:
        return values.copy()
    on = ((segment[2:] == segment[1:-1]) & (segment[1:-1] == segment[:-2])).astype(np.float64)
    out = np.empty_like(values, dtype=np.float64)
    for column in range(values.shape[1]):
        stiff = (noise[column] / accel[column]) ** 2
        banded = np.zeros((3, n))
        banded[2] = np.maximum(weight, 1e-6)
        banded[2, :-2] += stiff * on
        banded[2, 1:-1] += 4 * stiff * on
        banded[2, 2:] += stiff * on
        banded[1, 1:-1] -= 2 * stiff * on
        banded[1, 2:] -= 2 * stiff * on
        banded[0, 2:] += stiff * on
        out[:, column] = solveh_banded(banded, np.maximum(weight, 1e-6) * values[:, column])
    return out
