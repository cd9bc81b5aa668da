"""The stretch of sound that belongs to a video frame; one definition for training and driving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from talker.audio.features import FEATURE_RATE
from talker.types import FPS


def windows(
    features: np.ndarray, n_frames: int, *, fps: int = FPS, width: int = 20, offset: np.ndarray | None = None
) -> np.ndarray:
    """Windows of ``width`` rows centred on the time t / fps of each video frame t.

    With an even width as many rows end before that time as begin after it. Rows before the first and after
    the last repeat the edge.

    Args:
        features: [T, A] at ``FEATURE_RATE``.
        n_frames: Number of video frames.
        fps: Video frames per second.
        width: Rows per window; 20 are 400 ms.
        offset: [n_frames] how many frames later than its own time each frame's sound is taken; rows between two are
            interpolated.

    Returns:
        [n_frames, width, A], a copy.
    """
    rows = _rows_of(n_frames, fps, width)
    last = len(features) - 1
    if offset is None:
        return features[np.clip(rows, 0, last)]
    later = offset * FEATURE_RATE / fps
    whole = np.floor(later).astype(np.int64)
    share = (later - whole).astype(np.float32)[:, None, None]
    rows = rows + whole[:, None]
    found = features[np.clip(rows, 0, last)] * (1 - share)
    found += features[np.clip(rows + 1, 0, last)] * share
    return found


def window_blocks(
    parts: Iterable[np.ndarray], n_frames: int, *, fps: int = FPS, width: int = 20
) -> Iterator[np.ndarray]:
    """``windows`` of features that come in parts [P, A]: blocks [B, width, A] of frames, each as soon as it can be.

    Raises:
        ValueError: There are no parts.
    """
    rows = _rows_of(n_frames, fps, width)
    held, first, done = None, 0, 0  # rows kept, number of the first of them, frames given out
    for part in parts:
        held = part if held is None else np.concatenate([held, part])
        ready = int(np.searchsorted(rows[:, -1], first + len(held)))
        if ready > done:
            yield held[np.maximum(rows[done:ready], 0) - first]
            done = ready
        if done < n_frames:  # what no later frame needs goes; something stays for the end to repeat
            passed = int(np.clip(rows[done, 0] - first, 0, len(held) - 1))
            held, first = held[passed:], first + passed
    if held is None:
        raise ValueError("no parts")
    if done < n_frames:
        yield held[np.clip(rows[done:], 0, first + len(held) - 1) - first]


def _rows_of(n_frames: int, fps: int, width: int) -> np.ndarray:
    """Numbers [n_frames, width] of each frame's rows, some before the first or after the last there is."""
    centre = np.round(np.arange(n_frames) * FEATURE_RATE / fps).astype(np.int64)
    return centre[:, None] + np.arange(width) - width // 2
