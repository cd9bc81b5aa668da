"""An avatar's manifest ``avatar.json`` and the card in it: what can be known without loading the avatar.

Needs neither PyTorch nor any other large library, so that lists of avatars are there at once.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talker.errors import CheckpointError
from talker.safe_files import read_json, write_json

FORMAT = 2
AVATAR_JSON, MODEL, MOTION, PLATE = "avatar.json", "model.safetensors", "motion.safetensors", "background.png"
NEUTRAL_PLY, POSTER, PREVIEW, TRAINING, README = (
    "neutral.ply",
    "poster.jpg",
    "preview.mp4",
    "training.json",
    "README.md",
)
REQUIRED = (AVATAR_JSON, MODEL, MOTION, PLATE)

HEADER_KEYS = {
    "format",
    "card",
    "model",
    "branches",
    "embedding",
    "motion",
    "lip_code",
    "audio_encoder",
    "camera",
}


@dataclass(frozen=True)
class AvatarCard:
    """What is known about an avatar without loading it."""

    name: str
    created: str
    """ISO 8601, UTC."""
    preset: str
    size: int
    n_gaussians: int
    audio_encoder: str
    consent: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)
    version: int = FORMAT
    bytes: int = 0


def read_card(folder: Path) -> AvatarCard:
    """The card of the avatar in ``folder``.

    Raises:
        CheckpointError: Missing, damaged or of another version.
    """
    from pydantic import TypeAdapter, ValidationError

    header = read_header(folder)
    card = {**header["card"], "version": header["format"]}
    if set(card) - {f.name for f in dataclasses.fields(AvatarCard)}:
        raise damaged("its card has unknown entries")
    if not isinstance(card.get("consent"), dict):
        card["consent"] = {}  # what is no record is no consent; who needs one says so in better words
    try:
        card = TypeAdapter(AvatarCard).validate_json(json.dumps(card), strict=True)
    except ValidationError as error:
        raise damaged("its card has missing entries or such of another kind") from error
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return dataclasses.replace(card, bytes=size)


def update_card(folder: Path, **changes: Any) -> AvatarCard:
    """Replace entries of the card, such as ``name`` or ``metrics``."""
    header = read_header(folder)
    header["card"] = {**header["card"], **changes}
    write_json(folder / AVATAR_JSON, header)
    return read_card(folder)


def read_header(folder: Path) -> dict[str, Any]:
    """The manifest of the avatar in ``folder``; its parts are checked by who uses them.

    Raises:
        CheckpointError: Missing, damaged or of another version.
    """
    if not (folder / AVATAR_JSON).is_file():
        raise CheckpointError(
            "avatar.missing",
            f"There is no avatar in {folder.name!r}.",
            expected=f"A folder with {', '.join(REQUIRED)}.",
            todo="Create one first, or pull one from the Hub.",
        )
    header = read_json(folder / AVATAR_JSON, max_bytes=1 << 20)
    if header.get("format") != FORMAT:
        raise CheckpointError(
            "avatar.version",
            f"This avatar has format {str(header.get('format'))[:20]!r}.",
            expected=f"This version of talker reads format {FORMAT}.",
            todo="Update talker, or ask for the avatar in the current format.",
        )
    for name in ("card", "model", "branches", "embedding", "camera"):
        if not isinstance(header.get(name), dict):
            raise damaged(f"{name!r} is missing")
    if set(header) - HEADER_KEYS or not isinstance(header.get("audio_encoder"), str):
        raise damaged("its manifest has unknown or missing entries")
    return header


def damaged(reason: str) -> CheckpointError:
    """The error of an avatar that is not what it should be."""
    return CheckpointError(
        "avatar.damaged",
        f"This avatar cannot be used: {reason}.",
        todo="Fetch or create it again.",
    )
