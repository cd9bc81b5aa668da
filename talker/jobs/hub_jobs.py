"""Train on a rented machine of the Hub (Hugging Face Jobs), and follow it: the interface of ``talker.train.create``.

It runs as an ordinary job of this machine, in its own queue. Request and clip go to a private repository of the
account, a Job is started that finds them there (``talker.jobs.cloud``), and its progress is read back from there.
After a kill everything is found again: the repository and the Job both carry the job's id.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker.errors import HubError, JobError, TrainingError
from talker.events import CheckpointSaved, Evaluated, Event, Finished, Note, Progress, StageStarted
from talker.hub.compute import CloudJob, CloudState, Compute, Price
from talker.hub.work import WorkRepos
from talker.jobs.cloud import ACCOUNT, EVERY, PLACE
from talker.jobs.files import to_json
from talker.jobs.job import Accepted, JobState, Live, Status, grew

if TYPE_CHECKING:
    from talker.types import Consent

LABEL = "talker-job"
PLACES_OF_TALKER = "/app:/home/user/app"
"""Where the package lies in an image of ``train_space/Dockerfile``, and in that of a Gradio Space."""
JOBS_ACCOUNT, JOBS_IMAGE = "TALKER_JOBS_ACCOUNT", "TALKER_JOBS_IMAGE"
_TRANSIENT = ("hub.offline", "hub.unavailable", "hub.interrupted", "hub.timeout", "hub.rate_limited")


@dataclass(frozen=True)
class JobsConfig:
    """Where and how Jobs run; from the environment (``TALKER_JOBS_...``)."""

    account: str
    """Pays, and owns the repositories."""
    image: str
    """Docker image with talker, or ``hf.co/spaces/OWNER/talker-train``."""
    flavor: str = "l4x1"
    timeout_minutes: float = 90.0
    """Of one attempt; the Hub ends it then."""
    attempts: int = 3
    bucket: str = ""
    """``owner/name`` for checkpoints; empty: ``<account>/talker-work``; "off": they go to the repository."""
    token: str | None = None
    keep_every_s: float = 120.0

    @classmethod
    def from_environment(cls) -> JobsConfig:
        """Read the settings.

        Raises:
            JobError: ``job.launcher``: Jobs are not set up.
        """
        account, image = os.environ.get(JOBS_ACCOUNT), os.environ.get(JOBS_IMAGE)
        token = os.environ.get("HF_TOKEN")
        if not account or not image or not token:
            raise JobError(
                "job.launcher",
                "Training on the Hub's machines is not set up.",
                expected=f"{JOBS_ACCOUNT}, {JOBS_IMAGE} and HF_TOKEN are set.",
                todo="Train on this machine, or set them and start the app again; see docs/SCALING.md.",
            )
        return cls(
            account=account,
            image=image,
            flavor=os.environ.get("TALKER_JOBS_FLAVOR") or cls.flavor,
            timeout_minutes=float(os.environ.get("TALKER_JOBS_TIMEOUT_MINUTES") or cls.timeout_minutes),
            attempts=int(os.environ.get("TALKER_JOBS_ATTEMPTS") or cls.attempts),
            bucket=os.environ.get("TALKER_JOBS_BUCKET") or f"{account}/talker-work",
            token=token,
            keep_every_s=float(os.environ.get(EVERY) or cls.keep_every_s),
        )

    @property
    def compute(self) -> Compute:
        """The account's Jobs."""
        return Compute(self.account, token=self.token)

    @property
    def work(self) -> WorkRepos:
        """The account's kept work."""
        return WorkRepos(self.account, PLACE, token=self.token)


@dataclass(frozen=True)
class Quote:
    """What a job may cost, said before it starts."""

    price: Price
    timeout_minutes: float
    attempts: int

    @property
    def at_most_usd(self) -> float:
        """If every attempt runs into its limit."""
        return self.price.at_most(self.timeout_minutes, self.attempts)

    def __str__(self) -> str:
        machine = f"{self.price.name} ({self.price.gpu})" if self.price.gpu else self.price.name
        return (
            f"{machine}: ${self.price.usd_a_minute * 60:.2f} an hour, paid by the minute. "
            f"At most ${self.at_most_usd:.2f} for {self.attempts} attempts of {self.timeout_minutes:.0f} minutes."
        )


def quote(config: JobsConfig | None = None) -> Quote:
    """The price of the machine that is set up, as the Hub lists it now.

    Raises:
        JobError: ``job.launcher``: Jobs are not set up.
        HubError: The Hub cannot be reached, or has no such machine.
    """
    config = config or JobsConfig.from_environment()
    return Quote(config.compute.price(config.flavor), config.timeout_minutes, config.attempts)


@dataclass(frozen=True)
class CreateConfig:
    """How the Job is followed. What to train is in the job's ``request.json``."""

    poll_s: float = 10.0
    patience_s: float = 6 * 3600.0
    """How long the Hub may stay unreachable in a row."""


def create(
    clip: Path,
    avatar_dir: Path,
    consent: Consent,
    config: CreateConfig,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Push the clip, run a Job, relay its progress, fetch the avatar, delete what was pushed.

    Args:
        clip: The clip, in the job folder.
        avatar_dir: ``avatar`` in the job folder.
        consent: Passed on with the request.
        config: How to follow.
        resume: Nothing has to be told: what is there is found.
        should_stop: End the Job; what it kept stays for a resume.

    Raises:
        TrainingError: The Job gave up.
        JobError, HubError: It cannot be started or reached.
    """
    poll_s = float(os.environ.get("TALKER_JOBS_POLL_S") or config.poll_s)
    follower = _Follower(avatar_dir.parent, replace(config, poll_s=poll_s), should_stop)
    yield from follower.follow(clip, avatar_dir, consent)


class _Follower:
    def __init__(self, folder: Path, config: CreateConfig, should_stop: Callable[[], bool]) -> None:
        self.folder, self.config, self.should_stop = folder, config, should_stop
        self.setup = JobsConfig.from_environment()
        self.compute, self.work = self.setup.compute, self.setup.work
        self.accepted = Accepted.from_dict(json.loads((folder / "request.json").read_text()))
        self.id = self.accepted.id
        self.marks: dict[str, int] = {}
        self.live, self.metrics = Live(), {}

    def follow(self, clip: Path, avatar_dir: Path, consent: Consent) -> Iterator[Event]:
        yield StageStarted("upload", 0)
        if (yield from self._patiently(lambda: self._upload(clip, consent))) is None:
            return
        state = yield from self._patiently(self._started)
        if state is None:
            return
        with suppress(HubError):  # it was shown before; here it is only for the log
            yield Note(f"{quote(self.setup)} {state.url}")
        yield CheckpointSaved("upload", 0, self.folder / "request.json")
        ended = yield from self._wait(state)
        if ended is None:
            return
        status = yield from self._patiently(self._status)
        if status is None:
            return
        self._judge(status, ended)
        yield StageStarted("fetch", 0)
        if (yield from self._patiently(lambda: self._fetch(avatar_dir))) is None:
            return
        self._forget()
        yield Finished(avatar_dir, status.summary)

    def _upload(self, clip: Path, consent: Consent) -> bool:
        """Once: what is there already is what an earlier attempt of this job pushed, and perhaps trained on."""
        try:
            status, commit = self._status(), self.work.head(self.id)
        except HubError as error:
            if error.code != "hub.not_found":
                raise
            status, commit = None, None
        if status is not None and status.state not in (JobState.STOPPED, JobState.FAILED):
            return True
        request = replace(self.accepted.request, launcher="local", consent=consent, keep_inputs=False)
        runner = os.environ.get("TALKER_JOBS_RUNNER") or "talker.train.create"
        accepted = replace(self.accepted, request=request, runner=runner)
        with tempfile.TemporaryDirectory() as staging:
            told = {"request.json": to_json(asdict(accepted)), "status.json": to_json(asdict(Status()))}
            files = {name: Path(staging) / name for name in told}
            for name, content in told.items():
                files[name].write_bytes(content)
            if status is None:
                files[self.accepted.clip] = clip
            self.work.push(self.id, files, commit, whole=False)
        return True

    def _started(self) -> CloudState:
        """The Job of this job: the one that runs already, or a new one."""
        known = self.compute.find(LABEL, self.id)
        if known is not None and not known.ended:
            return known
        if known is not None and known.stage == "COMPLETED" and self._status().state == JobState.DONE:
            return known
        setup = self.setup
        bucket = "" if setup.bucket == "off" else setup.bucket
        command = ("python", "-m", "talker.jobs.cloud", self.id)
        return self.compute.run(
            CloudJob(
                image=setup.image,
                command=(*command, "--bucket", "/work") if bucket else command,
                flavor=setup.flavor,
                timeout_s=round(60 * setup.timeout_minutes),
                attempts=setup.attempts,
                name=f"talker-{self.id}",
                env={ACCOUNT: setup.account, EVERY: str(setup.keep_every_s), "PYTHONPATH": PLACES_OF_TALKER},
                secrets={"HF_TOKEN": setup.token or ""},
                labels={LABEL: self.id},
                bucket=bucket,
            )
        )

    def _wait(self, state: CloudState) -> Generator[Event, None, CloudState | None]:
        """Relay until the Job has ended; None when this one shall stop."""
        stage, seen = "", ""
        while True:
            if state.stage != stage:
                stage = state.stage
                yield Note(f"Hub: {stage.lower()}. {state.message}".strip())
            head = yield from self._patiently(lambda: self.work.head(self.id))
            if head is None:
                return None
            if head != seen:
                seen = head
                yield from self._relay()
            if state.ended:
                return state
            until = time.monotonic() + self.config.poll_s
            while time.monotonic() < until:
                if self.should_stop():
                    self._pass_on(state)
                    return None
                time.sleep(0.1)
            found = yield from self._patiently(partial(self.compute.state, state.id))
            if found is None:
                return None
            state = found

    def _relay(self) -> Iterator[Event]:
        """What the Job reported since."""
        try:
            live = Live.from_dict(self._read("progress.json"))
        except (HubError, ValueError, TypeError, KeyError, OSError):
            return
        if live.stage and live.stage != self.live.stage:
            yield StageStarted(live.stage, live.total)
        if grew(self.live.marks, live.marks):
            for name, step in live.marks.items():
                if step > self.live.marks.get(name, -1):
                    yield CheckpointSaved(name, step, Path("kept"))
        for protocol, figures in live.metrics.items():
            if self.live.metrics.get(protocol) != figures:
                yield Evaluated(protocol, figures)
        if live.stage:
            values = {name: float(value) for name, value in live.values.items() if value is not None}
            yield Progress(live.stage, live.step, live.total, live.eta_s, values)
        self.live = live

    def _judge(self, status: Status, ended: CloudState) -> None:
        if status.state == JobState.DONE:
            return
        if status.state == JobState.FAILED and status.reason is not None:
            reason = status.reason
            self._forget()
            raise TrainingError(reason.code, reason.found, expected=reason.expected, todo=reason.todo)
        if status.state == JobState.CANCELLED or ended.stage in ("CANCELED", "DELETED"):
            raise JobError(
                "job.cloud_cancelled", "The Job was cancelled on the Hub.", todo="Resume to go on."
            )
        raise TrainingError(
            "job.cloud",
            f"The Hub's machine gave up: {ended.message or ended.stage.lower()}.",
            todo=f"What was kept is safe; resume to go on from there. Its log is at {ended.url}.",
        )

    def _fetch(self, avatar_dir: Path) -> bool:
        with tempfile.TemporaryDirectory(dir=self.folder) as staging:
            self.work.pull(self.id, Path(staging), only="avatar/")
            shutil.rmtree(avatar_dir, ignore_errors=True)
            (Path(staging) / "avatar").rename(avatar_dir)
        return True

    def _pass_on(self, state: CloudState | None) -> None:
        """The user's wish; when only this machine's worker ends, the Job goes on.

        A Job that does not hear of it ends by itself when its repository is gone, at the latest at its time limit.
        """
        wished = {wish for wish in ("stop", "cancel", "delete") if (self.folder / wish).exists()}
        if not wished:
            return
        with suppress(HubError):
            state = state or self.compute.find(LABEL, self.id)
            if state is not None:
                self.compute.cancel(state.id)
        if wished & {"cancel", "delete"}:
            self._forget()

    def _forget(self) -> None:
        with suppress(HubError):
            self.work.forget(self.id)

    def _status(self) -> Status:
        return Status.from_dict(self._read("status.json"))

    def _read(self, name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            self.work.pull(self.id, Path(folder), only=name)
            return json.loads((Path(folder) / name).read_text())

    def _patiently(self, call: Callable[[], Any]) -> Generator[Event, None, Any]:
        """Repeat a call until the Hub answers: its answer, or None when this job shall stop."""
        pause, since = self.config.poll_s, time.monotonic()
        while True:
            try:
                return call()
            except HubError as error:
                if error.code not in _TRANSIENT or time.monotonic() - since > self.config.patience_s:
                    raise
                yield Note(str(error), "warning")
            until = time.monotonic() + pause
            while time.monotonic() < until:
                if self.should_stop():
                    self._pass_on(None)
                    return None
                time.sleep(0.1)
            pause = min(2 * pause, 60.0)
