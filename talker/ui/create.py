"""Create: a clip, a look at it, consent, quality, and off it goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import TalkerError
from talker.studio.inbox import Upload
from talker.ui import html
from talker.ui.context import QUIET, Context, markup, spoken_errors
from talker.ui.report import checking, report_html

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
PLACES = {
    "local": "This machine",
    "space": "The train Space: the clip is sent there",
    "jobs": "A rented machine of the Hub: the clip is sent there, you pay by the minute",
}
DRAWING = "Drawing a speaker who does not exist. The first time takes a moment."
GO_TO_JOB = "(id) => { if (id) window.location.href = './jobs?job=' + id; }"
SHOW_REPORT = (
    "() => document.querySelector('#tk-report').scrollIntoView({behavior: 'smooth', block: 'nearest'})"
)


def tips() -> str:
    """What makes a good clip."""
    items = "".join(
        f"<li>{html.icon(icon)}<div><b>{html.esc(head)}</b><br>{html.esc(text)}</div></li>"
        for icon, head, text in TIPS
    )
    return f'<div class="tk-tips"><h3>What makes a good clip</h3><ul>{items}</ul></div>'


class CreatePage:
    """Lays the page out and wires it."""

    def __init__(self, context: Context) -> None:
        self.context, self.studio = context, context.studio
        markup(html.header("Create"))
        markup(
            html.title(
                "A short video becomes an avatar that says anything.",
                "Film somebody talking for half a minute. talker learns the face, the hair, the way the head moves "
                "and how the lips follow the voice. Then you type, and it talks.",
            )
        )
        self.upload_id = gr.State("")
        self.seconds = gr.State(30.0)
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                self._clip()
                self._consent()
                self._quality()
            with gr.Column(scale=4, min_width=280, elem_classes=["tk-card", "tk-aside"]):
                markup(tips())
        markup(html.footer(self.studio.config.report_url))
        self.job_id = gr.Textbox(visible="hidden", elem_id="tk-job-id")
        self._wire()

    def _clip(self) -> None:
        with gr.Column(elem_classes="tk-card"):
            markup(html.section("1", "The clip", "Upload a video, or record one with the webcam."))
            self.video = gr.Video(
                label="Video of somebody talking",
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
            self.example = gr.Button("No clip at hand? Use the example speaker", elem_id="tk-example")
            self.report = markup(visible=False, elem_id="tk-report")
            self.again = gr.Button("Use another clip", visible=False, elem_id="tk-again")

    def _consent(self) -> None:
        with gr.Column(elem_classes="tk-card", visible=False) as self.consent_card:
            markup(
                html.section("2", "Name and consent", "An avatar is somebody's likeness. It needs their yes.")
            )
            self.name = gr.Textbox(
                label="Name of the avatar", placeholder="Ada", max_length=60, elem_id="tk-name"
            )
            self.statement = markup()
            self.who = gr.Textbox(
                label="Your name", placeholder="Who makes this declaration", max_length=60, elem_id="tk-who"
            )
            self.agreed = gr.Checkbox(label="I have read this, and I declare it.", elem_id="tk-agreed")

    def _quality(self) -> None:
        sizes = self.studio.config.sizes
        with gr.Column(elem_classes="tk-card", visible=False) as self.quality_card:
            markup(
                html.section("3", "Quality", "Start with a preview. You can always make a better one later.")
            )
            self.preset = gr.Radio(
                label="Quality", show_label=False, choices=[], elem_classes="tk-cards", elem_id="tk-preset"
            )
            self.size = gr.Radio(
                label="Picture size",
                choices=[(f"{s} × {s}", s) for s in sizes],
                value=sizes[0],
                visible=len(sizes) > 1,
                elem_id="tk-size",
                elem_classes="tk-flat",
            )
            places = self.studio.launchers()
            self.where = gr.Radio(
                label="Where to train",
                choices=[(PLACES[name], name) for name in places],
                value=places[0],
                visible=len(places) > 1,
                elem_id="tk-where",
                elem_classes="tk-flat",
            )
            self.where.input(self._price, self.where, self.where, **QUIET)
            self.go = gr.Button("Create avatar", variant="primary", size="lg", elem_id="tk-go")

    def _price(self, place: str) -> Any:
        """What training there costs, said before it starts."""
        return gr.Radio(info=self.studio.price(place) or None)

    def _wire(self) -> None:
        shown = [
            self.upload_id,
            self.seconds,
            self.video,
            self.example,
            self.report,
            self.again,
            self.consent_card,
            self.quality_card,
            self.statement,
            self.preset,
        ]
        checks: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "check", **QUIET}
        for event in (self.video.upload, self.video.stop_recording):
            event(self.on_video, self.video, shown, **checks).then(None, None, None, js=SHOW_REPORT, **QUIET)
        self.example.click(self.on_example, None, shown, **checks)
        self.again.click(_shown, None, shown, **QUIET)
        self.size.change(self.on_size, [self.seconds, self.size, self.preset], self.preset, **QUIET)
        self.go.click(
            self.on_go,
            [self.upload_id, self.name, self.who, self.agreed, self.preset, self.size, self.where],
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
        yield _shown(report=checking("the example speaker", DRAWING))
        with spoken_errors():
            owner = self.context.owner(request)
            upload = self.studio.example(owner)
            yield _shown(report=checking("the example speaker"))
            yield self._look(upload, owner)

    def on_size(self, seconds: float, size: int, chosen: str) -> Any:
        """The estimates depend on the size."""
        with spoken_errors():
            return gr.update(choices=self._presets(seconds, size), value=chosen)

    def on_go(
        self,
        upload: str,
        name: str,
        who: str,
        agreed: bool,
        preset: str,
        size: int,
        where: str,
        request: gr.Request,
    ) -> str:
        """Submit; everything is checked again by the studio."""
        with spoken_errors():
            owner = self.context.owner(request)
            return self.studio.submit(
                upload,
                owner,
                name=name,
                preset=preset,
                size=int(size),
                who=who,
                agreed=agreed,
                launcher=where,
            )

    def _look(self, upload: Upload, owner: str) -> list[Any]:
        """Check an upload and show what was found."""
        try:
            found = self.studio.check(upload.id, owner)
        except TalkerError as error:
            return _shown(report=html.message("error", str(error), "This clip cannot be used"))
        return _shown(
            upload_id=upload.id,
            seconds=found.seconds,
            report=report_html(found, upload.label),
            usable=found.ok,
            statement=f'<div class="tk-consent">{html.esc(self.studio.consent_text())}</div>',
            presets=self._presets(found.seconds, self.studio.config.sizes[0]),
        )

    def _presets(self, seconds: float, size: int) -> list[tuple[str, str]]:
        return [
            (f"{p.title}\n{p.description}\n{_about(p.minutes)} on this machine", p.name)
            for p in self.studio.presets(seconds, size)
        ]


def _about(minutes: float) -> str:
    return f"About {html.duration(60 * max(1, round(minutes)))}"


def _shown(
    upload_id: str = "",
    seconds: float = 30.0,
    report: str = "",
    usable: bool = False,
    statement: str = "",
    presets: list[tuple[str, str]] | None = None,
) -> list[Any]:
    """Values for every part of the page that depends on the clip."""
    busy = bool(report)
    return [
        upload_id,
        seconds,
        gr.update(value=None, visible=not busy),
        gr.update(visible=not busy),
        gr.update(value=report, visible=busy),
        gr.update(visible=busy),
        gr.update(visible=usable),
        gr.update(visible=usable),
        statement,
        gr.update(choices=presets or [], value=presets[0][1] if presets else None),
    ]
