"""Poses are found back from pictures, whichever way they are off."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_support import stir, tiny_avatar, write_dataset

from talker.alignment import AlignConfig, PoseAligner, aligned_track
from talker.dataset.reader import TalkingHeadDataset
from talker.events import Progress
from talker.frame import render_frame
from talker.geometry import corrected, project
from talker.model.avatar import FACE, Avatar
from talker.render.compose import to_uint8
from talker.types import Driving

# radians and head units; at this size a unit is 18 pixels
ERRORS = (
    (0.10, 0, 0, 0, 0, 0),
    (0, -0.10, 0, 0, 0, 0),
    (0, 0, 0.06, 0, 0, 0),
    (0, 0, 0, 0.05, -0.04, 0),
    (0, 0, 0, 0, 0, -0.4),
    (0.02, 0.02, -0.03, -0.03, 0.03, 0.1),
)
STILL = (0.0,) * 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TalkingHeadDataset:
    return TalkingHeadDataset(write_dataset(tmp_path_factory.mktemp("aligned") / "tiny.data"))


@pytest.fixture(scope="module")
def avatar(dataset: TalkingHeadDataset) -> Avatar:
    return stir(tiny_avatar(dataset)[0], amount=0.02).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def driving(dataset: TalkingHeadDataset) -> Driving:
    return tiny_avatar(dataset)[1].driving(30)


def picture(
    avatar: Avatar, driving: Driving, head: tuple[float, ...], torso: tuple[float, ...]
) -> np.ndarray:
    """The frame in which head and torso really are elsewhere, the deformation being the one of ``driving``."""
    moved = replace(
        driving,
        T_cam_head=corrected(driving.T_cam_head, torch.tensor(head)),
        T_cam_torso=corrected(driving.T_cam_torso, torch.tensor(torso)),
    )
    with torch.inference_mode():
        return to_uint8(render_frame(avatar, moved, static=True).rgb).numpy()


def place(avatar: Avatar, T: torch.Tensor, delta: np.ndarray | tuple[float, ...], rig: bool) -> torch.Tensor:
    """Pixels of the points that follow the head, or the torso, under a corrected pose."""
    canonical = avatar.branch(FACE).canonical
    mine = canonical.rig() > 0.9 if rig else canonical.rig() < 0.1
    pose = corrected(T, torch.as_tensor(delta, dtype=torch.float32))
    means = canonical.means[mine] @ pose[:3, :3].T + pose[:3, 3]
    return project(avatar.camera.K, means)


@pytest.mark.parametrize("error", ERRORS)
def test_head_is_found_to_a_tenth_of_a_pixel(
    avatar: Avatar, driving: Driving, error: tuple[float, ...]
) -> None:
    seen = picture(avatar, driving, error, STILL)
    aligner = PoseAligner(avatar, static=True, config=AlignConfig(steps=8, caution=0.0))
    delta = aligner(seen, avatar.plate.numpy(), driving)
    true, tracked = (place(avatar, driving.T_cam_head, d, rig=True) for d in (error, STILL))
    found = place(avatar, driving.T_cam_head, delta[0], rig=True)
    assert (tracked - true).norm(dim=1).mean() > 0.25
    assert (found - true).norm(dim=1).mean() < 0.1


def test_torso_is_found_apart_from_the_head(avatar: Avatar, driving: Driving) -> None:
    error = (0.0, 0.0, 0.02, 0.06, 0.03, 0.0)
    seen = picture(avatar, driving, STILL, error)
    delta = PoseAligner(avatar, static=True, config=AlignConfig(steps=8, caution=0.0))(
        seen, avatar.plate.numpy(), driving
    )
    true = place(avatar, driving.T_cam_torso, error, rig=False)
    found = place(avatar, driving.T_cam_torso, delta[1], rig=False)
    head, still = (place(avatar, driving.T_cam_head, d, rig=True) for d in (delta[0], STILL))
    assert (found - true).norm(dim=1).mean() < 0.25
    assert (head - still).norm(dim=1).mean() < 0.1


def test_what_lies_right_stays(avatar: Avatar, driving: Driving) -> None:
    delta = PoseAligner(avatar, static=True)(
        picture(avatar, driving, STILL, STILL), avatar.plate.numpy(), driving
    )
    assert np.abs(delta).max() < 2e-3


def test_a_picture_of_something_else_moves_it_little(avatar: Avatar, driving: Driving) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    delta = PoseAligner(avatar, static=True)(noise, avatar.plate.numpy(), driving)
    assert np.isfinite(delta).all()
    assert np.abs(delta).max() < 0.5


def result(events: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def test_a_track_keeps_what_was_not_tracked(dataset: TalkingHeadDataset, avatar: Avatar) -> None:
    valid = dataset.valid[:6].copy()
    valid[2] = False
    track = replace(dataset.track[:6], valid=valid)
    signals = torch.zeros(3, avatar.config.motion.dim)
    events, aligned = result(aligned_track(avatar, dataset.frames[:6], track, signals))
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(1, 7))
    assert np.array_equal(aligned.T_cam_head[2], track.T_cam_head[2])
    assert np.array_equal(aligned.T_cam_torso[2], track.T_cam_torso[2])
    assert not np.array_equal(aligned.T_cam_head[3], track.T_cam_head[3])
    assert np.array_equal(aligned.expression, track.expression)


def test_frames_of_another_size_are_scaled(dataset: TalkingHeadDataset, avatar: Avatar) -> None:
    large = np.repeat(np.repeat(np.asarray(dataset.frames[:2]), 2, 1), 2, 2)
    signals = torch.zeros(2, avatar.config.motion.dim)
    _, same = result(aligned_track(avatar, dataset.frames[:2], dataset.track[:2], signals))
    _, scaled = result(aligned_track(avatar, large, dataset.track[:2], signals))
    assert np.abs(same.T_cam_head - scaled.T_cam_head).max() < 1e-5


def test_nothing_is_written_to_the_data(dataset: TalkingHeadDataset, avatar: Avatar) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in Path(dataset.root).iterdir()}
    result(
        aligned_track(avatar, dataset.frames[:2], dataset.track[:2], torch.zeros(1, avatar.config.motion.dim))
    )
    assert {path.name: path.stat().st_mtime_ns for path in Path(dataset.root).iterdir()} == before
