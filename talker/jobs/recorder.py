"""From the trainer's events to the files of the job folder: progress, log, previews."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from talker.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    Note,
    Preview,
    PreviewClip,
    Progress,
    StageStarted,
)
from talker.jobs.files import append_event, to_json
from talker.jobs.job import Live

PREVIEW_CLIP = "clip.webp"
"""The newest moving preview, in the folder of the previews."""


@dataclass(frozen=True)
class RecorderConfig:
    """How much is kept of a long run."""

    live_s: float = 0.5
    """Seconds between two writes of ``progress.json``."""
    log_s: float = 1.0
    """Seconds between two progress lines of the log at the start; grows with the length of the run."""
    log_growth: float = 1e-3
    """Seconds added to ``log_s`` per second of the run: ten hours leave some thousand lines."""
    previews: int = 48
    """Pictures kept."""
    preview_loops: int = 6
    """Times a moving preview repeats: without a GPU the browser would take a core from the training for good."""


class Recorder:
    """Writes what the running trainer reports. One per attempt, in the trainer's process.

    Args:
        folder: The job folder.
        guard: Called before every write; raises if the job belongs to somebody else by now.
        config: How much is kept.
    """

    def __init__(self, folder: Path, guard: Callable[[], None], config: RecorderConfig | None = None) -> None:
        self.folder = folder
        self.guard = guard
        self.config = config or RecorderConfig()
        self.live = _read_live(folder)
        self.finished: Finished | None = None
        self._began = time.monotonic()
        self._live_due = 0.0
        self._log_due = 0.0

    def record(self, event: Event) -> None:
        """Take one event; what costs disk writes is throttled, what a restart needs is not."""
        self.guard()
        match event:
            case StageStarted(stage, total):
                marks = {stage: -1, **self.live.marks}
                self._change(now=True, stage=stage, step=0, total=total, values={}, marks=marks, note="")
                self._log("stage", stage=stage, total=total)
                self._log_due = 0.0
            case Progress():
                self._progress(event)
            case Preview(stage, step, rgb):
                self._preview(stage, step, rgb)
            case PreviewClip():
                self._preview_clip(event)
            case Note(message, level):
                self._change(now=True, note=message)
                self._log("note", message=message, level=level)
            case CheckpointSaved(stage, step, path):
                marks = {**self.live.marks, stage: max(step, self.live.marks.get(stage, -1))}
                self._change(now=True, marks=marks)
                self._log("checkpoint", stage=stage, step=step, file=path.name)
            case Evaluated(protocol, metrics):
                self._change(now=True, metrics={**self.live.metrics, protocol: dict(metrics)})
                self._log("evaluated", protocol=protocol, metrics=dict(metrics))
            case Finished(_, summary):
                self.finished = event
                self._change(now=True, eta_s=0.0)
                self._log("finished", summary=summary)

    def _progress(self, event: Progress) -> None:
        values = {key: float(value) for key, value in event.values.items()}
        self._change(stage=event.stage, step=event.step, total=event.total, eta_s=event.eta_s, values=values)
        now = time.monotonic()
        if now >= self._log_due or event.step >= event.total > 0:
            self._log_due = now + self.config.log_s + self.config.log_growth * (now - self._began)
            self._log("progress", stage=event.stage, step=event.step, total=event.total, values=values)

    def _preview(self, stage: str, step: int, rgb: np.ndarray) -> None:
        from PIL import Image

        folder = self.folder / "previews"
        folder.mkdir(exist_ok=True)
        # The leading number orders the pictures over stages and attempts.
        known = sorted(path.name for path in folder.glob("*.png"))
        number = int(known[-1].split("-")[0]) + 1 if known else 0
        name = f"{number:05d}-{stage.replace('/', '_')}-{step:06d}.png"
        temporary = folder / f".{name}.tmp"
        Image.fromarray(np.ascontiguousarray(rgb)).save(temporary, format="PNG")
        temporary.rename(folder / name)
        for old in known[: max(0, len(known) + 1 - self.config.previews)]:
            (folder / old).unlink(missing_ok=True)
        self._change(now=True, preview=name)
        self._log("preview", stage=stage, step=step, file=name)

    def _preview_clip(self, clip: PreviewClip) -> None:
        from PIL import Image

        folder = self.folder / "previews"
        folder.mkdir(exist_ok=True)
        temporary = folder / f".{PREVIEW_CLIP}.tmp"
        first, *rest = (Image.fromarray(np.ascontiguousarray(rgb)) for rgb in clip.rgb)
        first.save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=[*rest, first],  # it comes to rest where it began
            duration=round(1000 / clip.rate),
            loop=self.config.preview_loops,
            quality=80,
            method=2,
        )
        temporary.rename(folder / PREVIEW_CLIP)
        self._log("clip", stage=clip.stage, step=clip.step, file=PREVIEW_CLIP)

    def _change(self, *, now: bool = False, **values: object) -> None:
        self.live = replace(self.live, updated=time.time(), **values)  # type: ignore[arg-type]
        if now or time.monotonic() >= self._live_due:
            self._live_due = time.monotonic() + self.config.live_s
            temporary = self.folder / ".progress.tmp"
            temporary.write_bytes(to_json(asdict(self.live)))
            temporary.rename(self.folder / "progress.json")

    def _log(self, kind: str, **values: object) -> None:
        append_event(self.folder, kind, values)


def _read_live(folder: Path) -> Live:
    """What an earlier attempt left: its marks are the progress made so far."""
    try:
        return replace(Live.from_dict(json.loads((folder / "progress.json").read_text())), note="")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Live()
