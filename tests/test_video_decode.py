"""Clips come out upright, at 25 fps, in step with their sound."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest
from media_support import number_of, numbered, numbers_of, tone, write_clip

from talker.video.decode import decode
from talker.video.probe import probe


def test_plain_clip_is_decoded_frame_by_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=60, sound=tone(2.4, 48_000))
    clip = decode(path, tmp_path / "out")
    assert isinstance(clip.frames, np.memmap)
    assert clip.frames.shape == (60, 96, 128, 3)
    assert clip.frames.dtype == np.uint8
    assert numbers_of(clip.frames) == list(range(60))
    assert clip.waveform is not None
    assert clip.waveform.shape == (60 * 640,)
    assert clip.waveform.dtype == np.float32
    assert clip.info.n_frames_estimate == 60
    assert clip.info.name == "clip.mp4"


def test_probe_describes_without_decoding(tmp_path: Path) -> None:
    info = probe(write_clip(tmp_path / "clip.mp4", n=60, sound=tone(2.4, 48_000)))
    assert (info.width, info.height, info.fps, info.rotation) == (128, 96, 25, 0)
    assert info.n_frames_estimate == 60
    assert info.has_audio
    assert (info.container, info.video_codec) == ("mov", "h264")


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("webm", "libvpx-vp9"),
        ("matroska", "libx264"),
        ("avi", "mpeg4"),
        ("mov", "libx264"),
        ("mpegts", "libx264"),
    ],
)
def test_content_and_not_the_name_decides(tmp_path: Path, container: str, codec: str) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=30, container=container, codec=codec)
    clip = decode(path, tmp_path / "out")
    assert numbers_of(clip.frames) == list(range(30))
    assert clip.waveform is None
    assert not clip.info.has_audio


@pytest.mark.parametrize("fps", [24, 30, 50, 60])
def test_other_rates_become_25_by_time(tmp_path: Path, fps: int) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=2 * fps, fps=fps)
    numbers = np.array(numbers_of(decode(path, tmp_path / "out").frames))
    assert len(numbers) == 50
    assert np.abs(numbers / fps - np.arange(50) / 25).max() <= 0.5 / fps + 1e-6


def test_variable_rate_with_a_gap_keeps_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = np.concatenate([[0.0], np.cumsum(rng.uniform(1 / 60, 1 / 15, 80))])
    times[40:] += 0.6  # the phone dropped half a second
    path = write_clip(tmp_path / "clip.mp4", times=times, fps=60)
    frames = decode(path, tmp_path / "out").frames
    ticks = np.arange(len(frames)) / 25
    nearest = np.abs(times[None] - ticks[:, None]).min(axis=1)
    shown = np.abs(times[numbers_of(frames)] - ticks)
    assert len(frames) == pytest.approx(times[-1] * 25, abs=2)
    assert (shown <= nearest + 2e-4).all(), "each tick shows the frame nearest in time"


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, rotation: int) -> None:
    def turned(number: int, width: int, height: int) -> np.ndarray:
        upright = numbered(number, *((height, width) if rotation != 180 else (width, height)))
        return np.ascontiguousarray(np.rot90(upright, rotation // 90))  # stored turned counter-clockwise

    path = write_clip(tmp_path / "clip.mp4", n=10, rotation=-rotation, picture=turned)
    clip = decode(path, tmp_path / "out")
    assert clip.frames.shape == ((10, 128, 96, 3) if rotation != 180 else (10, 96, 128, 3))
    assert numbers_of(clip.frames) == list(range(10))
    assert clip.info.rotation == rotation == probe(path).rotation
    assert (clip.info.height, clip.info.width) == clip.frames.shape[1:3]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv444p", "yuv420p10le"])
def test_colours_survive(tmp_path: Path, pixel_format: str) -> None:
    frames = decode(
        write_clip(tmp_path / "clip.mp4", n=3, pixel_format=pixel_format), tmp_path / "out"
    ).frames
    np.testing.assert_allclose(frames[1, 80, 30], (200, 30, 30), atol=6)
    np.testing.assert_allclose(frames[1, 80, 100], (30, 30, 200), atol=6)


def test_4k_is_scaled_down_while_decoding(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=3, size=(3840, 2160), options={"preset": "ultrafast"})
    clip = decode(path, tmp_path / "out", max_side=640)
    assert clip.frames.shape == (3, 360, 640, 3)
    assert numbers_of(clip.frames) == [0, 1, 2]
    assert (clip.info.width, clip.info.height) == (3840, 2160)


def test_sound_stays_in_step_with_the_picture(tmp_path: Path) -> None:
    sound = np.zeros(96_000, np.float32)
    sound[48_000:48_480] = tone(0.01, 48_000, 2000)  # one click at 1.000 s
    clip = decode(write_clip(tmp_path / "clip.mp4", n=50, sound=sound), tmp_path / "out")
    assert clip.waveform is not None
    assert np.abs(clip.waveform).argmax() / 16_000 == pytest.approx(1.005, abs=0.008)


def test_late_picture_cuts_the_sound_before_it(tmp_path: Path) -> None:
    sound = np.zeros(96_000, np.float32)
    sound[48_000:48_480] = tone(0.01, 48_000, 2000)
    path = write_clip(
        tmp_path / "clip.mkv", times=[0.4 + k / 25 for k in range(40)], sound=sound, container="matroska"
    )
    clip = decode(path, tmp_path / "out")
    assert clip.waveform is not None
    assert np.abs(clip.waveform).argmax() / 16_000 == pytest.approx(0.605, abs=0.012)


def test_one_frame_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    assert len(decode(write_clip(tmp_path / "clip.mp4", n=1), tmp_path / "out").frames) == 1


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[int] = []
    decode(write_clip(tmp_path / "clip.mp4", n=60), tmp_path / "out", on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen


def test_frames_carry_their_number() -> None:
    assert [number_of(numbered(k)) for k in (0, 1, 513, 1023)] == [0, 1, 513, 1023]


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_hdr_is_brought_to_ordinary_range(tmp_path: Path, transfer: str) -> None:
    """A grey ramp as a phone records it: diffuse white becomes white, the rest stays in order, no grey cast."""
    white = {"arib-std-b67": 0.75, "smpte2084": 0.58}[transfer]  # ITU-R BT.2408, table 1
    ramp = np.linspace(0, white, 128)[None, :, None] * np.ones((96, 1, 3))
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        codes = {"arib-std-b67": 18, "smpte2084": 16}
        codec = stream.codec_context
        codec.color_trc, codec.color_primaries, codec.colorspace, codec.color_range = codes[transfer], 9, 9, 1
        tags = f"log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
        stream.options = {"x265-params": tags, "preset": "ultrafast"}
        for k in range(3):
            frame = av.VideoFrame.from_ndarray((ramp * 65535).astype(np.uint16), format="rgb48le")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=9)
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    row = decode(path, tmp_path / "out").frames[1, 48].astype(int)
    assert row[-2].min() > 240
    assert row[2].max() < 20
    assert (np.diff(row[:, 1]) >= -3).all()
    assert np.ptp(row, axis=1).max() < 12, "grey stays grey"


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.sample_aspect_ratio = Fraction(4, 3)
        for k in range(4):
            frame = av.VideoFrame.from_ndarray(numbered(k, 96, 96), format="rgb24")
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    frames = decode(path, tmp_path / "out").frames
    assert frames.shape == (4, 96, 128, 3)
    assert numbers_of(frames) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("codec", "container", "pixel_format"),
    [
        ("mjpeg", "avi", "yuvj420p"),
        ("prores_ks", "mov", "yuv422p10le"),
        ("libsvtav1", "mp4", "yuv420p"),
        ("libvpx", "webm", "yuv420p"),
        ("flv", "flv", "yuv420p"),
        ("wmv2", "asf", "yuv420p"),
        ("png", "mov", "rgba"),
    ],
)
def test_codecs_people_have(tmp_path: Path, codec: str, container: str, pixel_format: str) -> None:
    # In a process of its own: SVT-AV1, run as root, makes the process that encodes real-time, for good.
    make = partial(
        write_clip, tmp_path / "clip", n=8, codec=codec, container=container, pixel_format=pixel_format
    )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as encoder:
        path = encoder.submit(make).result()
    assert numbers_of(decode(path, tmp_path / "out").frames) == list(range(8))


def test_a_browser_recording_without_length(tmp_path: Path) -> None:
    """MediaRecorder writes WebM live: no duration, no sizes, no index."""
    live = io.BytesIO()
    pipe = io.BufferedWriter(Pipe(live))
    with av.open(pipe, "w", format="webm", options={"live": "1"}) as out:
        stream = out.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for k in range(30):
            frame = av.VideoFrame.from_ndarray(numbered(k), format="rgb24")
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    pipe.flush()
    path = tmp_path / "clip.webm"
    path.write_bytes(live.getvalue())
    assert probe(path).duration_s == 0
    assert numbers_of(decode(path, tmp_path / "out").frames) == list(range(30))


class Pipe(io.RawIOBase):
    """A writer that cannot seek, like a socket."""

    def __init__(self, target: io.BytesIO) -> None:
        super().__init__()
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        return self._target.write(bytes(data))
