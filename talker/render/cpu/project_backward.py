"""Step 7: the gradient of means and conics on the image becomes that of means, quaternions and scales."""

# ruff: noqa: PLR0913, PLR0917 - kernels take flat arrays, not objects

from __future__ import annotations

from talker.jit.compile import inlined, kernel
from talker.jit.simd import LANES, broadcast, keep, load_strided, store_strided
from talker.render.cpu.layout import FOCAL_X, FOCAL_Y, U_MAX, U_MIN, V_MAX, V_MIN
from talker.render.cpu.project import half_covariance, held_slopes, rotation, unit_quats


@inlined
def _covariance_gradient(conics, grad_conics, i):
    """dL/dcovariance, entries xx, xy (of each of the two equal ones), yy: -Q G Q with the conic Q."""
    qxx, qxy, qyy = (
        load_strided(conics, i * 3, 3),
        load_strided(conics, i * 3 + 1, 3),
        load_strided(conics, i * 3 + 2, 3),
    )
    gxx, gyy = load_strided(grad_conics, i * 3, 3), load_strided(grad_conics, i * 3 + 2, 3)
    gxy = 0.5 * load_strided(grad_conics, i * 3 + 1, 3)  # the conic's xy stands for two entries
    axx, axy = gxx * qxx + gxy * qxy, gxx * qxy + gxy * qyy
    ayx, ayy = gxy * qxx + gyy * qxy, gxy * qxy + gyy * qyy
    return -(qxx * axx + qxy * ayx), -(qxx * axy + qxy * ayy), -(qxy * axy + qyy * ayy)


@inlined
def _quaternion_gradient(w, x, y, z, inverse, g):
    """Chain rule through the rotation matrix and through bringing the quaternion to length one."""
    g00, g01, g02, g10, g11, g12, g20, g21, g22 = g
    gw = 2.0 * (x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01))
    gx = 2.0 * (y * (g01 + g10) + z * (g02 + g20) + w * (g21 - g12) - 2.0 * x * (g11 + g22))
    gy = 2.0 * (x * (g01 + g10) + z * (g12 + g21) + w * (g02 - g20) - 2.0 * y * (g00 + g22))
    gz = 2.0 * (x * (g02 + g20) + y * (g12 + g21) + w * (g10 - g01) - 2.0 * z * (g00 + g11))
    along = gw * w + gx * x + gy * y + gz * z
    return (
        (gw - along * w) * inverse,
        (gx - along * x) * inverse,
        (gy - along * y) * inverse,
        (gz - along * z) * inverse,
    )


@kernel
def project_backward(
    means,
    quats,
    scales,
    view,
    first,
    last,
    conics,
    grad_means2d,
    grad_conics,
    grad_means,
    grad_quats,
    grad_scales,
):
    """Differentiate ``project`` for Gaussians ``first`` to ``last``; all arrays are flat.

    Args:
        means: [N * 3].
        quats: [N * 4].
        scales: [N * 3].
        view: [VIEW].
        first: A multiple of eight; N is at least eight.
        last: End of the range.
        conics: [N * 3] as projected, zero where culled.
        grad_means2d: [N * 2].
        grad_conics: [N * 3].
        grad_means: [N * 3] output, zero where culled.
        grad_quats: [N * 4] output.
        grad_scales: [N * 3] output.
    """
    focal_x, focal_y = broadcast(view, FOCAL_X), broadcast(view, FOCAL_Y)
    n = conics.shape[0] // 3
    while first < last:
        i = min(first, n - LANES)
        first += LANES
        x, y, z = (
            load_strided(means, i * 3, 3),
            load_strided(means, i * 3 + 1, 3),
            load_strided(means, i * 3 + 2, 3),
        )
        visible = load_strided(conics, i * 3, 3) > 0.0
        inverse_z = 1.0 / z
        u, v = x * inverse_z, y * inverse_z
        u_held, v_held = held_slopes(view, u, v)
        jx, jy = focal_x * inverse_z, focal_y * inverse_z
        jxz, jyz = -jx * u_held, -jy * v_held
        w, qx, qy, qz, inverse = unit_quats(quats, i)
        r = rotation(w, qx, qy, qz)
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = r
        s0, s1 = load_strided(scales, i * 3, 3), load_strided(scales, i * 3 + 1, 3)
        s2 = load_strided(scales, i * 3 + 2, 3)
        one = x * 0.0 + 1.0
        a0, a1, a2, b0, b1, b2 = half_covariance(jx, jxz, jy, jyz, r, one, one, one)

        # covariance = [[m.m, m.n], [m.n, n.n]] with m = a s, n = b s
        cxx, cxy, cyy = _covariance_gradient(conics, grad_conics, i)
        cxx, cxy, cyy = 2.0 * cxx, 2.0 * cxy, 2.0 * cyy
        gm0, gm1, gm2 = (
            cxx * a0 * s0 + cxy * b0 * s0,
            cxx * a1 * s1 + cxy * b1 * s1,
            cxx * a2 * s2 + cxy * b2 * s2,
        )
        gn0, gn1, gn2 = (
            cxy * a0 * s0 + cyy * b0 * s0,
            cxy * a1 * s1 + cyy * b1 * s1,
            cxy * a2 * s2 + cyy * b2 * s2,
        )
        store_strided(grad_scales, i * 3, 3, keep(visible, gm0 * a0 + gn0 * b0))
        store_strided(grad_scales, i * 3 + 1, 3, keep(visible, gm1 * a1 + gn1 * b1))
        store_strided(grad_scales, i * 3 + 2, 3, keep(visible, gm2 * a2 + gn2 * b2))

        ga0, ga1, ga2, gb0, gb1, gb2 = gm0 * s0, gm1 * s1, gm2 * s2, gn0 * s0, gn1 * s1, gn2 * s2
        rotation_gradient = (
            jx * ga0,
            jx * ga1,
            jx * ga2,
            jy * gb0,
            jy * gb1,
            jy * gb2,
            jxz * ga0 + jyz * gb0,
            jxz * ga1 + jyz * gb1,
            jxz * ga2 + jyz * gb2,
        )
        gw, gx, gy, gz = _quaternion_gradient(w, qx, qy, qz, inverse, rotation_gradient)
        store_strided(grad_quats, i * 4, 4, keep(visible, gw))
        store_strided(grad_quats, i * 4 + 1, 4, keep(visible, gx))
        store_strided(grad_quats, i * 4 + 2, 4, keep(visible, gy))
        store_strided(grad_quats, i * 4 + 3, 4, keep(visible, gz))

        # The Jacobian's entries jx = f/z and jxz = -f u_held/z, then u = x/z itself, inside of the margin only.
        gjx, gjxz = ga0 * r00 + ga1 * r01 + ga2 * r02, ga0 * r20 + ga1 * r21 + ga2 * r22
        gjy, gjyz = gb0 * r10 + gb1 * r11 + gb2 * r12, gb0 * r20 + gb1 * r21 + gb2 * r22
        u_free = (u > broadcast(view, U_MIN)) & (u < broadcast(view, U_MAX))
        v_free = (v > broadcast(view, V_MIN)) & (v < broadcast(view, V_MAX))
        gu = load_strided(grad_means2d, i * 2, 2) * focal_x - keep(u_free, gjxz * jx)
        gv = load_strided(grad_means2d, i * 2 + 1, 2) * focal_y - keep(v_free, gjyz * jy)
        gz = -(gu * u + gv * v + gjx * jx + gjxz * jxz + gjy * jy + gjyz * jyz)
        store_strided(grad_means, i * 3, 3, keep(visible, gu * inverse_z))
        store_strided(grad_means, i * 3 + 1, 3, keep(visible, gv * inverse_z))
        store_strided(grad_means, i * 3 + 2, 3, keep(visible, gz * inverse_z))
