"""Keeps one worker alive beside the app, and says whether one is there."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from talker import __version__
from talker.errors import JobError
from talker.jobs.database import DATABASE_VARIABLE, is_sqlite
from talker.jobs.leases import worker_name

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 4 << 20
OTHER_WORKER = "For a second one on this machine give it another name in TALKER_WORKER and a shared database."

NICENESS = 10
"""Of the worker and all it starts: pages and talking avatars come first; an idle machine is all the worker's."""


@dataclass(frozen=True)
class SupervisorConfig:
    """How the worker is watched."""

    check_s: float = 1.0
    backoff_s: float = 1.0
    """Pause after a worker that died young; doubles up to ``max_backoff_s``."""
    max_backoff_s: float = 60.0
    young_s: float = 20.0
    stop_s: float = 15.0
    """Time the worker has to save when the app ends."""


@dataclass(frozen=True)
class WorkerState:
    """Who works on the jobs of a home."""

    alive: bool
    pid: int | None = None
    version: str = ""
    started: float = 0.0


def folder_of(home: Path) -> Path:
    """Folder with the worker's lock, record and log."""
    folder = Path(home).resolve() / "queue"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def path_of(home: Path, suffix: str, database_url: str | None = None) -> Path:
    """A file of this machine's worker: the only one of ``home`` with SQLite, one of several with a shared database."""
    url = database_url or os.environ.get(DATABASE_VARIABLE)
    shared = url is not None and url != "" and not is_sqlite(url)
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", worker_name())[:100]
    return folder_of(home) / f"worker{'-' + name if shared else ''}.{suffix}"


def take_lock(home: Path, *, wait_s: float = 3.0, database_url: str | None = None) -> IO[bytes]:
    """Become the only worker of ``home``, or of that name; keep the returned file open as long as you work.

    Raises:
        JobError: ``worker.running``: there is one already.
    """
    file = path_of(home, "lock", database_url).open("ab")
    deadline = time.monotonic() + wait_s  # somebody who only looks holds it for a moment
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise JobError(
                    "worker.running",
                    "A worker is already running for this folder.",
                    todo=f"Nothing to do; it works on all queued jobs. {OTHER_WORKER}",
                ) from None
            time.sleep(0.05)
    record = {"pid": os.getpid(), "version": __version__, "started": time.time()}
    path_of(home, "json", database_url).write_text(json.dumps(record))
    return file


def worker_state(home: Path, database_url: str | None = None) -> WorkerState:
    """Whether a worker of this machine runs for ``home``, and which."""
    with path_of(home, "lock", database_url).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return WorkerState(alive=False)
        except BlockingIOError:
            pass
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        record = json.loads(path_of(home, "json", database_url).read_text())
        return WorkerState(True, int(record["pid"]), str(record["version"]), float(record["started"]))
    return WorkerState(alive=True)


class Supervisor:
    """Starts a worker for ``home`` unless one runs, and again whenever it dies.

    Args:
        home: Folder of the application.
        runner: Module that trains local jobs; None for the trainer of this package.
        database_url: Queue database; None for the default.
        config: How it is watched.
    """

    def __init__(
        self,
        home: Path,
        *,
        runner: str | None = None,
        database_url: str | None = None,
        config: SupervisorConfig | None = None,
    ) -> None:
        self.home = Path(home).resolve()
        self.config = config or SupervisorConfig()
        self._options = ["--runner", runner] if runner else []
        self._database_url = database_url
        self._environment = {DATABASE_VARIABLE: database_url} if database_url else {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="worker-supervisor", daemon=True)

    def start(self) -> Supervisor:
        """Start watching; returns at once."""
        self._thread.start()
        atexit.register(self.stop)
        return self

    @property
    def state(self) -> WorkerState:
        """The worker of the moment."""
        return worker_state(self.home, self._database_url)

    def stop(self, *, stop_worker: bool = True) -> None:
        """Stop watching and, unless it was there before, let the worker save and end."""
        self._stop.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(self.config.check_s + 5.0)
        process, self._process = self._process, None
        if process is None or not stop_worker or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(self.config.stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _watch(self) -> None:
        backoff = 0.0
        while not self._stop.wait(backoff):
            started = time.monotonic()
            self._retire_old_version()
            if not self.state.alive:
                self._process = self._spawn()
            while not self._stop.wait(self.config.check_s):
                gone = self._process is not None and self._process.poll() is not None
                if gone or (self._process is None and not self.state.alive):
                    break
            if self._stop.is_set():
                return
            young = time.monotonic() - started < self.config.young_s
            backoff = (
                min(self.config.max_backoff_s, max(self.config.backoff_s, 2 * backoff)) if young else 0.0
            )
            log.warning("the worker ended; starting another in %.0f s", backoff)
            self._process = None

    def _retire_old_version(self) -> None:
        """A worker that outlived an app of another version is asked to save and end."""
        state = self.state
        if state.alive and state.pid and state.version != __version__:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(state.pid, signal.SIGTERM)
            deadline = time.monotonic() + self.config.stop_s
            while self.state.alive and time.monotonic() < deadline:
                time.sleep(0.1)

    def _spawn(self) -> subprocess.Popen[bytes]:
        path = path_of(self.home, "log", self._database_url)
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))
        root = str(Path(__file__).parents[2])
        paths = [root, *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)]
        environment = {**os.environ, **self._environment, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
        command = [sys.executable, "-m", "talker.worker", "--home", str(self.home), *self._options]
        command += ["--app", str(os.getpid())]
        with path.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the app, which then lets the worker save
            )
        with contextlib.suppress(OSError):  # it is gone already, or nobody may do this here
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        return process


_supervisors: dict[Path, Supervisor] = {}


def ensure_worker(home: Path, *, runner: str | None = None, database_url: str | None = None) -> Supervisor:
    """Make sure that a worker runs for ``home`` as long as this process lives; repeating it changes nothing.

    When the app ends well the worker saves and ends too. When the app is killed the worker finishes its jobs, is
    adopted by the next app, or ends when it has nothing to do.
    """
    key = Path(home).resolve()
    if key not in _supervisors:
        _supervisors[key] = Supervisor(key, runner=runner, database_url=database_url).start()
    return _supervisors[key]
