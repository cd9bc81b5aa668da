"""Helpers of the job tests: real worker processes on a temporary home, with the tiny trainer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny_trainer

from talker.jobs.database import DATABASE_VARIABLE
from talker.jobs.job import Job, JobRequest
from talker.jobs.limits import Limits
from talker.jobs.queue import JobQueue
from talker.types import Consent

TESTS = Path(__file__).parent
RUNNER = "tiny_trainer"
LIMITS = Limits(free_bytes=0)


CONSENT = Consent("I agree.", "Ada", "2026-01-01T00:00:00Z")


def request(name: str = "ada", owner: str = "me", **values) -> JobRequest:
    return JobRequest(name=name, owner=owner, consent=CONSENT, **values)


def make_clip(folder: Path, text: str = "clip", name: str = "clip.mp4") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(text.encode() * 100)
    return path


def make_queue(home: Path) -> JobQueue:
    return JobQueue(home, runner=RUNNER, limits=LIMITS)


def undisturbed(folder: Path, clip: Path, options: dict[str, Any]) -> bytes:
    """``avatar.json`` of a run in this process, which nothing interrupts."""
    folder.mkdir()
    config = tiny_trainer.CreateConfig(**{**options, "step_s": 0.0})
    for _ in tiny_trainer.create(clip, folder / "avatar", CONSENT, config):
        pass
    return (folder / "avatar" / "avatar.json").read_bytes()


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if key != DATABASE_VARIABLE}
    return {**clean, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"}


def wait_for(condition: Callable[[], object], timeout_s: float = 60.0, what: str = "") -> None:
    deadline = time.monotonic() + 4 * timeout_s  # a busy machine is slow, not wrong
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what or condition}"
        time.sleep(0.02)


def wait_state(queue: JobQueue, job_id: str, *states: str, timeout_s: float = 90.0) -> Job:
    wait_for(lambda: queue.get(job_id).state in states, timeout_s, f"{states}, is {queue.get(job_id)}")
    return queue.get(job_id)


@dataclass
class Worker:
    """A worker process under the test's control."""

    home: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        with (self.home / "test-worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "talker.worker", "--home", str(self.home), "--runner", RUNNER],
                env=environment() | self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 30.0) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def worker_for(home: Path, **env: str) -> Iterator[Worker]:
    worker = Worker(home, env=env)
    worker.start()
    try:
        yield worker
    finally:
        if worker.process is not None and worker.process.poll() is None:
            worker.kill()


def trainers(home: Path) -> list[int]:
    """Processes whose working folder is a job folder of ``home``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(home.resolve() / "jobs"):
                    found.append(int(entry.name))
    return found
