"""Speech into an avatar's mouth: frames streamed while they are rendered, then one finished, signed clip."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talker.errors import SpeechError
from talker.studio import captions
from talker.studio.clips import Clip, ClipShelf
from talker.studio.gallery import AvatarInfo

if TYPE_CHECKING:
    import numpy as np

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


def speech_of(text: str | None, audio: Path | None, voice: str | None, rate: float) -> Speech:
    """Sound with word timings from a text, or sound alone from a file.

    Raises:
        SpeechError: When neither or both are given, or the text cannot be spoken.
        AudioError: When the file cannot be read.
    """
    if (audio is None) == (not (text or "").strip()):
        raise SpeechError(
            "speech.nothing",
            "There is nothing to say yet." if audio is None else "There is both a text and a recording.",
            todo="Type a sentence, or choose a recording." if audio is None else "Choose one of the two.",
        )
    if audio is None:
        from talker.audio.tts import speak

        return speak(text or "", voice=voice, rate=rate)
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


def talk(
    info: AvatarInfo,
    avatar: Avatar,
    speech: Speech,
    shelf: ClipShelf,
    *,
    owner: str,
    title: str,
    label: bool = True,
) -> Iterator[TalkChunk | TalkDone]:
    """Render the avatar saying ``speech``; memory stays flat for any length.

    Closing the iterator stops the rendering at the next frame and removes what was made.

    Args:
        info: Where the avatar comes from.
        avatar: The avatar.
        speech: What it says.
        shelf: Receives the finished clip.
        owner: Whose clip it will be.
        title: For lists.
        label: Draw the visible label. The marks in the file are always written.
    """
    import shutil
    import tempfile

    from talker.drive import DriveConfig, drive
    from talker.provenance import sign, stamp_frames
    from talker.types import FPS, SAMPLE_RATE
    from talker.video.encode import Mp4Writer
    from talker.video.live import LiveWriter

    frames: Iterator[np.ndarray] = drive(avatar, speech, config=DriveConfig())
    if label:
        frames = stamp_frames(frames)
    first = next(frames)
    height, width = first.shape[:2]
    folder = shelf.open()
    step = SAMPLE_RATE // FPS
    pieces = Path(tempfile.mkdtemp(prefix="talker-live-"))
    kept = False
    try:
        with (
            LiveWriter(pieces, width, height) as live,
            Mp4Writer(folder / "clip.mp4", width, height, fps=FPS, sample_rate=SAMPLE_RATE) as final,
        ):
            for index, frame in enumerate(_chain(first, frames)):
                sound = _padded(speech.waveform[index * step : (index + 1) * step], step)
                for writer in (live, final):
                    writer.write(frame)
                    writer.write_audio(sound)
                for piece in live.pieces():
                    yield TalkChunk(piece.path, piece.duration_s, (index + 1) / FPS, speech.duration_s)
            live.close()
            for piece in live.pieces():
                yield TalkChunk(piece.path, piece.duration_s, speech.duration_s, speech.duration_s)
        _finish(folder, first, speech)
        sign(folder / "clip.mp4", avatar_name=info.card.name)
        clip = shelf.keep(folder, owner, info.slug, title, speech.duration_s)
        kept = True
        yield TalkDone(clip)
    finally:
        shutil.rmtree(pieces, ignore_errors=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


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
