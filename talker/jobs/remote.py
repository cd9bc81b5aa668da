"""Follow a job that is trained in a train Space: the same interface as ``talker.train.create``.

It runs as an ordinary job of this machine, in its own queue. Everything it needs to go on after a kill is either in
the Space or in ``remote.json``: the job has the same id in both places, so submitting again is harmless.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talker.errors import JobError, TalkerError, TrainingError
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
from talker.jobs.job import Accepted, Job, JobState, Status
from talker.jobs.launchers import Order, Report, SpaceLauncher, retryable

if TYPE_CHECKING:
    from talker.types import Consent

MAX_PREVIEW_SIDE = 4096
MAX_CLIP_SIDE, MAX_CLIP_PICTURES = 1024, 200


@dataclass(frozen=True)
class CreateConfig:
    """How the Space is followed. What to train is in the job's ``request.json``."""

    poll_s: float = 2.0
    patience_s: float = 6 * 3600.0
    """How long the Space may stay unreachable in a row."""
    max_pause_s: float = 60.0


@dataclass
class _Place:
    """Where following stands; kept over restarts."""

    run: int = 0
    after: int = 0
    preview: str = ""


def create(
    clip: Path,
    avatar_dir: Path,
    consent: Consent,
    config: CreateConfig,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Submit the clip, relay events until the Space is done, fetch the avatar, delete it there.

    Args:
        clip: The clip, in the job folder.
        avatar_dir: ``avatar`` in the job folder.
        consent: Passed on with the request.
        config: How to follow.
        resume: Go on following; a new follower starts over.
        should_stop: Save and stop, there too.

    Raises:
        TrainingError: The Space gave the job up.
        JobError: It cannot be reached for too long, or refuses.
    """
    folder = avatar_dir.parent
    follower = _Follower(folder, SpaceLauncher.from_environment(), config, should_stop, resume=resume)
    try:
        yield from follower.follow(clip, avatar_dir, consent)
    finally:
        follower.space.close()


class _Follower:
    def __init__(
        self,
        folder: Path,
        space: SpaceLauncher,
        config: CreateConfig,
        should_stop: Callable[[], bool],
        *,
        resume: bool,
    ) -> None:
        self.folder, self.space, self.config, self.should_stop = folder, space, config, should_stop
        self.accepted = Accepted.from_dict(json.loads((folder / "request.json").read_text()))
        self.id = self.accepted.id
        self.place = _Place()
        if resume:
            with suppress(FileNotFoundError, ValueError, TypeError):
                self.place = _Place(**json.loads((folder / "remote.json").read_text()))

    def follow(self, clip: Path, avatar_dir: Path, consent: Consent) -> Iterator[Event]:
        yield StageStarted("upload", 0)
        request = replace(self.accepted.request, launcher="local", consent=consent, keep_inputs=False)
        submitted = yield from self._patiently(lambda: self.space.submit(clip, request, job_id=self.id))
        if submitted is None:
            return
        yield CheckpointSaved("upload", 0, self.folder / "remote.json")
        ready = yield from self._wait_for_space()
        if ready is None:
            return
        yield StageStarted("fetch", 0)
        done = yield from self._patiently(lambda: self.space.fetch(self.id, avatar_dir))
        if done is None:
            return
        with suppress(TalkerError):  # the Space sweeps finished jobs itself
            self.space.delete(self.id)
        yield Finished(avatar_dir, ready.summary)

    def _wait_for_space(self) -> Generator[Event, None, Job | None]:
        """Relay until the job there is done: that job, or None when this one shall stop."""
        run = Status.from_dict(json.loads((self.folder / "status.json").read_text())).run
        asked = False
        while True:
            report = yield from self._patiently(
                lambda: self.space.poll(self.id, after=self.place.after, preview=self.place.preview),
                asked=asked,
            )
            if report is None:
                return None
            yield from self._relay(report)
            job = report.job
            if job.resumable and run > max(1, self.place.run):
                # Resumed here since: once per run, so that a failure there is not repeated forever.
                self.place.run = run
                self._remember()
                yield from self._patiently(lambda: self.space.resume(self.id) or True)
                continue
            if job.state == JobState.DONE:
                return job
            if not job.active:
                return self._ended(job)
            if self.should_stop() and not asked:
                asked = True
                if not self._pass_on():
                    return None
            time.sleep(self.config.poll_s)

    def _ended(self, job: Job) -> None:
        if job.state == JobState.STOPPED:
            return
        if job.state == JobState.FAILED:
            raise TrainingError(
                job.error_code or "job.space_failed", job.error or "The train Space gave the job up."
            )
        raise JobError("job.space_cancelled", "The job was cancelled in the train Space.")

    def _pass_on(self) -> bool:
        """Tell the Space what the user wants; False when there is nothing to wait for."""
        orders: tuple[Order, ...] = ("delete", "cancel", "stop")
        wished: list[Order] = [order for order in orders if (self.folder / order).exists()]
        if not wished:
            return False  # only this machine's worker ends: the Space goes on
        with suppress(TalkerError):
            self.space.order(self.id, wished[0])
        return wished[0] == "stop"

    def _relay(self, report: Report) -> Iterator[Event]:
        for event in report.events:
            typed = decode(event)
            if typed is not None:
                yield typed
        if report.preview is not None and report.job.preview:
            yield Preview(report.job.stage, report.job.step, picture(report.preview))
            self.place.preview = report.job.preview
        if report.clip is not None:
            yield moving_picture(report.clip, report.job.stage, report.job.step)
        if report.job.state == JobState.QUEUED:
            yield Note(f"Waiting in the train Space, place {report.job.position}.")
        elif report.job.stage:
            job = report.job
            yield Progress(job.stage, job.step, job.total, job.eta_s, job.values)
        self.place.after = report.next
        self._remember()

    def _patiently(self, call: Callable[[], Any], *, asked: bool = False) -> Generator[Event, None, Any]:
        """Repeat a call until the Space answers: its answer, or None when this job shall stop."""
        pause, since = self.config.poll_s, time.monotonic()
        while True:
            try:
                return call()
            except TalkerError as error:
                if not retryable(error) or time.monotonic() - since > self.config.patience_s:
                    raise
                yield Note(str(error), "warning")
            until = time.monotonic() + pause
            while time.monotonic() < until:
                if self.should_stop() and not asked:
                    self._pass_on()
                    return None
                time.sleep(0.2)
            pause = min(2 * pause, self.config.max_pause_s)

    def _remember(self) -> None:
        temporary = self.folder / ".remote.tmp"
        temporary.write_text(json.dumps(vars(self.place)))
        temporary.rename(self.folder / "remote.json")


def decode(event: dict[str, Any]) -> Event | None:
    """The typed event of one line of a job's log; None for what has no counterpart or is malformed."""
    try:
        match event.get("type"):
            case "stage":
                return StageStarted(str(event["stage"]), int(event["total"]))
            case "progress":
                values = {str(k): float(v) for k, v in event["values"].items() if v is not None}
                return Progress(str(event["stage"]), int(event["step"]), int(event["total"]), None, values)
            case "note":
                return Note(str(event["message"]), str(event["level"]))
            case "checkpoint":
                return CheckpointSaved(
                    str(event["stage"]), int(event["step"]), Path(Path(str(event["file"])).name)
                )
            case "evaluated":
                metrics = {str(k): float(v) for k, v in event["metrics"].items() if v is not None}
                return Evaluated(str(event["protocol"]), metrics)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return None


def picture(png: bytes) -> np.ndarray:
    """Pixels [H, W, 3] uint8 of a PNG from outside, scaled down if it is too large.

    Raises:
        JobError: It is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if max(image.size) > MAX_PREVIEW_SIDE:
                raise JobError("job.space", "The train Space sent a picture that is too large.")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise JobError("job.space", "The train Space sent something that is no picture.") from error


def moving_picture(webp: bytes, stage: str, step: int) -> PreviewClip:
    """The moving preview of a job as its recorder wrote it, from outside.

    Raises:
        JobError: It is none, or too large.
    """
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(webp), formats=("WEBP",)) as image:
            n = getattr(image, "n_frames", 1)
            if max(image.size) > MAX_CLIP_SIDE or not 1 < n <= MAX_CLIP_PICTURES:
                raise JobError("job.space", "The train Space sent a moving picture that is too large.")
            pictures = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
            rate = round(1000 / max(1, int(image.info.get("duration", 0) or 100)))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise JobError("job.space", "The train Space sent something that is no moving picture.") from error
    # The recorder repeats the first picture at the end, and will again.
    return PreviewClip(stage, step, np.stack(pictures[:-1]), max(1, min(rate, 60)))
