"""The way of avatars to and from the Hub, as parts of the Avatars page."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import gradio as gr

from talker.errors import HubError, TalkerError
from talker.studio.gallery import AvatarInfo
from talker.ui import html, signin
from talker.ui.card_view import found_tiles, look_view
from talker.ui.context import PICK, QUIET, Context, markup, spoken_errors
from talker.ui.words import fixed, in_script, say

if TYPE_CHECKING:
    from talker.hub import HubAvatar
    from talker.hub.look import HubLook

MAX_FOUND = 24
WITH_POSTER = 12
"""Results whose poster is fetched for the list."""
AT_ONCE = 4

PRIVATE_FIRST = "Private at first: only you can see it. One more step shows it to all."
ONCE = "Used once and not kept."
ONCE_OR_LOGIN = "Used once and not kept. Leave it empty to use the login of this machine."
BY_NAME = "Somebody's avatar, by the name or the address of its repository."


def ask_first(question: str) -> str:
    """JavaScript that lets the inputs of an event pass, or empties them, as the person answers."""
    return f"(...v) => confirm({in_script(question)}) ? v : ['', '', '']"


SURE_PUBLIC = ask_first("Everybody will be able to load this avatar and make it talk. Go on?")
SURE_UNPUBLISH = ask_first("Delete the copy on the Hub? The avatar here stays.")


def visitors_token(context: Context, lent: str) -> str | None:
    """Whose rights a call has: the visitor's own; this machine's login only for the person at it.

    Raises:
        HubError: On a shared server without a token.
    """
    if not lent and context.shared:
        raise HubError(
            "hub.token", "You are not signed in.", todo="Sign in, or paste an access token; it is used once."
        )
    return lent or None


class PublishPanel:
    """Publish, show to everybody, take back; for the avatar chosen on the page."""

    def __init__(self, context: Context) -> None:
        self.context, self.sharing = context, context.studio.sharing
        with gr.Accordion(fixed("Publish to the Hugging Face Hub"), open=False):
            markup(lambda: f'<p class="tk-status">{say(PRIVATE_FIRST)}</p>')
            signin.button()
            self.repo = gr.Textbox(
                label=fixed("Repository"),
                placeholder=fixed("your-name/ada"),
                max_length=96,
                elem_id="tk-repo-to",
            )
            self.token = gr.Textbox(
                label=fixed("Access token"),
                type="password",
                placeholder="hf_…",
                info=fixed(ONCE if context.shared else ONCE_OR_LOGIN),
                elem_id="tk-token",
                visible=not signin.offered(),
            )
            self.publish = gr.Button(fixed("Publish privately"), elem_id="tk-publish")
            with gr.Row():
                self.public = gr.Button(
                    fixed("Show to everybody"), visible=False, min_width=120, elem_id="tk-public"
                )
                self.private = gr.Button(
                    fixed("Make private"), visible=False, min_width=120, elem_id="tk-private"
                )
                self.unpublish = gr.Button(
                    fixed("Unpublish"), visible=False, variant="stop", min_width=120, elem_id="tk-unpublish"
                )
            self.said = markup(elem_id="tk-published")

    @property
    def shown(self) -> list[Any]:
        """Outputs that :meth:`of` fills."""
        return [self.said, self.token, self.repo, self.public, self.private, self.unpublish]

    def of(self, info: AvatarInfo | None, said: str = "") -> list[Any]:
        """The panel for an avatar; nothing of a token stays on the page."""
        repo = info.note.published if info else ""
        if repo and not said:
            said = html.message("info", say("A copy is at {repo}.", repo=repo))
        there = gr.update(visible=bool(repo))
        return [said, "", repo, there, there, there]

    def wire(self, slug: gr.Textbox) -> None:
        """Connect the buttons; ``slug`` holds the chosen avatar."""
        inputs = [slug, self.repo, self.token]
        for button, handler, sure in (
            (self.publish, self.on_publish, None),
            (self.public, self.on_public, SURE_PUBLIC),
            (self.private, self.on_private, None),
            (self.unpublish, self.on_unpublish, SURE_UNPUBLISH),
        ):
            button.click(
                signin.lent_for_avatar(handler),
                inputs,
                self.shown,
                js=sure,
                api_visibility="private",
                show_progress_on=self.said,  # not over the fields that were just filled in
            )

    def on_publish(self, slug: str, repo: str, lent: str, request: gr.Request) -> list[Any]:
        """Upload, for its owner alone."""
        words = "Published, for you alone"
        return self._do(
            slug, lent, request, words, lambda o, t: self.sharing.publish(slug, o, repo.strip(), token=t)
        )

    def on_public(self, slug: str, repo: str, lent: str, request: gr.Request) -> list[Any]:
        """Show the copy to everybody."""
        words = "Everybody can load it now"
        return self._do(
            slug, lent, request, words, lambda o, t: self.sharing.set_public(slug, o, True, token=t)
        )

    def on_private(self, slug: str, repo: str, lent: str, request: gr.Request) -> list[Any]:
        """Hide the copy again."""
        words = "Only you can see it now"
        return self._do(
            slug, lent, request, words, lambda o, t: self.sharing.set_public(slug, o, False, token=t)
        )

    def on_unpublish(self, slug: str, repo: str, lent: str, request: gr.Request) -> list[Any]:
        """Delete the copy."""
        words = "The copy on the Hub is deleted"
        return self._do(slug, lent, request, words, lambda o, t: self.sharing.unpublish(slug, o, token=t))

    def _do(
        self, slug: str, lent: str, request: gr.Request, words: str, work: Callable[[str, str | None], str]
    ) -> list[Any]:
        if not slug:  # the browser's question was answered with no
            return [gr.skip()] * len(self.shown)
        with spoken_errors():
            owner = self.context.owner(request)
            where = work(owner, visitors_token(self.context, lent))
            return self.of(self.context.studio.avatar(slug, owner), html.message("check", where, words))


class LoadPanel:
    """Find an avatar on the Hub, look at it, load it."""

    def __init__(self, context: Context) -> None:
        self.context, self.sharing = context, context.studio.sharing
        markup(lambda: html.section("", "Load from the Hub", BY_NAME))
        with gr.Row(equal_height=True):
            self.wanted = gr.Textbox(
                label=fixed("Repository"),
                show_label=False,
                placeholder=fixed("owner/avatar, or a link"),
                scale=4,
                max_length=200,
                elem_id="tk-repo",
            )
            self.load = gr.Button(fixed("Load"), variant="primary", scale=1, min_width=100, elem_id="tk-load")
            self.browse = gr.Button(fixed("Browse"), scale=1, min_width=100, elem_id="tk-browse")
        self.seen = markup(elem_id="tk-look")
        self.found = markup(js_on_load=PICK, elem_id="tk-found")

    def wire(self, show: Callable[[str, str], list[Any]], shown: list[Any]) -> None:
        """Connect the buttons; ``show(slug, owner)`` fills ``shown``, the page."""

        def on_pull(repo: str, lent: str, request: gr.Request) -> list[Any]:
            with spoken_errors():
                owner = self.context.owner(request)
                slug = self.sharing.pull(repo, owner, token=self._rights(lent))
                return [*show(slug, owner), ""]

        for event in (self.load.click, self.wanted.submit):
            event(
                signin.lent(on_pull),
                self.wanted,
                [*shown, self.seen],
                api_visibility="private",
                show_progress_on=self.seen,
            )
        self.browse.click(signin.lent(self.on_browse), self.wanted, self.found, api_visibility="private")
        self.found.pick(self.on_found, None, self.wanted, **QUIET).then(
            signin.lent(self.on_look), self.wanted, self.seen, **QUIET
        )

    def on_browse(self, words: str, lent: str, request: gr.Request) -> str:
        """Avatars on the Hub whose name holds the words; all without any."""
        rights = self._rights(lent)
        with spoken_errors():
            wanted = "" if "/" in words else words
            found = self.sharing.search(wanted, token=rights)[:MAX_FOUND]
        if not found:
            return html.message("info", "No avatars were found.")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            looks = pool.map(lambda item: self._look(item, rights), found[:WITH_POSTER])
        return found_tiles(found, {look.repo_id: look for look in looks if look})

    def on_found(self, event: gr.EventData) -> str:
        """A search result was chosen."""
        return str(event.id)

    def on_look(self, repo: str, lent: str, request: gr.Request) -> str:
        """Show what is known about it."""
        with spoken_errors():
            return look_view(self.sharing.look(repo, token=self._rights(lent)))

    def _look(self, item: HubAvatar, rights: str | None) -> HubLook | None:
        try:
            return self.sharing.look(item.repo_id, token=rights)
        except TalkerError:  # a list does without a picture
            return None

    def _rights(self, lent: str) -> str | None:
        """Reading needs no sign-in; the operator's login is never lent to visitors."""
        return lent or ("" if self.context.shared else None)
