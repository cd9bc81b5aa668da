"""Neck, shoulders and a knitted pullover with a ribbed collar."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from talker.dataset.synthetic.head import loft
from talker.dataset.synthetic.patch import Patch, bump, grid_normals, smooth, upsample

NECK_AXIS_Z = 0.78


def _noise(shape: tuple[int, ...], rng: np.random.Generator, sigma: float) -> np.ndarray:
    field = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigma)
    return field / field.std()


def neck(skin: np.ndarray, rng: np.random.Generator) -> Patch:
    """From under the jaw into the collar; follows the head above and the torso below."""
    y = np.linspace(0.55, 2.05, 34)[:, None]
    theta = np.radians(np.linspace(-115, 115, 41))[None]
    width = PchipInterpolator([0.5, 1.2, 1.6, 2.1], [0.58, 0.555, 0.60, 0.86])(y)
    front = PchipInterpolator([0.5, 1.2, 1.6, 2.1], [0.20, 0.22, 0.20, 0.06])(y)
    back = PchipInterpolator([0.5, 1.2, 1.6, 2.1], [1.42, 1.36, 1.40, 1.55])(y)
    points = loft(
        np.broadcast_to(theta, (len(y), theta.shape[1])), y, width, front, np.full_like(y, 0.8), back
    )
    x = points[..., 0]
    is_front = np.cos(theta) > 0
    tendon = 0.05 * bump(np.abs(x), 0.10 + 0.42 * smooth(1.9, 1.0, y), 0.06) * smooth(1.0, 1.5, y)
    notch = -0.05 * bump(x, 0, 0.07) * bump(y, 1.82, 0.1)
    points[..., 2] -= is_front * (tendon + notch)
    albedo = _flat(points, skin, rng, 0.012)
    # The chin shades the throat.
    occlusion = 0.42 + 0.58 * smooth(1.15, 1.72, y + 0.12 * np.abs(x))
    torso = np.broadcast_to(smooth(0.95, 1.75, y), x.shape)
    return Patch(points, grid_normals(points), albedo, occlusion, np.full(x.shape, 0.5), torso.copy())


def _flat(points: np.ndarray, colour: np.ndarray, rng: np.random.Generator, grain: float) -> np.ndarray:
    texture = upsample(np.ones(points.shape[:2], np.float32))
    mottled = 1 + grain * _noise(texture.shape, rng, 3) + 0.5 * grain * _noise(texture.shape, rng, 14)
    return np.clip(255 * colour * mottled[..., None], 0, 255).astype(np.uint8)


def _neckline(theta: np.ndarray) -> np.ndarray:
    """Height of the collar's middle: lower in front."""
    dip = 0.08 * bump(np.sin(theta), 0, 0.35) * (np.cos(theta) > 0)
    return 1.60 + 0.18 * smooth(-0.2, 1.0, np.cos(theta)) + dip


def torso(cloth: np.ndarray, rng: np.random.Generator) -> Patch:
    """Shoulders and chest, from the collar down to below the picture."""
    row = np.concatenate((np.linspace(1.60, 2.25, 24), np.linspace(2.3, 4.6, 32)))[:, None]
    theta = np.radians(np.linspace(-112, 112, 109))[None]
    knots = [1.60, 1.70, 1.86, 2.02, 2.22, 2.5, 3.0, 3.6, 4.7]
    width = PchipInterpolator(knots, [0.70, 0.90, 1.26, 1.60, 1.92, 2.12, 2.20, 2.18, 2.12])(row)
    front = PchipInterpolator(knots, [0.03, -0.01, -0.05, -0.08, -0.13, -0.19, -0.27, -0.29, -0.26])(row)
    back = PchipInterpolator(knots, [1.50, 1.54, 1.58, 1.62, 1.67, 1.72, 1.78, 1.8, 1.8])(row)
    y = row + (_neckline(theta) - 1.60) * smooth(2.25, 1.60, row)
    points = loft(np.broadcast_to(theta, y.shape), y, width, front, np.full_like(row, 0.82), back)
    x = points[..., 0]
    chest = 0.10 * bump(np.abs(x), 0.75, 0.45) * bump(y, 3.1, 0.5)
    arm = -0.10 * bump(np.abs(x), 1.60, 0.10) * smooth(2.5, 3.2, y)
    folds = 0.020 * np.sin(5 * np.abs(x) + 3.5 * y + 0.8 * np.sin(2.3 * x)) * smooth(1.9, 2.6, y)
    points[..., 2] -= (np.cos(theta) > 0) * (chest + arm + folds * smooth(0.3, 1.2, np.abs(x)))
    occlusion = 1 - 0.35 * bump(np.abs(x), 1.60, 0.08) * smooth(2.5, 3.1, y) - 0.40 * smooth(1.80, 1.60, row)
    place = upsample(points[..., :2])
    rib = np.sin(place[..., 0] * 62)
    purl = np.sin(place[..., 1] * 95 + 1.5 * np.sign(rib))
    knit = 1 + 0.045 * rib + 0.03 * purl + 0.03 * _noise(rib.shape, rng, 1.5)
    albedo = np.clip(255 * cloth * knit[..., None], 0, 255).astype(np.uint8)
    full = np.ones(x.shape)
    return Patch(points, grid_normals(points), albedo, occlusion, 0.08 * full, full)


def collar(cloth: np.ndarray, rng: np.random.Generator) -> Patch:
    """A ribbed band round the neck: a flattened torus that leans towards it."""
    theta = np.linspace(-np.pi, np.pi, 121)[None]
    around = np.radians(np.linspace(-170, 80, 15))[:, None]  # 0 faces outwards, rows run downwards
    ring = np.array(0.70), np.array(0.03), np.array(0.8), np.array(1.5)
    centre = loft(theta, np.zeros_like(theta), *ring)
    outward = centre[..., [0, 2]] - np.array([0.0, 0.8])
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    thick, high, lean = 0.058, 0.115, 0.50
    side = thick * np.cos(around) + lean * high * np.sin(around)
    x = centre[..., 0] + outward[..., 0] * side
    z = centre[..., 2] + outward[..., 1] * side
    y = _neckline(theta) - 0.03 + high * np.sin(around)
    points = np.stack(np.broadcast_arrays(x, y, z), -1)
    stripes = upsample(np.broadcast_to(theta, points.shape[:2]).copy())
    rib = 1 + 0.11 * np.sin(stripes * 95) + 0.03 * _noise(stripes.shape, rng, 1.5)
    albedo = np.clip(255 * cloth * 1.03 * rib[..., None], 0, 255).astype(np.uint8)
    full = np.ones(points.shape[:2])
    occlusion = 0.62 + 0.38 * smooth(-2.2, -0.6, np.broadcast_to(around, full.shape))
    return Patch(points, grid_normals(points), albedo, occlusion, 0.08 * full, full, two_sided=True)
