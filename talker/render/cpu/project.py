"""Step 1: Gaussians in the camera frame become records on the image (EWA splatting), eight at a time."""

# ruff: noqa: PLR0913, PLR0917 - kernels take flat arrays, not objects

from __future__ import annotations

import math

import numpy as np

from talker.jit.compile import inlined, kernel
from talker.jit.simd import (
    LANES,
    broadcast,
    ceil,
    get,
    keep,
    load,
    load_strided,
    maximum,
    minimum,
    put,
    select,
    sqrt,
    store,
    store_strided,
)
from talker.jit.vector_math import log2, store_rows, transpose
from talker.render import constants
from talker.render.cpu.layout import (
    CENTER_X,
    CENTER_Y,
    FOCAL_X,
    FOCAL_Y,
    HEIGHT,
    LOG2_E,
    MIN_EXPONENT,
    RECORD,
    SLACK,
    U_MAX,
    U_MIN,
    V_MAX,
    V_MIN,
    WIDTH,
)

_NEAR, _FAR, _BLUR, _MIN_ALPHA = constants.NEAR, constants.FAR, constants.BLUR, constants.MIN_ALPHA
_TWO_LN_2 = 2 * math.log(2)
_HALF_LOG2_E = LOG2_E / 2
_SLACK = float(SLACK)
_MAX_RADIUS = 1e9  # keeps the conversion to int32 defined


@inlined
def unit_quats(quats, first):
    """Eight quaternions (w, x, y, z) of any length brought to length one, and the factor that did it."""
    w, x = load_strided(quats, first * 4, 4), load_strided(quats, first * 4 + 1, 4)
    y, z = load_strided(quats, first * 4 + 2, 4), load_strided(quats, first * 4 + 3, 4)
    inverse = 1.0 / sqrt(w * w + x * x + y * y + z * z)
    return w * inverse, x * inverse, y * inverse, z * inverse, inverse


@inlined
def rotation(w, x, y, z):
    """Rotation matrix of unit quaternions, nine entries row by row."""
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )


@inlined
def held_slopes(view, u, v):
    """x/z and y/z where the Jacobian is taken: at most FOV_MARGIN outside of the image."""
    return (
        minimum(maximum(u, broadcast(view, U_MIN)), broadcast(view, U_MAX)),
        minimum(maximum(v, broadcast(view, V_MIN)), broadcast(view, V_MAX)),
    )


@inlined
def half_covariance(jx, jxz, jy, jyz, r, s0, s1, s2):
    """Rows m, n of J R S, so that the covariance on the image is [[m.m, m.n], [m.n, n.n]]."""
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = r
    return (
        (jx * r00 + jxz * r20) * s0,
        (jx * r01 + jxz * r21) * s1,
        (jx * r02 + jxz * r22) * s2,
        (jy * r10 + jyz * r20) * s0,
        (jy * r11 + jyz * r21) * s1,
        (jy * r12 + jyz * r22) * s2,
    )


@inlined
def _is_finite(x):
    return (x - x) <= 0.0


@kernel
def project(means, quats, scales, opacities, colors, view, first, last, records, means2d, conics, radii):
    """Project Gaussians ``first`` to ``last``; all arrays are flat.

    Args:
        means: [N * 3] camera frame.
        quats: [N * 4] wxyz.
        scales: [N * 3].
        opacities: [N].
        colors: [N * 3].
        view: [VIEW], see ``layout``.
        first: A multiple of eight; N is at least eight.
        last: End of the range.
        records: [N * RECORD] output; undefined where culled.
        means2d: [N * 2] output, pixels; zero where culled.
        conics: [N * 3] output: xx, xy, yy of the inverse covariance, 1/pixel^2; zero where culled.
        radii: [N] int32 output, pixels; zero where culled, as Gaussians with a NaN or infinity are.
    """
    focal_x, focal_y = broadcast(view, FOCAL_X), broadcast(view, FOCAL_Y)
    width, height = broadcast(view, WIDTH), broadcast(view, HEIGHT)
    radius8 = np.empty(LANES, np.float32)
    n = opacities.shape[0]
    while first < last:
        i = min(first, n - LANES)  # the last vector overlaps the one before rather than run over the end
        first += LANES
        x, y, z = (
            load_strided(means, i * 3, 3),
            load_strided(means, i * 3 + 1, 3),
            load_strided(means, i * 3 + 2, 3),
        )
        in_depth = (z >= _NEAR) & (z <= _FAR)
        inverse_z = 1.0 / z
        u, v = x * inverse_z, y * inverse_z
        x2d, y2d = focal_x * u + broadcast(view, CENTER_X), focal_y * v + broadcast(view, CENTER_Y)

        u_held, v_held = held_slopes(view, u, v)
        jx, jy = focal_x * inverse_z, focal_y * inverse_z
        qw, qx, qy, qz, _ = unit_quats(quats, i)
        s0, s1 = load_strided(scales, i * 3, 3), load_strided(scales, i * 3 + 1, 3)
        s2 = load_strided(scales, i * 3 + 2, 3)
        m0, m1, m2, n0, n1, n2 = half_covariance(
            jx, -jx * u_held, jy, -jy * v_held, rotation(qw, qx, qy, qz), s0, s1, s2
        )
        xx = m0 * m0 + m1 * m1 + m2 * m2 + _BLUR
        xy = m0 * n0 + m1 * n1 + m2 * n2
        yy = n0 * n0 + n1 * n1 + n2 * n2 + _BLUR
        determinant = xx * yy - xy * xy
        conic_xx, conic_xy, conic_yy = yy / determinant, -xy / determinant, xx / determinant

        opacity = load(opacities, i)
        log_opacity = log2(select(opacity >= _MIN_ALPHA, opacity, opacity * 0.0 + 1.0))
        # The pixels with alpha >= MIN_ALPHA fill the ellipse d^T conic d <= extent.
        extent = maximum(_TWO_LN_2 * (log_opacity - MIN_EXPONENT), log_opacity * 0.0)
        reach_x, reach_y = sqrt(extent * xx), sqrt(extent * yy)
        radius_x, radius_y = ceil(reach_x), ceil(reach_y)
        red, green = load_strided(colors, i * 3, 3), load_strided(colors, i * 3 + 1, 3)
        blue = load_strided(colors, i * 3 + 2, 3)
        in_image = (
            (x2d + radius_x > 0.0)
            & (x2d - radius_x < width)
            & (y2d + radius_y > 0.0)
            & (y2d - radius_y < height)
        )
        # The sum is NaN or infinite if any part is: nothing below may ever meet such a value.
        finite = _is_finite(
            x2d + y2d + conic_xx + conic_xy + conic_yy + reach_x + reach_y + opacity + red + green + blue
        )
        visible = in_depth & in_image & finite & (opacity >= _MIN_ALPHA) & (determinant > 0.0)

        low = transpose(
            x2d,
            y2d,
            -_HALF_LOG2_E * conic_xx,
            -LOG2_E * conic_xy,
            -_HALF_LOG2_E * conic_yy,
            log_opacity,
            reach_x + _SLACK,
            red,
        )
        inverse_yy = 1.0 / yy
        high = transpose(
            green,
            blue,
            z,
            xy * inverse_yy,
            extent * determinant * inverse_yy,
            determinant * inverse_yy * inverse_yy,
            reach_y,
            xy * sqrt(extent / xx),
        )
        store_rows(records, i * RECORD, RECORD, low)
        store_rows(records, i * RECORD + LANES, RECORD, high)
        store_strided(means2d, i * 2, 2, keep(visible, x2d))
        store_strided(means2d, i * 2 + 1, 2, keep(visible, y2d))
        store_strided(conics, i * 3, 3, keep(visible, conic_xx))
        store_strided(conics, i * 3 + 1, 3, keep(visible, conic_xy))
        store_strided(conics, i * 3 + 2, 3, keep(visible, conic_yy))
        store(radius8, 0, keep(visible, minimum(maximum(radius_x, radius_y), radius_x * 0.0 + _MAX_RADIUS)))
        for lane in range(LANES):
            put(radii, i + lane, np.int32(get(radius8, lane)))
