"""The stretch of sound that belongs to a video frame; one definition for training and driving."""

from __future__ import annotations

import numpy as np

from talker.audio.features import FEATURE_RATE
from talker.types import FPS


def windows(features: np.ndarray, n_frames: int, *, fps: int = FPS, width: int = 20) -> np.ndarray:
    """Windows of ``width`` rows centred on the time t / fps of each video frame t.

    With an even width as many rows end before that time as begin after it. Rows before the first and after
    the last repeat the edge.

    Args:
        features: [T, A] at ``FEATURE_RATE``.
        n_frames: Number of video frames.
        fps: Video frames per second.
        width: Rows per window; 20 are 400 ms.

    Returns:
        [n_frames, width, A], a copy.
    """
    centre = np.round(np.arange(n_frames) * FEATURE_RATE / fps).astype(np.int64)
    rows = centre[:, None] + np.arange(width) - width // 2
    return features[np.clip(rows, 0, len(features) - 1)]
