"""Who works on which job, where several workers share one PostgreSQL: claims that end by themselves.

A worker holds a job for ``lease_s`` seconds of the server's clock and renews that every ``beat_s``. Only a lease
that has run out can be taken by another worker, and one that has run out cannot be renewed. A worker that cannot
renew in time, because it hangs or the network is cut, knows so from its own clock, a margin earlier, and stops: its
trainer reads the same deadline before every checkpoint. So two workers never train one job at once, without anybody
having to reach the other.

With SQLite there is one worker for each home, held by a file lock, and none of this is needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from talker.jobs.database import make_engine

log = logging.getLogger(__name__)

WORKER_VARIABLE = "TALKER_WORKER"
_TURN = 0x74616C6B  # number of the advisory lock under which lost jobs are given back
_DEADLINE = struct.Struct("<d")
_SCHEMA = (
    "CREATE SCHEMA IF NOT EXISTS talker",
    "CREATE TABLE IF NOT EXISTS talker.leases (home text NOT NULL, job text PRIMARY KEY, worker text NOT NULL,"
    " holder text NOT NULL, until timestamptz NOT NULL)",
    "CREATE TABLE IF NOT EXISTS talker.workers (home text NOT NULL, name text NOT NULL, holder text NOT NULL,"
    " until timestamptz NOT NULL, PRIMARY KEY (home, name))",
)
_UNTIL = "clock_timestamp() + make_interval(secs => :lease_s)"
_TAKE = f"""INSERT INTO talker.leases (home, job, worker, holder, until)
VALUES (:home, :job, :worker, :holder, {_UNTIL})
ON CONFLICT (job) DO UPDATE SET home = excluded.home, worker = excluded.worker, holder = excluded.holder,
until = excluded.until
WHERE leases.until < clock_timestamp() OR leases.worker = excluded.worker RETURNING job"""
_RENEW = f"""UPDATE talker.leases SET until = {_UNTIL}
WHERE holder = :holder AND until > clock_timestamp() RETURNING job"""
_APPEAR = f"""INSERT INTO talker.workers (home, name, holder, until) VALUES (:home, :worker, :holder, {_UNTIL})
ON CONFLICT (home, name) DO UPDATE SET holder = excluded.holder, until = excluded.until"""


@dataclass(frozen=True)
class LeaseConfig:
    """How long a silent worker keeps its jobs."""

    lease_s: float = 45.0
    beat_s: float = 5.0
    margin_s: float = 10.0
    """A worker stops so much earlier by its own clock: time to write a checkpoint, and for clocks to differ."""


class Leases:
    """The claims of one worker process.

    Args:
        url: The shared PostgreSQL.
        home: Id of the folder whose jobs are shared; others in the same database are left alone.
        worker: Name of this worker; there must be no other of that name.
        config: How long a silent worker keeps its jobs.
    """

    def __init__(self, url: str, home: str, worker: str, config: LeaseConfig | None = None) -> None:
        self.config = config or LeaseConfig()
        # Who does nothing in a transaction for so long has lost its claims by its own clock.
        self._engine = make_engine(url, self.config.lease_s - self.config.margin_s)
        self._values = {
            "home": home,
            "worker": worker,
            "holder": secrets.token_hex(8),  # a worker that was started again is another one
            "lease_s": self.config.lease_s,
        }
        self._jobs: set[str] = set()
        self._lock = threading.Lock()
        self._lost = False
        self._stop = threading.Event()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - read by the trainers as long as this process lives
        self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)

    @property
    def fd(self) -> int:
        """Open file that holds the deadline; a trainer inherits it and asks :func:`deadline_of`."""
        return self._file.fileno()

    @property
    def lost(self) -> bool:
        """Whether the claims may have run out: stop everything, start again."""
        return self._lost or now() > deadline_of(self.fd)

    def start(self) -> Leases:
        """Make the tables, appear as a worker, and keep renewing."""
        from sqlalchemy import text

        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})
            for statement in _SCHEMA:
                connection.execute(text(statement))
        self._renew()
        self._thread.start()
        return self

    def close(self) -> None:
        """Give everything back at once."""
        from sqlalchemy.exc import SQLAlchemyError

        self._stop.set()
        self._thread.join(self.config.beat_s)
        with contextlib.suppress(SQLAlchemyError):  # then it runs out
            self._run("DELETE FROM talker.leases WHERE holder = :holder RETURNING job")
            self._run("DELETE FROM talker.workers WHERE holder = :holder RETURNING name")
        self._engine.dispose()

    def take(self, job_id: str) -> bool:
        """Claim a job; False if another worker holds it."""
        with self._lock:
            taken = bool(self._run(_TAKE, job=job_id))
            if taken:
                self._jobs.add(job_id)
        return taken

    def give(self, job_id: str) -> None:
        """End a claim; if that fails it runs out."""
        from sqlalchemy.exc import SQLAlchemyError

        with self._lock:
            self._jobs.discard(job_id)
            with contextlib.suppress(SQLAlchemyError):
                self._run(
                    "DELETE FROM talker.leases WHERE job = :job AND holder = :holder RETURNING job",
                    job=job_id,
                )

    def held(self) -> set[str]:
        """Jobs that a living worker holds, this one's included."""
        return self._run("SELECT job FROM talker.leases WHERE home = :home AND until > clock_timestamp()")

    def workers(self) -> set[str]:
        """Names of the living workers."""
        return self._run("SELECT name FROM talker.workers WHERE home = :home AND until > clock_timestamp()")

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One worker at a time looks for jobs of dead ones."""
        from sqlalchemy import text

        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})
            yield

    def _run(self, statement: str, **values: object) -> set[str]:
        from sqlalchemy import text

        with self._engine.begin() as connection:
            return {str(row[0]) for row in connection.execute(text(statement), {**self._values, **values})}

    def _renew(self) -> None:
        with self._lock:
            asked = now()  # before the server adds its seconds: never later than what it grants
            renewed = self._run(_RENEW)
            self._run(_APPEAR + " RETURNING name")
            if self._jobs - renewed:
                self._lost = True
                return
        deadline = asked + self.config.lease_s - self.config.margin_s
        os.pwrite(self.fd, _DEADLINE.pack(deadline), 0)

    def _beat(self) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        while not self._stop.wait(self.config.beat_s) and not self._lost:
            try:
                self._renew()
            except SQLAlchemyError as error:
                log.warning("the claims could not be renewed: %s", type(error).__name__)


def now() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def deadline_of(fd: int) -> float:
    """Until when, by :func:`now`, the worker behind an inherited file holds its jobs."""
    stored = os.pread(fd, _DEADLINE.size, 0)
    return _DEADLINE.unpack(stored)[0] if len(stored) == _DEADLINE.size else float("-inf")


def worker_name() -> str:
    """Name of this worker, the same after a restart: ``TALKER_WORKER``, or the host's name and its GPU's number."""
    given = os.environ.get(WORKER_VARIABLE)
    if given:
        return given
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return socket.gethostname() + (f"-gpu{devices}" if devices else "")
