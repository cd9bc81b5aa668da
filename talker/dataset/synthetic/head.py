"""The head: a lofted skull with sculpted features, and how jaw, lips and brows move it.

Head frame: origin midway between the outer eye corners, unit = their distance (9 cm on a person), x to the
picture's right, y down, z away from the camera when the head faces it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from talker.dataset.synthetic.patch import bump, grid_normals, smooth

MOUTH_Y, MOUTH_HALF = 0.745, 0.285
"""Height of the line between the closed lips, and half its length."""

EYE_X, EYE_HALF = 0.335, 0.165
EYEBALL = np.array([EYE_X, -0.005, 0.005])
"""Centre of the eyeball on the picture's right; the other one mirrors it."""
EYEBALL_RADIUS = 0.15

HINGE = np.array([0.0, 0.22, 0.60])
JAW_ANGLE = 0.26
"""Radians the jaw turns about the hinge at jaw = 1."""

_Y = np.array([-1.3, -0.9, -0.7, -0.45, -0.2, 0.0, 0.2, 0.4, 0.55, 0.745, 0.93, 1.08, 1.2, 1.3])
_WIDTH = np.array([0.86, 0.88, 0.88, 0.87, 0.845, 0.825, 0.81, 0.765, 0.72, 0.65, 0.56, 0.49, 0.45, 0.43])
_FRONT = np.array(
    [-0.20, -0.24, -0.27, -0.30, -0.30, -0.27, -0.27, -0.30, -0.34, -0.37, -0.345, -0.38, -0.40, -0.40]
)
_CENTRE = np.array([0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.74, 0.68, 0.60, 0.47, 0.33, 0.22, 0.16, 0.13])
_BACK = np.array([1.75, 1.80, 1.83, 1.86, 1.85, 1.80, 1.70, 1.55, 1.4, 1.2, 1.0, 0.9, 0.85, 0.8])
_TOP, _TOP_FROM = -1.27, -0.35
_CHIN, _CHIN_FROM = 1.25, 0.86


@dataclass(frozen=True)
class Face:
    """What the face does in one frame."""

    jaw: float = 0.0  # 0 closed, 1 wide open
    spread: float = 0.0  # -1 rounded lips, 1 drawn wide
    press: float = 0.0  # 0..1 lips pressed together
    blink: tuple[float, float] = (0.0, 0.0)  # picture's left and right eye, 0 open, 1 closed
    brow: float = 0.0  # -1 lowered, 1 raised
    gaze: tuple[float, float] = (0.0, 0.0)  # radians to the picture's right and down, in the head frame


def loft(
    theta: np.ndarray,
    y: np.ndarray,
    width: np.ndarray,
    front: np.ndarray,
    centre: np.ndarray,
    back: np.ndarray,
) -> np.ndarray:
    """Points [..., 3] on rounded horizontal slices; ``theta`` is 0 in front and grows to the picture's right."""
    s, c = np.sin(theta), np.cos(theta)
    power = 2.25
    radius = (np.abs(s) ** power + np.abs(c) ** power) ** (-1 / power)
    depth = np.where(c > 0, centre - front, back - centre)
    # The two half ellipses meet at the widest point with different depths; both have a vertical tangent there.
    return np.stack(np.broadcast_arrays(width * s * radius, y, centre - depth * c * radius), -1)


def caps(y: np.ndarray) -> np.ndarray:
    """How far the slices have shrunk towards the top of the skull and the tip of the chin, 0..1."""
    top = np.clip((_TOP_FROM - y) / (_TOP_FROM - _TOP), 0, 1)
    chin = np.clip((y - _CHIN_FROM) / (_CHIN - _CHIN_FROM), 0, 1)
    return np.sqrt(np.maximum(1 - top**2.3, 0)) * np.sqrt(np.maximum(1 - chin**2.4, 0))


def skull(theta: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The head without features."""
    curve = [PchipInterpolator(_Y, values)(y) for values in (_WIDTH, _FRONT, _CENTRE, _BACK)]
    cap = caps(y)
    deep = np.where(y > 0, cap**0.35, cap)
    width, front, centre, back = curve
    front, back = centre - (centre - front) * deep, centre + (back - centre) * deep
    return loft(theta, y, width * cap, front, centre, back)


def mouth_line(x: np.ndarray) -> np.ndarray:
    """Height of the closed lips' line at ``x``: a slight bow, corners turned up a little."""
    t = np.abs(x) / MOUTH_HALF
    return MOUTH_Y + 0.012 * bump(x, 0, 0.05) - 0.022 * np.clip(t, 0, 1.3) ** 2


def upper_lip_top(x: np.ndarray) -> np.ndarray:
    """Upper border of the red of the lips."""
    t = np.clip(np.abs(x) / (MOUTH_HALF + 0.01), 0, 1)
    arch = 0.092 * (1 - t**1.7) ** 0.9 + 0.018 * bump(np.abs(x), 0.055, 0.03) - 0.010 * bump(x, 0, 0.02)
    return mouth_line(x) - arch * (t < 1)


def lower_lip_bottom(x: np.ndarray) -> np.ndarray:
    """Lower border of the red of the lips."""
    t = np.clip(np.abs(x) / (MOUTH_HALF - 0.005), 0, 1)
    return mouth_line(x) + 0.125 * (1 - t**2.2) ** 0.8


def _nose(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    rows = np.array([-0.30, -0.18, -0.05, 0.10, 0.25, 0.38, 0.46, 0.53, 0.60])
    ridge_height = PchipInterpolator(rows, [0.0, 0.008, 0.030, 0.078, 0.140, 0.190, 0.185, 0.085, 0.0])
    ridge_width = PchipInterpolator(rows, [0.10, 0.085, 0.066, 0.060, 0.064, 0.074, 0.070, 0.05, 0.05])
    inside = np.clip(y, rows[0], rows[-1])
    ridge = ridge_height(inside) * np.exp(-0.5 * (a / ridge_width(inside)) ** 2)
    tip = 0.085 * bump(x, 0, 0.068) * bump(y, 0.410, 0.062)
    wings = 0.100 * bump(a, 0.130, 0.042) * bump(y, 0.445, 0.050)
    crease = -0.026 * bump(a, 0.205, 0.022) * bump(y, 0.455, 0.05)
    above_wing = -0.016 * bump(a, 0.105, 0.03) * bump(y, 0.375, 0.035)
    nostril = -0.03 * bump(a, 0.075, 0.03) * bump(y, 0.515, 0.022)
    return ridge + tip + wings + crease + above_wing + nostril


def _lips(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    line = mouth_line(x)
    t = np.clip(np.abs(x) / MOUTH_HALF, 0, 1.2)
    side = np.clip(1 - t**2, 0, 1) ** 0.7
    up, down = line - y, y - line
    upper_h = np.maximum(line - upper_lip_top(x), 0.02)
    lower_h = np.maximum(lower_lip_bottom(x) - line, 0.02)
    upper = 0.052 * side * bump(up, 0.55 * upper_h, 0.55 * upper_h) * (up > 0)
    lower = 0.062 * side * bump(down, 0.48 * lower_h, 0.50 * lower_h) * (down >= 0)
    crease = -0.030 * bump(y, line, 0.016) * smooth(1.15, 0.9, t)
    corner = -0.016 * bump(np.abs(x), MOUTH_HALF + 0.015, 0.05) * bump(y, line, 0.045)
    philtrum = (-0.014 * bump(x, 0, 0.022) + 0.008 * bump(np.abs(x), 0.055, 0.02)) * bump(y, 0.615, 0.045)
    under = -0.035 * bump(x, 0, 0.14) * bump(y, 0.935, 0.04)
    muzzle = 0.035 * bump(x, 0, 0.22) * bump(y, 0.72, 0.12)
    return upper + lower + crease + corner + philtrum + under + muzzle


def _sockets(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    brow = 0.040 * bump(a, 0.30, 0.17) * bump(y, -0.20, 0.065) - 0.01 * bump(x, 0, 0.07) * bump(
        y, -0.17, 0.07
    )
    socket = -0.065 * bump(a, 0.33, 0.17) * bump(y, -0.01, 0.09)
    inner = -0.040 * bump(a, 0.17, 0.055) * bump(y, -0.005, 0.06)
    under = -0.010 * bump(a, 0.30, 0.12) * bump(y, 0.135, 0.03)
    return brow + socket + inner + under


def _volumes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    cheek = 0.055 * bump(a, 0.50, 0.15) * bump(y, 0.22, 0.13) + 0.030 * bump(a, 0.38, 0.13) * bump(
        y, 0.42, 0.13
    )
    hollow = -0.025 * bump(a, 0.52, 0.10) * bump(y, 0.66, 0.13)
    fold = -0.014 * bump(a, 0.235 + 0.26 * (y - 0.5), 0.03) * bump(y, 0.58, 0.09)
    chin = 0.050 * bump(x, 0, 0.15) * bump(y, 1.10, 0.085)
    temple = -0.03 * bump(a, 0.72, 0.10) * bump(y, -0.2, 0.2)
    return cheek + hollow + fold + chin + temple


def sculpt(theta: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The rest surface [R, C, 3] of rows ``y`` [R, 1] and columns ``theta`` [1, C]; rows follow the mouth line."""
    x = skull(theta, y)[..., 0]
    near = bump(y, MOUTH_Y, 0.13) * smooth(0.55, 0.3, np.abs(x))
    y = y + near * (mouth_line(x) - MOUTH_Y)
    points = skull(np.broadcast_to(theta, y.shape), y)
    x = points[..., 0]
    front = smooth(0.1, 0.5, np.cos(np.broadcast_to(theta, y.shape)))
    points[..., 2] -= front * (_nose(x, y) + _lips(x, y) + _sockets(x, y) + _volumes(x, y))
    # The lids lie on the eyeballs.
    dx, dy = np.abs(x) - EYEBALL[0], y - EYEBALL[1]
    room = (EYEBALL_RADIUS + 0.012) ** 2 - dx**2 - dy**2
    lid = EYEBALL[2] - np.sqrt(np.maximum(room, 0))
    soft = 0.018
    lid = np.where(room > 0, lid, 1e3)
    points[..., 2] -= (
        soft * np.logaddexp(0, np.clip((points[..., 2] - lid) / soft, -30, 30)) * (room > 0) * front
    )
    return points


@dataclass(frozen=True)
class HeadShape:
    """The head's grid at rest and what its motion needs. R rows, of which ``seam`` and ``seam + 1`` coincide."""

    points: np.ndarray  # [R, C, 3]
    normals: np.ndarray  # [R, C, 3]
    theta: np.ndarray  # [C]
    seam: int  # last row of the upper lip; the next one is the first of the lower lip
    follow: np.ndarray  # [R, C] share of the jaw's turn
    lip: np.ndarray  # [R, C] -1 at the upper lip's edge, 1 at the lower lip's

    @classmethod
    def build(cls) -> HeadShape:
        """Sculpt it."""
        upper = np.concatenate(
            (
                -1.269 + 0.75 * np.linspace(0, 1, 26) ** 1.8,
                np.linspace(-0.5, 0.55, 62),
                MOUTH_Y - 0.18 * np.linspace(1, 0, 22) ** 1.15,
            )
        )
        lower = np.concatenate(
            (
                MOUTH_Y + 0.2 * np.linspace(0, 1, 22) ** 1.15,
                np.linspace(0.965, 1.2, 18),
                1.2 + 0.0495 * (1 - np.linspace(0.8, 0, 6) ** 2),
            )
        )
        dense = np.radians(np.linspace(-68, 68, 105))
        side = np.radians(68 + 52 * np.linspace(0, 1, 10)[1:])
        theta = np.concatenate((-side[::-1], dense, side))
        whole = sculpt(theta[None], np.concatenate((upper, lower[1:]))[:, None])
        seam = len(upper) - 1
        normals = grid_normals(whole)
        split = np.concatenate((np.arange(seam + 1), np.arange(seam, len(whole))))
        points, normals = whole[split], normals[split]
        is_lower = np.arange(len(points))[:, None] > seam
        return cls(points, normals, theta, seam, *_weights(points, is_lower))

    def deform(self, face: Face) -> tuple[np.ndarray, np.ndarray]:
        """Points and unit normals [R, C, 3] of the head frame while the face does ``face``."""
        points = self.points.copy()
        x, y = self.points[..., 0], self.points[..., 1]
        around = np.exp(-((x / 0.42) ** 2) - ((y - MOUTH_Y) / 0.20) ** 2)
        points[..., 0] += 0.16 * face.spread * around * x * (2.2 if face.spread < 0 else 1.0)
        points[..., 2] += 0.05 * face.spread * around * (1.2 if face.spread < 0 else 0.6)
        # Pressed lips roll inwards.
        points[..., 2] += 0.022 * face.press * np.abs(self.lip)
        points[..., 1] -= 0.055 * face.brow * bump(np.abs(x), 0.32, 0.2) * bump(y, -0.24, 0.11)
        angle = JAW_ANGLE * face.jaw * self.follow
        cos, sin = np.cos(angle), np.sin(angle)
        dy, dz = points[..., 1] - HINGE[1], points[..., 2] - HINGE[2]
        # Positive angles take the chin down and back: about the x axis, from -z (front) towards +y (down).
        points[..., 1] = HINGE[1] + cos * dy - sin * dz
        points[..., 2] = HINGE[2] + sin * dy + cos * dz
        points[..., 1] += 0.045 * face.jaw * np.minimum(self.lip, 0) * around
        normals = self.normals.copy()
        ny, nz = normals[..., 1].copy(), normals[..., 2].copy()
        normals[..., 1], normals[..., 2] = cos * ny - sin * nz, sin * ny + cos * nz
        return points, normals


def _weights(points: np.ndarray, is_lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the jaw's turn, and closeness to the upper (-1) or lower (1) lip's edge, both [R, C]."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    t = y - mouth_line(x)
    slit = np.clip(1 - (np.abs(x) / MOUTH_HALF) ** 2, 0, 1) ** 0.62
    everyone = smooth(-0.28, 0.40, t) * smooth(0.62, 0.25, z)
    at_line = float(smooth(-0.28, 0.40, np.zeros(1))[0])
    lower = everyone + (1 - at_line) * slit * np.exp(-((t / 0.2) ** 2)) * is_lower
    upper = everyone - at_line * slit * np.exp(-((t / 0.13) ** 2)) * ~is_lower
    follow = np.where(is_lower, np.minimum(lower, 1), np.maximum(upper, 0))
    lip = np.where(is_lower, 1, -1) * slit * np.exp(-((t / 0.1) ** 2))
    return follow, lip


RIGID_LANDMARKS = (33, 133, 362, 263, 168, 1)
"""Face-mesh numbers of the points of ``rigid_points``: corners of the eyes, bridge and tip of the nose."""


def rigid_points(shape: HeadShape) -> np.ndarray:
    """Head-frame places [6, 3] of points that no expression moves."""
    wanted = np.array([[-0.5, -0.01], [-0.17, 0.018], [0.17, 0.018], [0.5, -0.01], [0.0, -0.03], [0.0, 0.40]])
    front = shape.points[:, np.abs(shape.theta) < 1.2].reshape(-1, 3)
    return np.stack([front[((front[:, :2] - at) ** 2).sum(1).argmin()] for at in wanted])


def mouth_gap(shape: HeadShape, face: Face) -> float:
    """Distance between the inner edges of the lips in the middle, in head units."""
    middle = slice(len(shape.theta) // 2, len(shape.theta) // 2 + 1)
    strip = HeadShape(
        shape.points[:, middle],
        shape.normals[:, middle],
        shape.theta[middle],
        shape.seam,
        shape.follow[:, middle],
        shape.lip[:, middle],
    )
    points, _ = strip.deform(face)
    return float(np.linalg.norm(points[shape.seam, 0] - points[shape.seam + 1, 0]))
