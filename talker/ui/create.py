"""Create: a clip, a look at it, consent, quality, and off it goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import TalkerError
from talker.studio.inbox import Upload
from talker.studio.preflight import Report
from talker.ui import html, signin
from talker.ui.context import QUIET, Context, markup, spoken_errors
from talker.ui.costs import place_name, preset_card, total
from talker.ui.report import checking, part_note, report_html
from talker.ui.trimming import chosen_part, kept_seconds, required_part
from talker.ui.words import fixed, say, say_error

WHAT_IT_DOES = (
    "Film somebody talking for half a minute. talker learns the face, the hair, the way the head moves "
    "and how the lips follow the voice. Then you type, and it talks."
)
TIPS = (
    (
        "face",
        "One person, facing the camera",
        "Head and shoulders in view the whole time, no cuts if you can.",
    ),
    (
        "clock",
        "20 to 60 seconds of talking",
        "From 10 seconds to 5 minutes works. More variety means better lips.",
    ),
    ("sun", "Even light, calm background", "A window in front of you beats a lamp behind you."),
    ("mic", "Clear sound", "The avatar learns how this mouth moves to this voice."),
    ("lock", "It stays here", "The clip is processed on this machine, and deleted when the avatar is done."),
)
DRAWING = "Drawing a speaker who does not exist. The first time takes a moment."
GO_TO_JOB = "(id) => { if (id) window.location.href = './jobs?job=' + id; }"
SHOW_REPORT = (
    "() => document.querySelector('#tk-report').scrollIntoView({behavior: 'smooth', block: 'nearest'})"
)


def tips() -> str:
    """What makes a good clip."""
    items = "".join(
        f"<li>{html.icon(icon)}<div><b>{html.esc(say(head))}</b><br>{html.esc(say(text))}</div></li>"
        for icon, head, text in TIPS
    )
    return f'<div class="tk-tips"><h2>{say("What makes a good clip")}</h2><ul>{items}</ul></div>'


def consent(statement: str) -> str:
    """The declaration, whose English text is what is kept; a translation helps to read it."""
    read = say(statement)
    help_ = (
        f'<p lang="es"><b>{say("In your language:")}</b> {html.esc(read)}</p>' if read != statement else ""
    )
    return f'<div class="tk-consent"><p lang="en">{html.esc(statement)}</p>{help_}</div>'


class CreatePage:
    """Lays the page out and wires it."""

    def __init__(self, context: Context) -> None:
        self.context, self.studio = context, context.studio
        markup(lambda: html.header("Create"))
        markup(lambda: html.title("A short video becomes an avatar that says anything.", WHAT_IT_DOES))
        self.upload_id = gr.State("")
        self.found = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                self._clip()
                self._consent()
                self._quality()
            with gr.Column(scale=4, min_width=280, elem_classes=["tk-card", "tk-aside"]):
                markup(tips)
                signin.duplicate()
        markup(lambda: html.footer(self.studio.config.report_url))
        self.job_id = gr.Textbox(visible="hidden", elem_id="tk-job-id")
        self._wire()

    def _clip(self) -> None:
        with gr.Column(elem_classes="tk-card"):
            markup(lambda: html.section("1", "The clip", "Upload a video, or record one with the webcam."))
            self.video = gr.Video(
                label=fixed("Video of somebody talking"),
                show_label=False,
                sources=["upload", "webcam"],
                # Any other format would run a plain decoder on the raw upload before our own, limited one.
                format=None,
                include_audio=True,
                webcam_options=gr.WebcamOptions(mirror=False),
                height=300,
                buttons=[],
                elem_id="tk-upload",
            )
            self.example = gr.Button(fixed("No clip at hand? Use the example speaker"), elem_id="tk-example")
            self.report = markup(visible=False, elem_id="tk-report")
            self._part()
            self.again = gr.Button(fixed("Use another clip"), visible=False, elem_id="tk-again")

    def _part(self) -> None:
        with gr.Column(visible=False, elem_id="tk-part") as self.part_box:
            self.only_part = gr.Checkbox(
                label=fixed("Use only a part of the clip"),
                info=fixed(
                    "For example without a greeting, or without the moments in which somebody else is seen."
                ),
                elem_id="tk-only-part",
            )
            with gr.Column(visible=False, elem_id="tk-bounds") as self.bounds:
                with gr.Row():
                    options: dict[str, Any] = {"minimum": 0, "maximum": 60, "step": 0.1, "min_width": 200}
                    self.start = gr.Slider(label=fixed("From second"), elem_id="tk-start", **options)
                    self.end = gr.Slider(label=fixed("To second"), elem_id="tk-end", **options)
                self.note = markup(elem_id="tk-part-note")

    def _consent(self) -> None:
        with gr.Column(elem_classes="tk-card", visible=False) as self.consent_card:
            markup(
                lambda: html.section(
                    "2", "Name and consent", "An avatar is somebody's likeness. It needs their yes."
                )
            )
            self.name = gr.Textbox(
                label=fixed("Name of the avatar"), placeholder="Ada", max_length=60, elem_id="tk-name"
            )
            self.statement = markup()
            self.who = gr.Textbox(
                label=fixed("Your name"),
                placeholder=fixed("Who makes this declaration"),
                max_length=60,
                elem_id="tk-who",
            )
            self.agreed = gr.Checkbox(label=fixed("I have read this, and I declare it."), elem_id="tk-agreed")

    def _quality(self) -> None:
        sizes = self.studio.config.sizes
        with gr.Column(elem_classes="tk-card", visible=False) as self.quality_card:
            markup(
                lambda: html.section(
                    "3", "Quality", "Start with a preview. You can always make a better one later."
                )
            )
            self.preset = gr.Radio(
                label=fixed("Quality"),
                show_label=False,
                choices=[],
                elem_classes="tk-cards",
                elem_id="tk-preset",
            )
            self.size = gr.Radio(
                label=fixed("Picture size"),
                info=fixed(
                    "Larger is sharper and takes longer. 256 suits a chat window, 512 a presentation."
                ),
                choices=[(f"{s} × {s}", s) for s in sizes],
                value=sizes[0],
                visible=len(sizes) > 1,
                elem_id="tk-size",
                elem_classes="tk-flat",
            )
            places = self.studio.launchers()
            self.where = gr.Radio(
                label=fixed("Where to train"),
                choices=[(fixed(place_name(name)), name) for name in places],
                value=places[0],
                visible=len(places) > 1,
                elem_id="tk-where",
                elem_classes="tk-flat",
            )
            self.total = markup(elem_id="tk-total")
            self.go = gr.Button(fixed("Create avatar"), variant="primary", size="lg", elem_id="tk-go")

    def on_where(self, place: str) -> Any:
        """What training there costs, as the place itself says it."""
        return gr.update(info=say(self.studio.price_words(place)) or None)

    @property
    def outputs(self) -> list[Any]:
        """Everything that depends on the clip, in the order of :func:`_shown`."""
        return [
            self.upload_id,
            self.found,
            self.video,
            self.example,
            self.report,
            self.again,
            self.consent_card,
            self.quality_card,
            self.statement,
            self.part_box,
            self.only_part,
            self.bounds,
            self.start,
            self.end,
            self.note,
            self.preset,
            self.size,
            self.total,
        ]

    def _wire(self) -> None:
        shown = self.outputs
        checks: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "check", **QUIET}
        for event in (self.video.upload, self.video.stop_recording):
            event(self.on_video, self.video, shown, **checks).then(None, None, None, js=SHOW_REPORT, **QUIET)
        self.example.click(self.on_example, None, shown, **checks)
        self.again.click(_shown, None, shown, **QUIET)
        self.where.input(self.on_where, self.where, self.where, **QUIET)
        part = [self.found, self.only_part, self.start, self.end]
        choice = [*part, self.size, self.where, self.preset]
        # `input`: only what a person does. The answer changes the cards, which must not ask again.
        for component in (self.only_part, self.start, self.end, self.size, self.where, self.preset):
            component.input(
                self.on_choice,
                choice,
                [self.bounds, self.note, self.preset, self.total],
                trigger_mode="always_last",
                **QUIET,
            )
        declared = {self.upload_id, self.name, self.who, self.agreed}
        self.go.click(
            self.on_go,
            {*declared, *choice},
            self.job_id,
            **QUIET,
        ).success(None, self.job_id, None, js=GO_TO_JOB, **QUIET)

    def on_video(self, path: str | None, request: gr.Request) -> Iterator[list[Any]]:
        """A clip arrived: take it away at once, then check it."""
        if not path:
            return
        with spoken_errors():
            owner = self.context.owner(request)
            upload = self.studio.take(Path(path), owner)
            yield _shown(report=checking(upload.label))
            yield self._look(upload, owner)

    def on_example(self, request: gr.Request) -> Iterator[list[Any]]:
        """The synthetic speaker instead of a clip."""
        yield _shown(report=checking(say("the example speaker"), DRAWING))
        with spoken_errors():
            owner = self.context.owner(request)
            upload = self.studio.example(owner)
            yield _shown(report=checking(say("the example speaker")))
            yield self._look(upload, owner)

    def on_choice(
        self,
        found: Report | None,
        only: bool,
        start: float,
        end: float,
        size: int,
        where: str,
        preset: str,
    ) -> list[Any]:
        """Part, size, place and quality decide what it takes."""
        if found is None:
            return [gr.skip()] * 4
        with spoken_errors():
            part = chosen_part(only, start, end)
            cards = self._cards(kept_seconds(found, part), size, where)
            return [
                gr.update(visible=only),
                part_note(found, part),
                gr.update(choices=cards, value=preset),
                self._total(found, part, size, where, preset),
            ]

    def on_go(self, values: dict[Any, Any], request: gr.Request) -> str:
        """Submit; everything is checked again by the studio."""
        with spoken_errors():
            owner = self.context.owner(request)
            part = chosen_part(values[self.only_part], values[self.start], values[self.end])
            return self.studio.submit(
                values[self.upload_id],
                owner,
                name=values[self.name],
                preset=values[self.preset],
                size=int(values[self.size]),
                who=values[self.who],
                agreed=values[self.agreed],
                launcher=values[self.where],
                part=required_part(values[self.found], part),
            )

    def _look(self, upload: Upload, owner: str) -> list[Any]:
        """Check an upload and show what was found."""
        try:
            found = self.studio.check(upload.id, owner)
        except TalkerError as error:
            return _shown(report=html.message("error", say_error(error), "This clip cannot be used"))
        size, where = self.studio.config.sizes[0], self.studio.launchers()[0]
        part = None if found.ok else found.part
        cards = self._cards(kept_seconds(found, part), size, where)
        start, end = found.part or (0.0, found.seconds)
        whole: dict[str, Any] = {"maximum": round(found.seconds, 1)}
        return _shown(
            upload_id=upload.id,
            report=report_html(found, upload.label),
            statement=consent(self.studio.consent_text()),
            found=found,
            parts=[
                gr.update(visible=found.usable),
                part is not None,
                gr.update(visible=part is not None),
                gr.update(value=round(start, 1), **whole),
                gr.update(value=round(end, 1), **whole),
                part_note(found, part),
                gr.update(choices=cards, value=cards[0][1]),
                size,
                self._total(found, part, size, where, cards[0][1]),
            ],
        )

    def _cards(self, seconds: float, size: int, where: str) -> list[tuple[str, str]]:
        price = self.studio.price(where)
        return [(preset_card(p, where, price), p.name) for p in self.studio.presets(seconds, size)]

    def _total(
        self, found: Report, part: tuple[float, float] | None, size: int, where: str, preset: str
    ) -> str:
        seconds = kept_seconds(found, part)
        info = next(p for p in self.studio.presets(seconds, size) if p.name == preset)
        return total(info, size, seconds, where, self.studio.price(where))


def _shown(
    *,
    upload_id: str = "",
    report: str = "",
    statement: str = "",
    found: Report | None = None,
    parts: list[Any] | None = None,
) -> list[Any]:
    """Values for :attr:`CreatePage.outputs`."""
    busy, usable = bool(report), found is not None and found.usable
    hidden = gr.update(visible=False)
    return [
        upload_id,
        found,
        gr.update(value=None, visible=not busy),
        gr.update(visible=not busy),
        gr.update(value=report, visible=busy),
        gr.update(visible=busy),
        gr.update(visible=usable),
        gr.update(visible=usable),
        statement,
        *(parts or [hidden, False, hidden, 0, 0, "", gr.update(choices=[], value=None), gr.skip(), ""]),
    ]
