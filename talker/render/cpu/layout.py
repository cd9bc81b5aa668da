"""Sizes and the record that stands for one projected Gaussian: 16 floats, one cache line."""

from __future__ import annotations

import math

import numpy as np

from talker.render import constants

RECORD = 16
(
    X,  # mean, pixels
    Y,
    EXP_XX,  # log2(alpha) = EXP_XX dx^2 + EXP_XY dx dy + EXP_YY dy^2 + LOG_OPACITY
    EXP_XY,
    EXP_YY,
    LOG_OPACITY,
    REACH_X,  # half the width of the box that holds all pixels with alpha >= MIN_ALPHA
    RED,
    GREEN,
    BLUE,
    DEPTH,
    SLOPE,  # of the line through the middles of the ellipse's rows, dx/dy
    HALF_WIDTH_2,  # of the ellipse's middle row, squared
    DECAY,  # ... and how it falls per dy^2
    REACH_Y,
    WIDEST_Y,  # dy at which the ellipse reaches farthest right; it reaches farthest left at -WIDEST_Y
) = range(RECORD)

TILE = 32
"""Pixels; a tile is 8 x 8 blocks, so that one 64-bit word says which blocks a Gaussian touches."""

BLOCK = 4
"""Pixels; the 16 pixels of a block are two vectors, held in registers while Gaussians are blended."""

N_BLOCKS = (TILE // BLOCK) ** 2
BLOCK_PIXELS = BLOCK * BLOCK

CHUNK = 192
"""Entries of a tile whose block lists are built at once: the copies of their records stay in the first cache."""

BATCH = 32
"""Entries of a block whose alphas are computed before any is blended, which hides the latency of the exponential."""

SLACK = np.float32(1e-3)
"""Pixels by which bounds are widened against rounding; what is let in too much is rejected by its alpha."""

LOG2_E = math.log2(math.e)
MIN_EXPONENT = math.log2(constants.MIN_ALPHA)

ROW = 12
"""Floats of a row of gradient sums, of which nine are used; see ``blend_backward``."""
(SUM_U, SUM_UX, SUM_UY, SUM_UXX, SUM_UXY, SUM_UYY, SUM_RED, SUM_GREEN, SUM_BLUE) = range(9)

VIEW = 10
(FOCAL_X, FOCAL_Y, CENTER_X, CENTER_Y, WIDTH, HEIGHT, U_MIN, U_MAX, V_MIN, V_MAX) = range(VIEW)
"""The camera as the kernels see it; U and V bound x/z and y/z where the Jacobian is taken."""


def view_of(K: np.ndarray, width: int, height: int) -> np.ndarray:
    """The camera [VIEW] of intrinsics [3, 3] in pixels; skew is ignored, as in gsplat."""
    fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    margin_x, margin_y = (constants.FOV_MARGIN * 0.5 * s for s in (width, height))
    bounds = (
        -(cx + margin_x) / fx,
        (width - cx + margin_x) / fx,
        -(cy + margin_y) / fy,
        (height - cy + margin_y) / fy,
    )
    return np.array((fx, fy, cx, cy, width, height, *bounds), np.float32)
