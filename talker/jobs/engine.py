"""Executing side of the queue: DBOS runs one workflow per job inside the worker's process."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from talker.jobs.database import make_engine, quiet
from talker.jobs.queue import (
    APPLICATION,
    APPLICATION_VERSION,
    CONCURRENCY,
    WORKFLOW,
    JobQueue,
    executor_id,
)
from talker.jobs.runner import JobRunner, ShutdownError

if TYPE_CHECKING:
    from dbos import DBOSConfig

log = logging.getLogger(__name__)


class Engine:
    """DBOS in this process. One per process, because DBOS is.

    Args:
        queue: Where messages come from.
        runner: Does the jobs.
        poll_s: Seconds between two looks at the queue.
    """

    def __init__(self, queue: JobQueue, runner: JobRunner, *, poll_s: float = 0.5) -> None:
        self.queue = queue
        self.runner = runner
        self.poll_s = poll_s
        self._running = 0
        self._idle = threading.Condition()

    def launch(self) -> None:
        """Set a damaged database aside, take back interrupted jobs, write missing messages, start working."""
        from dbos import DBOS, DBOSPortableJSONSerializer

        quiet()
        self.queue.prepare_database()
        leases = self.runner.leases
        if leases is not None:
            leases.start()
        recovered, written = self.queue.recover(), self.queue.reconcile(leases.held() if leases else ())
        log.info("recovered %d jobs, wrote %d missing messages", recovered, written)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self.queue.url,
            "system_database_engine": make_engine(self.queue.url),
            "serializer": DBOSPortableJSONSerializer(),
            "application_version": APPLICATION_VERSION,
            "executor_id": executor_id(),
            "log_level": "WARNING",
            "enable_otlp": False,
        }
        DBOS(config=config)

        @DBOS.step(name="work")
        def work(job_id: str, run: int) -> str:
            return self._work(job_id, run)

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
        def talker_job(job_id: str, run: int) -> str:
            return work(job_id, run)

        queues = {self.queue.queue_name(kind): number for kind, number in CONCURRENCY.items()}
        DBOS.listen_queues(list(queues))
        DBOS.launch()
        for name, concurrency in queues.items():
            DBOS.register_queue(
                name,
                worker_concurrency=concurrency,
                polling_interval_sec=self.poll_s,
                on_conflict="always_update",
            )

    def wait_idle(self, timeout_s: float) -> bool:
        """After ``shutdown`` was set: wait until no job is being worked on."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, timeout_s)

    def _work(self, job_id: str, run: int) -> str:
        self._count(1)
        try:
            state = self.runner.run(job_id, run)
        except ShutdownError:
            state = None
        finally:
            self._count(-1)
        if state is None:
            # Returning or raising would record an end. The run has none: it goes on in the next worker.
            threading.Event().wait()
        return str(state)

    def _count(self, change: int) -> None:
        with self._idle:
            self._running += change
            self._idle.notify_all()
