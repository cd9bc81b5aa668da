"""Where somebody speaks: energy above the clip's own floor, smoothed so that lips close softly."""

from __future__ import annotations

import numpy as np

from talker.types import FPS, SAMPLE_RATE

FLOOR_DB = -60.0
"""Nothing below this level (dB of full scale) is speech, however quiet the clip."""

BELOW_SPEECH_DB = 32.0
"""Speech of one talker spans about 30 dB; what is further below its loud parts is silence."""

FADE_DB = 8.0
CLOSE_FRAMES = 2
"""Half width, in frames, of the window over which activity fades in and out."""


def speech_activity(waveform: np.ndarray, n_frames: int) -> np.ndarray:
    """Speech activity [n_frames] in 0..1 of a waveform [S] at the video rate.

    A frame's level is the RMS over 60 ms around it. Zeros (digital silence) give exactly 0.
    """
    hop, half = SAMPLE_RATE // FPS, round(0.03 * SAMPLE_RATE)
    energy = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    centre = np.arange(n_frames) * hop
    low, high = np.clip(centre - half, 0, len(waveform)), np.clip(centre + half, 0, len(waveform))
    rms = np.sqrt((energy[high] - energy[low]).clip(0) / np.maximum(high - low, 1))
    level = 20 * np.log10(np.maximum(rms, 1e-9))
    loud = np.percentile(level[level > FLOOR_DB], 90) if (level > FLOOR_DB).any() else 0.0
    threshold = max(FLOOR_DB, loud - BELOW_SPEECH_DB)
    raw = np.clip((level - threshold) / FADE_DB, 0.0, 1.0)
    # Dilate, then smooth: a stop consonant inside a word is silent for a moment, the lips are not at rest.
    padded = np.pad(raw, 2 * CLOSE_FRAMES, mode="edge")
    wide = np.max(np.lib.stride_tricks.sliding_window_view(padded, 2 * CLOSE_FRAMES + 1), axis=1)
    kernel = np.hanning(2 * CLOSE_FRAMES + 3)[1:-1]
    return np.convolve(wide, kernel / kernel.sum(), mode="valid")[:n_frames].astype(np.float32)
