"""What the product does on the Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from talker.errors import HubError
from talker.hub.names import check_repo_id, check_revision

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from talker.hub.look import HubLook

API_S = 120.0


@dataclass(frozen=True)
class HubAvatar:
    """One search result. All texts come from strangers."""

    repo_id: str
    url: str
    private: bool
    gated: bool
    downloads: int
    likes: int
    modified: str
    """ISO 8601, or empty."""
    tags: tuple[str, ...]


class Hub:
    """The Hugging Face Hub, or a server that speaks its protocol.

    Args:
        endpoint: Address of the server; ``HF_ENDPOINT`` or huggingface.co by default.
        token: The caller's own. None uses the sign-in of this machine (``hf auth login``, ``HF_TOKEN``);
            False stays anonymous, which is what a shared server must use for visitors without one.
            Kept in this object alone.
    """

    def __init__(self, endpoint: str | None = None, token: str | bool | None = None) -> None:
        self._endpoint = endpoint.rstrip("/") if endpoint else None
        self._token = token or (None if token is None else False)
        self._api_object: HfApi | None = None

    def __repr__(self) -> str:
        return f"Hub({self._endpoint!r})"  # the token must not reach a log

    def with_token(self, token: str | bool) -> Hub:
        """The same server for somebody else; an empty token or False is nobody."""
        return Hub(self._endpoint, token)

    def publish(self, avatar_dir: Path, repo_id: str, *, private: bool = True, replace: bool = False) -> str:
        """Upload an avatar; returns the address of its page.

        Only the files of an avatar are sent, in one commit. Publishing the same avatar again updates its
        repository; a repository with anything else in it is never overwritten.

        Args:
            avatar_dir: A complete avatar; its record of consent must be complete as well.
            repo_id: ``owner/name``.
            private: Visible to the owner only.
            replace: Overwrite another avatar of yours in this repository.

        Raises:
            ConsentError: The avatar has no valid declaration of consent.
            CheckpointError: The avatar is incomplete or damaged.
            HubError: ``hub.repo_id``, ``.no_token``, ``.unauthorized``, ``.forbidden``, ``.exists``, ...
        """
        from talker.hub.publish import publish

        check_repo_id(repo_id)
        return publish(self._api, Path(avatar_dir), repo_id, private=private, replace=replace)

    def pull(
        self,
        repo_id: str,
        dest: Path,
        *,
        revision: str | None = None,
        replace: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Fetch an avatar into ``dest``, which appears complete and checked, or not at all.

        Args:
            repo_id: ``owner/name``.
            dest: Folder to make; must be absent or empty.
            revision: Branch, tag or commit; the newest by default. Resolved to a commit before anything else.
            replace: Replace an existing folder.
            on_progress: Called with (bytes received, bytes in all).

        Raises:
            HubError: ``hub.not_found`` (also for private and gated), ``.too_large``, ``.incomplete``,
                ``.changed``, ``.destination``, ``.offline``, ...
            CheckpointError: What was fetched is not a sound avatar.
        """
        from talker.hub.pull import pull

        check_repo_id(repo_id)
        check_revision(revision)
        dest = Path(dest)
        if not replace and dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise HubError(
                "hub.destination",
                f"{dest.name} exists already.",
                expected="A new or empty folder.",
                todo="Choose another name.",
            )
        return pull(self._api, repo_id, dest, revision, on_progress)

    def search(
        self, tag: str | None = None, *, text: str = "", author: str = "", limit: int = 60
    ) -> list[HubAvatar]:
        """Avatars on the Hub, most recently changed first; private ones only where the token may see them.

        Args:
            tag: The tag that marks avatars; ours by default.
            text: Part of the name.
            author: Only this owner's.
            limit: At most so many.

        Raises:
            HubError: ``hub.offline``, ``.unavailable``, ...
        """
        from talker.hub.transport import limits
        from talker.model_card import TAG

        api = self._api
        with limits(API_S):
            found = list(
                api.list_models(
                    filter=[tag or TAG],
                    search=text[:100] or None,
                    author=author[:100] or None,
                    sort="last_modified",
                    limit=limit,
                )
            )
        results = []
        for model in found:
            try:
                check_repo_id(model.id)
            except HubError:
                continue  # a name we could not pull
            results.append(
                HubAvatar(
                    model.id,
                    f"{api.endpoint}/{model.id}",
                    bool(model.private),
                    bool(model.gated),
                    model.downloads or 0,
                    model.likes or 0,
                    model.last_modified.isoformat() if model.last_modified else "",
                    tuple(model.tags or ()),
                )
            )
        return results

    def look(self, repo_id: str) -> HubLook:
        """Poster, card and figures of an avatar, without loading it.

        Raises:
            HubError: ``hub.not_found`` (also for private and gated), ``.timeout``, ``.offline``, ...
        """
        from talker.hub.look import look

        check_repo_id(repo_id)
        return look(self._api, repo_id)

    def set_private(self, repo_id: str, private: bool) -> None:
        """Show a published avatar to everybody, or to its owner alone again.

        Raises:
            HubError: ``hub.not_found``, ``.not_an_avatar``, ``.forbidden``, ...
        """
        from talker.hub.transport import limits

        check_repo_id(repo_id)
        self._require_token()
        with limits(API_S):
            self._require_avatar(repo_id)
            self._api.update_repo_settings(repo_id, private=private)

    def delete(self, repo_id: str) -> None:
        """Delete the repository of an avatar for good; refuses repositories that hold something else.

        Raises:
            HubError: ``hub.not_found``, ``.not_an_avatar``, ``.forbidden``, ...
        """
        from talker.hub.transport import limits

        check_repo_id(repo_id)
        self._require_token()
        with limits(API_S):
            self._require_avatar(repo_id)
            self._api.delete_repo(repo_id)

    def whoami(self) -> str:
        """Name of the account the token belongs to.

        Raises:
            HubError: ``hub.no_token``, ``.unauthorized``, ``.offline``, ...
        """
        from talker.hub.transport import limits

        self._require_token()
        with limits(API_S):
            return str(self._api.whoami()["name"])

    def _require_avatar(self, repo_id: str) -> None:
        from talker.model_card import TAG

        info = self._api.model_info(repo_id, expand=["tags"])
        if TAG not in (info.tags or ()):
            raise HubError(
                "hub.not_an_avatar",
                "This repository does not hold an avatar of talker.",
                todo="Change it on its own page if you mean it.",
            )

    def _require_token(self) -> None:
        from talker.hub.publish import require_token

        require_token(self._api)

    @property
    def _api(self) -> HfApi:
        if self._api_object is None:
            from huggingface_hub import HfApi

            from talker import __version__

            self._api_object = HfApi(
                endpoint=self._endpoint, token=self._token, library_name="talker", library_version=__version__
            )
        return self._api_object
