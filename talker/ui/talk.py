"""Talk: an avatar, something to say, and the video while it is being made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import TalkerError
from talker.studio import TalkChunk, TalkDone, TalkNote, TalkWaiting, batch
from talker.ui import html, stage, voices
from talker.ui.answer import Answer, Updates
from talker.ui.context import MAX_WAITING, QUIET, RENDERING, Context, markup, spoken_errors
from talker.ui.question import COLOUR, SENTENCE, Asked, Question
from talker.ui.tiles import avatar_tiles
from talker.ui.words import language, say, say_all, say_error

REMEMBER = "(slug) => { if (slug) history.replaceState(null, '', './talk?avatar=' + slug); }"
FACE = 200
WHAT_TO_DO = "Choose an avatar, give it something to say, and watch while it is being rendered."
NO_AVATAR = "Make one from a short video, or load one from the Hub. Then it says what you type here."
HABITS: dict[str, Any] = {"language": "", "voice": None, "rate": 1.0, "captions": True}

Made = TalkChunk | TalkDone | TalkNote | TalkWaiting
Render = Callable[..., Iterator[Made]]


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

    def in_turn(avatar: str, owner: str, again: bool = False, **options: Any) -> Iterator[Made]:
        # Outside of what is lent: nobody pays with GPU time for waiting.
        yield from context.studio.line.in_turn(lambda: lent(avatar, owner, **options), again=again)

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
        markup(lambda: html.header("Talk"))
        markup(lambda: html.title("Talk", WHAT_TO_DO))
        self.nobody = markup(html.loading)
        self.halted = gr.Checkbox(visible=False, show_label=False)
        self.habits = gr.BrowserState(HABITS, storage_key="talker-habits", secret="no secret")
        with gr.Row(equal_height=False, visible=False) as self.page:
            with gr.Column(scale=5, min_width=300):
                self.ask = Question()
            with gr.Column(scale=7, min_width=320):
                self.answer = Answer(context)
        markup(lambda: html.footer(self.studio.config.report_url))
        self._wire(demo)
        self._wire_question()

    def _wire(self, demo: gr.Blocks) -> None:
        ask = self.ask
        first = [self.nobody, self.page, self.answer.idle, self.answer.captions, *self.answer.shelf_outputs]
        first += [ask.slug, ask.tiles, ask.text, ask.language, ask.voice, ask.rate]
        load = demo.load(self.on_load, self.habits, first, **QUIET)
        load.failure(html.failed, None, self.nobody, **QUIET)
        picked = ask.tiles.pick(
            self.on_pick, None, [ask.slug, ask.tiles, self.answer.idle], queue=False, **QUIET
        )
        picked.success(None, ask.slug, None, js=REMEMBER, **QUIET).success(
            None, None, None, js=stage.SHOW_IDLE, **QUIET
        )
        ask.speak.click(None, ask.source, None, js=stage.SHOW_LIVE, **QUIET)
        run = ask.speak.click(
            self.on_speak,
            ask.inputs,
            [self.answer.live, *self.answer.outputs, ask.speak, ask.halt],
            concurrency_limit=MAX_WAITING,
            concurrency_id=RENDERING,
            **QUIET,
        )
        run.success(None, None, None, js=stage.SHOW_FINAL, **QUIET).then(
            None, self.answer.captions, None, js=stage.CAPTIONS, **QUIET
        )
        over = [self.answer.status, ask.speak, ask.halt]
        # What is cancelled may come back as failed, before or after the stop is answered.
        run.failure(self.on_failure, self.halted, over, js=stage.WAS_HALTED, queue=False, **QUIET).then(
            None, None, None, js=stage.SHOW_IDLE, **QUIET
        )
        ask.halt.click(
            self.on_halt,
            None,
            [*over, *self.answer.shelf_outputs],
            js=stage.HALTED,
            cancels=[run],
            queue=False,
            **QUIET,
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
        habits = [ask.language, ask.voice, ask.rate, self.answer.captions]
        gr.on(
            [ask.language.input, ask.voice.change, ask.rate.release, self.answer.captions.input],
            lambda *values: dict(zip(HABITS, values, strict=True)),
            habits,
            self.habits,
            queue=False,
            **QUIET,
        )

    # --- the question ------------------------------------------------------------------------------------

    def on_load(self, habits: dict[str, Any] | None, request: gr.Request) -> Updates:
        """Fill the page; the address may name an avatar."""
        with spoken_errors():
            owner = self.context.owner(request)
            avatars = self.studio.avatars(owner)
            if not avatars:
                empty = html.empty("people", "No avatar yet", NO_AVATAR, ("Create an avatar", ""))
                return {self.nobody: gr.update(value=empty, visible=True)}
            asked = dict(request.query_params or {}).get("avatar", "")
            chosen = asked if asked in {a.slug for a in avatars} else avatars[0].slug
            return {
                self.nobody: gr.update(visible=False),
                self.page: gr.update(visible=True),
                self.ask.slug: chosen,
                self.ask.text: say(SENTENCE),
                self.ask.tiles: avatar_tiles(avatars, chosen, FACE),
                self.answer.idle: self.answer.waiting(chosen, owner),
                **self._as_before({**HABITS, **(habits or {})}),
                **self.answer.clips(owner),
            }

    def _as_before(self, habits: dict[str, Any]) -> Updates:
        """Language, voice and speed as this browser used them last."""
        known = self.studio.voices()
        # Before the first choice: the language of the page.
        wanted = str(habits["language"] or language())
        spoken, choices, voice = voices.preferred(known, wanted, habits["voice"])
        rate = habits["rate"] if isinstance(habits["rate"], (int, float)) else 1.0
        return {
            self.ask.language: gr.update(choices=voices.languages(known), value=spoken),
            self.ask.voice: gr.update(choices=choices, value=voice),
            self.ask.rate: min(1.6, max(0.6, float(rate))),
            self.answer.captions: gr.update(value=bool(habits["captions"])),
        }

    def on_language(self, chosen: str) -> Any:
        """Another language: its voices."""
        _, choices, voice = voices.preferred(self.studio.voices(), chosen, None)
        return gr.update(choices=choices, value=voice)

    def on_pick(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Another avatar was chosen."""
        with spoken_errors():
            owner = self.context.owner(request)
            chosen = self.studio.avatar(str(event.id), owner).slug
            return [
                chosen,
                avatar_tiles(self.studio.avatars(owner), chosen, FACE),
                self.answer.waiting(chosen, owner),
            ]

    def on_film(self, path: str | None, request: gr.Request) -> list[Any]:
        """A video to speak into: look at it before anything else."""
        try:
            upload = self.studio.film(Path(path or ""), self.context.owner(request))
        except TalkerError as error:
            return ["", html.message("error", say_error(error)), gr.update(visible=False, value=False)]
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
            **self.answer.no_clip("Getting ready"),
            self.ask.speak: gr.update(interactive=False),
            self.ask.halt: gr.update(visible=True),
        }
        try:
            owner, asked = self.context.owner(request), Asked(*values)
            make = self._several if asked.source == "several" else self._one
            yield from make(owner, asked)
        except TalkerError as error:
            # Beside the picture, where it stays, rather than in a box that fades.
            yield {self.answer.status: html.message("error", say_error(error)), **self._ready()}

    def _one(self, owner: str, asked: Asked) -> Iterator[Updates]:
        for made in self.render(asked.avatar, owner, **asked.said(), **asked.options()):
            if isinstance(made, TalkDone):
                yield {
                    **self.answer.finished(made.clip),
                    **self.answer.clips(owner, made.clip.id),
                    **self._ready(),
                }
            elif isinstance(made, TalkChunk):
                yield {self.answer.live: made, self.answer.status: stage.under_way(made)}
            else:
                yield {self.answer.status: stage.under_way(made)}

    def _several(self, owner: str, asked: Asked) -> Iterator[Updates]:
        options = {**asked.options(), "batch_id": secrets.token_hex(8)}
        parts = batch.parts_of(asked.texts, [Path(path) for path in asked.sounds or []])

        def speak(part: batch.Part) -> Iterator[Made]:
            what = {"text": part.text, "audio": part.audio, "title": part.title}
            return self.render(asked.avatar, owner, again=part is not parts[0], **what, **options)

        for step in batch.run(parts, speak):
            if isinstance(step, batch.BatchDone):
                failures = [(part.title, say_all(why)) for part, why in step.failures]
                shown = self.answer.finished(step.clips[-1]) if step.clips else {}
                yield {**shown, self.answer.status: stage.summary(step.clips, failures), **self._ready()}
            elif isinstance(step.made, TalkDone):
                yield self.answer.clips(owner, step.made.clip.id)
            else:
                count = say("{n} of {total}", n=step.number, total=step.total)
                words = stage.under_way(step.made, count, part=step.number - 1, of=step.total)
                yield {self.answer.status: words}

    def on_halt(self, request: gr.Request) -> Updates:
        """The rendering was stopped; what was finished before stays."""
        return {
            self.answer.status: stage.status("Stopped."),
            **self._ready(),
            **self.answer.clips(self.context.owner(request)),
        }

    def on_failure(self, halted: bool) -> list[Any]:
        """Stopped, or a bug; then the log knows more."""
        bug = html.message("error", "Something went wrong. Try again.")
        return [stage.status("Stopped.") if halted else bug, *self._ready().values()]

    def _ready(self) -> Updates:
        return {self.ask.speak: gr.update(interactive=True), self.ask.halt: gr.update(visible=False)}
