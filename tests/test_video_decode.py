"""Clips come out upright, at 25 fps, in step with their sound; anything else is one clear refusal."""

from __future__ import annotations

import io
import zipfile
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from media_support import number_of, numbered, numbers_of, tone, write_clip, write_sound

from talker.errors import VideoError
from talker.video.decode import DecodeLimits, decode
from talker.video.probe import probe


def refused(path: Path, tmp_path: Path) -> VideoError:
    """Both entry points refuse, with one code; nothing is left behind."""
    with pytest.raises(VideoError) as decoding:
        decode(path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
    assert str(tmp_path) not in str(decoding.value), "a message never shows a path of the server"
    assert path.name in str(decoding.value)
    return decoding.value


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


DISGUISES = {
    "text": b"hello, this is a note about a video\n" * 40,
    "playlist": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile other.mp4\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<!doctype html><html><video src=x></html>",
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "noise": np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes(),
}


@pytest.mark.parametrize("kind", DISGUISES)
def test_disguised_files_are_named_for_what_they_are(tmp_path: Path, kind: str) -> None:
    write_clip(tmp_path / "other.mp4", n=5)  # the neighbour that a concat script would open
    path = tmp_path / "clip.mp4"
    path.write_bytes(DISGUISES[kind])
    error = refused(path, tmp_path)
    assert error.code == "video.not_a_video"
    assert "looks like" in error.found


def test_zip_named_mp4(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip.mp4", "x" * 1000)
    error = refused(path, tmp_path)
    assert error.code == "video.not_a_video"
    assert "ZIP" in error.found


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.touch()
    assert refused(path, tmp_path).code == "video.empty"


@pytest.mark.parametrize("faststart", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_truncated_mp4(tmp_path: Path, faststart: bool, share: float) -> None:
    options = {"movflags": "faststart"} if faststart else {}
    whole = write_clip(tmp_path / "whole.mp4", n=60, sound=tone(2.4, 48_000), options=options).read_bytes()
    path = tmp_path / "clip.mp4"
    path.write_bytes(whole[: round(share * len(whole))])
    assert refused(path, tmp_path).code == "video.truncated"


def test_truncated_matroska(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", n=60, container="matroska").read_bytes()
    path = tmp_path / "clip.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    assert refused(path, tmp_path).code == "video.truncated"


@pytest.mark.parametrize("container", ["mp4", "wav"])
def test_sound_without_picture(tmp_path: Path, container: str) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("aac" if container == "mp4" else "pcm_s16le", rate=48_000, layout="mono")
        write_sound(out, stream, tone(1.0, 48_000), 48_000)
    assert refused(path, tmp_path).code == "video.no_picture"


def test_damaged_index(tmp_path: Path) -> None:
    data = bytearray(write_clip(tmp_path / "whole.mp4", n=60).read_bytes())
    start = data.index(b"stsd")
    data[start : start + 300] = bytes(300)
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    assert refused(path, tmp_path).code in {"video.damaged", "video.no_picture", "video.codec"}


def test_damaged_pictures(tmp_path: Path) -> None:
    data = bytearray(write_clip(tmp_path / "whole.mp4", n=60, size=(256, 192)).read_bytes())
    start = data.index(b"mdat") + 4
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    end = data.index(b"moov") - 4
    data[start:end] = noise[: end - start]
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    assert refused(path, tmp_path).code == "video.damaged"


def test_too_long(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=60)
    with pytest.raises(VideoError, match="longer than 2 s") as info:
        decode(path, tmp_path / "out", limits=DecodeLimits(max_seconds=2))
    assert info.value.code == "video.too_long"


def test_years_in_a_few_frames_are_too_long_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", times=[0, 1, 20_000], container="matroska")
    assert refused(path, tmp_path).code == "video.too_long"


def test_too_large(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=2, size=(256, 128))
    with pytest.raises(VideoError, match="256x128") as info:
        decode(path, tmp_path / "out", limits=DecodeLimits(max_width=200, max_height=200))
    assert info.value.code == "video.too_large"


def test_a_child_over_its_time_is_killed_and_leaves_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", n=400, size=(640, 480), options={"preset": "ultrafast"})
    with pytest.raises(VideoError) as info:
        decode(path, tmp_path / "out", limits=DecodeLimits(wall_s=0.3))
    assert info.value.code == "video.too_costly"
    assert not list((tmp_path / "out").iterdir())


def test_a_picture_bomb_meets_the_memory_limit(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "clip.mov",
        n=1,
        size=(8_000, 8_000),
        codec="png",
        container="mov",
        pixel_format="rgb24",
        picture=lambda _, width, height: np.zeros((height, width, 3), np.uint8),
    )
    assert path.stat().st_size < 500_000
    limits = DecodeLimits(memory_mb=340, max_width=9_000, max_height=9_000)
    with pytest.raises(VideoError, match="more memory") as info:
        decode(path, tmp_path / "out", limits=limits)
    assert info.value.code == "video.too_large"
    small = write_clip(tmp_path / "small.mp4", n=5)
    assert len(decode(small, tmp_path / "out", limits=limits)) == 5, "an ordinary clip needs far less"


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


def test_cover_art_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=48_000, layout="mono")
        cover = out.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        out.mux(cover.encode(image))
        out.mux(cover.encode(None))
        write_sound(out, sound, tone(1.0, 48_000), 48_000)
    assert refused(path, tmp_path).code == "video.no_picture"


def test_absurd_sizes_in_a_header(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(b"\x1aE\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xfe" + bytes(500))
    assert refused(path, tmp_path).code == "video.damaged"
    path.write_bytes(b"\x00\x00\x00\x01ftyp" + b"\xff" * 500)
    assert refused(path, tmp_path).code == "video.truncated"
