"""Chin-length hair with a side parting: a shell over the skull whose strands are drawn along a flow."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from talker.dataset.synthetic.head import loft, skull
from talker.dataset.synthetic.patch import TEXELS, Patch, bump, grid_normals, smooth

_TOP = -1.43
PARTING = 0.36
"""Azimuth of the parting, radians to the picture's right."""

_EDGE_DEG = [-180, -90, -66, -57, -51, -47, -42, -33, -20, 0, 12, 20, 28, 36, 43, 49, 55, 64, 90, 180]
_EDGE_Y = [
    1.04,
    1.04,
    1.02,
    0.94,
    0.72,
    0.30,
    -0.16,
    -0.42,
    -0.60,
    -0.74,
    -0.80,
    -0.82,
    -0.74,
    -0.52,
    -0.14,
    0.34,
    0.80,
    1.02,
    1.04,
    1.04,
]


def _shell(theta: np.ndarray, y: np.ndarray) -> np.ndarray:
    knots = [-1.5, -0.5, 0.0, 0.4, 0.75, 1.1]
    width = PchipInterpolator(knots, [0.98, 1.00, 1.01, 1.01, 0.98, 0.84])(y)
    front = PchipInterpolator(knots, [-0.32, -0.36, -0.34, -0.30, -0.24, -0.16])(y)
    back = PchipInterpolator(knots, [1.95, 2.02, 1.98, 1.90, 1.78, 1.55])(y)
    top = np.clip((-0.30 - y) / (-0.30 - _TOP), 0, 1)
    cap = np.sqrt(np.maximum(1 - top**2.3, 0))
    centre = np.full_like(y, 0.78)
    return loft(
        theta, y, width * cap, centre - (centre - front) * cap, centre, centre + (back - centre) * cap
    )


def _strands(rows: int, columns: int, flow: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise smeared along ``flow`` (columns moved per row), mean 0, deviation 1 [rows, columns]."""
    noise = np.zeros((rows, columns), np.float32)
    for sigma, share in ((0.7, 0.55), (2.2, 0.6), (7.0, 0.55)):
        layer = cv2.GaussianBlur(rng.standard_normal((rows, columns)).astype(np.float32), (0, 0), sigma)
        # Fine noise loses more when smeared.
        noise += share * layer / (layer.std() * np.sqrt(sigma))
    smeared = np.zeros_like(noise)
    grid_v, grid_u = np.mgrid[0:rows, 0:columns].astype(np.float32)
    for direction in (1, -1):
        u, v = grid_u.copy(), grid_v.copy()
        for _ in range(24):
            slope = cv2.remap(flow, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            step = direction * 6.0 / np.sqrt(1 + slope**2)
            u += step * slope
            v += step
            smeared += cv2.remap(noise, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return (smeared - smeared.mean()) / smeared.std()


def hair(colour: np.ndarray, rng: np.random.Generator) -> Patch:
    """The shell, from the crown to its edge over forehead, cheeks and neck."""
    theta = np.radians(
        np.concatenate(
            (np.linspace(-180, -72, 26)[:-1], np.linspace(-72, 72, 97), np.linspace(72, 180, 26)[1:])
        )
    )[None]
    edge = PchipInterpolator(np.radians(_EDGE_DEG), _EDGE_Y)(theta)
    s = np.linspace(0, 1, 86)[:, None]
    y = _TOP + 0.001 + (edge - _TOP) * s**1.6
    theta = np.broadcast_to(theta, y.shape)
    points = _shell(theta, y)
    under = skull(theta, np.clip(y, -1.26, 1.24))
    # Towards the face the shell thins out until it lies on the skin.
    in_front = smooth(-0.25, 0.45, np.cos(theta))
    thin = in_front * smooth(0.80, 1.0, s) * (0.85 - 0.55 * smooth(0.0, 0.4, y))
    points = points * (1 - thin[..., None]) + (under + _outward(theta) * 0.03) * thin[..., None]
    drape = 0.06 * bump(np.abs(theta), 0.95, 0.22) * bump(y, 0.35, 0.28)
    volume = (
        drape
        + 0.07 * bump(theta, PARTING - 0.75, 0.5) * bump(s, 0.62, 0.16)
        - 0.055 * bump(theta, PARTING, 0.07) * (smooth(0.30, 0.6, s))
    )
    points += _outward(theta) * (volume * in_front)[..., None]
    points[..., 1] -= volume * in_front * 0.8

    rows, columns = (s.shape[0] - 1) * TEXELS + 1, (theta.shape[1] - 1) * TEXELS + 1
    sv = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    azimuth = np.interp(np.linspace(0, theta.shape[1] - 1, columns), np.arange(theta.shape[1]), theta[0])
    away = np.tanh((azimuth - PARTING) / 0.25) * np.exp(-(((azimuth - PARTING) / 1.1) ** 2))
    flow = (2.6 * away[None] * smooth(0.15, 0.5, sv) * (1 - 0.75 * smooth(0.55, 0.95, sv))).astype(np.float32)
    strands = _strands(rows, columns, flow, rng)
    clumps = cv2.resize(strands, theta.shape[::-1], interpolation=cv2.INTER_AREA)
    clumps = cv2.GaussianBlur(clumps, (0, 0), sigmaX=0.9, sigmaY=3.0)
    points += _outward(theta) * (0.016 * clumps * smooth(0.1, 0.4, s) * (1 - 0.8 * thin))[..., None]
    shade = 1 + 0.17 * np.tanh(strands * 0.8)
    shade *= 1 - 0.35 * np.exp(-(((azimuth - PARTING) / 0.018) ** 2))[None] * smooth(0.35, 0.55, sv)
    tint = 1 + 0.05 * np.array([1.0, 0.4, -0.6], np.float32) * np.clip(strands, -2, 2)[..., None]
    albedo = np.clip(255 * colour * shade[..., None] * tint, 0, 255).astype(np.uint8)
    # Ragged edge: each strand ends where it likes.
    ragged = cv2.GaussianBlur(rng.standard_normal((1, columns)).astype(np.float32), (0, 0), 2.5)
    ends = 1 - 0.018 - 0.014 * np.tanh(ragged / ragged.std() + 0.25 * strands)
    cut = np.where(sv < ends, 255, 0).astype(np.uint8)
    back = np.cos(theta) < 0
    occlusion = np.where(back, 0.55, 1.0) * (1 - 0.25 * smooth(0.45, 1.0, y))
    return Patch(
        points,
        grid_normals(points),
        albedo,
        occlusion,
        np.full(theta.shape, 1.0),
        np.zeros(theta.shape),
        cut_out=cut,
        two_sided=True,
        fibrous=True,
    )


def _outward(theta: np.ndarray) -> np.ndarray:
    return np.stack((np.sin(theta), np.zeros_like(theta), -np.cos(theta)), -1)
