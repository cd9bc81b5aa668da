"""A whole dataset in a second: a few hundred Gaussians that talk, blink and turn, rendered to a dataset folder.

Everything about it is known: the pictures are renders of ``speaker`` posed by the stored track, the landmarks are
points of the same sculpture, the lips open with the loudness of the stored sound.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from talker.audio.waveform import save_wav
from talker.dataset import schema
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps import mesh
from talker.geometry import rigid, rotvec_to_matrix
from talker.model.avatar import Avatar, ModelConfig
from talker.model.canonical import pose
from talker.model.deformation import FieldConfig
from talker.model.motion import MotionConfig
from talker.render import rasterize
from talker.render.compose import compose
from talker.train.build import Conditioning, build
from talker.types import BLINK_LEFT, BLINK_RIGHT, EXPRESSION_DIM, FPS, SAMPLE_RATE, Camera, Gaussians

SIZE, N_FRAMES = 96, 88
DISTANCE = 12.0
FACE_RADII = np.array([0.75, 1.05])
LIP_Y, LIP_WIDTH = 0.5, 0.32
PAUSE = slice(0, 10)
"""Frames without a sound."""
BLINKS = (24, 61)
REFERENCE = 4


def tiny_model(**face: object) -> ModelConfig:
    """The smallest useful configuration; ``face`` replaces entries of its field."""
    small: dict = {"width": 16, "hidden": 16, "hash_levels": 3, "hash_log2_table": 8, "hash_finest": 32}
    field = FieldConfig(**{**small, **face})
    return ModelConfig(face=field, motion=MotionConfig(dim=4, features="mel", folds=4))


def write_dataset(root: Path, *, size: int = SIZE, n_frames: int = N_FRAMES, seed: int = 0) -> Path:
    """A complete dataset folder."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    opening, blink = _opening(n_frames), _blink(n_frames)
    K = np.array([[2.2 * size, 0, size / 2], [0, 2.2 * size, size / 2], [0, 0, 1]], np.float32)
    head, torso = motion(n_frames)
    cloud = sculpture(rng)
    plate = _plate(size)
    camera = Camera(torch.from_numpy(K), size, size)
    frames = np.empty((n_frames, size, size, 3), np.uint8)
    masks = np.empty((n_frames, size, size), np.uint8)
    landmarks = np.empty((n_frames, mesh.N_LANDMARKS, 3), np.float32)
    for t in range(n_frames):
        posed = pose(
            speaker(cloud, opening[t], blink[t]),
            torch.from_numpy(cloud["rig"]),
            torch.from_numpy(head[t]),
            torch.from_numpy(torso[t]),
        )
        out = rasterize(posed, camera)
        rgb = compose(out, None, torch.from_numpy(plate.astype(np.float32) / 255))
        frames[t] = (rgb.clamp(0, 1) * 255 + 0.5).numpy().astype(np.uint8)
        masks[t] = (out.alpha[..., 0].clamp(0, 1) * 255).numpy().astype(np.uint8)
        landmarks[t] = project_mesh(mesh_points(opening[t], blink[t]), K, head[t])
    schema.save_array(root / schema.FRAMES, frames)
    schema.save_array(root / schema.MASKS, masks)
    schema.save_array(root / schema.LANDMARKS, landmarks)
    schema.save_arrays(root / schema.CLOUD, **cloud)
    cv2.imwrite(str(root / schema.PLATE), cv2.cvtColor(plate, cv2.COLOR_RGB2BGR))
    schema.save_arrays(root / schema.PLATES, local=plate[None], of_frame=np.zeros(n_frames, np.int32))
    _write_tracks(root, K, head, torso, opening, blink)
    _write_header(root, size, n_frames)
    return root


def _write_tracks(root: Path, K, head, torso, opening, blink) -> None:
    n = len(head)
    schema.save_arrays(
        root / schema.POSE,
        K=K,
        T_cam_head=head,
        shape=mesh_points(0.0, 0.0).astype(np.float32),
        valid=np.ones(n, bool),
        segment=np.zeros(n, np.int32),
        error=np.zeros(n, np.float32),
        reference=np.array(REFERENCE),
    )
    schema.save_arrays(root / schema.TORSO, T_cam_torso=torso, reference=np.array(REFERENCE))
    expression = np.zeros((n, EXPRESSION_DIM), np.float32)
    expression[:, [BLINK_LEFT, BLINK_RIGHT]] = blink[:, None]
    schema.save_arrays(root / schema.EXPRESSION, expression=expression, mouth_open=opening.astype(np.float32))
    save_wav(root / schema.AUDIO, sound(opening))


def _write_header(root: Path, size: int, n: int) -> None:
    header = {
        "version": schema.VERSION,
        "steps": {"cloud": {"key": "made by the tests", "seconds": 0.0}},
        "report": {},
        "name": "tiny.mp4",
        "fps": FPS,
        "size": size,
        "n_frames": n,
        "n_train": schema.n_train_frames(n),
    }
    schema.write_header(root, header)


def tiny_avatar(dataset: TalkingHeadDataset, *, seed: int = 0, **face: object) -> tuple[Avatar, Conditioning]:
    """The untrained avatar of the dataset, and what drives it."""
    return build(dataset, tiny_model(**face), seed)


def stir(avatar: Avatar, seed: int = 0, amount: float = 0.2) -> Avatar:
    """Give the fields weights, as training would: their last layers start at zero, and nothing would move."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in avatar.branches:
            for value in avatar.branch(name).deformation.parameters():
                value.add_(amount * torch.randn(value.shape, generator=generator))
    return avatar


def motion(n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Poses [T, 4, 4] of head and torso; they agree in the reference frame."""
    t = np.arange(n_frames) - REFERENCE
    turn = np.stack([0.10 * np.sin(t / 17), 0.16 * np.sin(t / 23), 0.05 * np.sin(t / 31)], 1)
    place = np.stack([0.15 * np.sin(t / 29), 0.06 * np.sin(t / 13), DISTANCE + 0.2 * np.sin(t / 37)], 1)
    sway = place.copy()
    sway[:, :2] *= 0.3
    R = rotvec_to_matrix(torch.from_numpy(turn))
    head = rigid(R, torch.from_numpy(place))
    torso = rigid(torch.eye(3, dtype=torch.float64).expand_as(R), torch.from_numpy(sway))
    return head.numpy().astype(np.float32), torso.numpy().astype(np.float32)


def sculpture(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Initial cloud: a face disc, hair above, shoulders below, a dark mouth behind the lips."""
    face = _disc(rng, 220) * FACE_RADII
    hair = np.stack([rng.uniform(-0.8, 0.8, 60), rng.uniform(-1.5, -0.95, 60)], 1)
    chest = np.stack([rng.uniform(-2.0, 2.0, 100), rng.uniform(1.25, 2.6, 100)], 1)
    mouth = np.stack([rng.uniform(-0.25, 0.25, 30), LIP_Y + rng.uniform(-0.08, 0.12, 30)], 1)
    parts = (
        (face, _bulge(face), (0.80, 0.62, 0.52), schema.REGION_FACE, 1.0),
        (hair, np.full(60, 0.2), (0.25, 0.16, 0.10), schema.REGION_HAIR, 1.0),
        (chest, np.full(100, 0.3), (0.20, 0.30, 0.55), schema.REGION_TORSO, 0.0),
        (mouth, np.full(30, 0.05), (0.25, 0.05, 0.05), schema.REGION_MOUTH, 1.0),
    )
    means = np.concatenate([np.column_stack([at, depth]) for at, depth, *_ in parts])
    colors = np.concatenate([np.tile(color, (len(at), 1)) for at, _, color, *_ in parts])
    lips = _lips(means)
    colors[lips] = (0.70, 0.25, 0.25)
    colors[_eyes(means)] = (0.95, 0.95, 0.95)
    colors += 0.04 * rng.standard_normal(colors.shape)
    n = len(means)
    return {
        "means": means.astype(np.float32),
        "colors": colors.clip(0, 1).astype(np.float32),
        "scales": np.full(n, 0.075, np.float32),
        "normals": np.tile(np.array([0, 0, -1], np.float32), (n, 1)),
        "region": np.concatenate([np.full(len(at), kind) for at, _, _, kind, _ in parts]).astype(np.uint8),
        "rig": np.concatenate([np.full(len(at), rig) for at, *_, rig in parts]).astype(np.float32),
    }


def speaker(cloud: dict[str, np.ndarray], opening: float, blink: float) -> Gaussians:
    """Head-frame Gaussians with the lower lip and chin dropped by ``opening`` and the eyes ``blink`` shut."""
    means, colors = cloud["means"].copy(), cloud["colors"].copy()
    jaw = (cloud["region"] == schema.REGION_FACE) & (means[:, 1] > LIP_Y) & (np.abs(means[:, 0]) < 0.5)
    means[jaw, 1] += opening
    eyes = _eyes(cloud["means"])
    colors[eyes] = (1 - blink) * colors[eyes] + blink * np.array([0.75, 0.55, 0.45], np.float32)
    n = len(means)
    return Gaussians(
        torch.from_numpy(means),
        torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        torch.from_numpy(cloud["scales"])[:, None].repeat(1, 3),
        torch.full((n,), 0.9),
        torch.from_numpy(colors),
    )


def mesh_points(opening: float, blink: float) -> np.ndarray:
    """Mesh points [478, 3] in the head frame."""
    xy = _disc(np.random.default_rng(5), mesh.N_LANDMARKS) * FACE_RADII * 0.95
    angle = np.linspace(0, 2 * np.pi, len(mesh.FACE_OVAL), endpoint=False)
    xy[mesh.FACE_OVAL] = np.stack([np.sin(angle), -np.cos(angle)], 1) * FACE_RADII
    for ring, x, outward in ((mesh.EYE_RIGHT, -0.33, -1), (mesh.EYE_LEFT, 0.33, 1)):
        at = np.linspace(0, 2 * np.pi, len(ring), endpoint=False)
        lids = 0.02 + 0.05 * (1 - blink)
        xy[ring] = np.stack([x + outward * 0.17 * np.cos(at), -0.2 - lids * np.sin(at)], 1)
    for ring, width, height in ((mesh.LIPS_OUTER, LIP_WIDTH, 0.10), (mesh.LIPS_INNER, 0.8 * LIP_WIDTH, 0.01)):
        at = np.linspace(0, 2 * np.pi, len(ring), endpoint=False)
        xy[ring] = np.stack([-width * np.cos(at), LIP_Y - height * np.sin(at)], 1)
        xy[ring, 1] += opening * np.clip(-np.sin(at), 0, 1)
    for chin in (152, 148, 377, 176, 400):
        xy[chin, 1] += opening
    return np.column_stack([xy, _bulge(xy)])


def project_mesh(points: np.ndarray, K: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Pixels [478, 3] as the face mesh gives them: z relative to the head, in the unit of x."""
    camera = points @ T[:3, :3].T + T[:3, 3]
    unit = K[0, 0] / T[2, 3]
    uv = camera[:, :2] / camera[:, 2:] * K[0, 0] + K[:2, 2]
    return np.column_stack([uv, (camera[:, 2] - T[2, 3]) * unit]).astype(np.float32)


def sound(opening: np.ndarray) -> np.ndarray:
    """A voice [S] as loud as the lips are open, with formants that move with them; zeros in the pause."""
    n = len(opening) * SAMPLE_RATE // FPS
    frame = np.arange(n) * FPS / SAMPLE_RATE
    open_now = np.interp(frame, np.arange(len(opening)), opening)
    time = np.arange(n) / SAMPLE_RATE
    voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12))
    bright = np.sin(2 * np.pi * (900 + 2500 * open_now) * time)
    noise = 0.002 * np.random.default_rng(1).standard_normal(n)
    wave = (0.12 * voice + 0.1 * bright) * (open_now / 0.3) + noise
    wave[: PAUSE.stop * SAMPLE_RATE // FPS] = 0
    return wave.astype(np.float32)


def _opening(n: int) -> np.ndarray:
    t = np.arange(n)
    opening = 0.3 * np.abs(np.sin(t / 3.1)) * (0.4 + 0.6 * np.sin(t / 19) ** 2)
    opening[PAUSE] = 0
    return opening


def _blink(n: int) -> np.ndarray:
    track = np.zeros(n, np.float32)
    for start in BLINKS:
        shape = np.array([0.4, 0.9, 1.0, 0.9, 0.4], np.float32)
        track[start : start + 5] = shape[: max(0, n - start)]
    return track


def _plate(size: int) -> np.ndarray:
    row = np.linspace(60, 180, size)
    return np.stack(
        [row[:, None] + 0 * row, 0 * row[:, None] + row, np.full((size, size), 120.0)], -1
    ).astype(np.uint8)


def _disc(rng: np.random.Generator, n: int) -> np.ndarray:
    radius, angle = np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _bulge(xy: np.ndarray) -> np.ndarray:
    return -0.4 * (1 - ((xy / FACE_RADII) ** 2).sum(1).clip(0, 1))


def _lips(means: np.ndarray) -> np.ndarray:
    return (((means[:, :2] - [0, LIP_Y]) / [LIP_WIDTH, 0.14]) ** 2).sum(1) < 1


def _eyes(means: np.ndarray) -> np.ndarray:
    return (((np.abs(means[:, :1]) - 0.33) / 0.17) ** 2)[:, 0] + ((means[:, 1] + 0.2) / 0.09) ** 2 < 1
