"""Avatars to and from the Hub. A token is used for the one call it is given to, and kept nowhere."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from talker.errors import HubError
from talker.studio.gallery import Gallery

if TYPE_CHECKING:
    from talker.hub import Hub, HubAvatar
    from talker.hub.look import HubLook


class Sharing:
    """What the app may do on the Hub.

    Everywhere ``token`` is the caller's own; None takes the login of this machine, an empty one is nobody's.

    Args:
        gallery: The avatars of this machine.
        scratch: Folder for what is being fetched.
        hub: The Hub; None connects on first use.
        prepare: Called before anything heavy is imported.
    """

    def __init__(self, gallery: Gallery, scratch: Path, hub: Hub | None, prepare: Callable[[], None]) -> None:
        self._gallery, self._scratch, self._hub, self._engine = gallery, scratch, hub, prepare

    def publish(
        self, slug: str, owner: str, repo_id: str, *, private: bool = True, token: str | None = None
    ) -> str:
        """Upload an avatar to the Hub and return its address.

        Args:
            slug: The avatar.
            owner: Only the owner may publish.
            repo_id: ``name/repository``.
            private: Visible to its owner alone.
            token: The caller's own, used once; None takes the login of this machine.
        """
        self._engine()
        info = self._gallery.own(slug, owner)
        url = self._hub_client(token).publish(info.folder, repo_id, private=private)
        self._gallery.note_published(slug, owner, repo_id)
        return url

    def set_public(self, slug: str, owner: str, public: bool, *, token: str | None = None) -> str:
        """Show the published copy of an avatar to everybody, or to its owner alone again; returns its repository."""
        repo_id = self._published(slug, owner)
        self._hub_client(token).set_private(repo_id, not public)
        return repo_id

    def unpublish(self, slug: str, owner: str, *, token: str | None = None) -> str:
        """Delete the published copy of an avatar; the avatar itself stays. Returns the repository it was in."""
        repo_id = self._published(slug, owner)
        self._hub_client(token).delete(repo_id)
        self._gallery.note_published(slug, owner, "")
        return repo_id

    def _published(self, slug: str, owner: str) -> str:
        self._engine()
        repo_id = self._gallery.own(slug, owner).note.published
        if not repo_id:
            raise HubError(
                "hub.not_published", "This avatar was not published from here.", todo="Publish it first."
            )
        return repo_id

    def pull(self, repo_id: str, owner: str, *, token: str | None = None) -> str:
        """Load an avatar from the Hub by repository id or link; returns its slug. An empty ``token`` is nobody's."""
        self._engine()
        from talker.card import read_card
        from talker.hub import repo_id_of

        repo_id = repo_id_of(repo_id)
        destination = self._scratch / secrets.token_hex(16)
        try:
            folder = self._hub_client(token).pull(repo_id, destination)
            return self._gallery.adopt(folder, read_card(folder).name, owner, f"hub:{repo_id}")
        finally:
            shutil.rmtree(destination, ignore_errors=True)

    def search(self, text: str = "", *, token: str | None = None) -> list[HubAvatar]:
        """Avatars on the Hub, the newest first; private ones only for a ``token`` that may see them."""
        self._engine()
        return self._hub_client(token).search(text=text.strip())

    def look(self, repo_id: str, *, token: str | None = None) -> HubLook:
        """Poster, card and figures of an avatar on the Hub, before it is loaded."""
        self._engine()
        from talker.hub import repo_id_of

        return self._hub_client(token).look(repo_id_of(repo_id))

    def _hub_client(self, token: str | None) -> Hub:
        """A client with the given token; None is the login of this machine, an empty one is nobody."""
        from talker.hub import Hub

        if self._hub is None:
            return Hub() if token is None else Hub(token=token)
        return self._hub if token is None else self._hub.with_token(token)
