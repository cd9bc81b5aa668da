"""What is written plays: right frames, colours, sound in step, index in front, nothing left after a failure."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from media_support import numbered, numbers_of, tone

from talker.video.decode import decode
from talker.video.edit import paste_over, replace_sound, side_by_side
from talker.video.encode import Mp4Writer, encode_chunk, write_mp4


def frames(n: int, width: int = 128, height: int = 96) -> Iterator[np.ndarray]:
    return (numbered(k, width, height) for k in range(n))


def click(at_s: float, seconds: float) -> np.ndarray:
    sound = np.zeros(round(seconds * 16_000), np.float32)
    sound[round(at_s * 16_000) :][:160] = tone(0.01, hertz=2000)
    return sound


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    assert write_mp4(path, frames(60), tone(2.4)) == 60
    clip = decode(path, tmp_path / "out")
    assert numbers_of(clip.frames) == list(range(60))
    np.testing.assert_allclose(clip.frames[30, 80, 30], (200, 30, 30), atol=5)
    np.testing.assert_allclose(clip.frames[30, 80, 100], (30, 30, 200), atol=5)
    assert clip.waveform is not None
    error = clip.waveform[1600:-1600] - tone(2.4)[1600:-1600]
    assert np.sqrt((error**2).mean()) < 0.02


def test_the_file_is_what_players_want(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, frames(110), tone(4.4), metadata={"title": "t", "comment": "made by a test"})
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.profile) == ("h264", "High")
        assert video.codec_context.pix_fmt == "yuv420p"
        assert (video.average_rate, video.frames) == (25, 110)
        assert (audio.codec_context.name, audio.codec_context.sample_rate) == ("aac", 48_000)
        assert container.metadata["comment"] == "made by a test"
        keys = [
            float(p.pts * p.time_base) for p in container.demux(video) if p.is_keyframe and p.pts is not None
        ]
    assert max(np.diff([*keys, 4.4])) <= 2.0


def test_sound_stays_in_step_over_minutes(tmp_path: Path) -> None:
    sound = click(0.5, 120) + click(119.0, 120)
    write_mp4(tmp_path / "a.mp4", (numbered(0, 32, 32) for _ in range(3000)), sound)
    clip = decode(tmp_path / "a.mp4", tmp_path / "out")
    assert len(clip.frames) == 3000
    assert clip.waveform is not None
    for at_s in (0.5, 119.0):
        around = clip.waveform[round((at_s - 0.2) * 16_000) :][:6400]
        assert np.abs(around).argmax() / 16_000 - 0.2 == pytest.approx(0.005, abs=0.012)


def test_silent_video_and_odd_size(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", frames(5, 129, 95))
    clip = decode(tmp_path / "a.mp4", tmp_path / "out")
    assert clip.frames.shape == (5, 96, 130, 3)
    assert clip.waveform is None


def test_short_sound_is_padded_and_long_sound_is_cut(tmp_path: Path) -> None:
    for name, seconds in (("short", 0.3), ("long", 5.0)):
        write_mp4(tmp_path / f"{name}.mp4", frames(25), tone(seconds))
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            stream = container.streams.audio[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(1.0, abs=0.06)


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def broken() -> Iterator[np.ndarray]:
        yield from frames(5)
        raise RuntimeError("renderer")

    with pytest.raises(RuntimeError, match="renderer"):
        write_mp4(path, broken(), tone(1.0))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_frames_of_another_size_are_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), Mp4Writer(tmp_path / "a.mp4", 64, 64, sample_rate=None) as writer:
        writer.write(np.zeros((32, 64, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_python_keeps_no_frames(tmp_path: Path) -> None:
    """Bounded memory: after hundreds of frames no more of them are alive than after a few."""
    with Mp4Writer(tmp_path / "a.mp4", 256, 256) as writer:
        held = []
        tracemalloc.start()
        for k in range(200):
            writer.write(numbered(k, 256, 256))
            writer.write_audio(np.zeros(640, np.float32))
            if k in (20, 199):
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[1] - held[0] < 2 * 256 * 256 * 3


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_a_chunk_plays_on_its_own(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"chunk{suffix}"
    encode_chunk(list(frames(25)), tone(1.0), path)
    clip = decode(path, tmp_path / "out")
    assert numbers_of(clip.frames) == list(range(25))
    assert clip.waveform is not None


@pytest.fixture
def two_videos(tmp_path: Path) -> tuple[Path, Path]:
    write_mp4(tmp_path / "big.mp4", (np.full((96, 128, 3), 40, np.uint8) for _ in range(30)), tone(1.2))
    write_mp4(tmp_path / "small.mp4", frames(25, 64, 48), click(0.5, 1.0))
    return tmp_path / "big.mp4", tmp_path / "small.mp4"


def test_pasting_one_video_into_another(tmp_path: Path, two_videos: tuple[Path, Path]) -> None:
    big, small = two_videos
    paste_over(big, small, tmp_path / "over.mp4", left=32, top=16)
    clip = decode(tmp_path / "over.mp4", tmp_path / "out")
    assert clip.frames.shape == (25, 96, 128, 3)
    assert numbers_of(clip.frames[:, 16:64, 32:96]) == list(range(25))
    np.testing.assert_allclose(clip.frames[10, :10].mean(axis=(0, 1)), 40, atol=4)
    assert clip.waveform is not None
    assert np.abs(clip.waveform).argmax() / 16_000 == pytest.approx(0.505, abs=0.03)


def test_replacing_the_sound(tmp_path: Path, two_videos: tuple[Path, Path]) -> None:
    replace_sound(two_videos[1], click(0.25, 0.6), tmp_path / "new.mp4")
    clip = decode(tmp_path / "new.mp4", tmp_path / "out")
    assert numbers_of(clip.frames) == list(range(25))
    assert clip.waveform is not None
    assert np.abs(clip.waveform).argmax() / 16_000 == pytest.approx(0.255, abs=0.03)


def test_side_by_side(tmp_path: Path, two_videos: tuple[Path, Path]) -> None:
    small = two_videos[1]
    side_by_side([small, small], tmp_path / "both.mp4")
    clip = decode(tmp_path / "both.mp4", tmp_path / "out")
    assert clip.frames.shape[1:] == (48, 128, 3)
    for half in (clip.frames[:, :, :64], clip.frames[:, :, 64:]):
        assert numbers_of(half) == list(range(len(clip.frames)))
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["big.mp4", "both.mp4", "small.mp4"]
