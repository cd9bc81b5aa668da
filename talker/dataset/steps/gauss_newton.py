"""One step of a photometric alignment in one pass over the template's pixels.

In NumPy the same takes thirty passes over arrays of a few thousand numbers, most of it with the GIL held, so that
frames would not run side by side.
"""

from __future__ import annotations

import numpy as np

from talker.jit.compile import inlined_sum, sum_kernel

MIN_INSIDE = 0.4
"""Share of the template, by weight, that must lie inside the picture."""

MEDIAN_STRIDE = 8
"""The median residual of every so many pixels is as good, and faster."""


@sum_kernel
def normal_equations(picture, at, value, weight, jacobian, H, g):
    """Gauss-Newton equations of a template against a picture, robust to outliers, gain and bias matched.

    Args:
        picture: [S, S] float32.
        at: [P, 2] float32, where the template's pixels are now.
        value: [P] of the template.
        weight: [P], one over the variance of each.
        jacobian: [D, P] change of the template's values by motion.
        H: [D, D], filled.
        g: [D], filled.

    Returns:
        Median residual in deviations of the template's pixels; infinite, and nothing filled, if too little of
        the template is inside.
    """
    n = len(value)
    seen, trust = np.empty(n), np.empty(n)
    _look(picture, at, weight, seen, trust)
    if trust.sum() < MIN_INSIDE * weight.sum():
        return np.inf
    _match(seen, value, trust)
    scaled = np.empty(n)
    for p in range(n):
        seen[p] -= value[p]
        scaled[p] = abs(seen[p]) * np.sqrt(weight[p])
    error = _median_inside(scaled, trust)
    limit = max(2 * error, 0.3)
    for p in range(n):
        trust[p] /= 1 + (scaled[p] / limit) ** 2
    for i in range(len(g)):
        for p in range(n):
            scaled[p] = jacobian[i, p] * trust[p]
        total = 0.0
        for p in range(n):
            total += scaled[p] * seen[p]
        g[i] = total
        for j in range(i, len(g)):
            total = 0.0
            for p in range(n):
                total += scaled[p] * jacobian[j, p]
            H[i, j] = total
            H[j, i] = total
    return error


def warm() -> None:
    """Compile, which takes seconds on a new machine, or load what was compiled before."""
    two = np.ones(2)
    normal_equations(
        np.ones((8, 8), np.float32), np.full((2, 2), 3, np.float32), two, two, np.ones((1, 2)),
        np.zeros((1, 1)), np.zeros(1),
    )  # fmt: skip


@inlined_sum
def _look(picture, at, weight, seen, trust):
    """Bilinear values of the picture, and the weight of what is inside by a pixel."""
    rows, columns = picture.shape
    for p in range(len(seen)):
        x, y = at[p, 0], at[p, 1]
        if not (x > 1 and y > 1 and x < columns - 2 and y < rows - 2):  # so that NaN is outside
            seen[p], trust[p] = 0.0, 0.0
            continue
        left, above = int(x), int(y)
        u, v = x - left, y - above
        upper = picture[above, left] * (1 - u) + picture[above, left + 1] * u
        lower = picture[above + 1, left] * (1 - u) + picture[above + 1, left + 1] * u
        seen[p], trust[p] = upper * (1 - v) + lower * v, weight[p]


@inlined_sum
def _match(seen, value, trust):
    """Change ``seen`` in place by the gain and bias that match it best to ``value``."""
    total, mean_seen, mean_value = 0.0, 0.0, 0.0
    for p in range(len(seen)):
        total += trust[p]
        mean_seen += trust[p] * seen[p]
        mean_value += trust[p] * value[p]
    mean_seen, mean_value = mean_seen / total, mean_value / total
    both, own = 0.0, 0.0
    for p in range(len(seen)):
        seen[p] -= mean_seen
        both += trust[p] * seen[p] * (value[p] - mean_value)
        own += trust[p] * seen[p] * seen[p]
    gain = min(max(both / max(own, 1e-6), 0.5), 2.0)
    for p in range(len(seen)):
        seen[p] = gain * seen[p] + mean_value


@inlined_sum
def _median_inside(scaled, trust):
    few = np.empty((len(scaled) + MEDIAN_STRIDE - 1) // MEDIAN_STRIDE)
    count = 0
    for p in range(0, len(scaled), MEDIAN_STRIDE):
        if trust[p] > 0:
            few[count] = scaled[p]
            count += 1
    return np.median(few[:count])
