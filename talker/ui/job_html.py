"""A job as HTML: list, progress, pictures, curves, log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker.ui import html
from talker.ui.figures import known
from talker.ui.pictures import moving, thumbnail
from talker.ui.report import moment
from talker.ui.words import say

if TYPE_CHECKING:
    import pandas as pd

    from talker.jobs.job import Job

STATES = {
    "queued": "Waiting",
    "running": "Training",
    "stopping": "Saving",
    "stopped": "Stopped",
    "cancelled": "Cancelled",
    "failed": "Failed",
    "done": "Done",
}
STAGES = {
    "check": "Look at the clip",
    "prepare": "Prepare",
    "prepare/decode": "Read the clip",
    "prepare/landmarks": "Find the face",
    "prepare/frames": "Crop the frames",
    "prepare/masks": "Cut out the person",
    "prepare/pose": "Follow the head",
    "prepare/torso": "Follow the shoulders",
    "prepare/expression": "Read the expression",
    "prepare/background": "Paint the background",
    "prepare/cloud": "Place the points",
    "motion": "Learn the lips",
    "build": "Set up",
    "static": "Learn the head",
    "align": "Find the head in every frame",
    "deform": "Learn the motion",
    "refine": "Refine the motion",
    "evaluate": "Measure",
    "export": "Pack up",
}
FIRST_LOOK = "The head as it was learnt first. It still has to learn how the face moves when it talks."
MAX_POINTS = 300
MAX_LOG = 200


def stage_name(stage: str) -> str:
    """A stage in words."""
    return say(STAGES.get(stage, stage.rsplit("/", 1)[-1].replace("_", " ").capitalize()))


def pill(state: str) -> str:
    """Coloured state."""
    return f'<span class="tk-pill tk-{html.esc(state)}">{say(STATES.get(state, html.esc(state)))}</span>'


def job_list(jobs: Sequence[Job], chosen: str, pictures: dict[str, Path | None]) -> str:
    """All jobs, newest first."""
    rows = ""
    for job in jobs:
        uri = thumbnail(pictures.get(job.id), 104)
        picture = f'<img src="{uri}" alt="">' if uri else f'<span class="tk-noimg">{html.icon("face")}</span>'
        rows += (
            f'<button type="button" class="tk-job" data-id="{html.esc(job.id)}" '
            f'aria-pressed="{"true" if job.id == chosen else "false"}">{picture}'
            f'<span class="tk-words"><b>{html.esc(job.name)}</b><small>{_line(job)}</small></span>'
            f"{pill(str(job.state))}</button>"
        )
    return f'<div class="tk-jobs">{rows}</div>'


def _line(job: Job) -> str:
    state = str(job.state)
    if state == "queued":
        next_one = job.position <= 1
        return say("Next in the queue") if next_one else say("Number {n} in the queue", n=job.position)
    if state in ("running", "stopping") and job.stage:
        share = f" · {job.fraction:.0%}" if job.fraction is not None else ""
        return html.esc(stage_name(job.stage)) + share
    return f"{html.esc(job.preset)} · {html.ago(job.finished or job.created)}"


def detail(job: Job, events: Sequence[dict[str, Any]]) -> str:
    """Head of the panel: name, state, progress, message."""
    state = str(job.state)
    meta = f"{job.preset} · {job.size} × {job.size} · {_source(job)} · {html.ago(job.created)}"
    parts = [
        f'<div class="tk-detail-head"><h2>{html.esc(job.name)}</h2>{pill(state)}'
        f'<span class="tk-meta">{html.esc(meta)}</span></div>'
    ]
    if state in ("running", "stopping"):
        parts += [_bar(job), _stages(job, events)]
    if state == "queued":
        parts.append(html.message("info", f"{say('Waiting in the queue.')} {_place(job)}"))
    if state == "stopped":
        parts.append(
            html.message("info", "Everything up to here is saved. Resume whenever you like.", "Stopped")
        )
    if state == "failed":
        parts.append(html.message("error", job.error or "The training ended early.", "This job failed"))
    if state == "cancelled":
        parts.append(html.message("info", "Its work was deleted.", "Cancelled"))
    if state == "done":
        parts += [html.message("check", "The avatar is ready. Make it talk.", "Done"), _metrics(job)]
    return f'<div class="tk-detail">{"".join(parts)}</div>'


def _place(job: Job) -> str:
    """The place in the queue."""
    if job.position <= 1:
        return say("It is the next to run.")
    if job.position == 2:
        return say("There is 1 job before it.")
    return say("There are {n} jobs before it.", n=job.position - 1)


def _source(job: Job) -> str:
    """The clip, or the part of it that is used."""
    if not job.start_s and job.end_s is None:
        return say("from {clip}", clip=job.clip_name)
    end = say("the end") if job.end_s is None else moment(job.end_s)
    return say("from {clip}, {start} to {end}", clip=job.clip_name, start=moment(job.start_s), end=end)


def _bar(job: Job) -> str:
    bar = html.bar(None if job.fraction is None else 100 * job.fraction)
    steps = say("{step:,} of {total:,}", step=job.step, total=job.total) if job.total else ""
    left = say("about {time} left", time=html.duration(job.eta_s)) if job.eta_s else ""
    right = " · ".join(part for part in (steps, left) if part)
    stage = html.esc(stage_name(job.stage)) if job.stage else say("Starting")
    return f'<div class="tk-progress"><div class="tk-bar-label"><b>{stage}</b><span>{right}</span></div>{bar}</div>'


def _stages(job: Job, events: Sequence[dict[str, Any]]) -> str:
    reached = [str(e["stage"]) for e in events if e.get("type") == "stage" and e.get("stage")]
    if not job.stage.startswith("prepare"):  # its steps are of interest while they run
        reached = [stage.split("/")[0] for stage in reached]
    items = ""
    for stage in dict.fromkeys(reached):
        items += (
            f'<li class="{"tk-now" if stage == job.stage else "tk-past"}">{html.esc(stage_name(stage))}</li>'
        )
    return f'<ul class="tk-stages" aria-label="{say("Stages")}">{items}</ul>' if items else ""


def _figures(job: Job) -> str:
    names = {
        "loss": ("Error (loss)", "{:.4f}"),
        "psnr": ("Likeness (PSNR)", "{:.1f} dB"),
        "gaussians": ("Points in 3D", "{:,.0f}"),
    }
    shown = [
        (names[k][0], names[k][1].format(v)) for k, v in job.values.items() if k in names and v is not None
    ]
    return html.facts(shown) if shown else ""


def _metrics(job: Job) -> str:
    shown = known(job.metrics.get("B", {}))
    took = (job.finished or 0) - (job.started or 0)
    if job.started and took > 0:
        shown.append(("Took", html.duration(took)))
    return html.facts(shown) if shown else ""


def previews(paths: Sequence[Path], job: Job) -> str:
    """The newest picture large; beside it the figures and a few earlier pictures."""
    figures = _figures(job) if str(job.state) in ("running", "stopping") else ""
    if not paths:
        return figures
    newest = thumbnail(paths[-1], 512)
    step = max(1, len(paths) // 6)
    earlier = [thumbnail(p, 128) for p in list(paths[:-1])[::-step][:6]][::-1]
    small = "".join(f'<img src="{uri}" alt="">' for uri in earlier if uri)
    past = (
        f'<div class="tk-past-frames" role="group" aria-label="{say("Earlier")}">{small}</div>'
        if small
        else ""
    )
    alt = say("Newest picture of {name}", name=html.esc(job.name))
    big = f'<img src="{newest}" alt="{alt}">'
    return f'<div class="tk-previews">{big}<div class="tk-beside">{figures}{past}</div></div>'


def clip_html(path: Path | None) -> str:
    """The head turning a little, as soon as there is one."""
    source = moving(path)
    if not source:
        return ""
    return (
        f'<figure class="tk-first-look"><img src="{source}" alt="{say("The head turns a little to both sides")}">'
        f"<figcaption><b>{say('A first look in 3D')}</b>{say(FIRST_LOOK)}</figcaption></figure>"
    )


def curves(events: Sequence[dict[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Loss and PSNR over the steps of all stages, thinned out; columns step, value, stage."""
    import pandas as pd

    offsets: dict[str, int] = {}
    end = 0
    rows: dict[str, list[tuple[int, float, str]]] = {"loss": [], "psnr": []}
    for event in events:
        if event.get("type") != "progress" or not {"loss", "psnr"} & set(event.get("values") or ()):
            continue
        stage, step = str(event["stage"]), int(event["step"])
        offset = offsets.setdefault(stage, end)
        end = max(end, offset + step)
        for name, value in event["values"].items():
            if name in rows and value is not None:
                rows[name].append((offset + step, value, stage_name(stage)))
    thin = {name: found[:: max(1, len(found) // MAX_POINTS)] for name, found in rows.items()}
    return tuple(pd.DataFrame(thin[n], columns=["step", n, "stage"]) for n in ("loss", "psnr"))  # type: ignore


def log_text(events: Sequence[dict[str, Any]]) -> str:
    """The log, newest line last."""
    lines = []
    for event in events:
        text = _log_line(event)
        if text:
            lines.append(f"{time.strftime('%H:%M:%S', time.localtime(event.get('t', 0)))}  {html.esc(text)}")
    return f'<pre class="tk-log">{chr(10).join(lines[-MAX_LOG:])}</pre>' if lines else ""


def _log_line(event: dict[str, Any]) -> str:
    kind = event.get("type")
    if kind == "stage":
        return stage_name(str(event.get("stage", "")))
    if kind == "note":
        return f"{'! ' if event.get('level') == 'warning' else ''}{event.get('message', '')}"
    if kind == "state":
        return f"[{event.get('state')}] {event.get('message', '')}"
    if kind == "checkpoint":
        return say("Saved at step {step}", step=event.get("step"))
    if kind == "evaluated":
        values = ", ".join(f"{k} {v:.3f}" for k, v in (event.get("metrics") or {}).items() if v is not None)
        return say("Protocol {name}: {values}", name=event.get("protocol"), values=values)
    return say("Finished") if kind == "finished" else ""
