"""From the Hub to a folder: sizes before bytes, exact names of a pinned commit, checked before it is visible."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from talker.card import REQUIRED, AvatarCard, read_card
from talker.checkpoint import load_avatar
from talker.errors import CheckpointError, ConsentError, HubError
from talker.hub.files import MAX_BYTES, check_size, drop_unsound_extras, same_content
from talker.hub.names import COMMIT
from talker.hub.transport import limits
from talker.safe_files import atomic_folder, fsync_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

log = logging.getLogger(__name__)

_META_S = 120.0
_MIN_BYTES_PER_S = 100_000
_SPARE_BYTES = 256 << 20
"""Free disk that must remain."""


def pull(
    api: HfApi, repo_id: str, dest: Path, revision: str | None, on_progress: Callable[[int, int], None] | None
) -> Path:
    """See :meth:`talker.hub.Hub.pull`."""
    with limits(_META_S):
        commit = api.model_info(repo_id, revision=revision, expand=["sha"]).sha
        if commit is None or not COMMIT.fullmatch(commit):
            raise ValueError("no commit")
        entries = list_files(api, repo_id, commit)
    total = _check_listing(entries)
    dest.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(dest.parent).free < total + _SPARE_BYTES:
        raise HubError(
            "hub.no_space",
            f"The avatar needs {total / 2**20:.0f} MB, which this disk does not have.",
            todo="Free some space and try again.",
        )
    with atomic_folder(dest) as folder:
        _download(api, repo_id, commit, entries, folder, on_progress)
        for name in drop_unsound_extras(folder):
            log.warning("%s of %s is not what its name says and was left out", name, repo_id)
        _check_card(folder)
        load_avatar(folder)
        fsync_folder(folder)
    return dest


def list_files(api: HfApi, repo_id: str, commit: str) -> dict[str, RepoFile]:
    """Sizes and hashes of the avatar's files at a commit; asks for our names alone, whatever else is there."""
    from huggingface_hub.hf_api import RepoFile

    found = api.get_paths_info(repo_id, list(MAX_BYTES), revision=commit)
    return {entry.path: entry for entry in found if isinstance(entry, RepoFile) and entry.path in MAX_BYTES}


def _check_listing(entries: dict[str, RepoFile]) -> int:
    missing = [name for name in REQUIRED if name not in entries]
    if missing:
        raise HubError(
            "hub.incomplete",
            f"The repository lacks {', '.join(missing)}.",
            expected="An avatar made with talker.",
            todo="Check the name, or ask its author to publish it again.",
        )
    for name, entry in entries.items():
        check_size(name, entry.size)
    return sum(entry.size for entry in entries.values())


def _check_card(folder: Path) -> None:
    """The card is shown to people and compared: every entry must have its type, and consent must be there."""
    from pydantic import TypeAdapter, ValidationError

    card = read_card(folder)
    try:
        TypeAdapter(AvatarCard).validate_json(json.dumps(dataclasses.asdict(card)), strict=True)
    except ValidationError as error:
        raise CheckpointError(
            "checkpoint.damaged", "The avatar's card is damaged.", todo="Ask its author to publish it again."
        ) from error
    if not card.consent.get("who", "").strip() or not card.consent.get("statement", "").strip():
        raise ConsentError(
            "consent.missing",
            "This avatar carries no declaration that the person shown agrees.",
            todo="Ask its author for one; it cannot be used without.",
        )


def _download(
    api: HfApi,
    repo_id: str,
    commit: str,
    entries: dict[str, RepoFile],
    folder: Path,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    total = sum(entry.size for entry in entries.values())
    received = 0

    def count(n: int) -> None:
        nonlocal received
        received = min(received + n, total)
        if on_progress is not None:
            on_progress(received, total)

    for name, entry in entries.items():
        # A resumed transfer may repeat bytes; the file itself must be exactly as announced.
        allowed = 2 * entry.size + (1 << 16)
        with limits(_META_S + entry.size / _MIN_BYTES_PER_S, allowed, count):
            path = Path(
                api.hf_hub_download(repo_id, name, revision=commit, local_dir=folder, force_download=False)
            )
        if path.parent.resolve() != folder.resolve() or not same_content(path, entry):
            raise HubError(
                "hub.changed",
                f"{name} is not the file the Hub announced.",
                todo="Try again; if it happens again, do not use this avatar.",
            )
    shutil.rmtree(folder / ".cache", ignore_errors=True)
