"""Steady poses: trembling goes, motion stays, cuts stay cuts."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from talker.dataset.steps.smoothing import steady_poses
from talker.types import FPS

T = 100


def poses(turn: np.ndarray, place: np.ndarray) -> np.ndarray:
    """[T, 4, 4] that turn about y by ``turn`` [T] and stand at ``place`` [T] along x, far from the identity."""
    out = np.tile(np.eye(4), (len(turn), 1, 1))
    base = Rotation.from_euler("xyz", [0.1, 0.4, 3.0])
    out[:, :3, :3] = (base * Rotation.from_rotvec(np.outer(turn, [0, 1, 0]))).as_matrix()
    out[:, :3, 3] = np.array([0.3, 0.1, 9.0]) + np.outer(place, [1, 0, 0])
    return out


def angles(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    return (Rotation.from_matrix(true[:, :3, :3]).inv() * Rotation.from_matrix(made[:, :3, :3])).magnitude()


def test_slow_motion_is_kept_and_trembling_is_not() -> None:
    time = np.arange(T) / FPS
    slow = 0.2 * np.sin(2 * np.pi * time)
    shake = 0.01 * (-1.0) ** np.arange(T)
    segment = np.zeros(T, int)
    calm, shaken = poses(slow, slow), poses(slow + shake, slow + shake)
    inner = slice(4, -4)
    assert angles(steady_poses(calm, segment), calm)[inner].max() < 0.002
    left = steady_poses(shaken, segment)
    assert np.abs(left[inner, 0, 3] - calm[inner, 0, 3]).max() < 0.004
    assert angles(left, calm)[inner].max() < 0.004
    assert np.allclose(left[:, :3, :3] @ left[:, :3, :3].transpose(0, 2, 1), np.eye(3), atol=1e-9)


def test_nothing_is_smoothed_over_a_cut() -> None:
    step = np.where(np.arange(T) < 40, 0.0, 1.0)
    segment = (np.arange(T) >= 40).astype(int)
    cut = poses(step, step)
    assert np.allclose(steady_poses(cut, segment), cut, atol=1e-6)
    assert not np.allclose(steady_poses(cut, np.zeros(T, int)), cut, atol=1e-2), (
        "it was the cut that was kept"
    )
