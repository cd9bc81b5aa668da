"""A clip to arrays: upright RGB at constant 25 fps, and 16 kHz mono sound starting with the first picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from talker import sandbox
from talker.errors import VideoError
from talker.types import FPS, SAMPLE_RATE
from talker.video.probe import MAX_SIDE, ClipInfo, inspect, refusal


@dataclass(frozen=True)
class DecodeLimits:
    """What a clip may cost."""

    max_seconds: float = 300.0
    max_width: int = MAX_SIDE
    max_height: int = MAX_SIDE
    wall_s: float = 900.0
    memory_mb: int = 3072
    """Address space of the child: a 4K clip with many reference frames needs about 2 GB of it."""


@dataclass(frozen=True)
class DecodedClip:
    """The clip as arrays on disk."""

    frames: np.memmap = field(repr=False)  # [T, H, W, 3] uint8 upright RGB at FPS
    waveform: np.ndarray | None = field(
        repr=False
    )  # [T * 640] float32 at SAMPLE_RATE, None without a sound track
    info: ClipInfo

    def __len__(self) -> int:
        return len(self.frames)


def decode(
    path: Path,
    out_dir: Path,
    *,
    max_side: int = 1280,
    limits: DecodeLimits | None = None,
    name: str | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> DecodedClip:
    """Decode a clip into ``out_dir/raw_frames.npy`` and ``out_dir/raw_audio.npy`` in a limited child process.

    Variable frame rates become constant by time stamps (nearest frame), rotation and mirroring are applied,
    pixels are square, frames with a longer side than ``max_side`` are scaled down while decoding. The files
    appear only when the whole clip was decoded.

    Args:
        path: The clip; its content, not its name, decides the format.
        out_dir: Existing or new folder for the arrays.
        max_side: Longest side of a stored frame in pixels.
        limits: What the clip may cost.
        name: What to call the clip in messages; its own name by default.
        start_s: Leave out what comes before, seconds; the frames kept are those of the whole clip.
        end_s: Leave out what comes from there on; None keeps all.
        on_progress: Called now and then with the number of frames done.

    Raises:
        VideoError: As ``probe``, and ``video.too_long``, ``video.too_costly``, ``video.no_space``, ``video.part``.
        AudioError: ``audio.invalid_samples``.
    """
    path, out_dir = Path(path), Path(out_dir)
    name = name or path.name
    limits = limits or DecodeLimits()
    check_part(start_s, end_s)
    inspect(path, name)
    out_dir.mkdir(parents=True, exist_ok=True)
    frames_path, audio_path = out_dir / "raw_frames.npy", out_dir / "raw_audio.npy"
    for stale in (frames_path, audio_path):
        stale.unlink(missing_ok=True)
    request = {
        "path": str(path.resolve()),
        "name": name,
        "out": str(out_dir.resolve()),
        "fps": FPS,
        "rate": SAMPLE_RATE,
        "max_side": max_side,
        "max_seconds": limits.max_seconds,
        "max_width": limits.max_width,
        "max_height": limits.max_height,
        "start_s": start_s,
        "end_s": end_s,
    }
    largest = round(limits.max_seconds * FPS) * max_side * max_side * 3
    child_limits = sandbox.Limits(limits.wall_s, limits.memory_mb, file_mb=(largest >> 20) + 64)
    try:
        answer = sandbox.run("talker.video.reading:decode", request, child_limits, on_progress=on_progress)
    except sandbox.SandboxError as e:
        raise refusal(name, e.reason) from e
    finally:
        frames_path.with_suffix(".part").unlink(missing_ok=True)  # left when the child was killed
    waveform = np.load(audio_path, allow_pickle=False) if answer["has_waveform"] else None
    frames = np.load(frames_path, mmap_mode="r", allow_pickle=False)
    assert isinstance(frames, np.memmap)
    return DecodedClip(frames, waveform, ClipInfo.from_child(answer))


def check_part(start_s: float, end_s: float | None) -> None:
    """Refuse a part of a clip that cannot be one.

    Raises:
        VideoError: ``video.part``.
    """
    end = math.inf if end_s is None else end_s
    if not (0 <= start_s < end and math.isfinite(start_s)):
        raise VideoError(
            "video.part",
            f"A part from {start_s:g} s to {'the end' if end_s is None else f'{end_s:g} s'}.",
            expected="A start of at least 0 that lies before the end.",
            todo="Choose start and end again.",
        )
