"""From an avatar folder to the Hub: only an avatar's files, only with consent, in one commit, then verified."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker import provenance
from talker.card import AVATAR_JSON, PREVIEW, REQUIRED, read_card
from talker.checkpoint import load_avatar
from talker.errors import CheckpointError, HubError, ProvenanceError
from talker.hub.files import MAX_BYTES, check_size, same_content
from talker.hub.pull import list_files
from talker.hub.transport import limits, no_token, status_of, translate
from talker.model_card import keeps_own_card, write_card
from talker.safe_files import read_json
from talker.types import Consent

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)

_PUBLISH_S = 600.0
_MIN_BYTES_PER_S = 50_000
_ATTEMPTS = 3
_TRANSIENT = ("hub.unavailable", "hub.interrupted", "hub.offline")
_PAUSE_S = 2.0


def publish(api: HfApi, folder: Path, repo_id: str, *, private: bool, replace: bool) -> str:
    """See :meth:`talker.hub.Hub.publish`."""
    files = _local_files(folder, repo_id)
    require_token(api)
    n_bytes = sum(path.stat().st_size for path in files.values())
    from huggingface_hub.utils import httpx

    with limits(_PUBLISH_S + n_bytes / _MIN_BYTES_PER_S):
        for attempt in range(_ATTEMPTS):
            try:
                return _upload(api, files, repo_id, private, replace)
            except (httpx.HTTPError, OSError, RuntimeError) as error:
                problem = translate(error)
                # Every step may be repeated: what is there already is recognised by its hash.
                if problem.code not in _TRANSIENT or attempt == _ATTEMPTS - 1:
                    raise
                log.warning("publishing was interrupted (%s), trying again", problem.code)
                time.sleep(_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")


def require_token(api: HfApi) -> None:
    """Raise before any request if nobody is signed in."""
    from huggingface_hub import get_token

    if api.token is False or not (api.token or get_token()):
        raise no_token()


def _local_files(folder: Path, repo_id: str) -> dict[str, Path]:
    """The files to send, the manifest last; everything that could be wrong with them is found here."""
    card = read_card(folder)
    try:
        consent = Consent.from_dict(card.consent)
    except TypeError:  # entries are missing
        consent = None
    provenance.require(consent)
    load_avatar(folder)
    if not keeps_own_card(folder):
        write_card(folder, repo_id=repo_id)
    _mark_preview(folder / PREVIEW, card.name)
    names = [name for name in MAX_BYTES if name != AVATAR_JSON and (folder / name).exists()] + [AVATAR_JSON]
    files = {name: folder / name for name in names}
    for name, path in files.items():
        # A link could send any file of this machine to the Hub.
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(
                "checkpoint.damaged", f"{name} is not a regular file.", todo="Create it again."
            )
        check_size(name, path.stat().st_size)
    assert set(REQUIRED) <= set(files), "load_avatar has seen them all"
    return files


def _mark_preview(path: Path, name: str) -> None:
    """No video leaves this machine without its marks."""
    if not path.is_file():
        return
    try:
        marked = provenance.inspect(path)["ai_generated"]
    except ProvenanceError:
        marked = False
    if not marked:
        provenance.sign(path, avatar_name=name)


def _upload(api: HfApi, files: dict[str, Path], repo_id: str, private: bool, replace: bool) -> str:
    from huggingface_hub import CommitOperationAdd

    _create_or_adopt(api, files, repo_id, private, replace)
    head = api.model_info(repo_id, expand=["sha"]).sha
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    done = api.create_commit(
        repo_id, operations, commit_message="Publish the avatar with talker", parent_commit=head
    )
    remote = list_files(api, repo_id, done.oid)
    if any(name not in remote or not same_content(path, remote[name]) for name, path in files.items()):
        raise HubError(
            "hub.changed", "The Hub did not keep every file as it was sent.", todo="Publish it again."
        )
    return f"{api.endpoint}/{repo_id}"


def _create_or_adopt(api: HfApi, files: dict[str, Path], repo_id: str, private: bool, replace: bool) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repo_id, private=private)
        return
    except HfHubHTTPError as error:
        if status_of(error) != 409:
            raise
    info = api.model_info(repo_id, expand=["sha", "private"])
    if not _ours(api, files, repo_id, str(info.sha), replace):
        raise HubError(
            "hub.exists",
            f"{repo_id} exists already and holds something else.",
            expected="A new name, or the repository of this very avatar.",
            todo=f"Choose another name, for example {repo_id}-2.",
        )
    if bool(info.private) != private:
        api.update_repo_settings(repo_id, private=private)


def _ours(api: HfApi, files: dict[str, Path], repo_id: str, commit: str, replace: bool) -> bool:
    """Whether the repository is empty (an interrupted publication) or holds this very avatar."""
    entries = {entry.path: entry for entry in api.list_repo_tree(repo_id, revision=commit)}
    if not set(entries) - {".gitattributes"}:
        return True
    manifest: Any = list_files(api, repo_id, commit).get(AVATAR_JSON)
    if manifest is None or manifest.size > MAX_BYTES[AVATAR_JSON]:
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(api.hf_hub_download(repo_id, AVATAR_JSON, revision=commit, local_dir=folder))
        try:
            card = read_json(path, max_bytes=MAX_BYTES[AVATAR_JSON]).get("card")
        except CheckpointError:
            return False
    if not isinstance(card, dict) or not card.get("created"):
        return False
    return replace or card["created"] == read_card(files[AVATAR_JSON].parent).created
