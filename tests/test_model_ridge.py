"""The regression of a short clip: its two forms, its functions of time, and penalties chosen out of block."""

from __future__ import annotations

import numpy as np
import pytest

from talker.model.ridge import blocks, choose_penalties, ridge, time_bumps


def test_more_columns_than_rows_solves_the_same_problem() -> None:
    """Both forms of the normal equations agree (n <= f is the dual one)."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((30, 31)), rng.standard_normal((30, 2))
    primal = np.linalg.solve(X.T @ X + 3.0 * np.eye(31), X.T @ Y)
    assert np.allclose(ridge(X, Y, 3.0), primal)


def test_bumps_are_narrow_at_the_frame_and_cover_the_window() -> None:
    bumps = time_bumps(32, 9, 1e6)
    assert bumps.shape == (32, 9)
    assert np.allclose(np.linalg.norm(bumps, axis=0), 1)
    assert np.allclose(bumps, bumps[::-1, ::-1]), "as much of the past as of the future"
    rows = np.arange(32)
    spread = np.sqrt(
        (bumps * (rows[:, None] - (rows[:, None] * bumps).sum(0) / bumps.sum(0)) ** 2).sum(0) / bumps.sum(0)
    )
    assert spread[4] == spread.min() and spread[4] < 0.7 * spread[1]
    assert (bumps.max(1) > 0.02).all(), "no row is unheard"
    held_back = time_bumps(32, 9, 4.0)
    assert np.linalg.norm(held_back[:, 0]) < 0.05 < np.linalg.norm(held_back[:, 4])


@pytest.mark.parametrize("features", [5, 80], ids=["fewer features", "fewer frames"])
def test_penalties_are_judged_on_blocks_that_were_not_fitted(features: int) -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((60, features))
    Y = np.c_[X @ rng.standard_normal(features), rng.standard_normal(60)]
    chosen, predicted = choose_penalties(X, Y, (0.1, 1e6), folds=3)
    assert chosen.tolist() == [0.1, 1e6], "what is told needs no holding back, noise all of it"
    rest, block = np.arange(20, 60), np.arange(20)
    assert np.allclose(predicted[block, 0], X[block] @ ridge(X[rest], Y[rest, :1], 0.1)[:, 0])


def test_blocks_are_contiguous_and_cover_everything_once() -> None:
    found = list(blocks(11, 4))
    assert np.concatenate([block for block, _ in found]).tolist() == list(range(11))
    for block, rest in found:
        assert (np.diff(block) == 1).all()
        assert sorted([*block, *rest]) == list(range(11))
