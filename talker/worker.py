"""The worker: the process that does the jobs. ``python -m talker worker``, or started by the app."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from talker.errors import TalkerError
from talker.jobs.database import check_reachable
from talker.jobs.engine import Engine
from talker.jobs.leases import LeaseConfig, Leases, worker_name
from talker.jobs.queue import JobQueue
from talker.jobs.runner import JobRunner, RunnerConfig
from talker.jobs.store import DEFAULT_RUNNER
from talker.jobs.supervisor import take_lock

log = logging.getLogger(__name__)

EXIT_OK, EXIT_DATABASE, EXIT_LOST = 0, 3, 4


@dataclass(frozen=True)
class WorkerConfig:
    """How the worker goes about its day."""

    reconcile_s: float = 5.0
    """Seconds between two comparisons of job folders and database."""
    idle_s: float = 60.0
    """An orphan, whose app was killed, ends after so long without work."""
    poll_s: float = 0.5
    leases: LeaseConfig = field(default_factory=LeaseConfig)
    """How long a silent worker keeps its jobs, where several share a database."""


def serve(
    home: Path,
    *,
    runner: str = DEFAULT_RUNNER,
    database_url: str | None = None,
    app_pid: int | None = None,
    config: WorkerConfig | None = None,
    runner_config: RunnerConfig | None = None,
) -> int:
    """Do the jobs of ``home`` until SIGTERM or SIGINT; the running job is saved and goes on next time.

    Args:
        home: Folder of the application.
        runner: Module that trains local jobs.
        database_url: Queue database; None means ``TALKER_DATABASE_URL``, or SQLite inside ``home``.
        app_pid: Process of the app that started this worker; without it and without work the worker ends.
        config: How the worker goes about its day.
        runner_config: How patient it is with the trainer.

    Returns:
        Exit status. The caller should end the process with it right away (``os._exit``): threads of the queue may
        still wait for jobs that were handed over to the next worker.

    Raises:
        JobError: ``worker.running``: there is one already; ``worker.database``: the shared one cannot be used.
    """
    config = config or WorkerConfig()
    lock = take_lock(home, database_url=database_url)
    shutdown = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: shutdown.set())
    queue = JobQueue(home, runner=runner, database_url=database_url)
    check_reachable(queue.url)
    queue.store.sweep()
    leases = Leases(queue.url, queue.home_id(), worker_name(), config.leases) if queue.shared else None
    jobs = JobRunner(queue.store, shutdown, runner_config, leases)
    engine = Engine(queue, jobs, poll_s=config.poll_s)
    engine.launch()
    log.info("worker %d ready", os.getpid())
    status = _watch(queue, leases, shutdown, app_pid, config)
    shutdown.set()
    engine.wait_idle(jobs.config.shutdown_grace_s + 2.0)
    if leases is not None and status != EXIT_LOST:
        leases.close()  # what was not finished goes to the next worker now, not when the claims have run out
    log.info("worker %d ends", os.getpid())
    lock.close()
    return status


def _watch(
    queue: JobQueue,
    leases: Leases | None,
    shutdown: threading.Event,
    app_pid: int | None,
    config: WorkerConfig,
) -> int:
    """Keep folders and database in step until it is time to go."""
    from sqlalchemy.exc import DBAPIError

    busy = time.monotonic()
    while not shutdown.wait(config.reconcile_s):
        if leases is not None and leases.lost:
            log.error(
                "the shared database was out of reach for too long; the jobs may be somebody else's now"
            )
            return EXIT_LOST
        try:
            if leases is not None:
                taken = queue.take_over(leases)
                if taken:
                    log.warning("put back %d jobs of workers that are gone", taken)
            queue.reconcile(leases.held() if leases is not None else ())
        except DBAPIError as error:
            if "locked" in str(error):
                continue
            if leases is not None:
                log.warning("the shared database does not answer (%s)", type(error.orig).__name__)
                continue  # it may be back before the claims run out
            log.error("the queue database cannot be used (%s); starting over", type(error.orig).__name__)
            return EXIT_DATABASE  # the next start sets it aside and rebuilds it
        if app_pid is None or _alive(app_pid) or queue.store.active():
            busy = time.monotonic()
        elif time.monotonic() - busy > config.idle_s:
            return EXIT_OK
    return EXIT_OK


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(argv: list[str] | None = None) -> int:
    """Command line of the worker process."""
    parser = argparse.ArgumentParser(prog="python -m talker.worker", description="Do the queued jobs.")
    parser.add_argument("--home", type=Path, required=True, help="folder of the application")
    parser.add_argument("--runner", default=DEFAULT_RUNNER, help="module that trains (create, CreateConfig)")
    parser.add_argument("--app", type=int, default=None, help="process of the app that started this worker")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return serve(options.home, runner=options.runner, app_pid=options.app)
    except TalkerError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)
