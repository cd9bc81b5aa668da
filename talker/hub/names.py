"""Names a user may type, checked before any request is sent."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from talker.errors import HubError

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO_ID = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,98}[A-Za-z0-9._-])?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")


def repo_id_of(text: str) -> str:
    """The repository a person means: ``owner/name`` itself, or a link to its page. No link is ever followed.

    Raises:
        HubError: ``hub.repo_id``.
    """
    words = str(text).strip()
    if "://" not in words and not words.startswith(tuple(f"{host}/" for host in _HOSTS)):
        return check_repo_id(words)
    try:
        link = urlsplit(words if "://" in words else f"https://{words}")
    except ValueError:
        return check_repo_id(words)
    parts = [part for part in link.path.split("/") if part]
    if link.scheme not in ("http", "https") or link.netloc not in _HOSTS or len(parts) < 2:
        return check_repo_id(words)
    return check_repo_id("/".join(parts[:2]))


def check_repo_id(repo_id: str) -> str:
    """``repo_id`` if it is ``owner/name`` as the Hub allows it.

    Raises:
        HubError: ``hub.repo_id``.
    """
    good = (
        isinstance(repo_id, str)
        and len(repo_id) <= 96
        and _REPO_ID.fullmatch(repo_id)
        and "--" not in repo_id
        and ".." not in repo_id
        and not repo_id.endswith(".git")
    )
    if not good:
        raise HubError(
            "hub.repo_id",
            f"{str(repo_id)[:60]!a} is not the name of a repository.",
            expected="owner/name with letters, digits, '-', '_' and '.', at most 96 characters.",
            todo="Type the name as it stands on the repository's page, or copy the page's address.",
        )
    return repo_id


def check_revision(revision: str | None) -> str | None:
    """``revision`` if it can be a branch, a tag or a commit.

    Raises:
        HubError: ``hub.revision``.
    """
    if revision is None:
        return None
    if (
        not isinstance(revision, str)
        or not _REVISION.fullmatch(revision)
        or ".." in revision
        or "//" in revision
    ):
        raise HubError(
            "hub.revision",
            f"{str(revision)[:60]!a} is not a revision.",
            expected="A branch, a tag or a commit.",
            todo="Leave it out to get the newest one.",
        )
    return revision
