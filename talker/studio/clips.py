"""Finished talking clips, kept until their owner deletes them."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from talker.atomic import write_atomic
from talker.errors import JobError

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Clip:
    """One finished clip."""

    id: str
    owner: str
    avatar: str
    """Slug of the avatar that speaks."""
    title: str
    """First words of the text, or the name of the sound file."""
    seconds: float
    created: str  # ISO 8601, UTC
    folder: Path
    background: str = "clip"
    """See :class:`talker.drive.DriveConfig`."""
    batch: str = ""
    """Shared by clips that were made in one go."""
    declaration: str = ""
    """What its maker declared, if it was spoken into a video."""

    @property
    def video(self) -> Path:
        """The signed mp4 that plays everywhere."""
        return self.folder / "clip.mp4"

    @property
    def download(self) -> Path:
        """The signed file to keep: with transparency if it was asked for, else the mp4."""
        return self._optional("clip.mov") or self.video

    @property
    def poster(self) -> Path:
        """A still picture."""
        return self.folder / "poster.jpg"

    @property
    def vtt(self) -> Path | None:
        """Captions for players, if the words are known."""
        return self._optional("clip.vtt")

    @property
    def srt(self) -> Path | None:
        """Captions for editors, if the words are known."""
        return self._optional("clip.srt")

    def _optional(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None


class ClipShelf:
    """The folder of clips. ``clip.json`` is written last: without it a folder is an unfinished one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> Path:
        """A new private folder to make a clip in."""
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def keep(
        self,
        folder: Path,
        owner: str,
        avatar: str,
        title: str,
        seconds: float,
        *,
        background: str = "clip",
        batch: str = "",
        declaration: str = "",
    ) -> Clip:
        """Declare the clip in ``folder`` finished."""
        created = datetime.now(UTC).isoformat(timespec="microseconds")  # a batch is put in order by it
        clip = Clip(
            folder.name, owner, avatar, title, seconds, created, folder, background, batch, declaration
        )
        record = {k: v for k, v in asdict(clip).items() if k != "folder"}
        write_atomic(folder / "clip.json", json.dumps(record).encode())
        return clip

    def get(self, clip_id: str, owner: str) -> Clip:
        """The clip, if it exists and belongs to ``owner``; the same answer for both failures.

        Raises:
            JobError: ``clip.unknown``.
        """
        if _ID.fullmatch(clip_id or "") and (self.root / clip_id / "clip.json").is_file():
            clip = self._read(self.root / clip_id)
            if clip.owner == owner:
                return clip
        raise JobError("clip.unknown", "This clip is not here.", todo="Choose one from the list.")

    def all(self, owner: str, limit: int | None = None) -> list[Clip]:
        """The clips of ``owner``, newest first; only the newest ``limit`` if given."""
        folders = [f.parent for f in self.root.glob("*/clip.json")] if self.root.is_dir() else []
        clips = [clip for clip in map(self._read, folders) if clip.owner == owner]
        return sorted(clips, key=lambda c: (c.created, c.id), reverse=True)[:limit]

    def of_batch(self, batch: str, owner: str) -> list[Clip]:
        """The clips made in one go, in the order they were made; none for an empty name."""
        return [clip for clip in reversed(self.all(owner)) if batch and clip.batch == batch]

    def delete_all(self, owner: str) -> int:
        """Remove every clip of ``owner``; returns how many there were."""
        clips = self.all(owner)
        for clip in clips:
            shutil.rmtree(clip.folder)
        return len(clips)

    def delete(self, clip_id: str, owner: str) -> None:
        """Remove a clip."""
        shutil.rmtree(self.get(clip_id, owner).folder)

    def sweep(self) -> None:
        """Remove what an interrupted run left behind; only at start-up, when none can be running."""
        for folder in self.root.iterdir() if self.root.is_dir() else []:
            if not (folder / "clip.json").is_file():
                shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _read(folder: Path) -> Clip:
        return Clip(folder=folder, **json.loads((folder / "clip.json").read_text()))
