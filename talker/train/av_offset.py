"""Where the sound of a clip drifts against its picture, and back: frames were dropped and doubled on its way here.

A player that falls half a frame behind and catches up again is seen by nobody, but lips that were filmed half a frame
late teach a map from sound to lips that is wrong everywhere else, and held-out lips are late by as much as the end of
the clip. The offset is found as SyncNet finds it, by moving the sound until it agrees best with the lips; what judges
the agreement is a regression that has never heard that part of the clip.

Source: our own. SyncNet (Chung and Zisserman 2016) finds one offset for a clip, with a network trained for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talker.audio.features import FEATURE_RATE
from talker.model.motion import MotionConfig
from talker.model.ridge import blocks, choose_penalties, ridge, time_bumps
from talker.types import FPS


@dataclass(frozen=True)
class AvOffsetConfig:
    """How closely the offset follows what it is found from.

    Attributes:
        most: Frames it is searched to either side.
        step: Of the search, in frames.
        knot_s: Seconds between the moments it is found for; in between it goes in a line.
        reach_s: Seconds around a moment that are heard for it, as a standard deviation.
        stiffness: Evidence, in frames, that a change by one frame from one moment to the next has to have.
        caution: Evidence, in frames, that an offset of one frame has to have.
        rounds: The regression is fitted anew to the sound that was moved.
    """

    most: float = 3.0
    step: float = 0.25
    knot_s: float = 2.0
    reach_s: float = 3.0
    stiffness: float = 8.0
    caution: float = 1.0
    rounds: int = 3


def av_offset(
    features: np.ndarray,
    opening: np.ndarray,
    train: np.ndarray,
    motion: MotionConfig,
    config: AvOffsetConfig | None = None,
) -> np.ndarray:
    """How many frames later than its own time each frame's sound is, against the mean of the clip.

    Args:
        features: [R, A] sound features of the clip at ``FEATURE_RATE``.
        opening: [T] of the mouth; only training frames are read.
        train: Numbers of the training frames.
        motion: How sound is heard.
        config: How closely the offset follows.

    Returns:
        [T] frames; after the last training frame it stays what it was there. Zeros where no lips move.
    """
    config = config or AvOffsetConfig()
    offset = np.zeros(len(opening))
    lips = opening[train].astype(np.float64) - opening[train].mean()
    if lips.std() < _STILL:
        return offset
    lips /= lips.std()
    heard = _Heard.of(features, motion)
    shifts = np.arange(-config.most, config.most + config.step / 2, config.step)
    knots = np.arange(train[0], train[-1] + config.knot_s * FPS, config.knot_s * FPS)
    few = _few(len(train))
    X = heard.at(train[few])
    penalty = choose_penalties(X - X.mean(0), lips[few, None], motion.penalties, motion.folds)[0][0]
    for _ in range(config.rounds):
        predicted = _predicted(heard, lips, train, offset[train], shifts, penalty, motion.folds)
        evidence = _disagreement(predicted, lips, train, knots, config) + config.caution * shifts**2
        path = shifts[_smoothest(evidence, config.stiffness * (shifts[:, None] - shifts) ** 2)]
        offset = np.interp(np.minimum(np.arange(len(opening)), train[-1]), knots, path)
        offset -= offset[train].mean()
    return offset


_STILL = 1e-6
_CHUNK = 1000
_FITTED = 2500
"""Frames a regression is fitted to at most, spread over the clip: neighbours are alike, and it costs their square."""


def _few(n: int) -> slice:
    return slice(None, None, -(-n // _FITTED))


@dataclass(frozen=True)
class _Heard:
    """What a regression hears around every row of sound [R, F]."""

    rows: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, motion: MotionConfig) -> _Heard:
        bumps = time_bumps(motion.window, motion.bumps, motion.taper).astype(np.float32)
        around = np.pad(
            features, ((motion.window // 2, motion.window - motion.window // 2 - 1), (0, 0)), mode="edge"
        )
        view = np.lib.stride_tricks.sliding_window_view(around, motion.window, axis=0)  # [R, A, W]
        parts = [np.einsum("taw,wb->tba", view[i : i + _CHUNK], bumps) for i in range(0, len(view), _CHUNK)]
        return cls(np.concatenate(parts).reshape(len(features), -1))

    def at(self, frames: np.ndarray) -> np.ndarray:
        """What is heard [T, F] at times [T] in frames, between two rows a mixture of both."""
        rows = np.clip(frames * FEATURE_RATE / FPS, 0, len(self.rows) - 1)
        before = np.floor(rows).astype(np.int64)
        share = (rows - before)[:, None]
        after = np.minimum(before + 1, len(self.rows) - 1)
        return self.rows[before] * (1 - share) + self.rows[after] * share


def _predicted(
    heard: _Heard,
    lips: np.ndarray,
    train: np.ndarray,
    offset: np.ndarray,
    shifts: np.ndarray,
    penalty: float,
    folds: int,
) -> np.ndarray:
    """Openings [S, T], each row standardised, that sound moved by each of ``shifts`` [S] predicts, out of block."""
    X = heard.at(train + offset)
    X -= X.mean(0)
    predicted = np.empty((len(shifts), len(train)))
    for block, rest in blocks(len(train), folds):
        few = rest[_few(len(rest))]
        # Of every row of sound once: between rows the prediction is as linear as what is heard.
        of_rows = heard.rows @ ridge(X[few], lips[few], penalty).astype(np.float32)
        moments = (train[block] + shifts[:, None]) * FEATURE_RATE / FPS
        predicted[:, block] = np.interp(moments, np.arange(len(of_rows)), of_rows)
    predicted -= predicted.mean(1, keepdims=True)
    return predicted / np.maximum(predicted.std(1, keepdims=True), _STILL)


def _disagreement(
    predicted: np.ndarray, lips: np.ndarray, train: np.ndarray, knots: np.ndarray, config: AvOffsetConfig
) -> np.ndarray:
    """Squared errors [K, S] of the frames around each of ``knots`` [K], each frame counted about once in all."""
    reach = config.reach_s * FPS
    near = np.exp(-0.5 * ((train - knots[:, None]) / reach) ** 2)
    near *= config.knot_s * FPS / (np.sqrt(2 * np.pi) * reach)
    return near @ ((predicted - lips) ** 2).T


def _smoothest(cost: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The cheapest path [K] through costs [K, S] whose changes cost ``change`` [S, S] (Viterbi)."""
    total, came_from = cost[0], []
    for here in cost[1:]:
        ways = total[:, None] + change
        came_from.append(ways.argmin(0))
        total = ways.min(0) + here
    path = [int(total.argmin())]
    for previous in reversed(came_from):
        path.append(int(previous[path[-1]]))
    return np.array(path[::-1])
