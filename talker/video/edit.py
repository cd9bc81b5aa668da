"""Editing finished videos with moviepy: exchange the sound, paste one into another, show two side by side.

For our own files only: moviepy lets FFmpeg guess the format. A stranger's clip goes through
:mod:`talker.video.decode`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from talker.types import SAMPLE_RATE

_FFMPEG = ("-pix_fmt", "yuv420p", "-movflags", "+faststart", "-crf", "18")


def replace_sound(video: Path, waveform: np.ndarray, out: Path) -> None:
    """Give ``video`` another sound track ([S] float32 at ``SAMPLE_RATE``), cut or padded to its length."""
    from moviepy import VideoFileClip

    with VideoFileClip(str(video), audio=False) as clip:
        _write(clip.with_audio(_sound(waveform, clip.duration)), out)


def paste_over(
    video: Path, patch: Path, out: Path, *, left: int, top: int, waveform: np.ndarray | None = None
) -> None:
    """Show ``patch`` inside ``video`` with its upper left corner at (left, top) pixels: dubbing.

    The result is as long as the shorter one and keeps the sound of ``patch`` unless ``waveform`` is given.
    """
    from moviepy import CompositeVideoClip, VideoFileClip

    with VideoFileClip(str(video), audio=False) as below, VideoFileClip(str(patch)) as above:
        duration = min(below.duration, above.duration)
        sound = above.audio if waveform is None else _sound(waveform, duration)
        layers = [below.with_duration(duration), above.with_duration(duration).with_position((left, top))]
        _write(CompositeVideoClip(layers, size=below.size).with_audio(sound), out)


def side_by_side(videos: Sequence[Path], out: Path) -> None:
    """Put videos of one height next to each other, with the sound of the first; as long as the shortest."""
    from moviepy import VideoFileClip, clips_array

    with ExitStack() as stack:
        clips = [stack.enter_context(VideoFileClip(str(video))) for video in videos]
        duration = min(clip.duration for clip in clips)
        row = clips_array([[clip.with_duration(duration).without_audio() for clip in clips]])
        _write(row.with_audio(clips[0].audio.with_duration(duration) if clips[0].audio else None), out)


def _sound(waveform: np.ndarray, duration: float):
    from moviepy.audio.AudioClip import AudioArrayClip

    length = round(duration * SAMPLE_RATE)
    fitted = np.pad(waveform[:length], (0, max(0, length - len(waveform))))
    return AudioArrayClip(np.repeat(fitted[:, None], 2, axis=1), fps=SAMPLE_RATE)


def _write(clip, out: Path) -> None:
    """Write under another name first, so that ``out`` is complete or absent."""
    out = Path(out)
    part, sound = (out.with_name(f".{out.stem}.{os.getpid()}{suffix}") for suffix in (".mp4", ".m4a"))
    try:
        clip.write_videofile(
            str(part),
            codec="libx264",
            audio_codec="aac",
            audio_fps=48_000,
            temp_audiofile=str(sound),
            preset="veryfast",
            ffmpeg_params=list(_FFMPEG),
            logger=None,
        )
        part.replace(out)
    finally:
        for left_over in (part, sound):
            left_over.unlink(missing_ok=True)
