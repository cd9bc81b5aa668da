"""Media made by the tests: frames that carry their own number, tones, files that are not what they say."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10


def numbered(number: int, width: int = 128, height: int = 96) -> np.ndarray:
    """[H, W, 3] uint8: the number as black and white bars above, red left and blue right below."""
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        frame[: height // 2, left:right] = 255 if number >> bit & 1 else 0
    frame[height // 2 :, : width // 2] = (200, 30, 30)
    frame[height // 2 :, width // 2 :] = (30, 30, 200)
    return frame


def number_of(frame: np.ndarray) -> int:
    """Read the bars of an upright, decoded frame of any size."""
    height, width = frame.shape[:2]
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    return int(((frame[height // 4, centres].mean(axis=-1) > 128) << np.arange(BITS)).sum())


def numbers_of(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


def tone(seconds: float, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    """[S] float32."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_clip(
    path: Path,
    *,
    times: Sequence[float] | None = None,
    n: int = 50,
    fps: int = 25,
    size: tuple[int, int] = (128, 96),
    sound: np.ndarray | None = None,
    sound_rate: int = 48_000,
    rotation: int = 0,
    codec: str = "libx264",
    container: str = "mp4",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    picture=numbered,
) -> Path:
    """Numbered frames at ``times`` seconds (or n at fps), with a mono sound track if given."""
    times = [k / fps for k in range(n)] if times is None else times
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        video = out.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = *size, pixel_format
        video.time_base = video.codec_context.time_base = Fraction(1, 12_800)
        if rotation:
            video.set_display_rotation(rotation)
        audio = None
        if sound is not None:
            audio = out.add_stream({"webm": "libopus"}.get(container, "aac"), rate=sound_rate)
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(k, *size), format="rgb24")
            frame.pts, frame.time_base = round(time * 12_800), Fraction(1, 12_800)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            write_sound(out, audio, sound, sound_rate)
    return path


def write_sound(out, stream, samples: np.ndarray, rate: int) -> None:
    for start in range(0, len(samples), 1024):
        chunk = np.ascontiguousarray(samples[None, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
