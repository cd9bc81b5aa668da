"""Surfaces as regular grids of points, and the atlas they share."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talker.dataset.synthetic.raster import Mesh

TEXELS = 8
"""Texels per grid step, in both directions."""


@dataclass(frozen=True)
class Patch:
    """One surface at rest, in head-frame coordinates. Rows run downwards, columns to the picture's right."""

    points: np.ndarray  # [R, C, 3] float32
    normals: np.ndarray  # [R, C, 3] float32, outwards
    albedo: np.ndarray  # [(R-1)*TEXELS+1, (C-1)*TEXELS+1, 3] uint8, gamma 2
    occlusion: np.ndarray  # [R, C] float32 0..1, 1 where all light arrives
    gloss: np.ndarray  # [R, C] float32 strength of the highlight
    torso: np.ndarray  # [R, C] float32 0..1 share of the torso's motion
    cut_out: np.ndarray | None = None  # like albedo, [.., ..] uint8, 0 where absent
    two_sided: bool = False
    fibrous: bool = False
    """Hair: the highlight runs across the strands, which follow the grid's rows."""


def smooth(edge0: float | np.ndarray, edge1: float | np.ndarray, value: np.ndarray) -> np.ndarray:
    """Hermite step from 0 at ``edge0`` to 1 at ``edge1``."""
    t = np.clip((value - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


def bump(value: np.ndarray, centre: float | np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Gaussian of height 1."""
    return np.exp(-0.5 * ((value - centre) / width) ** 2)


def grid_normals(points: np.ndarray) -> np.ndarray:
    """Unit outward normals [R, C, 3] of a grid of points [R, C, 3]."""
    down, right = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normal = np.cross(down, right)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


def upsample(grid: np.ndarray) -> np.ndarray:
    """Values at every texel of a patch: bilinear between the grid's values [R, C, ...]."""
    rows, columns = grid.shape[:2]
    v, u = np.mgrid[0 : (rows - 1) * TEXELS + 1, 0 : (columns - 1) * TEXELS + 1].astype(np.float32) / TEXELS
    return cv2.remap(grid.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Atlas:
    """All patches beside each other; index of a vertex = its place in the concatenated grids."""

    mesh: Mesh
    albedo: np.ndarray  # [Ha, Wa, 3] uint8
    columns: tuple[int, ...]  # first atlas column of each patch
    shapes: tuple[tuple[int, int], ...]
    height: int
    width: int

    def scatter(self, values: np.ndarray) -> np.ndarray:
        """Per-vertex values [V, K] as a picture [height, width, K] in atlas coordinates."""
        out = np.zeros((self.height, self.width, values.shape[1]), np.float32)
        at = 0
        for column, (rows, columns) in zip(self.columns, self.shapes, strict=True):
            count = rows * columns
            out[:rows, column : column + columns] = values[at : at + count].reshape(rows, columns, -1)
            at += count
        return out


def pack(patches: list[Patch]) -> Atlas:
    """Put the patches side by side into one atlas."""
    shapes = tuple((patch.points.shape[0], patch.points.shape[1]) for patch in patches)
    height = max(rows for rows, _ in shapes) + 1
    starts = np.concatenate(([0], np.cumsum([columns + 1 for _, columns in shapes])))
    width = int(starts[-1])
    albedo = np.zeros((height * TEXELS, width * TEXELS, 3), np.uint8)
    cut = np.full(albedo.shape[:2], 255, np.uint8)
    triangles, uvs, two_sided = [], [], []
    first = 0
    for patch, (rows, columns), start in zip(patches, shapes, starts[:-1], strict=True):
        h, w = patch.albedo.shape[:2]
        albedo[:h, start * TEXELS : start * TEXELS + w] = patch.albedo
        if patch.cut_out is not None:
            cut[:h, start * TEXELS : start * TEXELS + w] = patch.cut_out
        r, c = np.mgrid[0 : rows - 1, 0 : columns - 1]
        a = first + (r * columns + c).ravel()
        triangles += [np.stack((a, a + 1, a + columns)), np.stack((a + 1, a + columns + 1, a + columns))]
        two_sided.append(np.full(2 * len(a), patch.two_sided))
        v, u = np.mgrid[0:rows, 0:columns]
        uvs.append(np.stack((u.ravel() + start, v.ravel()), 1))
        first += rows * columns
    corners = np.concatenate(triangles, 1).astype(np.int32)
    uv = np.concatenate(uvs).astype(np.float32)
    # A triangle is ragged if its grid cell has a hole anywhere.
    cells = cut.reshape(height, TEXELS, width, TEXELS).min((1, 3))
    at = np.minimum(np.minimum(uv[corners[0]], uv[corners[1]]), uv[corners[2]]).astype(int)
    ragged = cells[at[:, 1], at[:, 0]] == 0
    mesh = Mesh(
        (corners[0], corners[1], corners[2]), uv, np.concatenate(two_sided), ragged, cut, float(TEXELS)
    )
    return Atlas(mesh, albedo, tuple(int(s) for s in starts[:-1]), shapes, height, width)


def sample(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear values [n, C] of a picture [H, W, C] at [n, 2] (column, row)."""
    n, side = len(uv), 1024
    # OpenCV samples pictures below 32768 pixels a side: fold the list into rows.
    folded = np.zeros((-(-n // side) * side, 2), np.float32)
    folded[:n] = uv
    folded = folded.reshape(-1, side, 2)
    out = cv2.remap(image, folded[..., 0], folded[..., 1], cv2.INTER_LINEAR)
    return out.reshape(-1, image.shape[2])[:n]
