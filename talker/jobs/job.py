"""What a job is: what was asked (fixed), where it stands (changes), and which changes are allowed."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from talker.errors import JobError

if TYPE_CHECKING:
    from talker.types import Consent


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    """Asked to save and stop, or to end; the run has not let go yet."""
    STOPPED = "stopped"
    """Saved; can be resumed."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    """Has a reason; can be tried again from its last checkpoint."""
    DONE = "done"


ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.STOPPING})
RESUMABLE = frozenset({JobState.STOPPED, JobState.FAILED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.STOPPED, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(set(JobState) - {JobState.RUNNING}),
    JobState.STOPPING: frozenset(set(JobState) - {JobState.STOPPING}),
    JobState.STOPPED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.DONE: frozenset(),
}


@dataclass(frozen=True)
class JobRequest:
    """What a user asks for. Never changes after it was accepted."""

    name: str
    """Of the avatar, as shown."""
    owner: str
    consent: Consent
    preset: str = "preview"
    size: int = 256
    max_minutes: float | None = None
    seed: int = 0
    start_s: float = 0.0
    """Where the part of the clip that is used begins, seconds."""
    end_s: float | None = None
    """Where it ends; None is the end of the clip."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further fields of the trainer's ``CreateConfig``."""
    launcher: str = "local"
    """Where it is trained: ``local`` (this machine) or ``space`` (see ``talker.jobs.launchers``)."""
    repo_id: str | None = None
    """Publish the finished avatar to this private repository of the Hub."""
    keep_inputs: bool = True
    """Keep clip, dataset and training state after success; False deletes them."""

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Inverse of ``dataclasses.asdict``; unknown keys are ignored."""
        # Here, because it loads torch: the worker, which only looks after processes, does without.
        from talker.types import Consent

        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        return cls(**{**known, "consent": Consent.from_dict(value["consent"])})


@dataclass(frozen=True)
class Accepted:
    """A request with everything that is fixed when it is accepted: ``request.json``."""

    id: str
    request: JobRequest
    clip: str
    """File name of the clip inside the job folder."""
    clip_name: str
    """File name as the user knows it."""
    clip_bytes: int
    clip_sha256: str
    runner: str
    """Module with ``create`` and ``CreateConfig`` that does the work."""
    created: float
    """Seconds since the epoch."""

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Inverse of ``dataclasses.asdict``."""
        known = {f.name: value[f.name] for f in fields(cls)}
        return cls(**{**known, "request": JobRequest.from_dict(value["request"])})


@dataclass(frozen=True)
class Reason:
    """Why a job failed, in the words of :class:`talker.errors.TalkerError`."""

    code: str
    found: str
    expected: str = ""
    todo: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.found, self.expected, self.todo) if part)


@dataclass(frozen=True)
class Status:
    """Where a job stands: ``status.json``. Written by the app and the worker, under the folder's lock."""

    state: JobState = JobState.QUEUED
    sequence: int = 0
    """Place in the order of the queue; smaller runs earlier."""
    run: int = 1
    """Raised by every resume; a message of the queue for an older run is void."""
    fence: int = 0
    """Raised by every claim; whoever holds an older number has lost the job."""
    attempts: int = 0
    """Times the trainer was started."""
    stalled: int = 0
    """Crashes of the trainer in a row without progress between them."""
    interrupted: int = 0
    """Deaths of the worker in a row without progress between them."""
    open_attempt: bool = False
    """An attempt was started and its end not recorded: the worker died with it, or is at it."""
    marks: dict[str, int] = field(default_factory=dict)
    """Progress (stage -> step that survives) when the last attempt started."""
    message: str = ""
    reason: Reason | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    """What the trainer reported at the end."""
    updated: float = 0.0
    started: float | None = None
    finished: float | None = None

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Inverse of ``dataclasses.asdict``."""
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        reason = known.get("reason")
        known["reason"] = Reason(**reason) if reason else None
        return cls(**{**known, "state": JobState(known["state"])})


@dataclass(frozen=True)
class Live:
    """What the running trainer reports: ``progress.json``. Written by the trainer's process alone."""

    stage: str = ""
    step: int = 0
    total: int = 0
    eta_s: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    """Stage -> last step that survives a kill; a stage that was only reached has -1."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Protocol -> figures, from ``Evaluated``."""
    preview: str | None = None
    """File name of the newest preview."""
    note: str = ""
    updated: float = 0.0

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Inverse of ``dataclasses.asdict``."""
        return cls(**{f.name: value[f.name] for f in fields(cls) if f.name in value})


@dataclass(frozen=True)
class Job:
    """One job as a person sees it: request, status and progress in one value."""

    id: str
    owner: str
    name: str
    state: JobState
    preset: str
    size: int
    launcher: str
    repo_id: str | None
    clip_name: str
    stage: str
    step: int
    total: int
    eta_s: float | None
    values: dict[str, float]
    metrics: dict[str, dict[str, float]]
    message: str
    error: str
    """Why it failed, one text for a person; empty otherwise."""
    error_code: str
    attempts: int
    position: int
    """0 unless queued; 1 is the next to run."""
    sequence: int
    preview: str | None
    summary: dict[str, Any]
    created: float
    updated: float
    started: float | None
    finished: float | None
    start_s: float = 0.0
    """Where the part of the clip that is used begins, seconds."""
    end_s: float | None = None
    """Where it ends; None is the end of the clip."""

    @property
    def active(self) -> bool:
        """Queued or running: somebody will work on it."""
        return self.state in ACTIVE

    @property
    def resumable(self) -> bool:
        """``resume`` will continue it."""
        return self.state in RESUMABLE

    @property
    def fraction(self) -> float | None:
        """Share of the present stage that is done, 0..1; None where unknown."""
        return min(1.0, self.step / self.total) if self.total > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what ``jobs show --json`` and the train Space answer."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; what an older version did not say keeps its default."""
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value or f.default is MISSING}
        return cls(**{**known, "state": JobState(known["state"])})


def view(accepted: Accepted, status: Status, live: Live, *, position: int = 0) -> Job:
    """Join the three files of a job folder into what is shown."""
    request = accepted.request
    running = status.state in (JobState.RUNNING, JobState.STOPPING)
    return Job(
        id=accepted.id,
        owner=request.owner,
        name=request.name,
        state=status.state,
        preset=request.preset,
        size=request.size,
        launcher=request.launcher,
        repo_id=request.repo_id,
        clip_name=accepted.clip_name,
        stage=live.stage,
        step=live.step,
        total=live.total,
        eta_s=live.eta_s if running else None,
        values=live.values,
        metrics=live.metrics,
        message=status.message or (live.note if running else ""),
        error=str(status.reason) if status.reason else "",
        error_code=status.reason.code if status.reason else "",
        attempts=status.attempts,
        position=position,
        sequence=status.sequence,
        preview=live.preview,
        summary=status.summary,
        created=accepted.created,
        updated=max(status.updated, live.updated),
        started=status.started,
        finished=status.finished,
        start_s=request.start_s,
        end_s=request.end_s,
    )


def check_transition(old: JobState, new: JobState) -> None:
    """Refuse a change of state that :data:`TRANSITIONS` does not allow.

    Raises:
        JobError: ``job.state``.
    """
    if new != old and new not in TRANSITIONS[old]:
        raise JobError(
            "job.state",
            f"The job is {old}, so it cannot become {new}.",
            todo="Reload the list of jobs.",
        )


def grew(old: dict[str, int], new: dict[str, int]) -> bool:
    """Whether ``new`` marks survive more work than ``old``: a stage further, or a later checkpoint."""
    return any(step > old.get(stage, -2) for stage, step in new.items())
