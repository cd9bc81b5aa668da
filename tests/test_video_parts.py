"""A part of a clip is exactly that slice of the whole, in picture and sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_support import numbers_of, tone, write_clip

from talker.errors import VideoError
from talker.video.decode import DecodeLimits, decode


def sweep(seconds: float, rate: int = 48_000) -> np.ndarray:
    """A tone that rises all the time, so that every moment sounds different."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)


@pytest.mark.parametrize(
    ("start_s", "end_s", "kept"),
    [
        (0.0, 2.0, range(50)),
        (1.0, 2.2, range(25, 55)),
        (3.0, None, range(75, 100)),
        (3.0, 99.0, range(75, 100)),
    ],
)
def test_a_part_is_exactly_that_slice_of_the_whole(
    tmp_path: Path, start_s: float, end_s: float | None, kept: range
) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=100, sound=sweep(4.0))
    whole = decode(path, tmp_path / "whole")
    part = decode(path, tmp_path / "part", start_s=start_s, end_s=end_s)
    assert numbers_of(part.frames) == list(kept)
    assert np.array_equal(part.frames, whole.frames[kept.start : kept.stop])
    assert whole.waveform is not None and part.waveform is not None
    sound = whole.waveform[kept.start * 640 : kept.stop * 640]
    assert len(part.waveform) == len(sound)
    # The resampler ends a hair earlier where reading stopped.
    assert np.abs(part.waveform[:-640] - sound[:-640]).max() < 1e-5
    assert part.info.duration_s == pytest.approx(len(kept) / 25)


def test_sound_written_before_the_picture_is_trimmed_alike(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mp4", times=[1.0 + k / 25 for k in range(75)], sound=sweep(4.0))
    whole, part = decode(path, tmp_path / "whole"), decode(path, tmp_path / "part", start_s=1.0, end_s=2.0)
    assert numbers_of(part.frames) == numbers_of(whole.frames)[25:50]
    assert whole.waveform is not None and part.waveform is not None
    assert np.abs(part.waveform[:-640] - whole.waveform[16_000:31_360]).max() < 1e-5


def test_a_part_of_a_clip_that_is_too_long_as_a_whole(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "film.mp4", n=150, sound=tone(6.0, 48_000))
    limits = DecodeLimits(max_seconds=3.0)
    with pytest.raises(VideoError) as caught:
        decode(path, tmp_path / "out", limits=limits)
    assert caught.value.code == "video.too_long"
    assert numbers_of(decode(path, tmp_path / "out", limits=limits, start_s=3.5).frames) == list(
        range(88, 150)
    )
    with pytest.raises(VideoError) as caught:
        decode(path, tmp_path / "out", limits=limits, start_s=1.0)
    assert caught.value.code == "video.too_long"


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(-1.0, None), (2.0, 2.0), (3.0, 1.0), (float("nan"), None), (9.0, None)]
)
def test_a_part_that_is_none_is_refused(tmp_path: Path, start_s: float, end_s: float | None) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=50)
    with pytest.raises(VideoError) as caught:
        decode(path, tmp_path / "out", start_s=start_s, end_s=end_s)
    assert caught.value.code == "video.part"
    assert not list((tmp_path / "out").glob("*"))
