"""LSE-C, LSE-D and the offset: planted shifts are found, crops are the published ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from talker.train.lip_sync import (
    MIN_FRAMES,
    LipSyncMeter,
    crop_face,
    face_boxes,
    lip_sync,
    sound_features,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def features(rng: np.random.Generator, n: int = 120) -> Tensor:
    return torch.from_numpy(rng.normal(size=(n, 1024))).float()


@pytest.mark.parametrize("late", [0, 1, -1, 7, -15, 15])
def test_a_planted_shift_is_found(rng, late: int) -> None:
    sound = features(rng)
    lips = torch.roll(sound, late, 0) + 0.1 * features(rng)
    found = lip_sync(lips, sound)
    assert found.offset == late
    far = np.sqrt(2 * 1024)
    assert found.distance == pytest.approx(3.2, abs=0.2 * far), "the noise, and what has been rolled around"
    assert found.confidence == pytest.approx(far - found.distance, abs=1.0)


def test_lips_of_another_take_have_no_confidence(rng) -> None:
    found = lip_sync(features(rng), features(rng))
    assert found.confidence < 0.05 * found.distance


def test_figures_are_their_definition(rng) -> None:
    lips, sound = features(rng, 40)[:, :8], features(rng, 37)[:, :8]
    means = []
    for shift in range(-4, 5):
        distances = []
        for i in range(37):
            heard = sound[i + shift] if 0 <= i + shift < 37 else torch.zeros(8)
            distances.append(float((lips[i] - heard).norm()))
        means.append(np.mean(distances))
    found = lip_sync(lips, sound, reach=4)
    assert found.distance == pytest.approx(min(means), rel=1e-5)
    assert found.confidence == pytest.approx(np.median(means) - min(means), rel=1e-4)
    assert found.offset == 4 - int(np.argmin(means))


class Listener:
    """Stands for SyncNet: one number is how bright the middle frame is, the other how loud the middle of the sound."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def lips(self, faces: Tensor) -> Tensor:
        self.seen.append(faces)
        return faces[:, 0, 2].mean((1, 2))[:, None] / 255

    def sound(self, rows: Tensor) -> Tensor:
        # Logarithm of the energy: 25 where it is loud, 8 where not, 16 where only the next frame is loud.
        return (rows[:, 0, 8:12].mean(1, keepdim=True) > 20).float()


def flashes(rng: np.random.Generator, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Frames [n, 64, 64, 3] that are bright where the sound [S] is loud."""
    on = rng.random(n) < 0.5
    frames = np.broadcast_to(np.where(on, 200, 20)[:, None, None, None], (n, 64, 64, 3)).astype(np.uint8)
    return frames, np.repeat(np.where(on, 0.5, 1e-4), 640).astype(np.float32) * rng.choice([-1, 1], n * 640)


def face(n: int, width: float = 20.0) -> np.ndarray:
    """Landmarks [n, 478, 3] that fill a box around (32, 28), ``width`` wide and 30 high."""
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (478, 3))
    points[0], points[1] = (-0.5, -0.5, 0), (0.5, 0.5, 0)
    return np.repeat((points * (width, 30, 1) + (32, 28, 0))[None], n, 0).astype(np.float32)


def test_the_meter_finds_late_lips_and_judges_the_truth_beside_them(rng) -> None:
    frames, sound = flashes(rng)
    network = Listener()
    meter = LipSyncMeter(network, face(60))  # type: ignore[arg-type]
    for t, truth in enumerate(frames):
        meter.add(t, truth, frames[max(t - 3, 0)])
    other = flashes(np.random.default_rng(9))[1]
    figures = meter.figures(sound, other)
    assert figures["lse_offset_frames"] == 3 and figures["lse_offset_frames_truth"] == 0
    assert figures["lse_d_truth"] < 0.25 < figures["lse_d_swapped"]
    assert figures["lse_c_truth"] > 0.25 > figures["lse_c_swapped"]
    assert figures["lse_d"] == pytest.approx(figures["lse_d_truth"], abs=0.1)
    assert "lse_c_swapped" not in meter.figures(sound)
    assert len(network.seen) == 2 * 56 and network.seen[0].shape == (1, 3, 5, 224, 224)


def test_windows_of_sound_follow_the_frames() -> None:
    class Rows(Listener):
        def sound(self, rows: Tensor) -> Tensor:
            return rows[:, 0]

    sound = np.linspace(0.01, 0.9, 50 * 640).astype(np.float32)
    found = sound_features(Rows(), sound)  # type: ignore[arg-type]
    assert found.shape == (45, 20), "a window that would end after the sound is none"
    torch.testing.assert_close(found[1, :16], found[0, 4:])  # four rows a frame
    assert MIN_FRAMES - 5 == 31, "as many windows as there are shifts"


def test_pictures_reach_the_network_blue_first() -> None:
    network = Listener()
    meter = LipSyncMeter(network, face(5))  # type: ignore[arg-type]
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 250
    for t in range(5):
        meter.add(t, red, red)
    window = network.seen[0][0, :, :, 40, 112]
    assert window[0].max() == 0 and window[1].max() == 0 and window[2].min() == 250


def test_crops_reach_beyond_the_face_by_the_published_shares(rng) -> None:
    picture = rng.integers(0, 200, (300, 300, 3)).astype(np.uint8)
    crop = crop_face(picture, np.array([150.0, 140.0, 50.0]))
    import cv2

    expected = cv2.resize(picture[90:230, 80:220], (224, 224))
    np.testing.assert_array_equal(crop, expected)
    corner = crop_face(picture, np.array([10.0, 290.0, 50.0]))
    assert (corner[:, :60] == 110).all() and (corner[120:] == 110).all(), "grey outside the picture"
    assert (corner[:90, 120:] < 200).all()


def test_boxes_are_steady_and_fill_gaps() -> None:
    landmarks = face(40)
    landmarks[20:, :, 0] += 10
    landmarks[8] += 500  # a frame in which another thing was taken for the face
    landmarks[12:15] = np.nan
    boxes = face_boxes(landmarks)
    assert boxes.shape == (40, 3)
    np.testing.assert_allclose(boxes[:13], np.tile([32, 28, 15], (13, 1)), atol=1e-4)
    np.testing.assert_allclose(boxes[30:], np.tile([42, 28, 15], (10, 1)), atol=1e-4)
    wide = face_boxes(face(3, width=44.0))
    assert wide[0, 2] == pytest.approx(22), "half of the longer side"
