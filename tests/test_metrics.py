from __future__ import annotations

import numpy as np
import pytest

from talker import metrics
from talker.ssim import ssim_map


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def face(rng: np.random.Generator, n: int = 60) -> np.ndarray:
    """A still face of [n, 478, 3] pixels with the eye corners 100 apart."""
    points = rng.uniform(150, 350, (478, 3))
    points[33, :2], points[263, :2] = (200, 200), (300, 200)
    points[13, :2], points[14, :2] = (250, 300), (250, 300)
    for eye in metrics.LIDS:
        for upper, lower in eye:
            points[lower, :2] = points[upper, :2] + (0, 10)
    return np.repeat(points[None], n, 0)


def test_psnr_of_a_known_error() -> None:
    truth = np.full((8, 8, 3), 0.5)
    assert metrics.psnr(truth + 0.1, truth) == pytest.approx(20.0)
    assert metrics.psnr(truth, truth) == 100.0
    a, b = np.full((8, 8, 3), 100, np.uint8), np.full((8, 8, 3), 90, np.uint8)
    assert metrics.psnr(a, b) == pytest.approx(20 * np.log10(25.5))
    assert metrics.psnr(b, a) == metrics.psnr(a, b)  # no wrap-around of bytes


def test_ssim_uses_the_standard_settings(rng) -> None:
    truth = rng.uniform(0, 255, (32, 40, 3)).astype(np.uint8)
    noisy = np.clip(truth + rng.normal(0, 25, truth.shape), 0, 255).astype(np.uint8)
    assert metrics.ssim(truth, truth) == pytest.approx(1.0)
    value = metrics.ssim(noisy, truth)
    assert 0.5 < value < 0.99
    import torch

    inner = ssim_map(torch.tensor(noisy / 255), torch.tensor(truth / 255))[5:-5, 5:-5]
    assert value == pytest.approx(float(inner.mean()), abs=1e-6)


def test_lpips_is_none_without_weights(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert metrics.lpips(np.zeros((64, 64, 3)), np.ones((64, 64, 3))) is None


def test_lmd_ignores_position_and_counts_pixels_at_512(rng) -> None:
    truth = face(rng, 4)
    assert len(metrics.MOUTH_68) == 20 == len(set(metrics.MOUTH_68.tolist()))
    assert metrics.lmd(truth + np.array([7.0, -3.0, 99.0]), truth, 256) == pytest.approx(0.0, abs=1e-9)
    moved = truth.copy()
    moved[:, metrics.MOUTH_68[:10], 0] += 3.0  # half of the points: after centring all are off by 1.5
    assert metrics.lmd(moved, truth, 256) == pytest.approx(3.0)
    assert metrics.lmd(moved, truth, 512) == pytest.approx(1.5)
    moved[1] = np.nan  # a frame without a face is left out
    assert metrics.lmd(moved, truth, 512) == pytest.approx(1.5)


def test_mouth_opening_is_the_gap_in_eye_distances(rng) -> None:
    landmarks = face(rng, 3)
    landmarks[:, 14, 1] += [0.0, 10.0, 25.0]
    landmarks[:, 14, 2] += 500  # depth does not count
    np.testing.assert_allclose(metrics.mouth_opening(landmarks), [0.0, 0.1, 0.25])
    np.testing.assert_allclose(metrics.mouth_opening(3 * landmarks), [0.0, 0.1, 0.25])


def test_correlation_finds_the_delay(rng) -> None:
    truth = rng.normal(size=200)
    late = np.roll(truth, 2)
    found = metrics.correlation_with_lag(late, truth)
    assert found.lag == 2 and found.r > 0.99 and abs(found.r0) < 0.3
    assert metrics.correlation_with_lag(np.roll(truth, -3), truth).lag == -3
    same = metrics.correlation_with_lag(5 * truth + 2, truth)
    assert same.lag == 0 and same.r == pytest.approx(1.0) == pytest.approx(same.r0)
    inverted = metrics.correlation_with_lag(-truth, truth)
    assert inverted.r0 == pytest.approx(-1.0)


def test_correlation_leaves_out_missing_frames_and_still_signals(rng) -> None:
    truth = rng.normal(size=100)
    broken = truth.copy()
    broken[10:20] = np.nan
    assert metrics.correlation_with_lag(broken, truth).r0 == pytest.approx(1.0)
    assert metrics.correlation_with_lag(np.ones(100), truth) == (0.0, 0, 0.0)
    assert metrics.correlation_with_lag(np.full(100, np.nan), truth) == (0.0, 0, 0.0)


def test_variation_ratio(rng) -> None:
    truth = rng.normal(size=100)
    assert metrics.variation_ratio(0.4 * truth + 3, truth) == pytest.approx(0.4)
    part = np.where(np.arange(100) < 50, truth, np.nan)
    assert metrics.variation_ratio(part, truth) == pytest.approx(1.0)


def eyes(n: int, blinks: list[int], depth: float, opened: float = 0.1, late: int = 0) -> np.ndarray:
    signal = np.full(n, opened) + 0.002 * np.sin(np.arange(n))
    for at in blinks:
        signal[at + late : at + late + 4] *= 1 - depth
    return signal


def test_blink_recall_counts_blinks_that_are_performed() -> None:
    truth = eyes(300, [40, 120, 200, 270], 0.65)
    assert metrics.blink_recall(truth, truth) == (1.0, 4)
    # Half as deep, on wider eyes, two frames late: still blinks. Two of them missing: half.
    assert metrics.blink_recall(eyes(300, [40, 120, 200, 270], 0.4, 0.14, late=2), truth) == (1.0, 4)
    assert metrics.blink_recall(eyes(300, [40, 200], 0.65), truth) == (0.5, 4)
    assert metrics.blink_recall(eyes(300, [40, 120, 200, 270], 0.2), truth) == (0.0, 4)
    assert metrics.blink_recall(eyes(300, [80], 0.65), truth) == (0.0, 4)
    recall, n = metrics.blink_recall(truth, eyes(300, [], 0.6))
    assert np.isnan(recall) and n == 0
    lost = truth.copy()
    lost[100:150] = np.nan  # no face found in a rendered frame is no blink
    assert metrics.blink_recall(lost, truth) == (0.75, 4)


def test_eye_opening_follows_the_lids(rng) -> None:
    landmarks = face(rng, 2)
    for eye in metrics.LIDS:
        for upper, lower in eye:
            landmarks[1, lower, :2] = landmarks[1, upper, :2] + (0, 3)
    np.testing.assert_allclose(metrics.eye_opening(landmarks), [0.1, 0.03])


def test_jitter_sees_trembling_and_not_a_turning_head(rng) -> None:
    still = face(rng, 80)
    assert metrics.jitter(still, 256) == pytest.approx(0.0, abs=1e-9)
    t = np.arange(80)
    angle, zoom = 0.3 * np.sin(t / 3), 1 + 0.1 * np.sin(t / 5)
    turn = np.stack(
        [np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2
    )
    moving = still.copy()
    centred = still[..., :2] - 250
    moving[..., :2] = np.einsum("tij,tpj->tpi", turn * zoom[:, None, None], centred) + 260 + t[:, None, None]
    assert metrics.jitter(moving, 256) < 1e-6
    assert metrics.jitter(moving, 256, head_motion=True) > 1
    noise = rng.normal(0, 0.5, still.shape)
    # White noise of deviation s has second differences of variance 6 s^2 per axis; doubled from 256 to 512.
    expected = 0.5 * np.sqrt(6 * 2) * 2
    assert metrics.jitter(still + noise, 256, head_motion=True) == pytest.approx(expected, rel=0.1)
    assert metrics.jitter(moving + noise, 256) == pytest.approx(expected, rel=0.15)


def test_pixel_jitter_is_blind_to_slow_change(rng) -> None:
    ramp = np.linspace(0, 1, 30)[:, None, None, None] * np.ones((1, 6, 6, 3))
    assert metrics.pixel_jitter(ramp) == pytest.approx(0, abs=1e-9)
    flicker = (100 + 4 * (np.arange(30) % 2)).astype(np.uint8)[:, None, None, None] * np.ones(
        (1, 6, 6, 3), np.uint8
    )
    assert metrics.pixel_jitter(flicker) == pytest.approx(8.0)


def test_jitter_of_frames_adds_up_to_that_of_the_take(rng) -> None:
    landmarks = face(rng, 30) + rng.normal(0, 0.5, (30, 478, 3))
    frames = metrics.frame_jitter(landmarks, 256)
    assert len(frames) == 30 and np.isnan(frames[[0, -1]]).all() and np.isfinite(frames[1:-1]).all()
    assert np.sqrt(np.mean(frames[1:-1] ** 2)) == pytest.approx(metrics.jitter(landmarks, 256))
    landmarks[10] = np.nan  # a frame without a face leaves its neighbours without a figure
    missing = np.isnan(metrics.frame_jitter(landmarks, 256))
    assert np.flatnonzero(missing).tolist() == [0, 9, 10, 11, 29]
    assert np.isnan(metrics.frame_jitter(landmarks[:1], 256)).all()


def test_jitter_of_frames_shows_where(rng) -> None:
    landmarks = face(rng, 30)
    landmarks[12, metrics.RIGID[:5], 1] += 4.0
    frames = metrics.frame_jitter(landmarks, 512)
    assert np.nanargmax(frames) == 12 and frames[12] > 10 * np.nanmax(frames[:10])
