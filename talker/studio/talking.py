"""Speech into an avatar's mouth: frames streamed while they are rendered, then one finished, signed clip."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talker.errors import SpeechError
from talker.studio import captions
from talker.studio.clips import Clip, ClipShelf
from talker.studio.gallery import AvatarInfo
from talker.studio.notes import TICK_S, TalkNote

if TYPE_CHECKING:
    import numpy as np

    from talker.drive import DriveConfig
    from talker.model.avatar import Avatar
    from talker.types import Speech

MAX_AUDIO_S = 600

REHEARSED = 4
"""Frames."""


@dataclass(frozen=True)
class TalkChunk:
    """A piece of the video, ready to be played after the one before it."""

    path: Path
    """MPEG-TS file; gone when the run ends."""
    duration_s: float
    done_s: float
    """Seconds of video rendered so far."""
    total_s: float


@dataclass(frozen=True)
class TalkDone:
    """The run ended well."""

    clip: Clip


@dataclass(frozen=True)
class Manner:
    """How an avatar speaks and what is behind it; the meaning is that of :class:`talker.drive.DriveConfig`."""

    intensity: float = 1.0
    head_motion: float = 1.0
    background: str = "clip"

    def config(self) -> DriveConfig:
        """For the driver.

        Raises:
            ConfigError: A value is out of its range.
        """
        from talker.drive import DriveConfig

        return DriveConfig(intensity=self.intensity, head_motion=self.head_motion, background=self.background)


class Loader:
    """Keeps the last few avatars in memory; loading is strict and takes a moment."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._loaded: OrderedDict[tuple[str, float], Avatar] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, info: AvatarInfo) -> Avatar:
        """The avatar, from memory if its folder has not changed since."""
        from talker.checkpoint import load_avatar
        from talker.device import chosen_device

        key = (info.slug, (info.folder / "avatar.json").stat().st_mtime)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_avatar(info.folder, device=chosen_device())
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
            return self._loaded[key]


def require_one(text: str | None, audio: Path | None) -> None:
    """Accept a text or a recording.

    Raises:
        SpeechError: When neither or both are given.
    """
    if (audio is None) == (not (text or "").strip()):
        raise SpeechError(
            "speech.nothing",
            "There is nothing to say yet." if audio is None else "There is both a text and a recording.",
            todo="Type a sentence, or choose a recording." if audio is None else "Choose one of the two.",
        )


def speech_of(text: str | None, audio: Path | None, voice: str | None, rate: float, language: str) -> Speech:
    """Sound with word timings from a text, or sound alone from a file.

    Raises:
        SpeechError: When the text cannot be spoken.
        AudioError: When the file cannot be read.
    """
    if audio is None:
        from talker.audio.tts import speak

        return speak(text or "", voice=voice, language=language, rate=rate)
    from talker.audio.waveform import load
    from talker.types import Speech

    return Speech(load(audio, max_seconds=MAX_AUDIO_S), label="recording")


def rehearse(avatar: Avatar) -> None:
    """Draw a few frames for nobody: everything a first sentence needs is loaded and compiled after it."""
    import numpy as np

    from talker.drive import DriveConfig, drive
    from talker.provenance import stamp_frames
    from talker.types import FPS, SAMPLE_RATE, Speech

    seconds = REHEARSED / FPS
    hum = 0.1 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) / 20)
    for _ in stamp_frames(drive(avatar, Speech(hum.astype(np.float32)), config=DriveConfig())):
        pass


def talk(  # noqa: PLR0913 - each is one independent choice of the caller
    info: AvatarInfo,
    speech: Speech,
    frames: Iterator[np.ndarray],
    shelf: ClipShelf,
    *,
    owner: str,
    title: str,
    label: bool = True,
    background: str = "clip",
    batch: str = "",
    declaration: str = "",
) -> Iterator[TalkChunk | TalkNote | TalkDone]:
    """Make the clip of ``frames``; memory stays flat for any length.

    Closing the iterator stops the rendering at the next frame and removes what was made. Frames with alpha also
    become a ``.mov``; the mp4 then shows them over chequers.

    Args:
        info: Where the avatar comes from.
        speech: What it says.
        frames: It saying that, [H, W, 3] or [H, W, 4] uint8.
        shelf: Receives the finished clip.
        owner: Whose clip it will be.
        title: For lists.
        label: Draw the visible label. The marks in the file are always written.
        background: What the frames were drawn before; kept with the clip.
        batch: Shared by clips made in one go.
        declaration: What was declared for this clip; kept with it.
    """
    import shutil
    import tempfile

    from talker.provenance import sign, stamp_frames

    if label:
        frames = stamp_frames(frames)
    first = next(frames)
    folder = shelf.open()
    pieces = Path(tempfile.mkdtemp(prefix="talker-live-"))
    kept = False
    try:
        yield from _write(folder, pieces, first, frames, speech)
        _finish(folder, _shown(first), speech)
        for film in sorted(folder.glob("clip.m*")):
            sign(film, avatar_name=info.card.name)
        clip = shelf.keep(
            folder,
            owner,
            info.slug,
            title,
            speech.duration_s,
            background=background,
            batch=batch,
            declaration=declaration,
        )
        kept = True
        yield TalkDone(clip)
    finally:
        shutil.rmtree(pieces, ignore_errors=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _write(
    folder: Path, pieces: Path, first: np.ndarray, rest: Iterator[np.ndarray], speech: Speech
) -> Iterator[TalkChunk | TalkNote]:
    """Write the films into ``folder`` and pieces to be played meanwhile into ``pieces``."""
    from talker.types import FPS, SAMPLE_RATE
    from talker.video.alpha import AlphaWriter
    from talker.video.encode import Mp4Writer
    from talker.video.live import LiveWriter

    height, width, channels = first.shape
    step = SAMPLE_RATE // FPS
    total, said = speech.duration_s, time.monotonic()
    with ExitStack() as stack:
        live = stack.enter_context(LiveWriter(pieces, width, height))
        writers = [live, stack.enter_context(Mp4Writer(folder / "clip.mp4", width, height))]
        clear = (
            stack.enter_context(AlphaWriter(folder / "clip.mov", width, height)) if channels == 4 else None
        )
        for index, frame in enumerate(_chain(first, rest)):
            sound = _padded(speech.waveform[index * step : (index + 1) * step], step)
            if clear is not None:
                clear.write(frame)
                clear.write_audio(sound)
            picture = _shown(frame)
            for writer in writers:
                writer.write(picture)
                writer.write_audio(sound)
            done = (index + 1) / FPS
            for piece in live.pieces():
                yield TalkChunk(piece.path, piece.duration_s, done, total)
                said = time.monotonic()
            if time.monotonic() - said > TICK_S:
                yield TalkNote("Rendering", min(1.0, done / max(total, 1 / FPS)))
                said = time.monotonic()
        live.close()
        for piece in live.pieces():
            yield TalkChunk(piece.path, piece.duration_s, total, total)


def _shown(frame: np.ndarray) -> np.ndarray:
    """A frame for players without transparency."""
    from talker.video.alpha import on_chequers

    return frame if frame.shape[2] == 3 else on_chequers(frame)


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _padded(sound: np.ndarray, length: int) -> np.ndarray:
    import numpy as np

    return sound if len(sound) == length else np.pad(sound, (0, length - len(sound)))


def _finish(folder: Path, poster: np.ndarray, speech: Speech) -> None:
    """Poster and captions."""
    from PIL import Image

    Image.fromarray(poster).save(folder / "poster.jpg", quality=85)
    if speech.words:
        (folder / "clip.srt").write_text(captions.srt(speech.words), encoding="utf-8")
        (folder / "clip.vtt").write_text(captions.vtt(speech.words), encoding="utf-8")
