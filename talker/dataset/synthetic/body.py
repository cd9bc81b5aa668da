"""Neck, shoulders and a knitted pullover with a ribbed collar."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from talker.dataset.synthetic.head import loft
from talker.dataset.synthetic.patch import Patch, bump, grid_normals, smooth, upsample

NECK_AXIS_Z = 0.78


def _noise(shape: tuple[int, int], rng: np.random.Generator, sigma: float) -> np.ndarray:
    field = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), sigma)
    return field / field.std()


def neck(skin: np.ndarray, rng: np.random.Generator) -> Patch:
    """From under the jaw into the collar; follows the head above and the torso below."""
    y = np.linspace(0.55, 2.05, 34)[:, None]
    theta = np.linspace(-np.pi, np.pi, 57)[None]
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


def torso(cloth: np.ndarray, rng: np.random.Generator) -> Patch:
    """Shoulders and chest down to below the picture."""
    y = np.concatenate((np.linspace(1.52, 2.2, 22), np.linspace(2.25, 4.6, 34)))[:, None]
    theta = np.radians(np.linspace(-180, 180, 145))[None]
    knots = [1.5, 1.62, 1.8, 1.98, 2.2, 2.5, 3.0, 3.6, 4.7]
    width = PchipInterpolator(knots, [0.62, 0.84, 1.26, 1.68, 2.02, 2.20, 2.26, 2.22, 2.15])(y)
    front = PchipInterpolator(knots, [0.24, 0.17, 0.08, 0.00, -0.08, -0.17, -0.26, -0.28, -0.25])(y)
    back = PchipInterpolator(knots, [1.42, 1.48, 1.55, 1.60, 1.66, 1.72, 1.78, 1.8, 1.8])(y)
    points = loft(
        np.broadcast_to(theta, (len(y), theta.shape[1])), y, width, front, np.full_like(y, 0.82), back
    )
    x = points[..., 0]
    chest = 0.10 * bump(np.abs(x), 0.75, 0.45) * bump(y, 3.1, 0.5)
    arm = -0.10 * bump(np.abs(x), 1.62, 0.10) * smooth(2.5, 3.2, y)
    folds = 0.018 * np.sin(5 * np.abs(x) + 3.5 * y) * smooth(1.9, 2.6, y) * smooth(0.3, 1.2, np.abs(x))
    points[..., 2] -= (np.cos(theta) > 0) * (chest + arm + folds)
    occlusion = 1 - 0.35 * bump(np.abs(x), 1.62, 0.08) * smooth(2.5, 3.1, y) - 0.35 * smooth(1.85, 1.55, y)
    place = upsample(points[..., :2])
    rib = np.sin(place[..., 0] * 62)
    knit = (
        1
        + 0.045 * rib
        + 0.03 * np.sin(place[..., 1] * 95 + 1.5 * np.sign(rib))
        + 0.03 * _noise(rib.shape, rng, 1.5)
    )
    albedo = np.clip(255 * cloth * knit[..., None], 0, 255).astype(np.uint8)
    full = np.ones(x.shape)
    return Patch(points, grid_normals(points), albedo, occlusion, 0.08 * full, full)


def collar(cloth: np.ndarray, rng: np.random.Generator) -> Patch:
    """A ribbed band round the neck: a flattened torus, lower in front."""
    theta = np.linspace(-np.pi, np.pi, 121)[None]
    around = np.radians(np.linspace(-150, 150, 15))[:, None]  # 0 faces outwards, rows run downwards
    centre = loft(theta, np.zeros_like(theta), np.array(0.70), np.array(0.02), np.array(0.8), np.array(1.5))
    drop = (
        1.60
        + 0.20 * smooth(-0.2, 1.0, np.cos(theta))
        + 0.08 * bump(np.sin(theta), 0, 0.3) * (np.cos(theta) > 0)
    )
    outward = centre[..., [0, 2]] - np.array([0.0, 0.8])
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    thick, high = 0.055, 0.105
    lean = 0.55  # the band leans towards the neck at its top
    side = thick * np.cos(around) + lean * high * np.sin(around)
    x = centre[..., 0] + outward[..., 0] * side
    z = centre[..., 2] + outward[..., 1] * side
    y = drop + high * np.sin(around)
    points = np.stack(np.broadcast_arrays(x, y, z), -1)
    stripes = upsample(np.broadcast_to(theta, points.shape[:2]).copy())
    rib = 1 + 0.10 * np.sin(stripes * 95) + 0.03 * _noise(stripes.shape, rng, 1.5)
    albedo = np.clip(255 * cloth * 1.02 * rib[..., None], 0, 255).astype(np.uint8)
    full = np.ones(points.shape[:2])
    occlusion = 0.72 + 0.28 * smooth(-1.6, -0.2, -np.abs(np.broadcast_to(around, full.shape)))
    return Patch(points, grid_normals(points), albedo, occlusion, 0.08 * full, full)
