"""Clips for the tests of the dataset: the synthetic speaker, filmed once, and what can go wrong with a film."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from talker.dataset.sample import SampleTruth, make_sample
from talker.video.decode import decode
from talker.video.encode import write_mp4

SIZE = 256
SECONDS = 4.0


@cache
def _folder() -> tempfile.TemporaryDirectory:
    """Lives as long as the test run; removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="speaker-")


@cache
def speaker() -> tuple[Path, SampleTruth]:
    """The film and what is known about it; drawing it takes seconds, so it is done once."""
    path = Path(_folder().name) / "speaker.mp4"
    return path, make_sample(path, seconds=SECONDS, size=SIZE)


@cache
def speaker_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Frames [T, H, W, 3] and sound [S] of the film."""
    decoded = decode(speaker()[0], Path(_folder().name) / "raw")
    assert decoded.waveform is not None
    return np.array(decoded.frames), decoded.waveform


def film(path: Path, frames: np.ndarray, waveform: np.ndarray | None) -> Path:
    """Write frames [T, H, W, 3] and their sound."""
    write_mp4(path, iter(frames), waveform)
    return path


def noise(n: int) -> np.ndarray:
    """[n, 192, 256, 3]: coloured blots without any face."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (n, 12, 16, 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)
