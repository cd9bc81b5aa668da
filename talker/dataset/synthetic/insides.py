"""Eyes and the inside of the mouth, found per pixel by following its ray: a few thousand pixels a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talker.dataset.synthetic.head import EYE_HALF, EYE_X, EYEBALL, EYEBALL_RADIUS, HINGE, JAW_ANGLE, Face
from talker.dataset.synthetic.patch import bump, smooth

IRIS, PUPIL = 0.47, 0.195
"""Angles in radians of iris and pupil, seen from the eyeball's centre."""

EYE_HEIGHT = (0.080, 0.047)
"""How far the open lids are above and below the line between the corners of the eye."""

_TEETH_Z, _TOOTH = 0.02, 0.098


@dataclass(frozen=True)
class Rays:
    """Some pixels' rays in the head frame."""

    origin: np.ndarray  # [3]
    direction: np.ndarray  # [n, 3]
    light: np.ndarray  # [3] unit, from the head towards the main light
    view: np.ndarray  # [3] unit, from the head towards the camera


def lids(t: np.ndarray, blink: float) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the upper and the lower lid's edge; ``t`` is -1 at the inner corner and 1 at the outer."""
    inside = np.clip(1 - np.abs(t) ** 2.3, 0, 1)
    corners = 0.004 - 0.014 * t
    upper = corners - EYE_HEIGHT[0] * inside**0.72 * (1 - 0.10 * t)
    lower = corners + EYE_HEIGHT[1] * inside**0.85 * (1 + 0.12 * t)
    closed = lower - 0.006 * inside - 0.012 * blink * inside
    return upper + (closed - upper) * blink, lower - 0.012 * blink * inside


def lid_gap(blink: np.ndarray) -> np.ndarray:
    """Height of the open eye in head units, [T] for blinks [T]."""
    gaps = [float(np.subtract(*reversed(lids(np.zeros(1), float(b))))[0]) for b in blink]
    return np.maximum(np.array(gaps), 0)


def _eyeball(rays: Rays, side: float, face: Face, iris: np.ndarray, fibres: np.ndarray) -> np.ndarray:
    """Colours [n, 3] 0..1 of the eyeball where each ray meets it."""
    centre = EYEBALL * np.array([side, 1, 1])
    to = rays.origin - centre
    aa = (rays.direction**2).sum(1)
    b = rays.direction @ to
    root = np.sqrt(np.maximum(b * b - aa * (to @ to - EYEBALL_RADIUS**2), 0))
    p = (to + ((-b - root) / aa)[:, None] * rays.direction) / EYEBALL_RADIUS
    gx, gy = face.gaze
    axis = np.array([np.sin(gx), np.sin(gy), -np.sqrt(max(1 - np.sin(gx) ** 2 - np.sin(gy) ** 2, 0))])
    angle = np.arccos(np.clip(p @ axis, -1, 1))
    off = p - axis
    around = np.arctan2(off[:, 1], off[:, 0])
    streak = np.interp(around, np.linspace(-np.pi, np.pi, len(fibres)), fibres)
    lit = np.clip(p @ rays.light, 0, 1)
    white = np.array([0.90, 0.88, 0.87]) * (0.60 + 0.40 * lit[:, None])
    white = white - np.array([0.0, 0.09, 0.09]) * smooth(0.45, 0.85, np.abs(p[:, :1]))
    inner = smooth(PUPIL, IRIS, angle)[:, None]
    glow = 0.72 + 0.45 * smooth(-0.4, 0.5, off[:, 1:2] / IRIS) + 0.22 * streak[:, None]
    colour = iris * glow * (1.25 - 0.40 * inner)
    colour = colour * (1 - 0.62 * smooth(IRIS - 0.10, IRIS, angle))[:, None]
    colour = colour + (white - colour) * smooth(IRIS - 0.022, IRIS + 0.022, angle)[:, None]
    colour = colour * smooth(PUPIL - 0.03, PUPIL + 0.03, angle)[:, None] + 0.02
    half = rays.light + rays.view
    half /= np.linalg.norm(half)
    glint = smooth(np.cos(0.145), np.cos(0.085), p @ half)
    mirrored = half * np.array([-1, -1, 1])
    faint = 0.16 * smooth(np.cos(0.20), np.cos(0.10), p @ mirrored)
    return colour + np.maximum(glint, faint)[:, None] * (1 - colour)


def eye(
    colour: np.ndarray,
    place: np.ndarray,
    rays: Rays,
    side: float,
    face: Face,
    look: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Draw one eye over the skin.

    Args:
        colour: [n, 3] 0..1 colours of the skin.
        place: [n, 2] the skin's x and y at rest, head frame.
        rays: The pixels' rays.
        side: -1 for the eye on the picture's left, 1 for the right.
        face: What the face does.
        look: Iris colour [3], its fibres [F], colour [3] of the lashes.
    """
    iris, fibres, lash_colour = look
    blink = face.blink[0 if side < 0 else 1]
    y = place[:, 1]
    t = (place[:, 0] * side - EYE_X) / EYE_HALF
    upper, lower = lids(t, blink)
    rest = lids(t, 0.0)[0]
    across = smooth(1.03, 0.97, np.abs(t))
    fade = smooth(1.25, 0.7, np.abs(t))
    crease = 0.50 * (1 - 0.75 * blink) * bump(y, rest - 0.036 - 0.012 * t, 0.0085) * fade
    colour = colour * (1 - crease[:, None] * np.array([0.45, 0.62, 0.62]))
    edge = 0.0055
    hole = smooth(-edge, edge, y - upper) * smooth(-edge, edge, lower - y) * across
    ball = _eyeball(rays, side, face, iris, fibres)
    ball = ball * (1 - 0.52 * np.exp(-np.maximum(y - upper, 0) / 0.022))[:, None]
    ball = ball * (1 - 0.22 * np.exp(-np.maximum(lower - y, 0) / 0.012))[:, None]
    # The pink corner next to the nose.
    pink = smooth(-0.74, -0.95, t)[:, None]
    ball = ball + (np.array([0.80, 0.52, 0.50]) - ball) * 0.75 * pink
    colour = colour + (ball - colour) * hole[:, None]
    rim = 0.35 * bump(y, lower + 0.004, 0.005) * across * fade
    thick = (0.013 + 0.013 * smooth(-0.6, 0.9, t)) * (1 + 0.22 * np.sin(t * 47))
    wing = smooth(-1.02, -0.80, t) * smooth(1.16, 1.0, t)
    lash = smooth(-thick - 0.007, -thick + 0.004, y - upper) * smooth(0.007, -0.003, y - upper) * wing
    dark = np.clip(0.93 * lash + rim, 0, 1)[:, None]
    return colour + (lash_colour - colour) * dark


def _arch(rays: Rays, a: float, b: float) -> np.ndarray:
    """Where rays meet the upright elliptic cylinder x^2/a^2 + (z - z0)^2/b^2 = 1 in front, [n, 3]; NaN if never."""
    o, d = rays.origin, rays.direction
    ox, oz = o[0] / a, (o[2] - _TEETH_Z) / b
    dx, dz = d[:, 0] / a, d[:, 2] / b
    aa, bb = dx * dx + dz * dz, dx * ox + dz * oz
    disc = bb * bb - aa * (ox * ox + oz * oz - 1)
    root = np.sqrt(np.where(disc >= 0, disc, np.nan))
    return o + ((-bb - root) / aa)[:, None] * d


def _tooth(
    point: np.ndarray, top: float, bottom: float, size: float, bite_down: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cover and brightness [n] of a row of teeth between two heights."""
    x, y = np.nan_to_num(point[:, 0], nan=9.0), np.nan_to_num(point[:, 1], nan=9.0)
    arc = np.arcsin(np.clip(x / 0.28, -1, 1)) * 0.28
    phase = arc / size - np.floor(arc / size) - 0.5
    scallop = 0.010 * (2 * phase) ** 4 + 0.012 * smooth(0.5, 1.6, np.abs(arc) / size)
    low, high = (top, bottom - scallop) if bite_down else (top + scallop, bottom)
    cover = smooth(-0.004, 0.004, y - low) * smooth(-0.004, 0.004, high - y) * (np.abs(x) < 0.26)
    bright = (1 - 0.30 * bump(np.abs(phase), 0.5, 0.045)) * (1 - 0.55 * smooth(0.08, 0.24, np.abs(x)))
    return cover, bright


def mouth(rays: Rays, depth: np.ndarray, face: Face) -> np.ndarray:
    """Colours [n, 3] of the inside of the mouth; ``depth`` [n] is 0 at the upper lip's edge, 1 at the lower's."""
    n = len(depth)
    angle = JAW_ANGLE * face.jaw
    c, s = np.cos(angle), np.sin(angle)
    to_jaw = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    jaw_rays = Rays(HINGE + to_jaw @ (rays.origin - HINGE), rays.direction @ to_jaw.T, rays.light, rays.view)
    colour = np.tile(np.array([0.17, 0.055, 0.055]), (n, 1))
    tongue_at = np.array([0.0, 0.90, -0.02])
    radii = np.array([0.185, 0.105, 0.27])
    o, d = (jaw_rays.origin - tongue_at) / radii, jaw_rays.direction / radii
    aa, b = (d * d).sum(1), d @ o
    disc = b * b - aa * (o @ o - 1)
    hit = o + ((-b - np.sqrt(np.maximum(disc, 0))) / aa)[:, None] * d
    groove = 1 - 0.25 * bump(hit[:, 0], 0, 0.12)
    tongue = (
        np.array([0.66, 0.30, 0.30]) * (0.55 + 0.45 * np.clip(-hit[:, 1:2] + 0.2, 0, 1)) * groove[:, None]
    )
    colour = np.where((disc > 0)[:, None], tongue, colour)
    tooth_colour = np.array([0.93, 0.90, 0.85])
    for point, top, bottom, size, down, share in (
        (_arch(jaw_rays, 0.250, 0.330), 0.772, 0.875, 0.064, False, 0.80),
        (_arch(rays, 0.275, 0.365), 0.60, 0.765, _TOOTH * 0.82, True, 1.0),
    ):
        cover, bright = _tooth(point, top, bottom, size, down)
        colour = colour + (share * tooth_colour * bright[:, None] - colour) * cover[:, None]
    # Lips keep the light out near their edges.
    shade = (0.50 + 0.50 * smooth(0.0, 0.35, depth)) * (0.60 + 0.40 * smooth(1.0, 0.85, depth))
    return colour * shade[:, None]
