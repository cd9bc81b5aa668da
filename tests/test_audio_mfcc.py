"""MFCC against their definition, written out sum by sum."""

from __future__ import annotations

import numpy as np
import pytest

from talker.audio.mfcc import mfcc


@pytest.fixture
def sound() -> np.ndarray:
    """A tenth of a second of a falling tone in noise, on steps of 16 bits."""
    t = np.arange(1600) / 16_000
    wave = 0.4 * np.sin(2 * np.pi * (900 - 2000 * t) * t) + 0.05 * np.random.default_rng(0).normal(size=1600)
    return (np.round(wave * 32768) / 32768).astype(np.float32)


def by_definition(waveform: np.ndarray) -> np.ndarray:
    """Nothing vectorised, nothing shared with the library."""
    x = [float(v) * 32768 for v in waveform]
    x = [x[0]] + [x[k] - 0.97 * x[k - 1] for k in range(1, len(x))]
    n_rows = 1 + max(0, int(np.ceil((len(x) - 400) / 160)))
    x += [0.0] * ((n_rows - 1) * 160 + 400 - len(x))
    corners = []
    for k in range(28):
        mel = k / 27 * 2595 * np.log10(1 + 8000 / 700)
        corners.append(int(513 * 700 * (10 ** (mel / 2595) - 1) / 16_000))
    rows = []
    for row in range(n_rows):
        part = np.array(x[row * 160 : row * 160 + 400])
        turn = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
        power = np.abs(turn @ part) ** 2 / 512
        logs = []
        for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
            up = sum(power[b] * (b - low) / (middle - low) for b in range(low, middle))
            down = sum(power[b] * (high - b) / (high - middle) for b in range(middle, high))
            logs.append(np.log(up + down))
        rows.append([np.log(power.sum())])
        for c in range(1, 13):
            angle = np.pi * c * (2 * np.arange(26) + 1) / 52
            value = np.sqrt(2 / 26) * float(np.sum(np.array(logs) * np.cos(angle)))
            rows[-1].append(value * (1 + 11 * np.sin(np.pi * c / 22)))
    return np.array(rows)


def test_it_is_its_definition(sound: np.ndarray) -> None:
    found = mfcc(sound)
    assert found.shape == (9, 13) and found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(sound), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("samples", "rows"), [(1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (640, 3)])
def test_rows_cover_the_sound(samples: int, rows: int) -> None:
    assert mfcc(np.full(samples, 0.1, np.float32)).shape == (rows, 13)


def test_louder_sound_changes_the_energy_alone(sound: np.ndarray) -> None:
    quiet, loud = mfcc(sound / 2), mfcc(sound)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 2 * np.log(2), atol=1e-3)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=0.05)


def test_silence_is_finite() -> None:
    assert np.isfinite(mfcc(np.zeros(3200, np.float32))).all()
