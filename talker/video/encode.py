"""Frames and sound to MP4 that plays everywhere: H.264 High yuv420p BT.709, AAC 48 kHz, index in front."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from talker.errors import VideoError
from talker.types import FPS, SAMPLE_RATE

if TYPE_CHECKING:
    from av import VideoFrame
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

OUT_RATE = 48_000
GOP_S = 2
"""Longest distance between key frames in seconds, so that players seek quickly."""
_BT709 = 1
_LIMITED_RANGE = 1
_FORMATS = {".ts": "mpegts", ".mp4": "mp4", ".mov": "mov"}


class Mp4Writer:
    """Writes one video frame by frame in bounded memory.

    The file appears, complete, when the writer is closed. Use as a context manager. After an exception
    inside the block nothing is left behind. Odd sizes grow by one repeated row or column, because the
    chroma planes are halved.

    Args:
        path: The file to make; replaced if it exists.
        width: Pixels.
        height: Pixels.
        fps: Frames per second.
        sample_rate: Rate of the sound given to :meth:`write_audio`; None for a silent video.
        crf: Quality, 0 (best) to 51; 18 is visually lossless.
        metadata: Text fields of the file, for example ``{"title": ..., "comment": ...}``.
    """

    _channels, _pixels, _sample_format = 3, "yuv420p", "fltp"

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        *,
        fps: int = FPS,
        sample_rate: int | None = SAMPLE_RATE,
        crf: int = 18,
        metadata: dict[str, str] | None = None,
    ) -> None:
        import av

        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._size = (height, width)
        self._rate, self._frames, self._samples = sample_rate, 0, 0
        container = _FORMATS.get(self._path.suffix.lower(), "mp4")
        options = {} if container == "mpegts" else {"movflags": "+faststart+use_metadata_tags"}
        self._container = av.open(str(self._part), "w", format=container, options=options)
        self._container.metadata.update(metadata or {})
        self._video = self._video_stream(fps, crf)
        self._audio: AudioStream | None = None
        if sample_rate is not None:
            self._audio = self._audio_stream()
            self._resampler = av.AudioResampler(format=self._sample_format, layout="mono", rate=OUT_RATE)

    def _audio_stream(self) -> AudioStream:
        stream: AudioStream = self._container.add_stream("aac", rate=OUT_RATE, layout="mono")
        stream.bit_rate = 128_000
        return stream

    def _video_stream(self, fps: int, crf: int) -> VideoStream:
        stream = self._stream("libx264", fps)
        stream.codec_context.gop_size = GOP_S * fps
        stream.options = {"crf": str(crf), "preset": "veryfast", "profile": "high"}
        return stream

    def _stream(self, codec_name: str, fps: int) -> VideoStream:
        height, width = self._size
        stream = cast("VideoStream", self._container.add_stream(codec_name, rate=fps))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, self._pixels
        codec = stream.codec_context
        codec.time_base = Fraction(1, fps)
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED_RANGE
        return stream

    def write(self, rgb: np.ndarray) -> None:
        """Add one frame, [H, W, 3] uint8."""
        assert rgb.shape == (*self._size, self._channels) and rgb.dtype == np.uint8, (
            f"{rgb.shape} {rgb.dtype} for {self._size}"
        )
        frame = to_yuv(rgb, self._pixels)
        frame.pts, frame.time_base = self._frames, self._video.codec_context.time_base
        self._frames += 1
        self._mux(self._video, frame)

    def write_audio(self, waveform: np.ndarray) -> None:
        """Add sound, [S] float32 in -1..1 at ``sample_rate``. Keep it roughly in step with the frames."""
        from av import AudioFrame

        assert self._audio is not None and self._rate is not None, "opened without a sample rate"
        if not len(waveform):
            return
        samples = np.ascontiguousarray(np.clip(waveform, -1, 1)[None], np.float32)
        frame = AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._samples, Fraction(1, self._rate)
        self._samples += len(waveform)
        for resampled in self._resampler.resample(frame):
            self._mux(self._audio, resampled)

    def close(self) -> None:
        """Finish the file and put it in place."""
        if self._audio is not None:
            if self._samples:
                for resampled in self._resampler.resample(None):
                    self._mux(self._audio, resampled)
            self._mux(self._audio, None)
        self._mux(self._video, None)
        self._container.close()
        self._part.replace(self._path)

    def _mux(self, stream: VideoStream | AudioStream, frame) -> None:
        try:
            self._container.mux(stream.encode(frame))
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EFBIG):
                raise
            raise VideoError(
                "video.no_space",
                f"The disk is full: {self._path.name} could not be written.",
                todo="Free some space and try again.",
            ) from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if self._part.exists():
                self._container.close()
                self._part.unlink()


def write_mp4(
    path: Path,
    frames: Iterable[np.ndarray],
    waveform: np.ndarray | None = None,
    *,
    fps: int = FPS,
    crf: int = 18,
    metadata: dict[str, str] | None = None,
) -> int:
    """Write a whole video in bounded memory.

    The sound is cut, or padded with silence, to the length of the pictures.

    Args:
        path: The file to make.
        frames: [H, W, 3] uint8 each, all of one size, at least one.
        waveform: [S] float32 at ``SAMPLE_RATE``, or None for a silent video.
        fps: Frames per second.
        crf: Quality, see :class:`Mp4Writer`.
        metadata: See :class:`Mp4Writer`.

    Returns:
        The number of frames written.
    """
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    rate = None if waveform is None else SAMPLE_RATE
    with Mp4Writer(path, width, height, fps=fps, sample_rate=rate, crf=crf, metadata=metadata) as writer:
        count = 0
        for frame in _chain(first, frames):
            writer.write(frame)
            if waveform is not None:
                start, end = (k * SAMPLE_RATE // fps for k in (count, count + 1))
                chunk = waveform[start:end]
                writer.write_audio(np.pad(chunk, (0, end - start - len(chunk))))
            count += 1
    return count


def encode_chunk(
    frames: Sequence[np.ndarray], waveform: np.ndarray | None, path: Path, *, fps: int = FPS
) -> None:
    """Encode a short stretch as a file of its own that a player can start with; ``.ts`` and ``.mp4`` work.

    Each file has its own encoders, so sound has a seam of some milliseconds between chunks; for gapless
    streaming use :class:`talker.video.live.LiveWriter`.
    """
    write_mp4(path, frames, waveform, fps=fps, crf=21)


def _chain(first: np.ndarray, rest: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    yield first
    yield from rest


def to_yuv(rgb: np.ndarray, pixels: str = "yuv420p") -> VideoFrame:
    """A picture [H, W, 3 or 4] uint8 in the encoder's pixel format, BT.709."""
    from av import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = VideoFrame.from_ndarray(
        np.ascontiguousarray(rgb), format="rgb24" if rgb.shape[2] == 3 else "rgba"
    )
    return frame.reformat(
        format=pixels,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
    )
