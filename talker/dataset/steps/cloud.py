"""The first cloud of Gaussians: the fitted mesh, a shell of hair, neck and torso, and the inside of the mouth.

Everything is laid out in the picture of the reference frame, where colours are, and given a depth: the mesh
its own, the rest a smooth continuation of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import KDTree

from talker.dataset.schema import REGION_FACE, REGION_HAIR, REGION_MOUTH, REGION_TORSO
from talker.dataset.steps import mesh
from talker.dataset.steps.fill import continue_smoothly
from talker.dataset.steps.torso import TORSO_DEPTH

PERSON = 0.35
"""Mask probability from which a pixel belongs to the person."""


@dataclass(frozen=True)
class CloudConfig:
    """How many points, and where.

    Attributes:
        n_points: About how many in all, without the mouth.
        n_mouth: Points inside the mouth.
        face_share: Share of the points on the face mesh.
        neck_share: Share of the points on the neck hidden by the jaw.
        detail: Density of lips and eyes relative to the rest of the face.
        overhang: How far, in shares of the side, the shell goes on beyond the picture's border.
        seed: Of the sampling.
    """

    n_points: int = 20_000
    n_mouth: int = 1_200
    face_share: float = 0.45
    neck_share: float = 0.04
    detail: float = 4.0
    overhang: float = 0.08
    seed: int = 0


@dataclass(frozen=True)
class CloudPoints:
    """Initial points; head frame of the reference."""

    means: np.ndarray  # [N, 3]
    colors: np.ndarray  # [N, 3] 0..1
    scales: np.ndarray  # [N] head units
    normals: np.ndarray  # [N, 3] unit, towards the camera
    region: np.ndarray  # [N] uint8, see schema
    rig: np.ndarray  # [N] 0..1, share of the head's motion


def make_cloud(
    image: np.ndarray,
    mask: np.ndarray,
    landmarks: np.ndarray,
    K: np.ndarray,
    T_cam_head: np.ndarray,
    shape: np.ndarray,
    config: CloudConfig | None = None,
) -> CloudPoints:
    """Points on everything that belongs to the person in one frame.

    Args:
        image: [S, S, 3] uint8, the reference frame.
        mask: [S, S] uint8 person probability.
        landmarks: [478, 3] pixels of that frame.
        K: [3, 3].
        T_cam_head: [4, 4] of that frame.
        shape: [478, 3] head frame, for the depth of the mesh.
        config: Amounts.
    """
    config = config or CloudConfig()
    rng = np.random.default_rng(config.seed)
    K, T = K.astype(np.float64), T_cam_head.astype(np.float64)
    scene = _Scene(image, mask, landmarks, K, T, shape, config)
    n_face = round(config.n_points * config.face_share)
    n_neck = round(config.n_points * config.neck_share)
    parts = [
        _face(scene, n_face, config, rng),
        _shell(scene, config.n_points - n_face - n_neck, rng),
        _hidden_neck(scene, n_neck, rng),
        _mouth(scene, config.n_mouth, rng),
    ]
    pixels, depth, colors, region, rig = (np.concatenate(column) for column in zip(*parts, strict=True))
    camera = np.concatenate([(pixels - K[:2, 2]) * (depth / K[0, 0])[:, None], depth[:, None]], 1)
    means = (camera - T[:3, 3]) @ T[:3, :3]
    normals = scene.normals_at(*scene.canvas(pixels).T) @ T[:3, :3]
    return CloudPoints(
        means.astype(np.float32),
        colors.astype(np.float32),
        _scales(means, region).astype(np.float32),
        normals.astype(np.float32),
        region.astype(np.uint8),
        rig.astype(np.float32),
    )


class _Scene:
    """The reference frame with a depth for every pixel, on a canvas larger than the picture."""

    def __init__(self, image, mask, landmarks, K, T, shape, config: CloudConfig) -> None:
        size = image.shape[0]
        self.pad = round(config.overhang * size)
        self.corner = np.array([self.pad, 0])
        self.size = size
        self.focal = float(K[0, 0])
        self.unit = self.focal / T[2, 3]
        self.points = landmarks[:, :2].astype(np.float64)
        self.mesh_depth = shape @ T[2, :3] + T[2, 3]
        self.origin_depth = float(T[2, 3])
        self.image = self.extended(image)
        person = (mask > PERSON * 255).astype(np.uint8)
        person = cv2.morphologyEx(person, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        self.person = self.extended(_largest(person)).astype(bool)
        self.face = self.fill(mesh.FACE_OVAL)
        self.lips = self.fill(mesh.LIPS_OUTER)
        self.chin = float(self.points[mesh.CHIN, 1])
        self.depth = self._depth()

    def extended(self, picture: np.ndarray) -> np.ndarray:
        """Continue a picture beyond the left, right and bottom border; the top is where hair ends."""
        return cv2.copyMakeBorder(picture, 0, self.pad, self.pad, self.pad, cv2.BORDER_REPLICATE)

    def canvas(self, pixels: np.ndarray) -> np.ndarray:
        """Integer canvas coordinates [N, 2] (x, y) of pixels of the picture."""
        at = np.floor(pixels + self.corner).astype(int)
        return np.clip(at, 0, np.array(self.image.shape[1::-1]) - 1)

    def fill(self, ring: np.ndarray) -> np.ndarray:
        """Mask [Hc, Wc] of a polygon of landmarks."""
        canvas = np.zeros((self.size + self.pad, self.size + 2 * self.pad), np.uint8)
        polygon = np.round(self.points[ring] + self.corner).astype(np.int32)
        cv2.fillPoly(canvas, [polygon], (1,))
        return canvas.astype(bool)

    def _depth(self) -> np.ndarray:
        """Depth [Hc, Wc]: the mesh inside the face; around it a membrane held by head and torso."""
        height, width = self.image.shape[:2]
        face = _rasterised_depth(self.points + self.corner, self.mesh_depth, height, width)
        inside = np.isfinite(face) & self.face
        held, value = inside.copy(), np.where(inside, face, 0.0)
        rows = np.arange(height)[:, None]
        torso = self.person & (rows > self.chin + 0.45 * self.unit)
        value[torso] = self.origin_depth + TORSO_DEPTH
        held |= torso
        # The outline of hair and ears lies in the plane through the ears, and so does the far background.
        above = rows < self.chin - 0.2 * self.unit
        outline = above & ~cv2.erode(self.person.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        outline &= ~inside
        value[outline] = self.origin_depth + 0.75
        held |= outline
        return continue_smoothly(value, held)

    def depth_at(self, points: np.ndarray) -> np.ndarray:
        """Depth [N] at canvas points [N, 2], between its pixels."""
        x, y = (points - 0.5).astype(np.float32).T
        return cv2.remap(self.depth, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]

    def normals_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Unit normals [N, 3] in the camera frame at canvas pixels, from the depth's slope."""
        smooth = cv2.GaussianBlur(self.depth, (0, 0), max(1.0, self.size / 128))
        dy, dx = np.gradient(smooth)
        step = self.focal / smooth[y, x]
        normal = np.stack([dx[y, x] * step, dy[y, x] * step, -np.ones(len(x))], 1)
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)

    def colour(self, pixels: np.ndarray) -> np.ndarray:
        """Colours [N, 3] 0..1."""
        x, y = self.canvas(pixels).T
        return self.image[y, x] / 255.0


Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""pixels [N, 2], depth [N], colours [N, 3], region [N], rig [N]."""


def _face(scene: _Scene, count: int, config: CloudConfig, rng: np.random.Generator) -> Part:
    """Samples of the mesh, even on its surface, denser on lips and eyes; the slits of eyes and mouth too."""
    rings = (mesh.LIPS_OUTER, mesh.EYE_LEFT, mesh.EYE_RIGHT)
    fine = np.any([scene.fill(ring) for ring in rings], 0).astype(np.uint8)
    fine = cv2.dilate(fine, np.ones((3, 3), np.uint8), iterations=max(1, round(0.04 * scene.unit)))
    rows, columns = np.nonzero(scene.face)
    slope = np.zeros(scene.face.shape)
    slope[rows, columns] = 1 / np.maximum(-scene.normals_at(columns, rows)[:, 2], 0.3)
    masses = slope * fine * config.detail, slope * (1 - fine)
    n_fine = round(count * masses[0].sum() / (masses[0].sum() + masses[1].sum()))
    pixels = np.concatenate(
        [even_points(m, n, rng) for m, n in zip(masses, (n_fine, count - n_fine), strict=True)]
    )
    depth = scene.depth_at(pixels)
    pixels = pixels - scene.corner
    return pixels, depth, scene.colour(pixels), np.full(count, REGION_FACE), np.ones(count)


def _shell(scene: _Scene, count: int, rng: np.random.Generator) -> Part:
    """Everything of the person that is not face: hair, ears, neck, torso."""
    pixels = even_points((scene.person & ~scene.face).astype(np.float64), count, rng)
    depth = scene.depth_at(pixels)
    pixels = pixels - scene.corner
    rig = _rig(scene, pixels)
    return pixels, depth, scene.colour(pixels), np.where(rig > 0.75, REGION_HAIR, REGION_TORSO), rig


def _hidden_neck(scene: _Scene, count: int, rng: np.random.Generator) -> Part:
    """The neck behind the jaw: it shows when the head rises or turns."""
    weight = _behind_jaw(scene).astype(np.float64)
    if not weight.any():
        return _nothing()
    pixels = even_points(weight, count, rng) - scene.corner
    # Deep enough to stay behind the chin when the head leans back.
    depth = np.full(count, scene.origin_depth + TORSO_DEPTH + 0.4)
    rig = 0.5 * _rig(scene, pixels)
    return pixels, depth, _neck_colour(scene, pixels), np.full(count, REGION_TORSO), rig


def _nothing() -> Part:
    return np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3)), np.zeros(0, int), np.zeros(0)


def _behind_jaw(scene: _Scene) -> np.ndarray:
    """Where the neck goes on behind the lower face: it shows when the head rises or turns."""
    jaw = scene.face.copy()
    jaw[: max(0, int(scene.chin - 0.35 * scene.unit))] = False
    left, right = scene.points[[172, 397], 0] + scene.pad
    columns = np.arange(jaw.shape[1])
    inset = 0.1 * (right - left)
    return jaw & ((columns > left + inset) & (columns < right - inset))[None]


def _neck_colour(scene: _Scene, pixels: np.ndarray) -> np.ndarray:
    """Colour of the visible neck straight below."""
    x, y = scene.canvas(pixels).T
    neck = scene.person & ~cv2.dilate(scene.face.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    neck[: int(max(0, scene.chin - 0.3 * scene.unit))] = False
    first = np.where(neck.any(0), neck.argmax(0), scene.size - 1)
    row = np.maximum(first[x], y)
    return scene.image[np.minimum(row, scene.image.shape[0] - 1), x] / 255.0


def _rig(scene: _Scene, pixels: np.ndarray) -> np.ndarray:
    """1 down to the jaw, 0 from the collar on, smooth between."""
    chin, jaw = scene.points[mesh.CHIN], scene.points[[172, 397], 1].mean()
    # Beside the face the neck begins at the corner of the jaw, in front at the chin.
    aside = np.clip(np.abs(pixels[:, 0] - chin[0]) / (0.6 * scene.unit), 0, 1)
    top = chin[1] * (1 - aside) + jaw * aside
    down = np.clip((pixels[:, 1] - top) / (0.5 * scene.unit), 0, 1)
    return 1 - down * down * (3 - 2 * down)


def _mouth(scene: _Scene, count: int, rng: np.random.Generator) -> Part:
    """A box behind the lips: teeth in front, dark behind."""
    inner = scene.points[mesh.LIPS_INNER]
    low, high = inner.min(0), inner.max(0)
    middle = (low + high) / 2
    half = np.array([(high[0] - low[0]) / 2, 0.16 * scene.unit])
    place = rng.uniform(-1, 1, (count, 2))
    pixels = middle + place * half
    # An arch: the corners lie deeper than the front teeth.
    front = scene.mesh_depth[mesh.LIPS_INNER].mean()
    behind = 0.05 + 0.2 * rng.random(count)
    depth = front + behind + 0.12 * place[:, 0] ** 2
    shade = np.clip((behind - 0.05) / 0.2, 0, 1)[:, None]
    lips = scene.image[scene.lips].mean(0) / 255.0
    teeth = np.clip(lips * 0.5 + 0.35, 0, 1)
    colours = teeth * (1 - shade) + lips * 0.25 * shade
    return pixels, depth, colours, np.full(count, REGION_MOUTH), np.ones(count)


def even_points(weight: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Exactly ``count`` points [count, 2] (x, y) with density in proportion to ``weight`` [H, W].

    An additive recurrence (the R2 sequence of the plastic number) places them without clumps or holes; random
    thinning makes the density, so it is best where the weight is nearly constant.
    """
    height, width = weight.shape
    plastic = 1.324717957244746
    tries = int(count * 1.1 * weight.max() / weight.mean()) + 64
    while True:
        u = (0.5 + np.outer(np.arange(1, tries + 1), [1 / plastic, 1 / plastic**2])) % 1
        pixels = u * [width, height]
        x, y = pixels.astype(int).T
        kept = pixels[rng.random(tries) * weight.max() < weight[y, x]]
        if len(kept) >= count:
            return kept[:count]
        tries *= 2


def _scales(means: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Standard deviation [N] of each point: the usual distance to its neighbours of the same kind."""
    scales = np.empty(len(means))
    for members in (region == REGION_MOUTH, region != REGION_MOUTH):
        if members.sum() < 5:
            scales[members] = 0.02
            continue
        distance, _ = KDTree(means[members]).query(means[members], k=5)
        scales[members] = np.sqrt((distance[:, 1:] ** 2).mean(1))
    low, high = np.percentile(scales, [2, 98])
    return np.clip(scales, low, high)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a 0/1 mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask
    return (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)


def _rasterised_depth(points: np.ndarray, depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Depth [H, W] of the closed mesh by linear interpolation between landmarks; NaN outside."""
    from scipy.interpolate import LinearNDInterpolator

    rows, columns = np.mgrid[:height, :width]
    return LinearNDInterpolator(points[:468], depth[:468])(columns + 0.5, rows + 0.5)
