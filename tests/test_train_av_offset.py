"""The sound of a clip that drifts against its picture is found again, from the lips alone."""

from __future__ import annotations

import numpy as np
import pytest

from talker.audio.windows import windows
from talker.model.motion import MotionConfig
from talker.train.av_offset import AvOffsetConfig, av_offset

MOTION = MotionConfig(window=16, bumps=5, penalties=(1.0, 10.0, 100.0), folds=4)
N = 900


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Sound that changes as fast as speech: noise of a few rows' width."""
    noise = np.random.default_rng(0).normal(size=(2 * N + 20, 6))
    kernel = np.hanning(9)
    return np.stack([np.convolve(column, kernel, "valid") for column in noise.T], 1).astype(np.float32)


def lips(features: np.ndarray, late: np.ndarray, noise: float = 0.5) -> np.ndarray:
    """Openings that say what the sound says ``late`` frames after each frame's own time, and something else beside."""
    said = windows(features, N, width=4, offset=late)[:, 1:3].mean(1) @ [0.6, -0.4, 0.3, 0.0, 0.0, 0.2]
    return said + noise * said.std() * np.random.default_rng(1).normal(size=N)


def test_a_jump_in_the_middle_of_the_clip_is_found(features: np.ndarray) -> None:
    late = np.where(np.arange(N) < 500, 0.6, -0.75)
    found = av_offset(features, lips(features, late), np.arange(N), MOTION)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert found[:400].mean() - found[600:].mean() == pytest.approx(1.35, abs=0.3)
    assert np.abs(np.diff(found[:400])).max() < 0.02 and np.abs(np.diff(found[600:])).max() < 0.02


def test_a_clip_without_drift_stays_as_it_is(features: np.ndarray) -> None:
    assert np.abs(av_offset(features, lips(features, np.zeros(N)), np.arange(N), MOTION)).max() < 0.1


def test_what_is_held_out_is_never_read_and_continues_what_came_before(features: np.ndarray) -> None:
    late = np.where(np.arange(N) < 500, 0.6, -0.75)
    opening, train = lips(features, late), np.arange(800)
    found = av_offset(features, opening, train, MOTION)
    opening[800:] = np.nan
    assert np.array_equal(av_offset(features, opening, train, MOTION), found)
    assert (found[800:] == found[799]).all()
    assert found[799] < -0.3


def test_untracked_frames_are_passed_over(features: np.ndarray) -> None:
    late = np.where(np.arange(N) < 500, 0.6, -0.75)
    opening = lips(features, late)
    opening[200:260] = np.nan
    train = np.r_[0:200, 260:N]
    found = av_offset(features, opening, train, MOTION)
    assert np.isfinite(found).all()
    assert found[:200].mean() - found[600:].mean() == pytest.approx(1.35, abs=0.3)


def test_lips_that_never_move_have_no_offset(features: np.ndarray) -> None:
    assert (av_offset(features, np.full(N, 0.1), np.arange(N), MOTION) == 0).all()


def test_sound_that_tells_nothing_moves_nothing_far(features: np.ndarray) -> None:
    unrelated = np.random.default_rng(2).normal(size=N)
    found = av_offset(features, unrelated, np.arange(N), MOTION, AvOffsetConfig())
    assert np.abs(found).max() < 1.0
