"""The process that trains one job: ``python -m talker.jobs.child JOB_FOLDER FENCE PARENT_PID [LEASE_FD]``.

Training is native code and may crash, leak or hang; here that costs one attempt, never the worker. In return
this process must not outlive its worker: it asks the kernel to be killed with it, and watches it as well.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from talker.atomic import write_atomic
from talker.errors import ConfigError, TalkerError
from talker.events import Event, Finished, Note, StageStarted
from talker.jobs.files import to_json
from talker.jobs.job import Accepted, JobRequest, Status
from talker.jobs.leases import deadline_of, now
from talker.jobs.recorder import Recorder
from talker.jobs.store import OwnershipLostError

if TYPE_CHECKING:
    from talker.types import Consent

EXIT_DONE, EXIT_BUSY, EXIT_FENCED = 0, 75, 76
LOCK_WAIT_S = 20.0
_PR_SET_PDEATHSIG = 1
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Runner(Protocol):
    """A module that can do a job: ``talker.train.create`` and everything shaped like it."""

    CreateConfig: type

    @staticmethod
    def create(
        clip: Path,
        avatar_dir: Path,
        consent: Consent,
        config: Any,
        *,
        resume: bool = False,
        should_stop: Callable[[], bool] = ...,
    ) -> Iterator[Event]:
        """Make ``avatar_dir`` from ``clip``; see ``talker.train.create``."""
        ...


class Ownership:
    """The claim under which this process works.

    Args:
        folder: The job folder.
        fence: Number of the claim.
        lease: Open file with the deadline of the worker's claims, where several workers share the jobs.
    """

    def __init__(self, folder: Path, fence: int, lease: int | None = None) -> None:
        self._path = folder / "status.json"
        self._fence = fence
        self._lease = lease
        self._seen: tuple[int, int] | None = None

    def check(self) -> None:
        """Return if the claim still stands. Costs one ``stat`` unless the status changed.

        Raises:
            OwnershipLostError: Somebody else claimed the job, or may have; or it is gone.
        """
        if self._lease is not None and now() > deadline_of(self._lease):
            raise OwnershipLostError(self._path.parent.name)
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen == self._seen:
                return
            fence = Status.from_dict(json.loads(self._path.read_text())).fence
        except FileNotFoundError:
            raise OwnershipLostError(self._path.parent.name) from None
        if fence != self._fence:
            raise OwnershipLostError(self._path.parent.name)
        self._seen = seen


class StopSignal:
    """Callable given to the trainer: whether to save and return now.

    It checks the claim first, and the trainer asks it right before each checkpoint: a process that lost the job
    raises here instead of writing over its successor's files.
    """

    def __init__(self, folder: Path, ownership: Ownership) -> None:
        self._wish = folder / "stop"
        self._ownership = ownership
        self.asked = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which then asks us

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.asked = True

    def __call__(self) -> bool:
        """True when the user or the worker wants the trainer to save and return."""
        self._ownership.check()
        return self.asked or self._wish.exists()


def die_with(parent: int) -> None:
    """End this process when the worker ends, however that happens.

    The kernel's signal is immediate; the watch also covers systems without it, and a worker that died before the
    signal was set.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os.killpg(0, signal.SIGKILL)

    if os.getppid() != parent:
        os._exit(EXIT_FENCED)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def lock_run(folder: Path) -> int:
    """Take the job for this process; returns the open file that holds the lock until the process ends.

    Raises:
        SystemExit: Another process still works on the job.
    """
    handle = os.open(folder / ".run.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SystemExit(EXIT_BUSY) from None
            time.sleep(0.1)
        else:
            return handle


def main(argv: list[str]) -> int:
    """Train the job and leave ``outcome.json``; the worker reads it and the exit status."""
    folder, fence, parent = Path(argv[0]), int(argv[1]), int(argv[2])
    lease = int(argv[3]) if len(argv) > 3 else None
    die_with(parent)
    lock_run(folder)
    ownership = Ownership(folder, fence, lease)
    stop = StopSignal(folder, ownership)
    sys.excepthook = _crash_hook(folder, fence)
    try:
        ownership.check()
        outcome = _run(folder, Recorder(folder, ownership.check), stop)
        ownership.check()
    except OwnershipLostError:
        return EXIT_FENCED
    _leave(folder, fence, outcome)
    return EXIT_DONE


def _run(folder: Path, recorder: Recorder, stop: StopSignal) -> dict[str, Any]:
    accepted = Accepted.from_dict(json.loads((folder / "request.json").read_text()))
    try:
        for event in _events(folder, accepted, stop):
            recorder.record(event)
    except TalkerError as error:
        kind = "disk" if error.code.endswith(".no_space") else "error"
        reason = {"code": error.code, "found": error.found, "expected": error.expected, "todo": error.todo}
        return {"kind": kind, "reason": reason}
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        traceback.print_exc()
        return {"kind": "disk"}
    if recorder.finished is None:
        return {"kind": "stopped"}
    return {"kind": "done", "summary": recorder.finished.summary}


def _events(folder: Path, accepted: Accepted, stop: StopSignal) -> Iterator[Event]:
    """The runner's events, then those of publishing where that was asked for."""
    request = accepted.request
    runner: Runner = importlib.import_module(accepted.runner)  # type: ignore[assignment]
    avatar = folder / "avatar"
    finished: Finished | None = None
    for event in runner.create(
        folder / accepted.clip,
        avatar,
        request.consent,
        make_config(runner.CreateConfig, request),
        resume=True,
        should_stop=stop,
    ):
        if isinstance(event, Finished):
            finished = event
        else:
            yield event
    if finished is None:
        return
    summary = dict(finished.summary)
    if request.repo_id and request.launcher == "local":
        yield StageStarted("publish", 0)
        try:
            summary["published"] = publish(avatar, request.repo_id)
        except TalkerError as error:
            # The training is worth more than its delivery: it is kept, and can be fetched or published later.
            yield Note(f"The avatar is ready, but publishing failed. {error}", "warning")
    yield Finished(avatar, summary)


def publish(avatar: Path, repo_id: str) -> str:
    """Push the avatar to a private repository of the Hub; returns its address."""
    from talker.hub import Hub

    return Hub().publish(avatar, repo_id, private=True)


def make_config(kind: type, request: JobRequest) -> Any:
    """The runner's ``CreateConfig`` for a request.

    Raises:
        ConfigError: ``job.option``: the runner has no such option.
    """
    known = {field.name for field in fields(kind)}
    options = request.options if request.launcher == "local" else {}  # others are for the trainer over there
    given = {
        "preset": request.preset,
        "size": request.size,
        "max_minutes": request.max_minutes,
        "seed": request.seed,
        "start_s": request.start_s,
        "end_s": request.end_s,
        "name": request.name,
        **options,
    }
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError("job.option", f"The trainer has no option {', '.join(unknown)}.")
    return kind(**{name: value for name, value in given.items() if name in known})


def _crash_hook(
    folder: Path, fence: int
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """Record the type of an unexpected exception; the traceback stays in the job's ``trainer.log``."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        traceback.print_exception(kind, error, trace)
        _leave(folder, fence, {"kind": "crash", "exception": kind.__name__})

    return hook


def _leave(folder: Path, fence: int, outcome: dict[str, Any]) -> None:
    write_atomic(folder / "outcome.json", to_json({"fence": fence, **outcome}))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
