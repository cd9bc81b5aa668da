"""Talk: an avatar, something to say, and the video while it is being made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import TalkerError
from talker.studio import TalkChunk, TalkDone, TalkNote, TalkWaiting, batch
from talker.studio.clips import Clip
from talker.ui import html, stage, voices
from talker.ui.context import (
    MAX_WAITING,
    PICK,
    QUIET,
    RENDERING,
    Context,
    expose,
    markup,
    new_shown_folder,
    spoken_errors,
)
from talker.ui.live import finished_video, live_video
from talker.ui.pictures import thumbnail
from talker.ui.question import COLOUR, Asked, Question
from talker.ui.tiles import avatar_tiles, clip_tiles

REMEMBER = "(slug) => { if (slug) history.replaceState(null, '', './talk?avatar=' + slug); }"
SURE = "() => confirm('Delete all your clips for good?') ? 'yes' : ''"
FACE = 200
CLIPS = 24
"""Clips shown at first, and more at each wish for older ones."""
HABITS: dict[str, Any] = {"language": "en", "voice": None, "rate": 1.0, "captions": True}

Made = TalkChunk | TalkDone | TalkNote | TalkWaiting
Render = Callable[..., Iterator[Made]]
Updates = dict[Any, Any]


def make_render(context: Context) -> Render:
    """The one function that renders: in turn, and wrapped for a borrowed GPU where the host lends one."""

    def render(avatar: str, owner: str, **options: Any) -> Iterator[TalkChunk | TalkNote | TalkDone]:
        yield from context.studio.talk(avatar, owner, **options)

    try:
        import spaces
    except ImportError:
        lent = render
    else:
        lent = spaces.GPU(duration=120)(render)

    def in_turn(avatar: str, owner: str, **options: Any) -> Iterator[Made]:
        # Outside of what is lent: nobody pays with GPU time for waiting.
        yield from context.studio.line.in_turn(lambda: lent(avatar, owner, **options))

    return in_turn


class TalkPage:
    """Lays the page out and wires it.

    Args:
        context: See :class:`talker.ui.context.Context`.
        demo: The app; the page is the one being built.
        render: From :func:`make_render`.
    """

    def __init__(self, context: Context, demo: gr.Blocks, render: Render) -> None:
        self.context, self.studio, self.render = context, context.studio, render
        markup(html.header("Talk"))
        markup(
            html.title(
                "Talk", "Choose an avatar, give it something to say, and watch while it is being rendered."
            )
        )
        self.nobody = markup(html.loading())
        self.clip_id = gr.State("")
        self.shown = gr.State(CLIPS)
        self.sure = gr.Textbox(visible="hidden")
        self.habits = gr.BrowserState(HABITS, storage_key="talker-habits", secret="no secret")
        with gr.Row(equal_height=False, visible=False) as self.page:
            with gr.Column(scale=5, min_width=300):
                self.ask = Question()
            with gr.Column(scale=7, min_width=320):
                self._answer()
        markup(html.footer(self.studio.config.report_url))
        self._wire(demo)
        self._wire_question()
        self._wire_clips()

    def _answer(self) -> None:
        shown: dict[str, Any] = {"show_label": False, "buttons": [], "elem_classes": "tk-screen"}
        with gr.Column(elem_classes="tk-card tk-idle", elem_id="tk-stage"):
            self.idle = markup(elem_id="tk-idle-picture")
            self.live = live_video(label="Live", elem_id="tk-live", **shown)
            self.final = finished_video(label="Finished clip", elem_id="tk-final", **shown)
            self.status = markup(elem_id="tk-talk-status")
            self.captions = gr.Checkbox(
                True, label="Show captions", visible=False, elem_id="tk-captions", elem_classes="tk-flat"
            )
            with gr.Row(visible=False) as self.results:
                self.download = gr.DownloadButton(
                    "Download", variant="primary", min_width=140, elem_id="tk-download"
                )
                self.srt = gr.DownloadButton("SRT", min_width=70, elem_id="tk-srt")
                self.vtt = gr.DownloadButton("VTT", min_width=70, elem_id="tk-vtt")
                self.remove = gr.Button("Delete", min_width=90, elem_id="tk-delete-clip")
            self.zip = gr.Button("Download all as zip", visible=False, elem_id="tk-zip")
            self.zip_file = gr.DownloadButton("Zip", visible="hidden", elem_id="tk-zip-file")
        self.shelf_head = markup(visible=False)
        self.shelf = markup(js_on_load=PICK, elem_classes="tk-tiles-small", elem_id="tk-clips")
        with gr.Row(visible=False) as self.shelf_tools:
            self.older = gr.Button("Show older clips", size="sm", min_width=130, elem_id="tk-older")
            self.wipe = gr.Button("Delete all my clips", size="sm", min_width=130, elem_id="tk-wipe")

    @property
    def _clip_outputs(self) -> list[Any]:
        return [
            self.final, self.status, self.captions, self.results, self.download, self.srt, self.vtt, self.zip,
            self.clip_id, *self._shelf_outputs,
        ]  # fmt: skip

    @property
    def _shelf_outputs(self) -> list[Any]:
        return [self.shelf_head, self.shelf, self.shelf_tools, self.older, self.shown]

    def _wire(self, demo: gr.Blocks) -> None:
        ask = self.ask
        first = [self.nobody, self.page, self.idle, self.captions, *self._shelf_outputs]
        first += [ask.slug, ask.tiles, ask.language, ask.voice, ask.rate]
        load = demo.load(self.on_load, self.habits, first, **QUIET)
        load.failure(html.failed, None, self.nobody, **QUIET)
        picked = ask.tiles.pick(self.on_pick, None, [ask.slug, ask.tiles, self.idle], queue=False, **QUIET)
        picked.success(None, ask.slug, None, js=REMEMBER, **QUIET).success(
            None, None, None, js=stage.SHOW_IDLE, **QUIET
        )
        ask.speak.click(None, ask.source, None, js=stage.SHOW_LIVE, **QUIET)
        run = ask.speak.click(
            self.on_speak,
            ask.inputs,
            [self.live, *self._clip_outputs, ask.speak, ask.halt],
            concurrency_limit=MAX_WAITING,
            concurrency_id=RENDERING,
            **QUIET,
        )
        run.success(None, None, None, js=stage.SHOW_FINAL, **QUIET).then(
            None, self.captions, None, js=stage.CAPTIONS, **QUIET
        )
        over = [self.status, ask.speak, ask.halt]
        run.failure(self.on_failure, None, over, queue=False, **QUIET).then(
            None, None, None, js=stage.SHOW_IDLE, **QUIET
        )
        ask.halt.click(
            self.on_halt, None, [*over, *self._shelf_outputs], cancels=[run], queue=False, **QUIET
        ).then(None, None, None, js=stage.SHOW_IDLE, **QUIET)

    def _wire_question(self) -> None:
        ask = self.ask
        for kind, tab in ask.tabs.items():
            spoken = kind in ("text", "several")
            tab.select(
                lambda k=kind, s=spoken: [k, gr.update(visible=s)],
                None,
                [ask.source, ask.voices],
                queue=False,
                **QUIET,
            )
        ask.backdrop.change(
            lambda kind: gr.update(visible=kind == COLOUR), ask.backdrop, ask.colour, queue=False, **QUIET
        )
        film = [ask.film, ask.film_status, ask.agreed]
        ask.film_file.upload(lambda: ["", html.bar(None), gr.skip()], None, film, queue=False, **QUIET)
        ask.film_file.upload(self.on_film, ask.film_file, film, concurrency_limit=2, **QUIET)
        ask.film_file.clear(self.on_no_film, ask.film, film, queue=False, **QUIET)
        ask.language.input(self.on_language, ask.language, ask.voice, queue=False, **QUIET)
        habits = [ask.language, ask.voice, ask.rate, self.captions]
        gr.on(
            [ask.language.input, ask.voice.change, ask.rate.release, self.captions.input],
            lambda *values: dict(zip(HABITS, values, strict=True)),
            habits,
            self.habits,
            queue=False,
            **QUIET,
        )

    def _wire_clips(self) -> None:
        self.captions.change(None, self.captions, None, js=stage.CAPTIONS, **QUIET)
        self.shelf.pick(self.on_clip, None, self._clip_outputs, **QUIET).success(
            None, None, None, js=stage.SHOW_FINAL_NOW, **QUIET
        ).then(None, self.captions, None, js=stage.CAPTIONS, **QUIET)
        self.remove.click(self.on_remove, self.clip_id, self._clip_outputs, **QUIET).success(
            None, None, None, js=stage.SHOW_IDLE, **QUIET
        )
        self.older.click(self.on_older, [self.shown, self.clip_id], self._shelf_outputs, **QUIET)
        # The question is asked in the browser; the answer comes as the value of a hidden field.
        self.wipe.click(self.on_wipe, self.sure, self._clip_outputs, js=SURE, **QUIET).success(
            None, None, None, js=stage.SHOW_IDLE, **QUIET
        )
        self.zip.click(self.on_zip, self.clip_id, self.zip_file, **QUIET).success(
            None, None, None, js=stage.CLICK_ZIP, **QUIET
        )

    # --- the question ------------------------------------------------------------------------------------

    def on_load(self, habits: dict[str, Any] | None, request: gr.Request) -> Updates:
        """Fill the page; the address may name an avatar."""
        with spoken_errors():
            owner = self.context.owner(request)
            avatars = self.studio.avatars(owner)
            if not avatars:
                words = (
                    "Make one from a short video, or load one from the Hub. Then it says what you type here."
                )
                empty = html.empty("people", "No avatar yet", words, ("Create an avatar", ""))
                return {self.nobody: gr.update(value=empty, visible=True)}
            asked = dict(request.query_params or {}).get("avatar", "")
            chosen = asked if asked in {a.slug for a in avatars} else avatars[0].slug
            return {
                self.nobody: gr.update(visible=False),
                self.page: gr.update(visible=True),
                self.ask.slug: chosen,
                self.ask.tiles: avatar_tiles(avatars, chosen, FACE),
                self.idle: self._waiting(chosen, owner),
                **self._as_before({**HABITS, **(habits or {})}),
                **self._clips(owner),
            }

    def _as_before(self, habits: dict[str, Any]) -> Updates:
        """Language, voice and speed as this browser used them last."""
        known = self.studio.voices()
        language, choices, voice = voices.preferred(known, str(habits["language"]), habits["voice"])
        rate = habits["rate"] if isinstance(habits["rate"], (int, float)) else 1.0
        return {
            self.ask.language: gr.update(choices=voices.languages(known), value=language),
            self.ask.voice: gr.update(choices=choices, value=voice),
            self.ask.rate: min(1.6, max(0.6, float(rate))),
            self.captions: gr.update(value=bool(habits["captions"])),
        }

    def on_language(self, language: str) -> Any:
        """Another language: its voices."""
        _, choices, voice = voices.preferred(self.studio.voices(), language, None)
        return gr.update(choices=choices, value=voice)

    def on_pick(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Another avatar was chosen."""
        with spoken_errors():
            owner = self.context.owner(request)
            chosen = self.studio.avatar(str(event.id), owner).slug
            return [
                chosen,
                avatar_tiles(self.studio.avatars(owner), chosen, FACE),
                self._waiting(chosen, owner),
            ]

    def on_film(self, path: str | None, request: gr.Request) -> list[Any]:
        """A video to speak into: look at it before anything else."""
        try:
            upload = self.studio.film(Path(path or ""), self.context.owner(request))
        except TalkerError as error:
            return ["", html.message("error", str(error)), gr.update(visible=False, value=False)]
        return [
            upload.id,
            html.message("check", "This video can be spoken into."),
            gr.update(visible=True, value=False),
        ]

    def on_no_film(self, film: str, request: gr.Request) -> list[Any]:
        """The video was taken away again."""
        try:
            if film:
                self.studio.inbox.discard(film, self.context.owner(request))
        except TalkerError:
            pass  # it went with old uploads
        return ["", "", gr.update(visible=False, value=False)]

    # --- rendering ---------------------------------------------------------------------------------------

    def on_speak(self, request: gr.Request, *values: Any) -> Iterator[Updates]:
        """Render; every piece goes to the player at once, the finished clip at the end."""
        yield {
            self.final: None,
            self.status: stage.status("Getting ready"),
            self.captions: gr.update(visible=False),
            self.results: gr.update(visible=False),
            self.zip: gr.update(visible=False),
            self.ask.speak: gr.update(interactive=False),
            self.ask.halt: gr.update(visible=True),
        }
        try:
            owner, asked = self.context.owner(request), Asked(*values)
            make = self._several if asked.source == "several" else self._one
            yield from make(owner, asked)
        except TalkerError as error:
            # Beside the picture, where it stays, rather than in a box that fades.
            yield {self.status: html.message("error", str(error)), **self._ready()}

    def _one(self, owner: str, asked: Asked) -> Iterator[Updates]:
        for made in self.render(asked.avatar, owner, **asked.said(), **asked.options()):
            if isinstance(made, TalkDone):
                yield {**self._finished(made.clip), **self._clips(owner, made.clip.id), **self._ready()}
            elif isinstance(made, TalkChunk):
                yield {self.live: made, self.status: stage.under_way(made)}
            else:
                yield {self.status: stage.under_way(made)}

    def _several(self, owner: str, asked: Asked) -> Iterator[Updates]:
        options = {**asked.options(), "batch_id": secrets.token_hex(8)}
        parts = batch.parts_of(asked.texts, [Path(path) for path in asked.sounds or []])

        def say(part: batch.Part) -> Iterator[Made]:
            what = {"text": part.text, "audio": part.audio, "title": part.title}
            return self.render(asked.avatar, owner, **what, **options)

        for step in batch.run(parts, say):
            if isinstance(step, batch.BatchDone):
                failures = [(part.title, why) for part, why in step.failures]
                shown = self._finished(step.clips[-1]) if step.clips else {}
                yield {**shown, self.status: stage.summary(step.clips, failures), **self._ready()}
            elif isinstance(step.made, TalkDone):
                yield self._clips(owner, step.made.clip.id)
            else:
                count = f"{step.number} of {step.total}"
                words = stage.under_way(step.made, count, part=step.number - 1, of=step.total)
                yield {self.status: words}

    def on_halt(self, request: gr.Request) -> Updates:
        """The rendering was stopped; what was finished before stays."""
        return {
            self.status: stage.status("Stopped."),
            **self._ready(),
            **self._clips(self.context.owner(request)),
        }

    def on_failure(self) -> list[Any]:
        """A bug; the log knows more."""
        return [html.message("error", "Something went wrong. Try again."), *self._ready().values()]

    def _ready(self) -> Updates:
        return {self.ask.speak: gr.update(interactive=True), self.ask.halt: gr.update(visible=False)}

    # --- clips -------------------------------------------------------------------------------------------

    def on_clip(self, request: gr.Request, event: gr.EventData) -> Updates:
        """An earlier clip was chosen."""
        with spoken_errors():
            owner = self.context.owner(request)
            clip = self.studio.clip(str(event.id), owner)
            return {**self._finished(clip), **self._clips(owner, clip.id)}

    def on_remove(self, chosen: str, request: gr.Request) -> Updates:
        """Delete the shown clip."""
        with spoken_errors():
            owner = self.context.owner(request)
            self.studio.delete_clip(chosen, owner)
            return {**self._no_clip("Deleted."), **self._clips(owner)}

    def on_wipe(self, sure: str, request: gr.Request) -> Updates:
        """Delete every clip of this visitor."""
        with spoken_errors():
            if sure != "yes":
                return {self.clip_id: gr.skip()}
            owner = self.context.owner(request)
            count = self.studio.delete_clips(owner)
            return {**self._no_clip(f"{count} clips deleted."), **self._clips(owner)}

    def on_older(self, shown: int, chosen: str, request: gr.Request) -> Updates:
        """More of the history."""
        return self._clips(self.context.owner(request), chosen, shown + CLIPS)

    def on_zip(self, chosen: str, request: gr.Request) -> str:
        """All clips that were made together with the shown one, as one file."""
        with spoken_errors():
            owner = self.context.owner(request)
            target = new_shown_folder() / "clips.zip"
            return str(self.studio.bundle(self.studio.clip(chosen, owner).batch, owner, target))

    def _waiting(self, chosen: str, owner: str) -> str:
        uri = thumbnail(self.studio.avatar(chosen, owner).poster, 640)
        return f'<div class="tk-idle-box"><img src="{uri}" alt="The avatar, waiting"></div>' if uri else ""

    def _clips(self, owner: str, chosen: str = "", shown: int = CLIPS) -> Updates:
        """The history, long enough to contain the chosen clip."""
        clips = self.studio.clips(owner)
        place = next((i for i, clip in enumerate(clips) if clip.id == chosen), 0)
        shown = max(shown, -(-(place + 1) // CLIPS) * CLIPS)
        return {
            self.shelf_head: gr.update(value=html.section("", "Your clips"), visible=bool(clips)),
            self.shelf: clip_tiles(clips[:shown], chosen) if clips else "",
            self.shelf_tools: gr.update(visible=bool(clips)),
            self.older: gr.update(visible=len(clips) > shown),
            self.shown: shown,
        }

    def _no_clip(self, words: str) -> Updates:
        return {
            self.final: None,
            self.status: stage.status(words),
            self.captions: gr.update(visible=False),
            self.results: gr.update(visible=False),
            self.zip: gr.update(visible=False),
            self.clip_id: "",
        }

    def _finished(self, clip: Clip) -> Updates:
        """Player, status, buttons and id for a finished clip."""
        together = len(self.studio.shelf.of_batch(clip.batch, clip.owner))
        return {
            self.final: gr.Video(value=expose(clip.video), subtitles=expose(clip.vtt) if clip.vtt else None),
            self.status: stage.finished(clip),
            self.captions: gr.update(visible=clip.vtt is not None),
            self.results: gr.update(visible=True),
            self.download: gr.update(value=expose(clip.download), label=_download_label(clip)),
            self.srt: _optional(clip.srt),
            self.vtt: _optional(clip.vtt),
            self.zip: gr.update(visible=together > 1, value=f"Download all {together} as zip"),
            self.clip_id: clip.id,
        }


def _download_label(clip: Clip) -> str:
    return "Download" if clip.download == clip.video else "Download .mov"


def _optional(path: Path | None) -> Any:
    return gr.update(value=expose(path) if path else None, visible=path is not None)
