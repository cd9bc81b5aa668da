"""Triangles to texture coordinates per pixel: a z-buffer in vectorised numpy.

Small triangles are grouped by the size of their bounding box, so that a few dozen array operations test every
pixel of thousands of triangles at once; only the winners of the depth test are kept.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

_SIDES = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048])
_SLACK = -1e-4
"""Barycentric tolerance: neighbouring triangles overlap by a hair instead of leaving cracks."""


@dataclass(frozen=True)
class Mesh:
    """Fixed topology of everything drawn with the z-buffer."""

    corners: tuple[np.ndarray, np.ndarray, np.ndarray]  # three times [M] int32 vertex numbers
    uv: np.ndarray  # [V, 2] float32, (column, row) in the atlas
    two_sided: np.ndarray  # [M] bool: also drawn when seen from behind
    ragged: np.ndarray  # [M] bool: parts of the triangle may be cut out
    cut_out: np.ndarray  # [Ha, Wa] uint8: 0 where the surface is absent
    cut_scale: float
    """Cut-out pixels per unit of uv."""


@dataclass(frozen=True)
class Fragments:
    """What is nearest at the covered pixels, in no particular order."""

    pixel: np.ndarray  # [n] index into the flattened picture
    uv: np.ndarray  # [n, 2] float32 atlas coordinates


@dataclass(frozen=True)
class _Setup:
    """The visible triangles: boxes, and barycentrics l0, l1 at the box corner with their steps per pixel."""

    triangle: np.ndarray  # [N]
    x0: np.ndarray
    y0: np.ndarray
    w: np.ndarray
    h: np.ndarray
    start: tuple[np.ndarray, np.ndarray]  # l0, l1 at the centre of pixel (x0, y0)
    step_x: tuple[np.ndarray, np.ndarray]
    step_y: tuple[np.ndarray, np.ndarray]


def _span(a: np.ndarray, b: np.ndarray, c: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and number of pixels whose centres lie between the smallest and the largest value."""
    low = np.ceil(np.minimum(np.minimum(a, b), c) - 0.5).clip(0, size).astype(np.int32)
    high = np.floor(np.maximum(np.maximum(a, b), c) - 0.5).clip(-1, size - 1).astype(np.int32)
    return low, high - low + 1


def _setup(mesh: Mesh, xy: np.ndarray, size: int) -> _Setup:
    x, y = np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1])
    ax, bx, cx = (x[corner] for corner in mesh.corners)
    ay, by, cy = (y[corner] for corner in mesh.corners)
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    keep = np.flatnonzero((area > 1e-6) | (mesh.two_sided & (area < -1e-6)))
    ax, bx, cx, ay, by, cy, area = (v[keep] for v in (ax, bx, cx, ay, by, cy, area))
    x0, w = _span(ax, bx, cx, size)
    y0, h = _span(ay, by, cy, size)
    seen = np.flatnonzero((w > 0) & (h > 0))
    ax, bx, cx, ay, by, cy, area = (v[seen] for v in (ax, bx, cx, ay, by, cy, area))
    x0, y0, w, h = (v[seen] for v in (x0, y0, w, h))
    inverse = 1 / area
    step_x = ((by - cy) * inverse, (cy - ay) * inverse)
    step_y = ((cx - bx) * inverse, (ax - cx) * inverse)
    dx, dy = x0.astype(np.float32) + np.float32(0.5) - cx, y0.astype(np.float32) + np.float32(0.5) - cy
    start = (step_x[0] * dx + step_y[0] * dy, step_x[1] * dx + step_y[1] * dy)
    return _Setup(keep[seen], x0, y0, w, h, start, step_x, step_y)


def _covered(s: _Setup, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Triangle, pixel, l0 and l1 [n] wherever a pixel's centre lies inside a triangle."""
    box_w, box_h = np.searchsorted(_SIDES, s.w), np.searchsorted(_SIDES, s.h)
    group = box_w * 64 + box_h
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1))
    found: list[tuple[np.ndarray, ...]] = []
    for first, last in itertools.pairwise(bounds):
        members = order[first:last]
        w, h = int(_SIDES[box_w[members[0]]]), int(_SIDES[box_h[members[0]]])
        dx, dy = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
        l0, l1 = (
            (s.start[i][members, None, None] + s.step_y[i][members, None, None] * dy)
            + s.step_x[i][members, None, None] * dx
            for i in (0, 1)
        )
        inside = np.flatnonzero((l0 >= _SLACK) & (l1 >= _SLACK) & (l0 + l1 <= 1 - _SLACK))
        which, rest = np.divmod(inside.astype(np.int32), np.int32(w * h))
        row, column = np.divmod(rest, np.int32(w))
        which = members[which]
        px, py = s.x0[which] + column, s.y0[which] + row
        found.append((which, px, py, l0.ravel()[inside], l1.ravel()[inside]))
    if not found:
        none = np.zeros(0, np.float32)
        return np.zeros(0, np.int64), np.zeros(0, np.int32), none, none
    which, px, py, l0, l1 = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # Boxes are rounded up, so they may reach over the picture's edge.
    ok = (px < size) & (py < size)
    if not ok.all():
        which, px, py, l0, l1 = (v[ok] for v in (which, px, py, l0, l1))
    return s.triangle[which], py * np.int32(size) + px, l0, l1


def _blend(values: np.ndarray, corners: tuple[np.ndarray, ...], l0: np.ndarray, l1: np.ndarray) -> np.ndarray:
    last = values[corners[2]]
    return last + l0 * (values[corners[0]] - last) + l1 * (values[corners[1]] - last)


def rasterize(mesh: Mesh, xy: np.ndarray, depth: np.ndarray, size: int) -> Fragments:
    """Find what is nearest at every pixel.

    Args:
        mesh: Topology.
        xy: [V, 2] float32 pixels; the centre of the first pixel is (0.5, 0.5).
        depth: [V] float32 camera-frame z.
        size: Width and height of the picture.
    """
    triangle, pixel, l0, l1 = _covered(_setup(mesh, xy, size), size)
    corners = tuple(corner[triangle] for corner in mesh.corners)
    z = _blend(depth, corners, l0, l1)

    def atlas(index: np.ndarray) -> np.ndarray:
        at = tuple(corner[index] for corner in corners)
        return np.stack([_blend(mesh.uv[:, i], at, l0[index], l1[index]) for i in (0, 1)], 1)

    ragged = np.flatnonzero(mesh.ragged[triangle])
    texel = (atlas(ragged) * mesh.cut_scale).astype(np.int32)
    z[ragged[mesh.cut_out[texel[:, 1], texel[:, 0]] == 0]] = np.inf
    nearest = np.full(size * size, np.inf, np.float32)
    np.minimum.at(nearest, pixel, z)
    wins = np.flatnonzero((z == nearest[pixel]) & (z < np.inf))
    return Fragments(pixel[wins], atlas(wins))
