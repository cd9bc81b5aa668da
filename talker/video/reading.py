"""Decoding pictures and sound inside the limited child process. Imports nothing heavy.

Only decoded frames and their time stamps are trusted: headers decide neither the length nor the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talker.audio.reading import SoundCollector, decoding, open_pinned, too_many_bad
from talker.errors import VideoError
from talker.sniff import Kind, protected, sniff
from talker.video.ticks import ConstantRate, Window

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

_MAX_THREADS = 4
_SOUND_MARGIN_S = 60.0
"""By how much sound may begin before the picture when only a part of a clip is read."""
_PROGRESS_EVERY = 25
_BT709, _UNSPECIFIED, _HDR_TRANSFERS = (
    1,
    2,
    (16, 18),
)  # AVColorSpace; PQ and HLG of AVColorTransferCharacteristic
_SWS_709, _SWS_601 = 1, 5


def probe(request: dict, progress: Callable[[int], None]) -> dict[str, Any]:
    """Child work: describe a clip. Request: ``path``, ``name``, ``fps``, ``max_width``, ``max_height``."""
    with _Source(request) as source:
        frame = source.first_frame()
        return source.describe(Orientation.of(frame))


def decode(request: dict, progress: Callable[[int], None]) -> dict[str, Any]:
    """Child work: the clip as ``raw_frames.npy`` and ``raw_audio.npy`` in ``request["out"]``.

    Request: ``path``, ``name``, ``out``, ``fps``, ``rate``, ``max_side``, ``max_seconds``, ``max_width``,
    ``max_height``, ``start_s``, ``end_s`` (None: to the end). Result: the fields of a ClipInfo and ``has_waveform``.
    """
    out = Path(request["out"])
    fps = request["fps"]
    max_frames = round(request["max_seconds"] * fps)
    window = Window.of(request)
    with _Source(request) as source:
        sound = _collector(request, window) if source.has_audio else None
        clock = ConstantRate(fps)
        scaler: Scaler | None = None
        start_s = 0.0
        with FramesFile(out / "raw_frames.npy") as file:
            for frame in source.frames(sound):
                if scaler is None:
                    scaler = Scaler(frame, request["max_side"], source.pixel_aspect)
                    start_s = source.time_of(frame)
                source.check_size(frame)
                for shown, ticks in clock.push(frame, source.time_of(frame)):
                    count = window.kept(ticks)
                    if file.count + count > max_frames:
                        raise _too_long(request, (file.count + count) / fps)
                    if count:
                        file.write(scaler(shown), count)
                    if file.count % _PROGRESS_EVERY < count:
                        progress(file.count)
                if window.passed and (sound is None or sound.end_s - start_s >= request["end_s"]):
                    break
            if scaler is None:
                raise source.no_frames()
            for shown, ticks in clock.finish():
                count = min(window.kept(ticks), max_frames - file.count)
                if count > 0:
                    file.write(scaler(shown), count)
            if not file.count:
                raise outside(request["name"], window.ticks / fps, request["start_s"])
            file.commit()
        info = source.describe(scaler.orientation) | {"n_frames_estimate": file.count}
        info["duration_s"] = file.count / fps
        waveform = None if sound is None else sound.finish()
    has_waveform = False
    if sound is not None and waveform is not None and len(waveform):
        has_waveform = True
        offset = 0.0 if sound.start_s is None else sound.start_s - start_s
        shift = round(offset * request["rate"]) - window.first * request["rate"] // fps
        fitted = fit(waveform, shift, file.count * request["rate"] // fps)
        np.save(out / "raw_audio.npy", fitted)
    return info | {"has_waveform": has_waveform}


def fit(waveform: np.ndarray, offset: int, length: int) -> np.ndarray:
    """Shift [S] by ``offset`` samples, then pad with silence or cut to ``length``."""
    waveform = np.pad(waveform, (offset, 0)) if offset > 0 else waveform[-offset:]
    return np.pad(waveform[:length], (0, max(0, length - len(waveform))))


def _collector(request: dict, window: Window) -> SoundCollector:
    """For the sound of the whole clip, or up to the end of the wanted part."""
    rate, longest = request["rate"], request["max_seconds"]
    if window.whole:
        return SoundCollector(rate, longest)
    end_s = request["end_s"] or request["start_s"] + longest
    return SoundCollector(rate, end_s + _SOUND_MARGIN_S, cut=True)


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become upright ones: optional transposition, then flips."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """Read the display matrix: it maps a stored point (x, y) to (a x + c y, b x + d y) on the screen."""
        side_data: Any = frame.side_data  # PyAV's stub has the wrong element type
        for data in side_data:
            if data.type.name == "DISPLAYMATRIX":
                matrix = np.frombuffer(bytes(data), np.int32)
                a, b, c, d = (int(v) for v in matrix[[0, 1, 3, 4]])
                if abs(b) + abs(c) > abs(a) + abs(d):
                    return cls(True, flip_x=c < 0, flip_y=b < 0)
                return cls(False, flip_x=a < 0, flip_y=d < 0)
        return cls()

    @property
    def rotation(self) -> int:
        """Clockwise degrees from stored to upright (mirroring left out)."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """[H, W, 3] stored to upright."""
        if self.transpose:
            rgb = rgb.transpose(1, 0, 2)
        return rgb[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


class Scaler:
    """Decoded frame to upright RGB of one fixed size: at most ``max_side`` square pixels a side."""

    def __init__(self, first: VideoFrame, max_side: int, pixel_aspect: Fraction) -> None:
        from av.video.reformatter import VideoReformatter

        self.orientation = Orientation.of(first)
        width, height = round(first.width * pixel_aspect), first.height
        shrink = min(1.0, max_side / max(width, height))
        self.width, self.height = (max(2, 2 * round(side * shrink / 2)) for side in (width, height))
        if shrink == 1.0 and (width, height) == (first.width, first.height):
            self.width, self.height = width, height
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """[H, W, 3] uint8."""
        from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation

        options: dict[str, Any] = {}
        if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
            # Untagged video: by convention HD is BT.709 and smaller pictures are BT.601.
            options["src_colorspace"] = _SWS_709 if frame.height >= 720 else _SWS_601
        if int(frame.color_trc) in _HDR_TRANSFERS:  # shown as they are, HDR pictures would be grey
            options |= {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
        shrinking = self.width < 0.75 * frame.width
        rgb = self._reformatter.reformat(
            frame,
            width=self.width,
            height=self.height,
            format="rgb24",
            interpolation=(Interpolation.AREA if shrinking else Interpolation.BICUBIC)
            | Interpolation.ACCURATE_RND,
            threads=1,
            **options,
        )
        return self.orientation.apply(rgb.to_ndarray())


class FramesFile:
    """A ``.npy`` of [T, H, W, 3] uint8 written front to back; T is known, and the file there, at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_suffix(".part")
        self._file = self._part.open("wb")
        self._shape: tuple[int, ...] = ()
        self.count = 0

    def __enter__(self) -> FramesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def write(self, rgb: np.ndarray, times: int) -> None:
        """Append one frame ``times`` times."""
        if not self._shape:
            self._shape = rgb.shape
            self._header()
        data = np.ascontiguousarray(rgb)
        for _ in range(times):
            self._file.write(data.data)
        self.count += max(0, times)

    def _header(self) -> None:
        # numpy leaves room in the header for the first axis to grow, so rewriting it never moves the data.
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def commit(self) -> None:
        """Write the final length and put the file in place."""
        self._file.seek(0)
        self._header()
        self._file.close()
        self._part.replace(self._path)


class _Source:
    """The opened clip: its first picture track and its first sound track; everything else is ignored."""

    def __init__(self, request: dict) -> None:
        self.request = request
        self.path = Path(request["path"])
        self.name: str = request["name"]
        self.kind: Kind = sniff(self.path)
        self.good = self.bad = 0
        self._last_s = 0.0

    def __enter__(self) -> _Source:
        if protected(self.path, self.kind):
            raise is_protected(self.name)
        self._file = self.path.open("rb")
        with decoding(damaged(self.name, "its index cannot be read")):
            self.container = open_pinned(self._file, self.kind.demuxer)
        pictures = [s for s in self.container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not pictures:
            raise no_picture(self.name)
        readable = [s for s in pictures if s.codec_context is not None]
        if not readable:
            raise unknown_codec(self.name)
        self.stream: VideoStream = readable[0]
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = _MAX_THREADS
        self.has_audio = bool(self.container.streams.audio)
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()
        self._file.close()

    @property
    def pixel_aspect(self) -> Fraction:
        """Width over height of one stored pixel; absurd values count as square."""
        aspect = self.stream.sample_aspect_ratio or Fraction(1)
        return aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)

    def frames(self, sound: SoundCollector | None) -> Iterator[VideoFrame]:
        """Decoded frames in order of display; sound goes to ``sound`` on the way."""
        from av.error import InvalidDataError

        streams = [self.stream, self.container.streams.audio[0]] if sound else [self.stream]
        with decoding(damaged(self.name, "decoding failed")):
            for packet in self.container.demux(streams):
                try:
                    decoded = packet.decode()
                except InvalidDataError:
                    self.bad += 1
                    continue
                self.good += 1
                if packet.stream is self.stream:
                    yield from decoded  # type: ignore[misc]
                elif sound is not None:
                    for frame in decoded:
                        sound.add(frame)  # type: ignore[arg-type]
        if too_many_bad(self.good, self.bad):
            raise damaged(self.name, f"{self.bad} of {self.good + self.bad} packets cannot be decoded")

    def first_frame(self) -> VideoFrame:
        """The first picture, size checked."""
        for frame in self.frames(None):
            self.check_size(frame)
            return frame
        raise self.no_frames()

    def time_of(self, frame: VideoFrame) -> float:
        """Seconds; where the stream gives none, one nominal step after the frame before."""
        if frame.time is not None:
            self._last_s = frame.time
        else:
            self._last_s += float(1 / (self.stream.average_rate or 25))
        return self._last_s

    def check_size(self, frame: VideoFrame) -> None:
        """Refuse pictures beyond the limit, whichever way up they are."""
        width, height = self.request["max_width"], self.request["max_height"]
        if frame.width > width or frame.height > height:
            raise VideoError(
                "video.too_large",
                f"{self.name} is {frame.width}x{frame.height} pixels.",
                expected=f"At most {width}x{height}.",
                todo="Scale it down and try again.",
            )

    def no_frames(self) -> VideoError:
        """Tracks, but not one picture that can be shown."""
        return damaged(self.name, "not one picture could be decoded")

    def describe(self, orientation: Orientation) -> dict[str, Any]:
        """Fields of a ClipInfo, from what the container says."""
        codec = self.stream.codec_context
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        duration = self.container.duration / 1_000_000 if self.container.duration else 0.0
        if not duration and self.stream.duration and self.stream.time_base:
            duration = float(self.stream.duration * self.stream.time_base)
        size = (codec.height, codec.width) if orientation.transpose else (codec.width, codec.height)
        return {
            "name": self.name,
            "width": size[0],
            "height": size[1],
            "fps": [rate.numerator, rate.denominator],
            "n_frames_estimate": round(duration * self.request["fps"]),
            "duration_s": duration,
            "rotation": orientation.rotation,
            "has_audio": self.has_audio,
            "container": self.kind.demuxer,
            "video_codec": codec.name,
        }


def outside(name: str, length_s: float, start_s: float) -> VideoError:
    """The part asked for begins after the end."""
    return VideoError(
        "video.part",
        f"{name} is {length_s:.1f} s long, and the part was to start at {start_s:.1f} s.",
        expected="A start before the end of the clip.",
        todo="Choose an earlier start.",
    )


def damaged(name: str, what: str) -> VideoError:
    """The container or the picture track is broken."""
    return VideoError(
        "video.damaged",
        f"{name} cannot be decoded: {what}.",
        expected="An undamaged video, for example MP4 with H.264.",
        todo="Export it again.",
    )


def no_picture(name: str) -> VideoError:
    """Sound alone."""
    return VideoError(
        "video.no_picture",
        f"{name} has sound but no picture.",
        expected="A video of a person talking.",
        todo="Choose another file.",
    )


def unknown_codec(name: str) -> VideoError:
    """A picture track without a decoder: rare, or a damaged header."""
    return VideoError(
        "video.codec",
        f"The picture in {name} is stored in a way that cannot be read here.",
        expected="H.264, HEVC, VP9, AV1 or another common kind.",
        todo="Export it again, for example as MP4 with H.264.",
    )


def is_protected(name: str) -> VideoError:
    """Encrypted pictures."""
    return VideoError(
        "video.protected",
        f"{name} is a protected video: its pictures are encrypted.",
        expected="A recording of your own.",
        todo="Choose another file.",
    )


def _too_long(request: dict, seconds: float) -> VideoError:
    return VideoError(
        "video.too_long",
        f"{request['name']} is longer than {request['max_seconds']:.0f} s.",
        expected=f"At most {request['max_seconds']:.0f} s.",
        todo="Choose the part where the person talks (--start, --end), or cut it out.",
    )
