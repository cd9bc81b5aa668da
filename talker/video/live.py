"""A video that can be watched while it is still being rendered: short MPEG-TS pieces of one encoding.

Encoders are opened once and run through, so neither picture nor sound has a seam between pieces (an AAC
encoder started anew for each piece would leave a gap of some 20 ms at its start).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

OUT_RATE = 48_000
_LIST = "pieces.csv"


@dataclass(frozen=True)
class Piece:
    """One finished piece; pieces played one after the other are the video."""

    path: Path
    start_s: float
    duration_s: float


class LiveWriter:
    """Encodes frames and sound into pieces that each start with a key frame.

    Args:
        folder: Existing folder for the pieces.
        width: Even number of pixels.
        height: Even number of pixels.
        fps: Frames per second.
        sample_rate: Rate of the sound given to :meth:`write_audio`; None for a silent video.
        seconds: Length of a piece.
    """

    def __init__(
        self,
        folder: Path,
        width: int,
        height: int,
        *,
        fps: int = 25,
        sample_rate: int | None = 16_000,
        seconds: float = 1.0,
    ) -> None:
        import av

        self._folder = folder
        self._rate = sample_rate
        self._sent = self._frames = self._samples = 0
        self._closed = False
        # The segment muxer cuts the packets at key frames and notes each finished file in the list.
        options = {
            "segment_format": "mpegts",
            "segment_time": str(seconds),
            "segment_list": str(folder / _LIST),
            "segment_list_type": "csv",
            "individual_header_trailer": "0",
        }
        self._container = av.open(str(folder / "piece%06d.ts"), "w", format="segment", options=options)
        video: VideoStream = self._container.add_stream("libx264", rate=fps)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.gop_size = round(fps * seconds)
        video.codec_context.time_base = Fraction(1, fps)
        video.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "21", "sc_threshold": "0"}
        self._video = video
        self._audio: AudioStream | None = None
        if sample_rate is not None:
            self._audio = self._container.add_stream("aac", rate=OUT_RATE, layout="mono")
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=OUT_RATE)

    def write(self, rgb: np.ndarray) -> None:
        """Add a frame, uint8 [H, W, 3]."""
        from av import VideoFrame

        frame = VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, self._frames = self._frames, self._frames + 1
        frame.time_base = self._video.codec_context.time_base
        self._container.mux(self._video.encode(frame))

    def write_audio(self, waveform: np.ndarray) -> None:
        """Add sound, float32 [S] in -1..1, in step with the frames."""
        from av import AudioFrame

        assert self._audio is not None and self._rate is not None
        samples = np.ascontiguousarray(waveform[None], dtype=np.float32)
        frame = AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self._rate, self._samples
        frame.time_base = Fraction(1, self._rate)
        self._samples += len(waveform)
        for resampled in self._resampler.resample(frame):
            self._container.mux(self._audio.encode(resampled))

    def pieces(self) -> Iterator[Piece]:
        """Those finished since the last call."""
        path = self._folder / _LIST
        rows = list(csv.reader(path.read_text().splitlines())) if path.exists() else []
        for name, start, end in rows[self._sent :]:
            self._sent += 1
            yield Piece(self._folder / name, float(start), float(end) - float(start))

    def close(self) -> None:
        """Finish the last piece; :meth:`pieces` returns it afterwards. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._audio is not None:
            for resampled in self._resampler.resample(None):
                self._container.mux(self._audio.encode(resampled))
            self._container.mux(self._audio.encode(None))
        self._container.mux(self._video.encode(None))
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._closed:
            self._closed = True
            self._container.close()
