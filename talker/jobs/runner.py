"""The worker's side of a job: claim it, start the trainer's process, watch it, decide what its end means."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from talker.errors import JobError
from talker.jobs import webhook
from talker.jobs.child import EXIT_BUSY, EXIT_FENCED
from talker.jobs.job import ACTIVE, JobState, Reason, Status, grew
from talker.jobs.leases import Leases, worker_name
from talker.jobs.store import JobStore, OwnershipLostError

log = logging.getLogger(__name__)

MEMORY_ERRORS = {"MemoryError", "OutOfMemoryError"}
SAFE = "What was trained so far is kept; resume to go on from there."


@dataclass(frozen=True)
class RunnerConfig:
    """How patient the worker is."""

    attempts: int = 3
    """Crashes in a row without progress after which a job fails."""
    interruptions: int = 25
    """Deaths of the worker in a row without progress after which a job fails. Higher, because the trainer has its
    own process: what kills the worker is rarely the job."""
    retry_wait_s: float = 2.0
    """Pause before another attempt; doubles with every crash without progress."""
    stop_grace_s: float = 180.0
    """Time to save after stop was asked; then the last checkpoint has to do."""
    cancel_grace_s: float = 10.0
    """Time a remote job has to pass a cancel on; local ones end at once."""
    shutdown_grace_s: float = 8.0
    """Time to save when the worker is told to end; containers are killed after ten seconds."""
    silence_s: float = 3600.0
    """A trainer that reports nothing for so long hangs."""
    poll_s: float = 0.1


class ShutdownError(BaseException):
    """The worker ends; the job stays in the queue's database as running, and is recovered at the next start."""


class JobRunner:
    """Does jobs, one at a time per call; safe to call from several threads for different jobs.

    Args:
        store: The job folders.
        shutdown: Set when the worker has to end.
        config: How patient it is.
        leases: The worker's claims, where several workers share the jobs.
    """

    def __init__(
        self,
        store: JobStore,
        shutdown: threading.Event,
        config: RunnerConfig | None = None,
        leases: Leases | None = None,
    ) -> None:
        self.store = store
        self.shutdown = shutdown
        self.config = config or RunnerConfig()
        self.leases = leases

    def run(self, job_id: str, run: int) -> str:
        """Bring the job to an end; returns its state. A message for a job that moved on is void.

        Raises:
            ShutdownError: The worker was told to end before the job did, or may not hold it any longer.
        """
        if self.leases is None:
            return self._run(job_id, run)
        if not self.leases.take(job_id):
            return "void"  # if its holder dies, the next reconciliation writes another message
        try:
            return self._run(job_id, run)
        finally:
            self.leases.give(job_id)

    def _run(self, job_id: str, run: int) -> str:
        try:
            while True:
                if self.shutdown.is_set() or self._lost():
                    raise ShutdownError
                status = self._claim(job_id, run)
                if status is None:
                    return "void"
                if status.state != JobState.RUNNING:
                    return self._close(job_id, status.state)
                state = self._attempt(job_id, status)
                if state not in ACTIVE:
                    return self._close(job_id, state)
                self.shutdown.wait(self.config.retry_wait_s * 2 ** max(0, self._stalled(job_id) - 1))
        except OwnershipLostError:
            return "void"
        except JobError as error:
            if error.code not in ("job.missing", "job.damaged"):
                raise
            return "void"  # deleted, or unreadable: nothing to bring to an end

    # --- claim -------------------------------------------------------------------------------------------

    def _claim(self, job_id: str, run: int) -> Status | None:
        """Take the job under a new fence; None if there is nothing to do for this message."""
        reap(self.store.folder(job_id))
        live = self.store.live(job_id)
        ends = self.store.wished(job_id, "cancel") or self.store.wished(job_id, "delete")

        def change(old: Status) -> Status:
            if old.state not in ACTIVE or old.run != run:
                return old
            new = replace(old, fence=old.fence + 1)
            if old.open_attempt:  # the worker died during the attempt: its end was never judged
                interrupted = 0 if grew(old.marks, live.marks) else old.interrupted + 1
                stalled = 0 if grew(old.marks, live.marks) else old.stalled
                new = replace(new, interrupted=interrupted, stalled=stalled, open_attempt=False)
            if ends:
                return self._ended(new, JobState.CANCELLED, "Cancelled.")
            if self.store.wished(job_id, "stop"):
                return self._ended(new, JobState.STOPPED, f"Stopped. {SAFE}")
            if new.interrupted >= self.config.interruptions:
                reason = Reason(
                    "job.interrupted",
                    f"The worker was stopped {new.interrupted} times in a row before this job got any further.",
                    todo="Make sure that the machine has enough memory, then resume.",
                )
                return replace(self._ended(new, JobState.FAILED, ""), reason=reason)
            return replace(
                new,
                state=JobState.RUNNING,
                attempts=old.attempts + 1,
                open_attempt=True,
                marks=live.marks,
                started=old.started or time.time(),
                message="Continuing from the last checkpoint." if live.marks else "",
            )

        old, new = self.store.update(job_id, change)
        if self.leases is not None and new.fence != old.fence:
            self.store.log(job_id, "claimed", worker=worker_name(), fence=new.fence)
        return None if old.state not in ACTIVE or old.run != run else new

    def _lost(self) -> bool:
        return self.leases is not None and self.leases.lost

    def _stalled(self, job_id: str) -> int:
        return self.store.status(job_id).stalled

    # --- one attempt -------------------------------------------------------------------------------------

    def _attempt(self, job_id: str, status: Status) -> JobState:
        """Start the trainer, wait for its end, write down what it means."""
        folder = self.store.folder(job_id)
        (folder / "outcome.json").unlink(missing_ok=True)
        process = start(folder, status.fence, self.leases.fd if self.leases else None)
        try:
            ended_by = self._watch(job_id, process)
        finally:
            kill(process, folder)
        if ended_by == "lost":
            raise ShutdownError  # whoever holds the job now writes what becomes of it
        outcome = read_outcome(folder, status.fence)
        if ended_by == "shutdown" and outcome.get("kind") not in ("done", "error"):
            message = "Paused because the worker was stopped; it goes on when the worker is back."
            paused = {"state": JobState.QUEUED, "message": message, "open_attempt": False}
            self.store.update(job_id, lambda old: replace(old, **paused), fence=status.fence)
            raise ShutdownError
        if process.returncode == EXIT_FENCED:
            raise OwnershipLostError(job_id)
        marks = self.store.live(job_id).marks

        def change(old: Status) -> Status:
            return self._judge(replace(old, open_attempt=False), ended_by, outcome, process.returncode, marks)

        return self.store.update(job_id, change, fence=status.fence)[1].state

    def _watch(self, job_id: str, process: subprocess.Popen[bytes]) -> str:
        """Wait until the trainer ends, or has to be ended: returns by what (``itself``, ``cancel``, ...)."""
        config, store = self.config, self.store
        folder = store.folder(job_id)
        remote = store.asked(job_id, "launcher") != "local"
        asked: dict[str, float] = {}
        grace = {
            "cancel": config.cancel_grace_s if remote else 0.0,
            "stop": config.stop_grace_s,
            "shutdown": config.shutdown_grace_s,
        }
        heard = time.monotonic()
        last = 0.0
        while process.poll() is None:
            now = time.monotonic()
            if self._lost():
                return "lost"
            if self.shutdown.is_set() and "shutdown" not in asked:
                process.send_signal(signal.SIGTERM)
                asked["shutdown"] = now
            if "cancel" not in asked and (store.wished(job_id, "cancel") or store.wished(job_id, "delete")):
                process.send_signal(signal.SIGTERM)
                asked["cancel"] = now
            if "stop" not in asked and store.wished(job_id, "stop"):
                asked["stop"] = now
            for why, since in asked.items():
                if now - since >= grace[why]:
                    return why
            updated = _mtime(folder / "progress.json")
            if updated != last:
                last, heard = updated, now
            if now - heard > config.silence_s:
                return "silence"
            time.sleep(config.poll_s)
        for why in ("cancel", "shutdown", "stop"):
            if why in asked:
                return why
        return "itself"

    # --- judgement ---------------------------------------------------------------------------------------

    def _judge(
        self, old: Status, ended_by: str, outcome: dict[str, Any], code: int, marks: dict[str, int]
    ) -> Status:
        kind = outcome.get("kind")
        if ended_by == "cancel":
            return self._ended(old, JobState.CANCELLED, "Cancelled.")
        if kind == "done":
            return replace(self._ended(old, JobState.DONE, "Finished."), summary=outcome.get("summary", {}))
        if kind == "error":
            return replace(self._ended(old, JobState.FAILED, ""), reason=Reason(**outcome["reason"]))
        if kind == "disk":
            return self._ended(old, JobState.STOPPED, f"The disk is full. {SAFE} Free some space first.")
        if kind == "stopped" or ended_by == "stop":
            return self._ended(old, JobState.STOPPED, f"Stopped. {SAFE}")
        return self._crashed(old, ended_by, outcome, code, marks)

    def _crashed(
        self, old: Status, ended_by: str, outcome: dict[str, Any], code: int, marks: dict[str, int]
    ) -> Status:
        """Try again, unless it came no further often enough."""
        progress = grew(old.marks, marks)
        if code == EXIT_BUSY and self.leases is not None:
            # The file lock of a host that is gone lasts as long as the file server says; it is not the job's fault.
            interrupted = 0 if progress else old.interrupted + 1
            return replace(old, interrupted=interrupted, message="Waiting for the folder of a lost worker.")
        stalled = 1 if progress else old.stalled + 1
        what = describe_crash(ended_by, outcome, code)
        if stalled < self.config.attempts:
            message = f"{what} Trying again from the last checkpoint."
            return replace(old, stalled=stalled, interrupted=0, message=message)
        memory = outcome.get("exception") in MEMORY_ERRORS
        reason = Reason(
            "job.memory" if memory else "job.crash",
            f"{what} That happened {stalled} times without any progress in between, so it was given up.",
            todo="Try a shorter clip or a smaller size."
            if memory
            else "Try another clip, or resume to try again.",
        )
        return replace(self._ended(old, JobState.FAILED, ""), stalled=stalled, reason=reason)

    def _ended(self, old: Status, state: JobState, message: str) -> Status:
        return replace(old, state=state, message=message, open_attempt=False, finished=time.time())

    def _close(self, job_id: str, state: JobState) -> str:
        """What has to leave the disk once a job has ended, and who has to hear of it."""
        if self.store.wished(job_id, "delete"):
            self.store.remove(job_id)
        elif state == JobState.CANCELLED:
            if (self.store.folder(job_id) / "cancel").read_text() != "keep":
                self.store.drop_work(job_id)
        elif state == JobState.DONE and not self.store.asked(job_id, "keep_inputs"):
            self.store.drop_inputs(job_id)
        webhook.tell(job_id, state)
        return str(state)


def describe_crash(ended_by: str, outcome: dict[str, Any], code: int) -> str:
    """One sentence for a person."""
    if ended_by == "silence":
        return "The trainer stopped answering."
    if outcome.get("exception") in MEMORY_ERRORS:
        return "The trainer ran out of memory."
    if outcome.get("exception"):
        return f"The trainer stopped unexpectedly ({outcome['exception']})."
    if code == EXIT_BUSY:
        return "An earlier trainer of this job is still running."
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"The trainer was killed ({signal.Signals(-code).name})."
    return f"The trainer stopped unexpectedly (exit status {code})."


def start(folder: Path, fence: int, lease: int | None = None) -> subprocess.Popen[bytes]:
    """Start the trainer's process in its own session and in the job folder; ``lease`` is :attr:`Leases.fd`."""
    inherited = [] if lease is None else [lease]
    environment = dict(os.environ)
    # The runner may be any importable module; a console script's sys.path does not reach a child by itself.
    paths = [
        str(Path(__file__).parents[2]),
        *(p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p),
    ]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    with (folder / "trainer.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "talker.jobs.child", str(folder), str(fence), str(os.getpid())]
            + [str(fd) for fd in inherited],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End the trainer and everything it started; returns when it is gone."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reap(folder)


def reap(folder: Path) -> int:
    """Kill what an earlier trainer of this job left running; returns how many processes.

    They are known by their working folder: the trainer starts in its job folder and its children inherit that, also
    those in other sessions and without its environment. Linux only; elsewhere the trainer's lock has to do.
    """
    killed = 0
    if not Path("/proc/self").exists():
        return killed
    interpreter = os.path.realpath(sys.executable)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            inside = (entry / "cwd").readlink() == folder
            ours = inside and str((entry / "exe").readlink()) == interpreter
        except OSError:
            continue  # gone, or of another user
        if ours:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
                log.warning("killed a left-over process of job %s", folder.name)
    return killed


def read_outcome(folder: Path, fence: int) -> dict[str, Any]:
    """What the trainer said at its end; empty if it said nothing, or under another claim."""
    try:
        outcome = json.loads((folder / "outcome.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return outcome if outcome.get("fence") == fence else {}


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
