"""Jobs: what is being made, how far it is, and what can be done about it. Only reads; the work is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from talker.errors import TalkerError
from talker.ui import html, notices
from talker.ui.context import PICK, QUIET, Context, markup, spoken_errors
from talker.ui.job_html import clip_html, curves, detail, job_list, log_text, previews, stage_name
from talker.ui.words import LANGUAGES, fixed, say, spoken

if TYPE_CHECKING:
    import pandas as pd

    from talker.jobs.job import Job

POLL_S = 2.0
REMEMBER = "(id) => { if (id) history.replaceState(null, '', './jobs?job=' + id); }"
OPEN_TALK = "(slug) => { window.location.href = './talk?avatar=' + slug; }"
ACTIONS = ("stop", "resume", "cancel", "delete")
QUESTIONS = {
    "cancel": "End this job and throw its work away?",
    "delete": "Delete the record of this job? A finished avatar stays.",
}
NAMES = {"stop": "Save and stop", "resume": "Resume", "cancel": "Cancel", "delete": "Delete"}
NO_JOB = "Upload a short clip; its progress shows here, with pictures of the avatar as it learns."
COLOURS = {"static": "#2f9e8f", "deform": "#6f62ef", "refine": "#e08a3c"}
OTHER_COLOUR = "#8a8a8a"


def stage_colours() -> dict[str, str]:
    """Colours of the curves by the name of their stage, whatever the language of who looks."""
    found = {}
    for language in LANGUAGES:
        with spoken(language):
            found |= {stage_name(stage): colour for stage, colour in COLOURS.items()}
    return found


PLOT: dict[str, Any] = {
    "x": "step",
    "color": "stage",
    "color_map": stage_colours(),
    "x_title": " ",
    "y_title": " ",
    "color_title": " ",
    "height": 220,
    "buttons": [],
    "min_width": 260,
}


class JobsPage:
    """Lays the page out and wires it. Everything private is read anew at each tick, for the one who asks."""

    def __init__(self, context: Context, demo: gr.Blocks) -> None:
        self.context, self.studio = context, context.studio
        markup(lambda: html.header("Jobs"))
        markup(lambda: html.title("Jobs", "Training goes on when you close this page, and after a restart."))
        self.nothing = markup(html.loading)
        self.chosen = gr.Textbox(visible="hidden", elem_id="tk-chosen-job")
        self.slug = gr.Textbox(visible="hidden")
        self.seen = gr.State({})
        self.wanted = gr.State("")
        self.news = gr.Textbox(visible="hidden", elem_id="tk-news")
        with gr.Row(equal_height=False, visible=False) as self.board:
            with gr.Column(scale=4, min_width=290):
                self.list = markup(js_on_load=PICK, elem_id="tk-jobs")
                markup(notices.place, js_on_load=notices.ASK, elem_id="tk-notices")
            with gr.Column(scale=8, min_width=320, elem_classes="tk-card"):
                self._panel()
        markup(lambda: html.footer(self.studio.config.report_url))
        self._wire(demo)

    def _panel(self) -> None:
        self.head = markup(elem_id="tk-job-detail")
        self.pictures = markup(elem_id="tk-previews")
        self.clip = markup(elem_id="tk-job-clip")
        with gr.Row():
            self.talk = gr.Button(
                fixed("Make it talk"),
                variant="primary",
                visible=False,
                min_width=150,
                scale=0,
                elem_id="tk-open-talk",
            )
            self.buttons = {
                action: gr.Button(
                    fixed(NAMES[action]), visible=False, min_width=170, scale=0, elem_id=f"tk-{action}"
                )
                for action in ACTIONS
            }
        with gr.Row(visible=False, equal_height=True) as self.sure:
            self.question = markup()
            self.yes = gr.Button(fixed("Yes"), variant="stop", min_width=90, scale=0, elem_id="tk-yes")
            self.no = gr.Button(fixed("No"), min_width=90, scale=0)
        with gr.Row(visible=False, elem_id="tk-plots") as self.plots:
            self.loss = gr.LinePlot(y="loss", title=fixed("Error (loss): falls"), **PLOT)
            self.psnr = gr.LinePlot(y="psnr", title=fixed("Likeness (PSNR, dB): rises"), **PLOT)
        with gr.Accordion(fixed("Log"), open=False):
            self.log = markup(elem_id="tk-log")

    @property
    def outputs(self) -> list[Any]:
        """In the order of :meth:`_updates`."""
        return [
            self.chosen,
            self.slug,
            self.seen,
            self.nothing,
            self.board,
            self.list,
            self.head,
            self.pictures,
            self.log,
            self.talk,
            *self.buttons.values(),
            self.plots,
            self.loss,
            self.psnr,
            self.clip,
            self.news,
        ]

    def _wire(self, demo: gr.Blocks) -> None:
        direct: dict[str, Any] = {**QUIET, "queue": False}
        demo.load(self.on_load, None, self.outputs, **QUIET).failure(html.failed, None, self.nothing, **QUIET)
        gr.Timer(POLL_S).tick(self.on_tick, [self.chosen, self.seen], self.outputs, **direct).success(
            None, self.news, None, js=notices.TELL, **QUIET
        )
        self.list.pick(self.on_pick, self.seen, self.outputs, **direct).success(
            None, self.chosen, None, js=REMEMBER, **QUIET
        )
        for action in ("stop", "resume"):
            self.buttons[action].click(
                self.on_act, [gr.State(action), self.chosen, self.seen], self.outputs, **direct
            )
        for action, question in QUESTIONS.items():
            self.buttons[action].click(
                lambda a=action, q=question: (a, gr.update(visible=True), html.message("warning", q)),
                None,
                [self.wanted, self.sure, self.question],
                **direct,
            )
        done = self.yes.click(self.on_act, [self.wanted, self.chosen, self.seen], self.outputs, **direct)
        for event in (done.then, self.no.click):
            event(lambda: gr.update(visible=False), None, self.sure, **direct)
        self.talk.click(None, self.slug, None, js=OPEN_TALK, **QUIET)

    def on_load(self, request: gr.Request) -> list[Any]:
        """Fill the page; the address may name a job."""
        with spoken_errors():
            return self._show(dict(request.query_params or {}).get("job", ""), {}, request)

    def on_tick(self, job_id: str, seen: dict[str, Any], request: gr.Request) -> list[Any]:
        """Refresh."""
        try:
            return self._show(job_id, seen, request)
        except TalkerError:
            # A job can vanish between two reads; the next tick shows the truth.
            return [gr.skip()] * len(self.outputs)

    def on_pick(self, seen: dict[str, Any], request: gr.Request, event: gr.EventData) -> list[Any]:
        """Another job was chosen."""
        with spoken_errors():
            return self._show(str(event.id), seen, request)

    def on_act(self, action: str, job_id: str, seen: dict[str, Any], request: gr.Request) -> list[Any]:
        """One of the buttons."""
        with spoken_errors():
            if action in ACTIONS:
                getattr(self.studio, action)(job_id, self.context.owner(request))
            return self._show(job_id, seen, request)

    def _show(self, job_id: str, seen: dict[str, Any], request: gr.Request) -> list[Any]:
        """The present state of everything; unchanged parts are skipped so that nothing flickers."""
        owner = self.context.owner(request)
        jobs = self.studio.jobs(owner)
        if not jobs:
            empty = html.empty("film", "Nothing is being made yet", NO_JOB, ("Create an avatar", ""))
            now = {"job": "", "slug": "", "nothing": empty}
            return self._updates(now, seen)
        over = notices.ended(jobs, seen.get("states", {}))
        news = notices.news(over, {job.id: self.studio.job_avatar(job.id) for job in over})
        if job_id not in {job.id for job in jobs}:
            order = {"running": 0, "stopping": 0, "queued": 1}
            job_id = min(jobs, key=lambda j: (order.get(str(j.state), 2), -j.created)).id
        job = next(job for job in jobs if job.id == job_id)
        return self._updates({**self._state(job, jobs, owner), "news": news}, seen)

    def _state(self, job: Job, jobs: list[Job], owner: str) -> dict[str, Any]:
        """Everything the page shows, by name."""
        newest = {j.id: next(iter(self.studio.job_previews(j.id, owner)[-1:]), None) for j in jobs}
        events = self.studio.job_events(job.id, owner)
        slug = self.studio.job_avatar(job.id) or ""
        pictures = self.studio.job_previews(job.id, owner)
        if slug:  # a training too short for pictures would end with the empty background
            pictures = [*pictures, self.studio.gallery.get(slug, owner).poster]
            newest[job.id] = pictures[-1]
        tables = curves(events)
        clip = self.studio.job_clip(job.id, owner)
        return {
            "job": job.id,
            "slug": slug,
            "nothing": "",
            "list": job_list(jobs, job.id, newest),
            "head": detail(job, events),
            "pictures": previews(pictures, job),
            "log": log_text(events),
            "talk": bool(slug),
            "stop": str(job.state) == "running",
            "resume": job.resumable,
            "cancel": job.active,
            "delete": not job.active,
            "again": say("Try again" if str(job.state) == "failed" else "Resume"),
            "states": notices.states(jobs),
            "moving": clip if clip and str(job.state) not in ("done", "cancelled") else None,
            "points": [len(t) for t in tables],
            "tables": tables,
        }

    @staticmethod
    def _updates(now: dict[str, Any], seen: dict[str, Any]) -> list[Any]:
        """Updates in the order of :attr:`outputs`, for what differs from ``seen``."""
        old = seen if seen.get("job") == now["job"] else {}
        tables = now.pop("tables", None)

        def text(key: str) -> Any:
            return gr.skip() if now.get(key, "") == old.get(key) else now.get(key, "")

        def shown(key: str) -> Any:
            return gr.skip() if now.get(key) == old.get(key) else gr.update(visible=bool(now.get(key)))

        def again() -> Any:
            if all(now.get(key) == old.get(key) for key in ("resume", "again")):
                return gr.skip()
            return gr.update(visible=bool(now.get("resume")), value=now.get("again", say("Resume")))

        drawn = tables is not None and any(now["points"])
        fresh = drawn and now["points"] != old.get("points")
        curves_now = _curves(now, seen, tables if fresh else None)
        return [
            now["job"],
            now["slug"],
            now,
            gr.update(value=now["nothing"], visible=bool(now["nothing"]))
            if now["nothing"] != old.get("nothing")
            else gr.skip(),
            gr.update(visible=not now["nothing"]) if now["nothing"] != old.get("nothing") else gr.skip(),
            *(text(key) for key in ("list", "head", "pictures", "log")),
            *(again() if key == "resume" else shown(key) for key in ("talk", *ACTIONS)),
            gr.update(visible=drawn) if fresh or old == {} else gr.skip(),
            *curves_now,
            gr.skip() if now.get("moving") == old.get("moving") and old else clip_html(now.get("moving")),
            now.get("news") or gr.skip(),
        ]


def _curves(now: dict[str, Any], seen: dict[str, Any], tables: Sequence[pd.DataFrame] | None) -> list[Any]:
    """Updates of the two plots: new points, or another layout, in ``now`` beside what the browser then has.

    Gradio draws points of a stage that was not there when it laid the plot out in no colour at all, and lays it out
    anew only when something else than the points changes; if both change at once, the new layout may get the old
    points. So the colours follow one look after the first points of a stage, and other points wait for that look.
    """
    drawn, laid_out = seen.get("lines", []), seen.get("laid_out", [])
    if drawn != laid_out:
        now |= {"lines": drawn, "laid_out": drawn, "points": None}
        known = stage_colours()
        return [gr.update(color_map={name: known.get(name, OTHER_COLOUR) for name in drawn})] * 2
    now |= {"lines": drawn, "laid_out": laid_out}
    if tables is None:
        return [gr.skip()] * 2
    now["lines"] = list(dict.fromkeys(tables[0]["stage"]))
    return list(tables)
