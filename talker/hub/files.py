"""Which files an avatar's repository holds, how large each may be, and what its content must be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from talker import card
from talker.checkpoint import MAX_MODEL_BYTES
from talker.errors import CheckpointError, HubError
from talker.safe_files import read_json, sha256_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

MIB = 1 << 20
MAX_BYTES = {
    card.README: MIB // 4,
    card.AVATAR_JSON: MIB,
    card.MODEL: MAX_MODEL_BYTES,
    card.MOTION: 64 * MIB,
    card.PLATE: 16 * MIB,
    card.POSTER: 8 * MIB,
    card.PREVIEW: 64 * MIB,
    card.NEUTRAL_PLY: 64 * MIB,
    card.TRAINING: MIB,
}
"""Exact names; nothing else is ever sent or fetched."""

MAX_IMAGE_SIDE = 4096


def check_size(name: str, size: int) -> None:
    """Refuse a file above its cap.

    Raises:
        HubError: ``hub.too_large``.
    """
    if not 0 < size <= MAX_BYTES[name]:
        raise HubError(
            "hub.too_large",
            f"{name} has {size:,} bytes.",
            expected=f"Between 1 and {MAX_BYTES[name]:,}.",
            todo="Do not use this avatar.",
        )


def same_content(path: Path, entry: RepoFile) -> bool:
    """Whether a local file is what the Hub lists: its size and SHA-256 (LFS) or Git blob hash."""
    if path.stat().st_size != entry.size:
        return False
    if entry.lfs is not None:
        return sha256_file(path) == entry.lfs.sha256
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return blob.hexdigest() == entry.blob_id


def drop_unsound_extras(folder: Path) -> list[str]:
    """Remove files meant for people that are not what their names say; returns their names."""
    checks = {
        card.README: _is_text,
        card.POSTER: _is_jpeg,
        card.PREVIEW: lambda path: path.open("rb").read(12)[4:8] == b"ftyp",
        card.NEUTRAL_PLY: lambda path: (
            path.open("rb").read(40).startswith(b"ply\nformat binary_little_endian 1.0\n")
        ),
        card.TRAINING: _is_json,
    }
    dropped = [
        name for name, sound in checks.items() if (folder / name).is_file() and not sound(folder / name)
    ]
    for name in dropped:
        (folder / name).unlink()
    return dropped


def _is_text(path: Path) -> bool:
    try:
        return "\0" not in path.read_text("utf-8")
    except ValueError:
        return False


def _is_json(path: Path) -> bool:
    try:
        read_json(path, max_bytes=MAX_BYTES[path.name])
    except CheckpointError:
        return False
    return True


def _is_jpeg(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("JPEG",)) as image:
            if max(image.size) > MAX_IMAGE_SIDE:
                return False
            image.load()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return False
    return True
