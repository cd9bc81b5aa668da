"""Uploads, taken into a private folder the moment they arrive, under names nobody can guess or choose."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from talker.atomic import write_atomic
from talker.errors import JobError, VideoError

_ID = re.compile(r"[0-9a-f]{32}")
MAX_LABEL = 80


@dataclass(frozen=True)
class Upload:
    """One clip waiting for a decision."""

    id: str
    owner: str
    label: str
    """The file's name as the person knows it; never used as a path."""
    path: Path
    received: float  # seconds since 1970


def clean_label(name: str, *, default: str = "clip") -> str:
    """A file name for display: base name, printable characters only, cut to ``MAX_LABEL``."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(
        c for c in base if c.isprintable() and not ("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069")
    )
    return shown.strip()[:MAX_LABEL] or default


def _file_name(label: str) -> str:
    """A harmless file name that still resembles the label; the folder around it makes it unguessable."""
    stem, _, suffix = label.rpartition(".")
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "clip"
    return f"{stem}.{re.sub(r'[^a-z0-9]', '', suffix.lower())[:5] or 'bin'}"


class Inbox:
    """The folder of uploads."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def take(self, source: Path, owner: str, *, max_mb: int, move: bool = True) -> Upload:
        """Bring a file in. With ``move`` the source is gone afterwards.

        Raises:
            VideoError: ``video.missing``, ``video.empty`` or ``video.too_large``.
        """
        label = clean_label(source.name)
        if not source.is_file():
            raise VideoError("video.missing", "The upload did not arrive.", todo="Upload the clip again.")
        size = source.stat().st_size
        if size == 0:
            raise VideoError(
                "video.empty",
                f"{label} is empty (0 bytes).",
                expected="A video file of somebody talking.",
                todo="Upload the clip again.",
            )
        if size > max_mb * 1_000_000:
            raise VideoError(
                "video.too_large",
                f"{label} has {size / 1e6:.0f} MB.",
                expected=f"At most {max_mb} MB.",
                todo="Cut the clip to one minute or lower its resolution.",
            )
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(parents=True, mode=0o700)
        target = folder / _file_name(label)
        if move:
            shutil.move(source, target)
        else:
            shutil.copyfile(source, target)
        upload = Upload(folder.name, owner, label, target, time.time())
        record = {k: v for k, v in asdict(upload).items() if k != "path"}
        write_atomic(folder / "upload.json", json.dumps(record).encode())
        return upload

    def get(self, upload_id: str, owner: str) -> Upload:
        """The upload, if it exists and belongs to ``owner``; the same answer for both failures.

        Raises:
            JobError: ``upload.unknown``.
        """
        record = self.root / upload_id / "upload.json" if _ID.fullmatch(upload_id or "") else None
        if record is not None and record.is_file():
            fields = json.loads(record.read_text())
            upload = Upload(path=record.with_name(_file_name(fields["label"])), **fields)
            if upload.owner == owner and upload.path.is_file():
                return upload
        raise JobError("upload.unknown", "The uploaded clip is no longer here.", todo="Upload it again.")

    def discard(self, upload_id: str, owner: str) -> None:
        """Delete an upload with everything beside it."""
        shutil.rmtree(self.get(upload_id, owner).path.parent)

    def sweep(self, max_age_h: float) -> int:
        """Delete what is older than ``max_age_h`` hours; returns how many uploads went."""
        old = [f for f in self._folders() if time.time() - f.stat().st_mtime > max_age_h * 3600]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)

    def _folders(self) -> list[Path]:
        return [f for f in self.root.iterdir() if f.is_dir()] if self.root.is_dir() else []
