"""A look at an avatar on the Hub before it is loaded: its poster, its card, its figures. Nothing is kept."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from talker.card import AVATAR_JSON, POSTER, README, AvatarCard, read_card
from talker.errors import CheckpointError
from talker.hub.files import MAX_BYTES, drop_unsound_extras
from talker.hub.pull import list_files
from talker.hub.transport import limits

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOOK_S = 30.0
MAX_LOOK_BYTES = 1 << 20
"""Of one file; a larger poster is not shown before the avatar is loaded."""
WANTED = (AVATAR_JSON, POSTER, README)


@dataclass(frozen=True)
class HubLook:
    """What a repository says about its avatar. All of it was written by a stranger."""

    repo_id: str
    private: bool
    gated: bool
    card: AvatarCard | None
    """None when the manifest is missing or not one of ours."""
    poster: bytes = field(default=b"", repr=False)
    """A JPEG that was decoded once, or nothing."""
    text: str = field(default="", repr=False)
    """The model card, Markdown without its front matter."""


def look(api: HfApi, repo_id: str) -> HubLook:
    """See :meth:`talker.hub.Hub.look`."""
    with (
        limits(LOOK_S, len(WANTED) * (MAX_LOOK_BYTES + (1 << 16)) + (1 << 20)),
        tempfile.TemporaryDirectory(prefix="talker-look-") as scratch,
    ):
        folder = Path(scratch) / "avatar"
        info = api.model_info(repo_id, expand=["sha", "private", "gated"])
        entries = list_files(api, repo_id, str(info.sha))
        for name in WANTED:
            if name in entries and 0 < entries[name].size <= min(MAX_LOOK_BYTES, MAX_BYTES[name]):
                api.hf_hub_download(repo_id, name, revision=str(info.sha), local_dir=folder)
        if folder.is_dir():
            drop_unsound_extras(folder)
        return HubLook(
            repo_id,
            bool(info.private),
            bool(info.gated),
            _card(folder),
            _bytes(folder / POSTER),
            _without_front_matter(_bytes(folder / README).decode("utf-8", errors="replace")),
        )


def _card(folder: Path) -> AvatarCard | None:
    try:
        return read_card(folder)
    except CheckpointError:
        return None


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _without_front_matter(text: str) -> str:
    text = text.replace("\r\n", "\n")
    parts = text.split("---\n", 2)
    return parts[2] if len(parts) == 3 and not parts[0].strip() else text
