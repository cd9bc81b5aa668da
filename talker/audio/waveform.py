"""Sound files to and from the library's one form: mono float32 at 16 kHz in -1..1."""

from __future__ import annotations

import tempfile
import wave
from pathlib import Path

import numpy as np

from talker import sandbox
from talker.audio.reading import damaged
from talker.errors import AudioError
from talker.types import SAMPLE_RATE

MIN_SECONDS = 0.1
"""Less than this drives nothing."""
MAX_BYTES = 1 << 30


def load(path: Path, *, max_seconds: float = 600.0, name: str | None = None) -> np.ndarray:
    """Read any sound file, or the sound of a video, in a limited child process.

    Args:
        path: The file; its content, not its name, decides the format.
        max_seconds: Longest sound accepted.
        name: What to call the file in messages; its own name by default.

    Returns:
        [S] float32 in -1..1, mono, at ``SAMPLE_RATE``.

    Raises:
        AudioError: ``audio.empty``, ``audio.not_audio``, ``audio.none`` (a video without sound),
        ``audio.damaged``,
            ``audio.invalid_samples``, ``audio.too_short``, ``audio.too_long``, ``audio.too_large``.
    """
    path = Path(path)
    name = name or path.name
    size = path.stat().st_size
    if size == 0:
        raise AudioError(
            "audio.empty", f"{name} is empty (0 bytes).", expected="A recording.", todo="Record it again."
        )
    if size > MAX_BYTES:
        raise AudioError(
            "audio.too_large", f"{name} has {size >> 20} MB.", expected="At most 1 GB.", todo="Cut it."
        )
    limits = sandbox.Limits(wall_s=60 + max_seconds / 4, memory_mb=1024, file_mb=64 + round(max_seconds / 4))
    with tempfile.TemporaryDirectory(prefix="talker-audio-") as folder:
        out = Path(folder) / "sound.npy"
        request = {
            "path": str(path.resolve()),
            "name": name,
            "out": str(out),
            "rate": SAMPLE_RATE,
            "max_seconds": max_seconds,
        }
        try:
            sandbox.run("talker.audio.reading:load", request, limits)
        except sandbox.SandboxError as e:
            raise damaged(name, f"decoder stopped: {e.reason}") from e
        waveform = np.load(out, allow_pickle=False)
    if len(waveform) < MIN_SECONDS * SAMPLE_RATE:
        raise AudioError(
            "audio.too_short",
            f"{name} holds {len(waveform) / SAMPLE_RATE:.2f} s of sound.",
            expected=f"At least {MIN_SECONDS} s.",
            todo="Record something longer.",
        )
    if len(waveform) > max_seconds * SAMPLE_RATE:
        raise AudioError(
            "audio.too_long",
            f"{name} holds {len(waveform) / SAMPLE_RATE:.0f} s of sound.",
            expected=f"At most {max_seconds:.0f} s.",
            todo="Cut it and try again.",
        )
    return waveform


def save_wav(path: Path, waveform: np.ndarray) -> None:
    """Write [S] float32 samples as 16-bit mono WAV at ``SAMPLE_RATE``."""
    pcm = np.round(np.clip(waveform, -1.0, 1.0) * 32767.0).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())
