"""What is no clip, is damaged or asks too much: one clear refusal, and nothing is left behind."""

from __future__ import annotations

import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from media_support import tone, write_clip, write_sound

from talker.errors import VideoError
from talker.video.decode import DecodeLimits, decode


def refused(path: Path, tmp_path: Path) -> VideoError:
    """Both entry points refuse, with one code; nothing is left behind."""
    with pytest.raises(VideoError) as decoding:
        decode(path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
    assert str(tmp_path) not in str(decoding.value), "a message never shows a path of the server"
    assert path.name in str(decoding.value)
    return decoding.value


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
