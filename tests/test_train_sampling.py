"""Which frame next: a pure function, rare frames more often, never one that must not be seen."""

from __future__ import annotations

import numpy as np

from talker.train.sampling import FrameSampler
from talker.types import BLINK_LEFT, BLINK_RIGHT, EXPRESSION_DIM

T = 400
BLINKS, WIDE = np.arange(50, 56), np.arange(200, 240)


def sampler(seed: int = 0, frames: np.ndarray | None = None, blinking: bool = True) -> FrameSampler:
    expression, opening = np.zeros((T, EXPRESSION_DIM)), np.zeros(T)
    if blinking:
        expression[BLINKS[:, None], [BLINK_LEFT, BLINK_RIGHT]] = 0.9
    opening[WIDE] = 0.3
    return FrameSampler(np.arange(T) if frames is None else frames, expression, opening, seed)


def draws(chosen: FrameSampler, n: int = 20_000, stage: int = 0) -> np.ndarray:
    return np.array([chosen(stage, step) for step in range(n)])


def test_frame_depends_on_seed_stage_and_step_alone() -> None:
    first, second = sampler(), sampler()
    backwards = [second(1, step) for step in reversed(range(50))]
    assert [first(1, step) for step in range(50)] == backwards[::-1]
    assert [first(0, step) for step in range(50)] != backwards[::-1]
    assert [sampler(seed=1)(1, step) for step in range(50)] != backwards[::-1]


def test_rare_frames_are_drawn_about_a_sixth_of_the_time() -> None:
    drawn = draws(sampler())
    blinks, wide = np.isin(drawn, BLINKS).mean(), np.isin(drawn, WIDE).mean()
    assert 0.13 < blinks < 0.22, "1.5 % of the clip"
    assert 0.18 < wide < 0.30, "a tenth of the clip, and its share beside"
    counts = np.bincount(drawn, minlength=T)
    assert (counts > 0).all(), "every frame is seen"
    plain = np.setdiff1d(np.arange(T), np.r_[BLINKS, WIDE])
    assert counts[plain].std() / counts[plain].mean() < 0.25, "the rest are equal"


def test_only_given_frames_are_drawn() -> None:
    frames = np.r_[3:60, 230:260]
    assert set(draws(sampler(frames=frames), 3000)) <= set(frames)


def test_a_clip_without_blinks_or_movement_is_drawn_evenly() -> None:
    quiet = FrameSampler(np.arange(T), np.zeros((T, EXPRESSION_DIM)), np.zeros(T), 0)
    counts = np.bincount(draws(quiet), minlength=T)
    assert counts.min() > 20 and counts.max() < 90
    assert np.isin(draws(sampler(blinking=False)), BLINKS).mean() < 0.03
