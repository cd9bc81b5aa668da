"""One synthetic person: builds the surfaces, lights them and draws frames."""

from __future__ import annotations

import cv2
import numpy as np

from talker.dataset.synthetic.body import collar, neck, torso
from talker.dataset.synthetic.face_paint import Palette, head_patch
from talker.dataset.synthetic.hair import hair
from talker.dataset.synthetic.head import EYE_HALF, EYE_X, Face, HeadShape
from talker.dataset.synthetic.insides import Rays, eye, mouth
from talker.dataset.synthetic.patch import TEXELS, Patch, pack, sample
from talker.dataset.synthetic.raster import Fragments, rasterize

SUPERSAMPLE = 2
KEY = np.array([-0.50, -0.55, -0.75]) / np.linalg.norm([-0.50, -0.55, -0.75])
FILL = np.array([0.75, -0.10, -0.65]) / np.linalg.norm([0.75, -0.10, -0.65])
RIM = np.array([0.70, -0.45, 0.55]) / np.linalg.norm([0.70, -0.45, 0.55])
_WRAP_SKIN, _WRAP_PLAIN = np.array([0.42, 0.26, 0.22]), np.array([0.18, 0.18, 0.18])

_SKINS = (
    (0.90, 0.715, 0.615),
    (0.80, 0.60, 0.48),
    (0.64, 0.445, 0.34),
    (0.93, 0.76, 0.67),
    (0.52, 0.36, 0.28),
)
_LIPS = ((0.78, 0.42, 0.41), (0.68, 0.36, 0.34), (0.54, 0.29, 0.27), (0.82, 0.46, 0.46), (0.46, 0.26, 0.25))
_HAIRS = ((0.36, 0.22, 0.14), (0.20, 0.14, 0.11), (0.14, 0.11, 0.10), (0.68, 0.50, 0.30), (0.12, 0.10, 0.10))
_IRISES = ((0.36, 0.50, 0.46), (0.40, 0.27, 0.16), (0.32, 0.20, 0.12), (0.36, 0.50, 0.62), (0.26, 0.16, 0.11))
_CLOTHS = ((0.23, 0.42, 0.46), (0.62, 0.30, 0.26), (0.78, 0.66, 0.42), (0.34, 0.36, 0.52), (0.74, 0.72, 0.68))
_WALLS = ((0.66, 0.70, 0.73), (0.74, 0.70, 0.64), (0.60, 0.67, 0.64), (0.70, 0.68, 0.74), (0.62, 0.70, 0.78))


def palette(seed: int) -> Palette:
    """Colours of the person with this number; five different people."""
    i = seed % len(_SKINS)
    skin, lips, tone = np.array(_SKINS[i]), np.array(_LIPS[i]), np.array(_HAIRS[i])
    brows = 0.75 * tone + 0.06
    return Palette(skin, lips, tone, brows, *(np.array(t[i]) for t in (_IRISES, _CLOTHS, _WALLS)))


def wall(colour: np.ndarray, size: int) -> np.ndarray:
    """The background [size, size, 3] uint8: a plain wall with a soft pool of light."""
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    glow = np.exp(-(((x - 0.40) / 0.55) ** 2) - ((y - 0.35) / 0.60) ** 2)
    shade = 0.74 + 0.30 * glow - 0.10 * np.clip(y - 0.6, 0, 1)
    return np.clip(255 * colour * shade[..., None] + 0.5, 0, 255).astype(np.uint8)


class Character:
    """A person that can be posed and drawn; the same seed gives the same person."""

    def __init__(self, seed: int, size: int) -> None:
        rng = np.random.default_rng((seed, 11))
        self.size = size
        self.shape = HeadShape.build()
        self._palette = palette(seed)
        look = self._palette
        patches = [head_patch(self.shape, look, rng), hair(look.hair, rng), neck(look.skin, rng)]
        patches += [torso(look.cloth, rng), collar(look.cloth, rng)]
        self._atlas = pack(patches)
        self._head_count = self.shape.points.shape[0] * self.shape.points.shape[1]

        def flat(field: str, width: int) -> np.ndarray:
            return np.concatenate([np.reshape(getattr(p, field), (-1, width)) for p in patches]).astype(
                np.float32
            )

        self._points, self._normals = flat("points", 3), flat("normals", 3)
        self._occlusion, self._gloss, self._torso = flat("occlusion", 1), flat("gloss", 1), flat("torso", 1)
        self._wrap = np.concatenate(
            [
                np.tile(w, (p.points[..., 0].size, 1))
                for p, w in zip(
                    patches, (_WRAP_SKIN, _WRAP_PLAIN, _WRAP_SKIN, _WRAP_PLAIN, _WRAP_PLAIN), strict=True
                )
            ]
        ).astype(np.float32)
        self._strand = np.concatenate([_strand_directions(p) for p in patches])
        place = self.shape.points[..., :2].reshape(-1, 2)
        self._place = np.ascontiguousarray(place.reshape(*self.shape.points.shape[:2], 2), np.float32)
        fibres = np.convolve(rng.standard_normal(200), np.ones(3) / 3, "same")
        self._iris = (look.iris, fibres, look.brows * 0.30)
        self.background = wall(look.wall, size)
        self._wall = cv2.resize(
            self.background, None, fx=SUPERSAMPLE, fy=SUPERSAMPLE, interpolation=cv2.INTER_LINEAR
        )

    def draw(self, face: Face, K: np.ndarray, T_cam_head: np.ndarray, T_cam_body: np.ndarray) -> np.ndarray:
        """One frame [size, size, 3] uint8.

        Args:
            face: What the face does.
            K: [3, 3] pixels of the final picture.
            T_cam_head: [4, 4] head frame to camera frame.
            T_cam_body: [4, 4] where the head frame would be if the head were fixed to the torso at rest.
        """
        points, normals = self._points.copy(), self._normals.copy()
        deformed, turned = self.shape.deform(face)
        points[: self._head_count], normals[: self._head_count] = (
            deformed.reshape(-1, 3),
            turned.reshape(-1, 3),
        )
        head, body = T_cam_head.astype(np.float32), T_cam_body.astype(np.float32)
        share = self._torso
        in_camera = (points @ head[:3, :3].T + head[:3, 3]) * (1 - share)
        in_camera += (points @ body[:3, :3].T + body[:3, 3]) * share
        facing = (normals @ head[:3, :3].T) * (1 - share) + (normals @ body[:3, :3].T) * share
        strands = self._strand @ head[:3, :3].T

        big = self.size * SUPERSAMPLE
        k = K.astype(np.float32) * np.float32(SUPERSAMPLE)
        depth = np.ascontiguousarray(in_camera[:, 2])
        xy = in_camera[:, :2] / depth[:, None] * np.array([k[0, 0], k[1, 1]]) + k[:2, 2]
        seen = rasterize(self._atlas.mesh, xy.astype(np.float32), depth, big)
        picture = self._wall.copy()
        flat = picture.reshape(-1, 3)
        flat[seen.pixel] = self._shade(seen, self._light(facing, in_camera, strands))
        self._draw_insides(flat, seen, face, k, T_cam_head)
        return cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def _light(self, normals: np.ndarray, points: np.ndarray, strands: np.ndarray) -> np.ndarray:
        """Per vertex: square root of the light's colour, and the highlight [V, 4]."""
        view = -points / np.linalg.norm(points, axis=1, keepdims=True)
        # Sheets seen from behind (the hair's inside) are dark but lit from their visible side.
        key = np.clip((normals @ KEY[:, None] + self._wrap) / (1 + self._wrap), 0, None)
        fill = np.clip(normals @ FILL, 0, None)[:, None]
        rim = np.clip(normals @ RIM, 0, None)[:, None]
        sky = 0.5 - 0.5 * normals[:, 1:2]
        warm, cool = np.array([1.0, 0.965, 0.91]), np.array([0.84, 0.92, 1.0])
        light = 0.92 * key * warm + 0.22 * fill * cool + 0.25 * rim * cool
        # Light inside skin comes out red: its shadows are warm.
        warmth = np.where(self._wrap[:, :1] > 0.3, np.array([1.16, 0.98, 0.90]), np.array([0.95, 0.97, 1.0]))
        light += (0.17 + 0.13 * sky) * warmth
        light *= self._occlusion
        half = KEY + view
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        shine = np.clip((normals * half).sum(1), 0, 1)
        edge = (1 - np.clip((normals * view).sum(1), 0, 1)) ** 4
        glint = self._gloss[:, 0] * (0.10 * shine**14 + 0.10 * shine**60) + 0.06 * edge * self._gloss[:, 0]
        along = (strands * half).sum(1)
        fibre = np.sqrt(np.clip(1 - along**2, 0, 1)) ** 40 * np.clip(normals @ KEY, 0, 1)
        is_fibre = (strands**2).sum(1) > 0
        glint = np.where(is_fibre, 0.20 * fibre, glint) * self._occlusion[:, 0]
        return np.concatenate((np.sqrt(light), 255 * glint[:, None]), 1).astype(np.float32)

    def _shade(self, seen: Fragments, light: np.ndarray) -> np.ndarray:
        """Colours [n, 3] uint8 of the fragments."""
        lit = sample(self._atlas.scatter(light), seen.uv)
        albedo = sample(self._atlas.albedo, seen.uv * TEXELS).astype(np.float32)
        glint = lit[:, 3:] * (0.55 + albedo[:, :1] * np.float32(0.45 / 160))
        lit = albedo * lit[:, :3]
        lit += glint
        return np.minimum(lit, 255, out=lit).astype(np.uint8)

    def _draw_insides(
        self, flat: np.ndarray, seen: Fragments, face: Face, k: np.ndarray, T: np.ndarray
    ) -> None:
        """Eyes and mouth, over the skin already in the flattened picture."""
        head = np.flatnonzero(seen.uv[:, 0] <= self.shape.points.shape[1] - 1)
        uv, pixel = seen.uv[head], seen.pixel[head]
        rows, cols = np.divmod(pixel, self.size * SUPERSAMPLE)
        depth = uv[:, 1] - self.shape.seam
        here = np.flatnonzero((depth > 0.01) & (depth < 0.99))
        inside = mouth(self._rays(rows[here], cols[here], k, T), depth[here], face)
        flat[pixel[here]] = np.clip(255 * inside, 0, 255)
        for side in (-1.0, 1.0):
            centre = T[:3, :3] @ np.array([side * EYE_X, 0, -0.12]) + T[:3, 3]
            at = k[:2, :2] @ (centre[:2] / centre[2]) + k[:2, 2]
            reach = 1.45 * EYE_HALF * k[0, 0] / centre[2]
            here = np.flatnonzero((np.abs(cols - at[0]) < reach) & (np.abs(rows - at[1]) < reach))
            place = sample(self._place, uv[here])
            rays = self._rays(rows[here], cols[here], k, T)
            drawn = eye(flat[pixel[here]] / 255, place, rays, side, face, self._iris)
            flat[pixel[here]] = np.clip(255 * drawn, 0, 255)

    def _rays(self, rows: np.ndarray, cols: np.ndarray, k: np.ndarray, T: np.ndarray) -> Rays:
        R = T[:3, :3]
        pixel = np.stack(
            ((cols + 0.5 - k[0, 2]) / k[0, 0], (rows + 0.5 - k[1, 2]) / k[1, 1], np.ones(len(rows))), 1
        )
        view = -T[:3, 3] / np.linalg.norm(T[:3, 3])
        return Rays(-R.T @ T[:3, 3], pixel @ R, R.T @ KEY, R.T @ view)


def _strand_directions(patch: Patch) -> np.ndarray:
    """Unit directions [R*C, 3] of a hairy patch's strands, zero for others."""
    if not patch.fibrous:
        return np.zeros((patch.points[..., 0].size, 3), np.float32)
    down = np.gradient(patch.points, axis=0)
    down /= np.maximum(np.linalg.norm(down, axis=-1, keepdims=True), 1e-9)
    return down.reshape(-1, 3).astype(np.float32)
