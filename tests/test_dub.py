"""Dubbing: a face is replaced and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import N_FRAMES, SIZE, mesh_points, project_mesh, stir, tiny_avatar, write_dataset

from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps.mesh import CHIN, FACE_OVAL, FOREHEAD
from talker.drive import DriveConfig
from talker.dub import face_mask, over
from talker.frame import render_frame
from talker.model.avatar import Avatar
from talker.render.compose import to_uint8
from talker.types import FPS, SAMPLE_RATE, Driving, Speech

K = np.array([[2.2 * SIZE, 0, SIZE / 2], [0, 2.2 * SIZE, SIZE / 2], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def avatar(dataset: TalkingHeadDataset) -> Avatar:
    made, _ = tiny_avatar(dataset)
    with torch.no_grad():  # another face than the clip's, so that pasting is seen
        made.branch("face").canonical.sh0.add_(0.8)
    return stir(made).eval().requires_grad_(False)


def speech(n_frames: int) -> Speech:
    rng = np.random.default_rng(0)
    return Speech((0.1 * rng.standard_normal(n_frames * SAMPLE_RATE // FPS)).astype(np.float32))


def face(x: float = 0.0, z: float = 12.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = x, 0, z
    return project_mesh(mesh_points(0.0, 0.0), K, T)


def at(mask: np.ndarray, point: np.ndarray) -> float:
    return float(mask[int(point[1]), int(point[0])])


def test_mask_is_full_on_the_face_soft_at_its_edge_and_nothing_beyond() -> None:
    landmarks = face()
    mask = face_mask(landmarks, SIZE)
    assert mask.shape == (SIZE, SIZE) and mask.dtype == np.float32
    middle = landmarks[FACE_OVAL, :2].mean(0)
    assert at(mask, middle) > 0.99 and mask.min() == 0 and mask.max() <= 1
    assert at(mask, landmarks[FOREHEAD] - [0, 4, 0]) == 0
    for side in (landmarks[234], landmarks[454]):  # just outside the ears
        assert at(mask, middle + (side[:2] - middle) * 1.1) == 0
    line = mask[int(middle[1]), int(middle[0]) :]
    assert (np.diff(line) <= 0).all(), "falls from the middle outwards"
    assert ((line > 0) & (line < 1)).sum() >= 2, "without a step"
    assert at(mask, landmarks[CHIN] + [0, 0.5, 0]) > 0.5, "room for a mouth that opens wider"


def test_mask_grows_with_the_face_and_survives_the_border() -> None:
    small, large = face_mask(face(z=24), SIZE), face_mask(face(z=8), SIZE)
    assert 6 < large.sum() / small.sum() < 12
    assert face_mask(face(x=60.0), SIZE).max() == 0
    assert np.isfinite(face_mask(face(x=2.7), SIZE)).all()


def test_mask_moves_smoothly() -> None:
    """A quarter of a pixel of motion changes the edge by a quarter of a step."""
    a, b = (face_mask(face() + np.array([d, 0, 0], np.float32), SIZE) for d in (0.0, 0.25))
    assert 0 < np.abs(a - b).max() < 0.3


def test_only_the_face_is_replaced(avatar: Avatar, dataset: TalkingHeadDataset) -> None:
    frames = list(over(avatar, speech(12), dataset))
    assert len(frames) == 12
    for t, frame in enumerate(frames):
        assert frame.dtype == np.uint8 and frame.shape == (SIZE, SIZE, 3)
        mask = face_mask(np.asarray(dataset.landmarks[t]), SIZE)
        true = np.asarray(dataset.frames[t])
        assert np.array_equal(frame[mask == 0], true[mask == 0])
        assert np.abs(frame[mask > 0.99].astype(int) - true[mask > 0.99]).mean() > 5


def test_inside_is_the_avatar_in_the_clips_own_pose(avatar: Avatar, dataset: TalkingHeadDataset) -> None:
    from talker.drive import speech_signals

    said = speech(6)
    t = 5
    frame = list(over(avatar, said, dataset))[t]
    driving = Driving(
        speech_signals(avatar, said)[t],
        torch.from_numpy(dataset.expression[t]),
        torch.from_numpy(dataset.T_cam_head[t]),
        torch.from_numpy(dataset.T_cam_torso[t]),
    )
    plate = torch.from_numpy(np.asarray(dataset.frames[t], np.float32) / 255)
    alone = to_uint8(render_frame(avatar, driving, plate=plate).rgb).numpy()
    inside = face_mask(np.asarray(dataset.landmarks[t]), SIZE) > 0.99
    assert np.abs(frame[inside].astype(int) - alone[inside]).max() <= 2


def test_longer_speech_holds_the_last_frame_and_goes_on_talking(
    avatar: Avatar, dataset: TalkingHeadDataset
) -> None:
    frames = list(over(avatar, speech(N_FRAMES + 6), dataset))
    assert len(frames) == N_FRAMES + 6
    outside = face_mask(np.asarray(dataset.landmarks[-1]), SIZE) == 0
    last = np.asarray(dataset.frames[-1])
    for frame in frames[N_FRAMES - 1 :]:
        assert np.array_equal(frame[outside], last[outside])
    assert any(not np.array_equal(frames[-1], frame) for frame in frames[N_FRAMES:-1])


def test_frames_without_a_face_stay_as_they_are(avatar: Avatar, tmp_path: Path) -> None:
    lost = TalkingHeadDataset(write_dataset(tmp_path / "tiny.data"))
    lost.valid = lost.valid.copy()
    lost.valid[3] = False
    lost.landmarks = np.array(lost.landmarks)
    lost.landmarks[3] = np.nan
    frames = list(over(avatar, speech(6), lost))
    assert np.array_equal(frames[3], lost.frames[3])
    assert not np.array_equal(frames[2], lost.frames[2])


def test_intensity_reaches_the_lips(avatar: Avatar, dataset: TalkingHeadDataset) -> None:
    plain = next(over(avatar, speech(3), dataset))
    calm = next(over(avatar, speech(3), dataset, DriveConfig(intensity=0.0)))
    assert not np.array_equal(plain, calm)
