"""The skin's colours: cheeks, lips, brows, nostrils, painted in the head's rest coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talker.dataset.synthetic.head import (
    EYE_X,
    MOUTH_HALF,
    HeadShape,
    lower_lip_bottom,
    mouth_line,
    upper_lip_top,
)
from talker.dataset.synthetic.patch import Patch, bump, smooth, upsample


@dataclass(frozen=True)
class Palette:
    """Colours of one person, RGB 0..1 in gamma 2."""

    skin: np.ndarray
    lips: np.ndarray
    hair: np.ndarray
    brows: np.ndarray
    iris: np.ndarray
    cloth: np.ndarray
    wall: np.ndarray


def _mix(base: np.ndarray, colour: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return base + (colour - base) * np.clip(amount, 0, 1)[..., None]


def _brow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover 0..1 of the brows' hairs."""
    a = np.abs(x)
    t = np.clip((a - 0.13) / 0.42, 0, 1)
    middle = -0.185 - 0.075 * np.sin(np.pi * np.clip(t * 0.82 + 0.05, 0, 1)) + 0.045 * t**2
    half = 0.036 * (1 - 0.72 * t**1.4)
    inside = np.clip(1 - ((y - middle) / half) ** 2, 0, 1) * smooth(0.10, 0.19, a) * smooth(0.57, 0.50, a)
    noise = cv2.GaussianBlur(rng.standard_normal(x.shape).astype(np.float32), (0, 0), 1.0)
    noise = cv2.blur(noise, (9, 2))
    return np.clip(1.25 * inside**0.55 * (0.95 + 0.16 * noise / noise.std()), 0, 1) * 0.86


def skin_albedo(shape: HeadShape, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """uint8 texture of the head's patch."""
    place = upsample(shape.points)
    x, y, z = place[..., 0], place[..., 1], place[..., 2]
    a = np.abs(x)
    front = smooth(0.6, 0.0, z)
    colour = np.broadcast_to(palette.skin.astype(np.float32), place.shape).copy()
    red = palette.skin * np.array([1.0, 0.80, 0.78])
    flush = 0.38 * bump(a, 0.45, 0.14) * bump(y, 0.33, 0.13) + 0.45 * bump(x, 0, 0.11) * bump(y, 0.42, 0.07)
    flush += 0.25 * bump(x, 0, 0.2) * bump(y, 1.1, 0.1)
    colour = _mix(colour, red, flush * front)
    shadow = palette.skin * np.array([0.80, 0.70, 0.70])
    colour = _mix(colour, shadow, 0.55 * bump(a, EYE_X, 0.15) * bump(y, -0.10, 0.035) * front)
    colour = _mix(colour, shadow, 0.35 * bump(a, EYE_X - 0.02, 0.12) * bump(y, 0.10, 0.03) * front)
    dark = palette.skin * np.array([0.42, 0.24, 0.22])
    nostril = bump(a, 0.076, 0.026) * bump(y, 0.516 - 0.30 * (a - 0.076), 0.0135)
    colour = _mix(colour, dark, 0.95 * np.clip(1.5 * nostril, 0, 1) * front)
    colour = _mix(
        colour, shadow, 0.65 * bump(a, 0.188 + 0.2 * (0.46 - y) ** 2, 0.013) * bump(y, 0.455, 0.04) * front
    )
    grain = cv2.GaussianBlur(rng.standard_normal(x.shape).astype(np.float32), (0, 0), 2.5)
    # Texels are long on the cranium: noise would become stripes there.
    still = smooth(-0.62, -0.40, y)
    patchy = cv2.GaussianBlur(rng.standard_normal(x.shape).astype(np.float32), (0, 0), 16)
    colour *= (1 + still * (0.010 * grain / grain.std() + 0.010 * patchy / patchy.std()))[..., None]
    colour = _lips(colour, x, y, palette, front, rng)
    colour = _mix(colour, palette.brows, _brow(x, y, rng) * front)
    return np.clip(255 * colour, 0, 255).astype(np.uint8)


def _lips(
    colour: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    palette: Palette,
    front: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    within = smooth(MOUTH_HALF + 0.004, MOUTH_HALF - 0.02, np.abs(x))
    top, bottom, line = upper_lip_top(x), lower_lip_bottom(x), mouth_line(x)
    edge = 0.010
    red = smooth(-edge, edge, y - top) * smooth(-edge, edge, bottom - y) * within * front
    streaks = cv2.blur(rng.standard_normal(x.shape).astype(np.float32), (3, 41))
    lips = palette.lips * (1 + 0.035 * streaks / streaks.std())[..., None]
    lips = lips * np.where(y < line, 0.90, 1.0)[..., None]
    colour = _mix(colour, lips, 0.92 * red)
    crease = bump(y, line, 0.008) * smooth(MOUTH_HALF + 0.03, MOUTH_HALF - 0.03, np.abs(x)) * front
    return _mix(colour, palette.lips * 0.45, 0.75 * crease)


def head_patch(shape: HeadShape, palette: Palette, rng: np.random.Generator) -> Patch:
    """The head as a patch at rest."""
    x, y, z = (shape.points[..., i] for i in range(3))
    a = np.abs(x)
    front = smooth(0.6, 0.0, z)
    occlusion = 1 - 0.16 * front * bump(a, 0.19, 0.07) * bump(y, -0.02, 0.08)
    occlusion -= 0.25 * front * bump(a, EYE_X, 0.16) * bump(y, -0.11, 0.05)
    occlusion -= 0.30 * front * bump(x, 0, 0.13) * bump(y, 0.555, 0.03)
    occlusion -= 0.22 * front * bump(x, 0, 0.16) * bump(y, 0.90, 0.03)
    occlusion *= 1 - 0.55 * smooth(0.05, 0.75, z) * smooth(0.2, 0.9, y)
    # Hair shades the forehead and the cheeks next to it.
    occlusion *= 1 - 0.30 * smooth(-0.52, -0.80, y) - 0.30 * smooth(0.58, 0.80, a)
    lips = smooth(-0.01, 0.02, y - upper_lip_top(x)) * smooth(-0.01, 0.02, lower_lip_bottom(x) - y) * front
    gloss = 0.55 + 0.35 * bump(x, 0, 0.12) * bump(y, 0.36, 0.12) + 0.7 * lips
    return Patch(
        shape.points, shape.normals, skin_albedo(shape, palette, rng), occlusion, gloss, np.zeros(x.shape)
    )
