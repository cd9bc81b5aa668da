"""Triangles to texture coordinates per pixel: a z-buffer in vectorised numpy.

Small triangles are grouped by the size of their bounding box, so that a few dozen array operations test every
pixel of thousands of triangles at once; only the winners of the depth test are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SIDES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048])
_SLACK = -1e-4
"""Barycentric tolerance: neighbouring triangles overlap by a hair instead of leaving cracks."""


@dataclass(frozen=True)
class Mesh:
    """Fixed topology of everything drawn with the z-buffer."""

    triangles: np.ndarray  # [M, 3] int32
    uv: np.ndarray  # [V, 2] float32, (column, row) in the atlas
    two_sided: np.ndarray  # [M] bool: also drawn when seen from behind
    cut_out: np.ndarray  # [Ha, Wa] uint8: 0 where the surface is absent
    cut_scale: float
    """Cut-out pixels per unit of uv."""


@dataclass(frozen=True)
class _Setup:
    """Affine maps of the visible triangles: barycentrics at the box corner and their steps per pixel."""

    x0: np.ndarray
    y0: np.ndarray
    w: np.ndarray
    h: np.ndarray
    start: np.ndarray  # [N, 2] l0, l1 at the centre of pixel (x0, y0)
    step_x: np.ndarray  # [N, 2]
    step_y: np.ndarray  # [N, 2]
    vertex: np.ndarray  # [N, 3]


def _setup(mesh: Mesh, xy: np.ndarray, size: int) -> _Setup:
    corners = xy[mesh.triangles]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    low = np.ceil(corners.min(1) - 0.5).astype(np.int32).clip(0, size)
    high = np.floor(corners.max(1) - 0.5).astype(np.int32).clip(-1, size - 1)
    extent = high - low + 1
    keep = ((area > 1e-6) | (mesh.two_sided & (area < -1e-6))) & (extent > 0).all(1)
    a, b, c, area, low, extent = (v[keep] for v in (a, b, c, area, low, extent))
    inverse = 1.0 / area
    step_x = np.stack(((b[:, 1] - c[:, 1]) * inverse, (c[:, 1] - a[:, 1]) * inverse), 1)
    step_y = np.stack(((c[:, 0] - b[:, 0]) * inverse, (a[:, 0] - c[:, 0]) * inverse), 1)
    offset = (low + 0.5).astype(np.float32) - c
    start = step_x * offset[:, :1] + step_y * offset[:, 1:]
    vertex = mesh.triangles[keep]
    return _Setup(low[:, 0], low[:, 1], extent[:, 0], extent[:, 1], start, step_x, step_y, vertex)


def _covered(s: _Setup, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every (triangle, pixel, barycentrics) where the pixel's centre lies inside the triangle."""
    box_w, box_h = _SIDES[np.searchsorted(_SIDES, s.w)], _SIDES[np.searchsorted(_SIDES, s.h)]
    group = box_w * 4096 + box_h
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        members = order[first:last]
        w, h = int(box_w[members[0]]), int(box_h[members[0]])
        dx, dy = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)
        along_x = s.step_x[members][:, :, None] * dx  # [n, 2, w]
        along_y = s.start[members][:, :, None] + s.step_y[members][:, :, None] * dy  # [n, 2, h]
        l0 = along_y[:, 0, :, None] + along_x[:, 0, None, :]
        l1 = along_y[:, 1, :, None] + along_x[:, 1, None, :]
        inside = np.flatnonzero((np.minimum(l0, l1) >= _SLACK) & (l0 + l1 <= 1 - _SLACK))
        which, rest = np.divmod(inside, w * h)
        row, column = np.divmod(rest, w)
        which = members[which]
        px, py = s.x0[which] + column, s.y0[which] + row
        bary = np.stack((l0.ravel()[inside], l1.ravel()[inside]), 1)
        # Boxes are rounded up, so they may reach over the picture's edge.
        ok = (px < size) & (py < size)
        if not ok.all():
            which, px, py, bary = which[ok], px[ok], py[ok], bary[ok]
        found.append((which, py * size + px, bary))
    if not found:
        empty = np.zeros(0, np.int64)
        return empty, empty, np.zeros((0, 2), np.float32)
    which, pixel, bary = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return which, pixel, bary


def rasterize(mesh: Mesh, xy: np.ndarray, depth: np.ndarray, size: int) -> np.ndarray:
    """Draw the mesh.

    Args:
        mesh: Topology.
        xy: [V, 2] float32 pixels; the centre of the first pixel is (0.5, 0.5).
        depth: [V] camera-frame z.
        size: Width and height of the picture.

    Returns:
        [size, size, 2] float32 atlas coordinates of what is nearest at each pixel; -1 where nothing is.
    """
    s = _setup(mesh, xy, size)
    which, pixel, bary = _covered(s, size)
    vertex = s.vertex[which]
    l0, l1 = bary[:, 0], bary[:, 1]
    l2 = 1 - l0 - l1
    v0, v1, v2 = vertex[:, 0], vertex[:, 1], vertex[:, 2]
    uv = l0[:, None] * mesh.uv[v0] + l1[:, None] * mesh.uv[v1] + l2[:, None] * mesh.uv[v2]
    texel = (uv * mesh.cut_scale).astype(np.int32)
    present = mesh.cut_out[texel[:, 1], texel[:, 0]] > 0
    z = np.where(present, l0 * depth[v0] + l1 * depth[v1] + l2 * depth[v2], np.float32(np.inf)).astype(
        np.float32
    )
    nearest = np.full(size * size, np.inf, np.float32)
    np.minimum.at(nearest, pixel, z)
    wins = present & (z == nearest[pixel])
    out = np.full((size * size, 2), -1, np.float32)
    out[pixel[wins]] = uv[wins]
    return out.reshape(size, size, 2)
