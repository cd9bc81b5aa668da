"""The talking half of the studio: what avatars say, and the clips that come of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker.errors import ConfigError, SpeechError
from talker.studio import batch, bundle, dubbing, talking
from talker.studio.clips import Clip, ClipShelf
from talker.studio.config import LOCAL, StudioConfig
from talker.studio.gallery import Gallery
from talker.studio.inbox import Inbox, Upload, clean_label
from talker.studio.line import Line
from talker.studio.notes import TalkNote, with_notes
from talker.studio.talking import Manner, TalkChunk, TalkDone

if TYPE_CHECKING:
    import numpy as np

    from talker.model.avatar import Avatar
    from talker.types import Speech

PLAIN = Manner()


class Speaking(ABC):
    """Base of :class:`talker.studio.Studio`, which sets the attributes."""

    inbox: Inbox
    gallery: Gallery
    shelf: ClipShelf
    line: Line
    config: StudioConfig
    _loader: talking.Loader
    _talked: bool

    @abstractmethod
    def _engine(self) -> None:
        """Import what loads, drives and trains avatars."""

    def voices(self) -> list[Any]:
        """Voices of every engine that works here."""
        from talker.audio.tts import engines

        return [voice for engine in engines() if engine.available() for voice in engine.voices()]

    def talk(  # noqa: PLR0913 - each is one independent choice of the caller
        self,
        slug: str,
        owner: str = LOCAL,
        *,
        text: str | None = None,
        audio: Path | None = None,
        voice: str | None = None,
        language: str = "en",
        rate: float = 1.0,
        label: bool = True,
        manner: Manner = PLAIN,
        over: str | None = None,
        agreed: bool = False,
        title: str | None = None,
        batch_id: str = "",
    ) -> Iterator[TalkChunk | TalkNote | TalkDone]:
        """Let an avatar say something: pieces of video while rendering, then the finished clip.

        Not more than one at a time should run: see ``line``.

        Args:
            slug: The avatar.
            owner: Who asks, and whose clip it will be.
            text: What it says, or
            audio: a recording of it.
            voice: Id of a voice for the text; the first one of ``language`` if absent.
            language: Of the text, if no voice is given.
            rate: Speed of the voice.
            label: Draw the visible label.
            manner: How it moves and what is behind it.
            over: Id of an upload of ``owner``: speak into that video instead.
            agreed: ``dubbing.DECLARATION`` was made, without which nothing is spoken into a video.
            title: For lists; the first words of the text by default.
            batch_id: Shared by clips made in one go.
        """
        self._talked = True
        info = self.gallery.get(slug, owner)
        talking.require_one(text, audio)
        upload = None if over is None else self._film(over, owner, manner, agreed)
        yield TalkNote("Getting ready")
        self._engine()
        config = manner.config()

        def ready() -> tuple[Speech, Avatar]:
            return talking.speech_of(text, audio, voice, rate, language), self._loader.load(info)

        speech, avatar = yield from with_notes(ready, "Getting ready")
        if upload is None:
            from talker.drive import drive

            frames: Iterator[np.ndarray] = drive(avatar, speech, config=config)
        else:
            yield from dubbing.prepare(upload, avatar.camera.width)
            from talker.dataset.reader import TalkingHeadDataset
            from talker.dub import over as spoken_over

            film = TalkingHeadDataset(dubbing.prepared(upload, avatar.camera.width))
            frames = spoken_over(avatar, speech, film, config)
        yield from talking.talk(
            info,
            speech,
            frames,
            self.shelf,
            owner=owner,
            title=clean_label(title or batch.clean_title(text or ""), default="A recording"),
            label=label,
            background=manner.background,
            batch=batch_id,
            declaration="" if upload is None else dubbing.DECLARATION,
        )

    def _film(self, upload_id: str, owner: str, manner: Manner, agreed: bool) -> Upload:
        """The video to speak into, if it may be."""
        dubbing.require_agreed(agreed)
        if (manner.background, manner.head_motion) != (PLAIN.background, PLAIN.head_motion):
            raise ConfigError(
                "dub.manner",
                "A video that is spoken into keeps its own background and head motion.",
                todo="Set both back, or remove the video.",
            )
        upload = self.inbox.get(upload_id, owner)
        dubbing.require_fit(upload)
        return upload

    def film(self, path: Path, owner: str) -> Upload:
        """Take a video to speak into, after the pre-flight check; it is kept like an upload to learn from.

        Raises:
            VideoError: It cannot be used, and why.
        """
        self.inbox.sweep(self.config.keep_uploads_h)
        upload = self.inbox.take(path, owner, max_mb=self.config.max_upload_mb, move=False)
        try:
            dubbing.require_fit(upload)
        except BaseException:
            self.inbox.discard(upload.id, owner)
            raise
        return upload

    # --- clips -------------------------------------------------------------------------------------------

    def clips(self, owner: str, limit: int | None = None) -> list[Clip]:
        """The finished clips of ``owner``, newest first."""
        return self.shelf.all(owner, limit)

    def clip(self, clip_id: str, owner: str) -> Clip:
        """One finished clip."""
        return self.shelf.get(clip_id, owner)

    def delete_clip(self, clip_id: str, owner: str) -> None:
        """Delete a finished clip."""
        self.shelf.delete(clip_id, owner)

    def delete_clips(self, owner: str) -> int:
        """Delete every clip of ``owner``; returns how many there were."""
        return self.shelf.delete_all(owner)

    def bundle(self, batch_id: str, owner: str, target: Path) -> Path:
        """Write the clips that were made in one go to the zip file ``target``.

        Raises:
            SpeechError: None of them is here any more.
        """
        clips = self.shelf.of_batch(batch_id, owner)
        if not clips:
            raise SpeechError("batch.unknown", "These clips are no longer here.", todo="Make them again.")
        return bundle.write_zip(clips, target)
