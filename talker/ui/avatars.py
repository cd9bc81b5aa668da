"""Avatars: the gallery, one avatar from all sides, and the way to and from the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from talker.errors import TalkerError
from talker.studio.gallery import AvatarInfo
from talker.ui import html
from talker.ui.context import PICK, QUIET, Context, expose, markup, new_shown_folder, spoken_errors
from talker.ui.figures import HEADING, known, others
from talker.ui.live import finished_video
from talker.ui.sharing import LoadPanel, PublishPanel
from talker.ui.tiles import avatar_tiles
from talker.ui.words import fixed, in_script, say

REMEMBER = "(slug) => { if (slug) history.replaceState(null, '', './avatars?avatar=' + slug); }"
SURE = f"(slug) => confirm({in_script('Delete this avatar for good?')}) ? slug : ''"
NO_AVATAR = "Make one from a short video of somebody talking, or load one from the Hub below."
DELETING = "Every file of it on this machine. A copy on the Hub stays there."
OPEN_TALK = "(slug) => { window.location.href = './talk?avatar=' + slug; }"


class AvatarsPage:
    """Lays the page out and wires it."""

    def __init__(self, context: Context, demo: gr.Blocks) -> None:
        self.context, self.studio = context, context.studio
        markup(lambda: html.header("Avatars"))
        markup(lambda: html.title("Avatars", "Yours, and those you loaded from the Hub."))
        self.nobody = markup(html.loading)
        self.slug = gr.Textbox(visible="hidden", elem_id="tk-chosen-avatar")
        self.tiles = markup(js_on_load=PICK, elem_id="tk-avatars")
        with gr.Row(visible=False, equal_height=False) as self.panel:
            with gr.Column(scale=6, min_width=300, elem_classes="tk-card"):
                self._portrait()
            with gr.Column(scale=4, min_width=280):
                self._more()
        with gr.Column(elem_classes="tk-card"):
            self.hub = LoadPanel(context)
        markup(lambda: html.footer(self.studio.config.report_url))
        self._wire(demo)

    def _portrait(self) -> None:
        self.head = markup(elem_id="tk-avatar-head")
        self.preview = finished_video(
            label=fixed("Preview"),
            show_label=False,
            buttons=[],
            loop=True,
            elem_classes="tk-screen",
            elem_id="tk-preview",
        )
        with gr.Row():
            self.talk = gr.Button(
                fixed("Make it talk"), variant="primary", min_width=130, elem_id="tk-open-talk"
            )
            self.solid = gr.Button(fixed("Show in 3D"), min_width=110, elem_id="tk-show-3d")
        self.model = gr.Model3D(
            label=fixed("Neutral pose"), show_label=False, visible=False, height=420, elem_id="tk-model"
        )
        with gr.Row():
            self.ply = gr.DownloadButton(fixed("Download PLY"), size="sm", min_width=110, elem_id="tk-ply")
            self.splat = gr.DownloadButton(
                fixed("Download .splat"), size="sm", min_width=110, elem_id="tk-splat"
            )

    def _more(self) -> None:
        with gr.Column(elem_classes="tk-card"):
            self.facts = markup(elem_id="tk-avatar-facts")
        self.publishing = PublishPanel(self.context)
        with gr.Accordion(fixed("Delete"), open=False):
            markup(lambda: f'<p class="tk-status">{say(DELETING)}</p>')
            self.delete = gr.Button(fixed("Delete this avatar"), variant="stop", elem_id="tk-delete-avatar")

    def _wire(self, demo: gr.Blocks) -> None:
        shown = [
            self.nobody,
            self.tiles,
            self.panel,
            self.slug,
            self.head,
            self.preview,
            self.facts,
            self.ply,
            self.splat,
            self.model,
            *self.publishing.shown,
        ]
        demo.load(self.on_load, None, shown, **QUIET).failure(html.failed, None, self.nobody, **QUIET)
        self.tiles.pick(self.on_pick, None, shown, **QUIET).success(
            None, self.slug, None, js=REMEMBER, **QUIET
        )
        self.talk.click(None, self.slug, None, js=OPEN_TALK, **QUIET)
        self.solid.click(self.on_solid, self.slug, self.model, **QUIET)
        self.publishing.wire(self.slug)
        self.delete.click(self.on_delete, self.slug, shown, js=SURE, **QUIET)
        self.hub.wire(self._show, shown)

    def on_load(self, request: gr.Request) -> list[Any]:
        """Fill the page; the address may name an avatar."""
        with spoken_errors():
            return self._show(dict(request.query_params or {}).get("avatar", ""), self.context.owner(request))

    def on_pick(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Another avatar was chosen."""
        with spoken_errors():
            return self._show(str(event.id), self.context.owner(request))

    def on_solid(self, chosen: str, request: gr.Request) -> Any:
        """Show the neutral pose as splats."""
        with spoken_errors():
            view = self.studio.view_of(
                chosen, self.context.owner(request), new_shown_folder() / "neutral.ply"
            )
            return gr.update(value=str(view), visible=True)

    def on_delete(self, chosen: str, request: gr.Request) -> list[Any]:
        """Delete, if the browser's question was answered with yes."""
        with spoken_errors():
            owner = self.context.owner(request)
            if chosen:
                self.studio.delete_avatar(chosen, owner)
            return self._show("", owner)

    def _show(self, chosen: str, owner: str) -> list[Any]:
        avatars = self.studio.avatars(owner)
        if not avatars:
            empty = html.empty("people", "No avatar yet", NO_AVATAR, ("Create an avatar", ""))
            hidden = [gr.update(value=empty, visible=True), "", gr.update(visible=False), ""]
            return [*hidden, *[gr.skip()] * 6, *self.publishing.of(None)]
        info = next((a for a in avatars if a.slug == chosen), avatars[0])
        film, ply = info.preview.is_file(), info.ply.is_file()
        splat = self._splat(info.slug, owner) if ply else None
        return [
            gr.update(visible=False),
            avatar_tiles(avatars, info.slug),
            gr.update(visible=True),
            info.slug,
            _head(info),
            gr.update(value=expose(info.preview) if film else None, visible=film),
            _facts(info),
            gr.update(value=expose(info.ply) if ply else None, visible=ply),
            gr.update(value=splat, visible=splat is not None),
            gr.update(value=None, visible=False),
            *self.publishing.of(info),
        ]

    def _splat(self, slug: str, owner: str) -> str | None:
        """The download as a ``.splat``; without one when the 3D file of a stranger cannot be read."""
        try:
            return str(self.studio.splat_of(slug, owner, new_shown_folder() / f"{slug}.splat"))
        except TalkerError:
            return None


def _head(info: AvatarInfo) -> str:
    from_hub = info.note.source.startswith("hub:")
    source = say("From the Hub: {repo}", repo=info.note.source[4:]) if from_hub else say("Made here")
    return (
        f'<div class="tk-detail-head"><h2>{html.esc(info.card.name)}</h2>'
        f'<span class="tk-meta">{html.esc(source)} · {html.ago(info.note.added or info.card.created)}</span></div>'
    )


def _facts(info: AvatarInfo) -> str:
    card = info.card
    rows = [
        ("Quality", card.preset),
        ("Picture", f"{card.size} × {card.size}"),
        ("Gaussians", f"{card.n_gaussians:,}"),
        ("Hears with", card.audio_encoder),
        ("On disk", html.size_of(card.bytes)),
        ("Consent by", card.consent.get("who", "")),
        ("Consent on", str(card.consent.get("when", ""))[:10]),
    ]
    measured = more = ""
    if shown := known(card.metrics):
        measured = f'<h3 class="tk-small-head">{say(HEADING)}</h3>{_table(shown)}'
    if rest := others(card.metrics):
        more = f'<details class="tk-more"><summary>{say("All figures")}</summary>{_table(rest)}</details>'
    return f"{_table(rows)}{measured}{more}"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{html.esc(say(k))}</td><td>{html.esc(v)}</td></tr>" for k, v in rows if v)
    return f'<table class="tk-metrics">{cells}</table>'
