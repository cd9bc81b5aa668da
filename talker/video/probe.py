"""What a clip is, before anything expensive: content sniffed, demuxer pinned, parsed in the limited child."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from talker import sandbox
from talker.errors import VideoError
from talker.sniff import sniff, truncated
from talker.types import FPS
from talker.video.reading import damaged, no_picture

MAX_BYTES = 4 << 30
MAX_SIDE = 4096
_PROBE_LIMITS = sandbox.Limits(wall_s=30.0, memory_mb=2048, file_mb=1)


@dataclass(frozen=True)
class ClipInfo:
    """What the container and its first frame say. Estimates: only decoding knows the true length."""

    name: str
    width: int
    """Pixels of the upright picture, as stored (before any scaling down)."""
    height: int
    fps: Fraction
    """Average rate of the file; decoded clips are always ``FPS``."""
    n_frames_estimate: int
    """Frames at ``FPS``; exact in the info of a decoded clip."""
    duration_s: float
    rotation: int
    """Clockwise degrees the stored picture is turned by to stand upright: 0, 90, 180 or 270."""
    has_audio: bool
    container: str
    video_codec: str

    @classmethod
    def from_child(cls, answer: dict[str, Any]) -> ClipInfo:
        """From the child's JSON."""
        values: dict[str, Any] = {name: answer[name] for name in cls.__dataclass_fields__}
        values["fps"] = Fraction(*answer["fps"])
        return cls(**values)


def probe(path: Path, *, name: str | None = None) -> ClipInfo:
    """Describe a clip without decoding it.

    Args:
        path: The file; its content, not its name, decides the format.
        name: What to call it in messages; its own name by default.

    Raises:
        VideoError: ``video.empty``, ``video.not_a_video``, ``video.truncated``, ``video.no_picture``,
            ``video.damaged``, ``video.too_large``.
    """
    path = Path(path)
    name = name or path.name
    inspect(path, name)
    request = {
        "path": str(path.resolve()),
        "name": name,
        "fps": FPS,
        "max_width": MAX_SIDE,
        "max_height": MAX_SIDE,
    }
    try:
        return ClipInfo.from_child(sandbox.run("talker.video.reading:probe", request, _PROBE_LIMITS))
    except sandbox.SandboxError as e:
        raise refusal(name, e.reason) from e


def inspect(path: Path, name: str) -> None:
    """Refuse, from the first bytes alone, whatever is not a whole video file."""
    size = path.stat().st_size
    if size == 0:
        raise VideoError(
            "video.empty", f"{name} is empty (0 bytes).", expected="A video.", todo="Upload it again."
        )
    if size > MAX_BYTES:
        raise VideoError(
            "video.too_large", f"{name} has {size >> 20} MB.", expected="At most 4 GB.", todo="Cut it."
        )
    kind = sniff(path)
    if kind.demuxer and not kind.pictures:
        raise no_picture(name)
    if not kind.demuxer:
        raise VideoError(
            "video.not_a_video",
            f"{name} is not a video we can read: it looks like {kind.label}.",
            expected="MP4, MOV, WebM, MKV, AVI, WMV, FLV or MPEG.",
            todo="Choose another file.",
        )
    if truncated(path, kind):
        raise VideoError(
            "video.truncated",
            f"{name} is incomplete: the end of the file is missing.",
            expected="A whole video file.",
            todo="Export or upload it again.",
        )


def refusal(name: str, reason: str) -> VideoError:
    """The error for a child that gave no answer."""
    if reason == "timeout":
        return VideoError(
            "video.too_costly",
            f"{name} took too long to decode and was stopped.",
            expected="An ordinary video.",
            todo="Export it as MP4 with H.264, at most 1920x1080.",
        )
    if reason == "memory":
        return VideoError(
            "video.too_large",
            f"{name} needs more memory to decode than a video may.",
            expected=f"At most {MAX_SIDE}x{MAX_SIDE} pixels.",
            todo="Scale it down and try again.",
        )
    if reason == "disk":
        return VideoError(
            "video.no_space",
            f"There is not enough disk space to unpack {name}.",
            expected="Free space of about 1 GB per minute of video.",
            todo="Free some space or use a shorter clip.",
        )
    return damaged(name, "the decoder gave up on it")
