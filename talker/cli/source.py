"""Where an avatar comes from that is named on the command line: a folder, or the Hub."""

from __future__ import annotations

from pathlib import Path

from talker.errors import HubError


def source_avatar(name: str | None, *, keep: bool) -> Path | None:
    """The folder of the avatar called ``name``: one of this machine, or fetched as ``owner/name`` from the Hub.

    What is fetched lies in the cache folder, checked as every avatar from the Hub is.

    Args:
        name: As typed; ``None`` stays ``None``.
        keep: Use what was fetched before, if anything was: an interrupted run must go on from the same avatar.

    Raises:
        HubError: It cannot be fetched.
        CheckpointError: What was fetched is not a sound avatar.
    """
    if name is None:
        return None
    if Path(name).exists() or not _is_repository(name):
        return Path(name)
    from talker.card import AVATAR_JSON
    from talker.hub import Hub
    from talker.jit.compile import cache_root

    folder = cache_root() / "avatars" / name.replace("/", "--")
    if keep and (folder / AVATAR_JSON).is_file():
        return folder
    return Hub().pull(name, folder, replace=True)


def _is_repository(name: str) -> bool:
    from talker.hub.names import check_repo_id

    try:
        check_repo_id(name)
    except HubError:
        return False
    return True
