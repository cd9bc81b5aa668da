"""Decoding sound inside the limited child process. Imports nothing heavy: the child's memory is limited.

Every stream becomes mono float32 at the asked rate. Timestamps are respected, so that a gap in the
recording is a gap in the samples and lips stay with the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from talker.errors import AudioError, TalkerError
from talker.sniff import sniff

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import InputContainer

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Samples a second: a damaged header may claim millions, whose resampling filter takes minutes to make."""
GAP_S = 0.05
"""A jump of the timestamps beyond this is filled with silence; smaller ones are jitter of the writer."""
MAX_BAD_SHARE = 0.02
"""Share of undecodable packets that is skipped; more and the file counts as damaged."""


class SoundCollector:
    """Gathers the decoded frames of one stream as mono float32 at ``rate``.

    Args:
        rate: Samples a second.
        max_seconds: Longest sound.
        cut: What is longer is dropped instead of refused: only a part of the clip is wanted.
    """

    def __init__(self, rate: int, max_seconds: float, *, cut: bool = False) -> None:
        self._rate = rate
        self._cut = cut
        self._max_samples = round((max_seconds + 1) * rate)
        self._parts: list[np.ndarray] = []
        self._n = 0
        self._resampler = None
        self._layout = ""
        self._next_s = 0.0
        self.start_s: float | None = None
        """Time stamp of the first sample."""

    @property
    def end_s(self) -> float:
        """Time stamp up to which the sound is here."""
        return self._next_s

    def add(self, frame: AudioFrame) -> None:
        """Append one decoded frame."""
        from av import AudioResampler

        if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
            raise AudioError(
                "audio.damaged",
                f"The sound claims {frame.sample_rate:,} samples a second.",
                expected=f"{MIN_RATE:,} to {MAX_RATE:,}.",
                todo="Export it again, for example as WAV or MP3.",
            )
        layout = f"{frame.layout.name}/{frame.format.name}/{frame.sample_rate}"
        time_s = frame.time if frame.time is not None else self._next_s
        if self.start_s is None:
            self.start_s = self._next_s = time_s
        if layout != self._layout or time_s > self._next_s + GAP_S:
            self._flush()
            silence = round((time_s - self.start_s) * self._rate) - self._n
            if silence > 0:
                self._append(np.zeros(min(silence, self._max_samples), np.float32))
            self._resampler = AudioResampler(format="fltp", layout=frame.layout, rate=self._rate)
            self._layout = layout
        frame.pts = None
        self._take(self._resampler.resample(frame))  # type: ignore[union-attr]
        self._next_s = max(self._next_s, time_s) + frame.samples / frame.sample_rate

    def _flush(self) -> None:
        if self._resampler is not None:
            self._take(self._resampler.resample(None))
            self._resampler = None

    def _take(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            # The mean of the channels: FFmpeg's own downmix makes equal channels louder and lets them clip.
            self._append(frame.to_ndarray().mean(axis=0, dtype=np.float32))

    def _append(self, samples: np.ndarray) -> None:
        if self._cut:
            samples = samples[: max(0, self._max_samples - self._n)]
        self._parts.append(samples)
        self._n += len(samples)
        if self._n > self._max_samples:
            seconds = self._max_samples / self._rate - 1
            raise AudioError(
                "audio.too_long",
                f"The sound is longer than {seconds:.0f} s.",
                expected=f"At most {seconds:.0f} s.",
                todo="Cut it and try again.",
            )

    def finish(self) -> np.ndarray:
        """All samples, [S] float32 in -1..1.

        Raises:
            AudioError: ``audio.invalid_samples`` when the file holds NaN or infinite samples.
        """
        self._flush()
        waveform = np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        if not np.isfinite(waveform).all():
            raise AudioError(
                "audio.invalid_samples",
                "The sound contains invalid samples (not a number or infinite).",
                expected="Finite samples.",
                todo="Export the sound again, for example as 16-bit WAV.",
            )
        return np.clip(waveform, -1.0, 1.0).astype(np.float32)


def load(request: dict, progress: Callable[[int], None]) -> dict:
    """Child work: the first sound track of ``request["path"]`` to ``request["out"]`` (npy float32).

    Request: ``path``, ``name`` (for messages), ``out``, ``rate``, ``max_seconds``. Result: ``samples``.
    """
    path, name = Path(request["path"]), request["name"]
    kind = sniff(path)
    if not kind.demuxer:
        raise not_audio(name, kind.label)
    collector = SoundCollector(request["rate"], request["max_seconds"])
    with decoding(damaged(name, kind.label)), path.open("rb") as file:
        _decode(file, kind.demuxer, collector, name)
    waveform = collector.finish()
    np.save(request["out"], waveform)
    progress(len(waveform))
    return {"samples": len(waveform)}


def _decode(file: BinaryIO, demuxer: str, collector: SoundCollector, name: str) -> None:
    from av.error import InvalidDataError

    good = bad = 0
    with open_pinned(file, demuxer) as container:
        if not container.streams.audio:
            raise AudioError(
                "audio.none",
                f"{name} has no sound track.",
                expected="A recording of speech.",
                todo="Choose another file.",
            )
        for packet in container.demux(container.streams.audio[0]):
            try:
                for frame in packet.decode():
                    collector.add(frame)  # type: ignore[arg-type]
                good += 1
            except InvalidDataError:
                bad += 1
    if too_many_bad(good, bad):
        raise damaged(name, f"{bad} of {good + bad} packets cannot be decoded")


def too_many_bad(good: int, bad: int) -> bool:
    """Whether so many packets cannot be decoded that the rest is not to be trusted. One may always be cut."""
    return bad >= max(2, MAX_BAD_SHARE * (good + bad)) or bad > good


def open_pinned(file: BinaryIO, demuxer: str) -> InputContainer:
    """Open with one demuxer, from a file object and without protocols: no other file or address is in reach."""
    import av
    from av.container import InputContainer

    container = av.open(file, mode="r", format=demuxer, options={"protocol_whitelist": "none"})
    assert isinstance(container, InputContainer)
    return container


@contextmanager
def decoding(error: TalkerError) -> Iterator[None]:
    """Turn what FFmpeg and PyAV raise on broken files into ``error``; lack of memory passes through."""
    from av.error import FFmpegError

    try:
        yield
    except MemoryError:
        raise
    except (FFmpegError, UnicodeDecodeError, IndexError, ValueError) as e:
        raise error from e


def not_audio(name: str, label: str) -> AudioError:
    """The file is something else."""
    return AudioError(
        "audio.not_audio",
        f"{name} is not a sound file we can read: it looks like {label}.",
        expected="WAV, MP3, M4A, FLAC, Ogg, WebM, or a video with sound.",
        todo="Choose another file.",
    )


def damaged(name: str, what: str) -> AudioError:
    """The container or the stream is broken."""
    return AudioError(
        "audio.damaged",
        f"{name} cannot be decoded ({what}).",
        expected="An undamaged sound file.",
        todo="Export it again, for example as WAV or MP3.",
    )
