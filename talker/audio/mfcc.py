"""Mel-frequency cepstral coefficients as SyncNet was trained on: the common settings of speech recognition.

Every choice matters to a trained network: samples count in steps of 16 bits, there is no analysis window, the
corners of the mel filters lie on whole bins of the spectrum, the first coefficient is the logarithm of the energy.
"""

from __future__ import annotations

import numpy as np

from talker.types import SAMPLE_RATE

MFCC_RATE = 100
"""Rows a second."""
N_COEFFICIENTS = 13

_WINDOW, _HOP, _FFT = SAMPLE_RATE // 40, SAMPLE_RATE // MFCC_RATE, 512
_N_BANDS = 26
_EMPHASIS = 0.97
_LIFTER = 22
_TINY = np.finfo(np.float64).eps
"""Stands for an energy of zero, which has no logarithm."""


def mfcc(waveform: np.ndarray) -> np.ndarray:
    """Coefficients [T, 13] float32 of [S] float32 samples at ``SAMPLE_RATE``, S > 0.

    Row k covers the 25 ms from k/100 s on; T = 1 + ceil((S - 400) / 160), the last row padded with silence.
    """
    from scipy.fft import dct

    power = _power(_frames(waveform))
    energy = np.maximum(power.sum(1), _TINY)
    bands = np.maximum(power @ _filters(), _TINY)
    cepstrum = np.asarray(dct(np.log(bands), type=2, axis=1, norm="ortho"))[:, :N_COEFFICIENTS]
    cepstrum *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(N_COEFFICIENTS) / _LIFTER)
    cepstrum[:, 0] = np.log(energy)
    return cepstrum.astype(np.float32)


def _frames(waveform: np.ndarray) -> np.ndarray:
    """Overlapping stretches [T, 400] of the emphasised sound, in steps of 16 bits."""
    steps = np.clip(np.round(waveform.astype(np.float64) * 32768), -32768, 32767)
    emphasised = np.append(steps[:1], steps[1:] - _EMPHASIS * steps[:-1])
    rows = 1 + max(0, -(-(len(steps) - _WINDOW) // _HOP))
    padded = np.pad(emphasised, (0, (rows - 1) * _HOP + _WINDOW - len(steps)))
    return np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]


def _power(frames: np.ndarray) -> np.ndarray:
    """Power spectrum [T, 257]."""
    spectrum = np.fft.rfft(frames, _FFT)
    return (spectrum.real**2 + spectrum.imag**2) / _FFT


def _filters() -> np.ndarray:
    """Triangles [257, 26] from 0 Hz to half the sample rate, evenly spaced on the scale 2595 log10(1 + f / 700)."""
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), _N_BANDS + 2)
    corners = np.floor((_FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
    bins = np.arange(_FFT // 2 + 1)[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None)
