"""The torso's track: it follows collar and shoulders, and not what passes before them."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from talker.dataset.pipeline import PrepareConfig
from talker.dataset.prepare import prepare
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps import mesh
from talker.dataset.steps.similarity import about_pivot
from talker.dataset.steps.torso import FLOW_NOISE, steady_maps, track_torso

CLIPS = Path(os.environ.get("TALKER_CLIPS", Path(__file__).parents[2] / "shared" / "clips"))
SELFIE = CLIPS / "selfie_en_full24s.mp4"
T, S, DEPTH = 48, 256, 8.0
K = np.array([[5.0 * S, 0, S / 2], [0, 5.0 * S, S / 2], [0, 0, 1]])


def texture() -> np.ndarray:
    """Cloth [S, S] with corners everywhere."""
    noise = np.random.default_rng(0).random((S // 4, S // 4)).astype(np.float32)
    return cv2.resize(noise, (S, S), interpolation=cv2.INTER_CUBIC) * 150 + 50


def moved_right(picture: np.ndarray, shift: float) -> np.ndarray:
    """``picture`` shifted by pixels."""
    return cv2.warpAffine(
        picture, np.array([[1, 0, shift], [0, 1, 0]]), (S, S), borderMode=cv2.BORDER_REFLECT
    )


def sway() -> np.ndarray:
    """Pixels [T] by which the torso moves to the right."""
    return 4 * np.sin(np.arange(T) / 8)


def clip() -> np.ndarray:
    """Frames [T, S, S, 3] of a swaying torso."""
    pictures = [moved_right(texture(), shift) for shift in sway()]
    return np.stack([np.repeat(np.clip(p, 0, 255)[..., None], 3, 2).astype(np.uint8) for p in pictures])


def track(frames: np.ndarray) -> np.ndarray:
    """T_cam_torso [T, 4, 4] below a head that keeps still."""
    masks = np.full((T, S, S), 255, np.uint8)
    landmarks = np.zeros((T, 478, 3), np.float32)
    landmarks[:, mesh.CHIN] = (S / 2, S * 0.4, 0)
    head = np.tile(np.eye(4), (T, 1, 1))
    head[:, 2, 3] = DEPTH
    return track_torso(frames, masks, landmarks, K, head, np.zeros(T, np.int32), 0).T_cam_torso


def test_a_swaying_torso_is_followed() -> None:
    place = track(clip())[:, :3, 3]
    pixels = K[0, 0] * place[:, 0] / place[:, 2]
    assert np.abs(pixels - sway()).max() < 0.3
    assert np.abs(place[:, 2] / DEPTH - 1).max() < 0.01


def test_what_a_few_corners_say_for_a_moment_does_not_start_the_alignment_elsewhere() -> None:
    pivot, burst = np.array([S / 2, S * 0.8]), range(22, 27)
    true = np.tile([1.0, 0.0, 0.0, 0.0], (T, 1))
    true[:, 2] = sway()
    maps, weight = true.copy(), np.full(T, 0.45)
    maps[burst, 0], weight[burst] = [1.05, 1.09, 1.14, 1.16, 1.03], 0.15
    maps[burst, 2:] += (1 - maps[burst, :1]) * pivot
    local = about_pivot(steady_maps(maps, weight, np.zeros(T, np.int32), pivot, FLOW_NOISE), pivot)
    assert np.abs(local[:, 0] - 1).max() < 0.04
    assert np.abs(local[:, 2] - sway()).max() < 0.5, "what all corners say is followed"


@pytest.mark.real
@pytest.mark.skipif(not SELFIE.is_file(), reason=f"no {SELFIE.name} in TALKER_CLIPS")
def test_the_shoulders_keep_their_distance_when_a_real_speaker_turns_and_her_hair_swings(tmp_path) -> None:
    for _ in prepare(SELFIE, tmp_path / "data", PrepareConfig(size=256)):
        pass
    depth = TalkingHeadDataset(tmp_path / "data").T_cam_torso[:, 2, 3]
    assert np.abs(depth / np.median(depth) - 1).max() < 0.1
