"""The avatars on this machine: one folder each, with a small note beside it that says whose it is."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from talker.atomic import write_atomic
from talker.errors import CheckpointError, TalkerError
from talker.studio.config import LOCAL

if TYPE_CHECKING:
    from talker.card import AvatarCard

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


@dataclass(frozen=True)
class Note:
    """What the gallery knows about an avatar and the avatar itself must not carry."""

    owner: str = LOCAL
    source: str = ""
    """``job:<id>`` or ``hub:<repo>``; empty for a folder somebody put there."""
    added: str = ""
    """ISO 8601, UTC."""
    published: str = ""
    """Repository on the Hub that holds a copy, if this machine put it there."""


@dataclass(frozen=True)
class AvatarInfo:
    """An avatar for lists and pages; reads no tensors."""

    slug: str
    folder: Path
    card: AvatarCard
    note: Note

    @property
    def poster(self) -> Path:
        """Still picture."""
        return self.folder / "poster.jpg"

    @property
    def preview(self) -> Path:
        """Short clip."""
        return self.folder / "preview.mp4"

    @property
    def ply(self) -> Path:
        """Neutral pose as a standard 3DGS file."""
        return self.folder / "neutral.ply"


def slug_of(name: str) -> str:
    """A folder name: ASCII letters, digits and dashes, at most 40 characters."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")[:40].strip("-") or "avatar"


class Gallery:
    """The folder of avatars."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self, owner: str) -> list[AvatarInfo]:
        """The avatars ``owner`` may use, newest first. A damaged one is left out."""
        found = []
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if not (folder / "avatar.json").is_file() or not _SLUG.fullmatch(folder.name):
                continue
            try:
                found.append(self.get(folder.name, owner))
            except TalkerError:
                continue
        return sorted(found, key=lambda a: a.note.added or a.card.created, reverse=True)

    def get(self, slug: str, owner: str) -> AvatarInfo:
        """One avatar, if it exists and ``owner`` may use it; the same answer for both failures.

        Raises:
            CheckpointError: ``avatar.unknown``, or whatever is wrong with its card.
        """
        from talker.card import read_card

        folder = self.root / slug
        if not _SLUG.fullmatch(slug or "") or not (folder / "avatar.json").is_file():
            raise _unknown()
        note = self._note(slug)
        # A folder without a note was put there by the operator, for everybody.
        if note.source and note.owner != owner:
            raise _unknown()
        return AvatarInfo(slug, folder, read_card(folder), note)

    def own(self, slug: str, owner: str) -> AvatarInfo:
        """Like :meth:`get`, for what only the owner may do (publish, delete)."""
        info = self.get(slug, owner)
        if info.note.owner != owner:
            raise _unknown()
        return info

    def adopt(self, folder: Path, name: str, owner: str, source: str) -> str:
        """Move a finished avatar folder in under a free name; returns the slug.

        The note is written first: a crash between the two leaves an orphan note, never an avatar without owner.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        slug = self._free(slug_of(name))
        note = Note(owner, source, datetime.now(UTC).isoformat(timespec="seconds"))
        write_atomic(self._note_path(slug), json.dumps(asdict(note)).encode())
        shutil.move(folder, self.root / slug)
        return slug

    def note_published(self, slug: str, owner: str, repo_id: str) -> None:
        """Remember where a copy of an avatar is; an empty ``repo_id`` forgets it."""
        info = self.own(slug, owner)
        note = replace(info.note, published=repo_id)
        write_atomic(self._note_path(slug), json.dumps(asdict(note)).encode())

    def find_source(self, source: str) -> str | None:
        """Slug of the avatar that came from ``source``."""
        for note in self.root.glob("*.json") if self.root.is_dir() else []:
            if self._note(note.stem).source == source and (self.root / note.stem / "avatar.json").is_file():
                return note.stem
        return None

    def delete(self, slug: str, owner: str) -> None:
        """Remove an avatar with every byte of it."""
        info = self.own(slug, owner)
        shutil.rmtree(info.folder)
        self._note_path(slug).unlink(missing_ok=True)

    def _free(self, slug: str) -> str:
        candidate, number = slug, 2
        while (self.root / candidate).exists():
            candidate, number = f"{slug}-{number}", number + 1
        return candidate

    def _note_path(self, slug: str) -> Path:
        return self.root / f"{slug}.json"

    def _note(self, slug: str) -> Note:
        path = self._note_path(slug)
        if not path.is_file():
            return Note()
        try:
            return Note(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            # An unreadable note must not open a private avatar to everybody.
            return Note(owner="", source="unreadable")


def _unknown() -> CheckpointError:
    return CheckpointError("avatar.unknown", "This avatar is not here.", todo="Choose one from the list.")
