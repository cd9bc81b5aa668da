"""The durable queue: job folders carried by DBOS Transact.

The app only enqueues (:class:`JobQueue`); a worker executes (``talker.jobs.engine``): one with SQLite, any number on
any number of hosts with PostgreSQL and a shared folder. A message of the queue holds nothing but a job id and the
number of its run; everything else is in the job folder. So a lost or damaged database costs nothing:
:meth:`JobQueue.reconcile` writes every missing message again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker.atomic import write_atomic
from talker.errors import JobError
from talker.jobs.database import DATABASE_VARIABLE, healthy, is_sqlite, make_engine, quiet
from talker.jobs.files import flocked
from talker.jobs.job import ACTIVE, Job, JobRequest, JobState, Status
from talker.jobs.leases import Leases, worker_name
from talker.jobs.limits import Limits
from talker.jobs.store import DEFAULT_RUNNER, JobStore

if TYPE_CHECKING:
    from dbos import DBOSClient

log = logging.getLogger(__name__)

APPLICATION = "talker"
APPLICATION_VERSION = "jobs-1"
"""Pinned: an update of the code must still find the jobs that an older one queued. Raise it only when the meaning
of a message changes."""
WORKFLOW = "talker_job"
QUEUE_OF = {"local": "train", "space": "remote", "jobs": "remote"}
CONCURRENCY = {"train": 1, "remote": 8}
"""One training at a time: it uses the whole GPU, or all cores. Following a remote job costs nothing."""
RUNNER_OF = {"space": "talker.jobs.remote", "jobs": "talker.jobs.hub_jobs"}
_WAITING = ["ENQUEUED", "PENDING", "DELAYED"]


class JobQueue:
    """What an application may do with jobs. Cheap to create; DBOS is imported with the first message.

    Args:
        home: Folder of the application.
        database_url: Queue database; None means ``TALKER_DATABASE_URL``, or SQLite inside ``home``.
        runner: Module that trains local jobs.
        limits: What is accepted.
    """

    def __init__(
        self,
        home: Path,
        *,
        database_url: str | None = None,
        runner: str = DEFAULT_RUNNER,
        limits: Limits | None = None,
    ) -> None:
        self.store = JobStore(home, limits)
        self.runner = runner
        self.folder = self.store.home / "queue"
        self.folder.mkdir(exist_ok=True, mode=0o700)
        self.database = self.folder / "queue.sqlite"
        self.url = database_url or os.environ.get(DATABASE_VARIABLE) or f"sqlite:///{self.database}"
        self.shared = not is_sqlite(self.url)
        """Whether several workers may do the jobs of this folder."""

    # --- for the app -------------------------------------------------------------------------------------

    def submit(self, clip: Path, request: JobRequest, *, job_id: str | None = None) -> str:
        """Accept a job: when this returns its id, clip and request are safe on disk.

        Args:
            clip: Video file; copied.
            request: What to make of it.
            job_id: 24 hexadecimal digits chosen by the caller, so that repeating a submission is harmless.

        Raises:
            JobError: ``job.clip``, ``job.disk``, ``job.waiting``, ``job.id``, ``job.launcher``.
        """
        if request.launcher not in QUEUE_OF:
            raise JobError("job.launcher", f"There is no launcher {request.launcher!r}.")
        runner = RUNNER_OF.get(request.launcher, self.runner)
        accepted = self.store.create(clip, request, runner=runner, job_id=job_id)
        self._post(accepted)
        return accepted

    def jobs(self, owner: str | None = None) -> list[Job]:
        """Jobs of ``owner`` (None: all), newest first."""
        return self.store.jobs(owner)

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job; somebody else's does not exist.

        Raises:
            JobError: ``job.missing``.
        """
        return self.store.get(job_id, owner)

    def events(
        self, job_id: str, owner: str | None = None, *, after: int = 0
    ) -> tuple[list[dict[str, Any]], int]:
        """New events since offset ``after``, and the next offset; see :meth:`JobStore.events`."""
        self.store.get(job_id, owner)
        return self.store.events(job_id, after)

    def previews(self, job_id: str, owner: str | None = None) -> list[Path]:
        """Preview pictures (PNG), oldest first."""
        self.store.get(job_id, owner)
        return self.store.previews(job_id)

    def stop(self, job_id: str, owner: str | None = None) -> Job:
        """Save and stop; ``resume`` goes on from there.

        Raises:
            JobError: ``job.missing`` or ``job.state``.
        """
        self._require(job_id, owner, ACTIVE)
        self.store.wish(job_id, "stop")

        def change(old: Status) -> Status:
            if old.state == JobState.QUEUED:
                return replace(old, state=JobState.STOPPED, message="Stopped while waiting in the queue.")
            if old.state == JobState.RUNNING:
                return replace(old, state=JobState.STOPPING, message="Saving, then stopping.")
            return old

        self._withdraw(*self.store.update(job_id, change), job_id)
        return self.store.get(job_id)

    def cancel(self, job_id: str, owner: str | None = None, *, keep_files: bool = False) -> Job:
        """End the job for good and, unless ``keep_files``, delete the clip and everything made from it.

        Raises:
            JobError: ``job.missing``, or ``job.state`` when it is already done.
        """
        self._require(job_id, owner, set(JobState) - {JobState.DONE})
        self.store.wish(job_id, "cancel", "keep" if keep_files else "")

        def change(old: Status) -> Status:
            if old.state in (JobState.RUNNING, JobState.STOPPING):
                return replace(old, state=JobState.STOPPING, message="Cancelling.")
            if old.state == JobState.DONE:
                return old
            return replace(old, state=JobState.CANCELLED, message="Cancelled.", finished=time.time())

        old, new = self.store.update(job_id, change)
        self._withdraw(old, new, job_id)
        if new.state == JobState.CANCELLED and not keep_files:
            self.store.drop_work(job_id)
        return self.store.get(job_id)

    def resume(self, job_id: str, owner: str | None = None) -> Job:
        """Put a stopped or failed job back into the queue; it goes on from its last checkpoint.

        Raises:
            JobError: ``job.missing`` or ``job.state``.
        """
        self._require(job_id, owner, set(JobState) - {JobState.DONE, JobState.CANCELLED})
        self.store.requeue(job_id)
        self._post(job_id)
        return self.store.get(job_id)

    retry = resume

    def delete(self, job_id: str, owner: str | None = None) -> None:
        """Delete every trace of the job; a running one is ended first, by the worker.

        Raises:
            JobError: ``job.missing``.
        """
        self.store.get(job_id, owner)
        self.store.wish(job_id, "delete")

        def change(old: Status) -> Status:
            if old.state == JobState.QUEUED:
                return replace(old, state=JobState.CANCELLED, message="Deleted.")
            if old.state == JobState.RUNNING:
                return replace(old, state=JobState.STOPPING, message="Deleting.")
            return old

        old, new = self.store.update(job_id, change)
        self._withdraw(old, new, job_id)
        if new.state not in ACTIVE:
            self.store.remove(job_id)

    def take_avatar(self, job_id: str, dest: Path, owner: str | None = None) -> Path:
        """Move the finished avatar to ``dest`` (one rename on the same disk); where it already is, say so.

        Raises:
            JobError: ``job.missing``, ``job.state`` before it is done, ``job.taken`` when it was moved elsewhere.
        """
        self._require(job_id, owner, {JobState.DONE})
        avatar = self.store.folder(job_id) / "avatar"
        if avatar.is_dir():
            dest.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(avatar, dest)
        elif not dest.is_dir():
            raise JobError("job.taken", "The avatar of this job was moved away or deleted.")
        return dest

    # --- messages ----------------------------------------------------------------------------------------

    def enqueue(self, job_id: str) -> None:
        """Write the message for the job's present run; repeating it changes nothing."""
        launcher, status = self.store.asked(job_id, "launcher"), self.store.status(job_id)
        with self._client() as client:
            client.enqueue(
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": self.queue_name(QUEUE_OF[launcher]),
                    "workflow_id": message_id(job_id, status.run),
                    "app_version": APPLICATION_VERSION,
                    "priority": max(
                        1, status.sequence
                    ),  # the order of the folders, whenever the message is written
                },
                job_id,
                status.run,
            )

    def queue_name(self, kind: str) -> str:
        """Name of a queue in the database; in a shared one with the id of this folder.

        A worker that does not see the folder must not take its jobs.
        """
        return f"{kind}-{self.home_id()}" if self.shared else kind

    def home_id(self) -> str:
        """Id of the folder, the same for all hosts that share it; made once."""
        path = self.folder / "id"
        with flocked(self.folder / "id.lock"):
            if not path.is_file() or not path.read_text():
                write_atomic(path, secrets.token_hex(8).encode())
            return path.read_text()

    def reconcile(self, held: Collection[str] = ()) -> int:
        """Write every message that the folders call for and the database lacks; returns how many.

        Args:
            held: Jobs that somebody works on for certain; their messages are none of our business.
        """
        with self._client() as client:
            waiting = {
                workflow.workflow_id
                for workflow in client.list_workflows(
                    status=_WAITING, name=WORKFLOW, load_input=False, load_output=False
                )
            }
        written = 0
        for job_id, status in self.store.active():
            if status.state not in ACTIVE:  # deleted, but the process that did it died
                self.store.remove(job_id)
            elif message_id(job_id, status.run) not in waiting and job_id not in held:
                with contextlib.suppress(JobError):  # deleted meanwhile
                    self._renew(job_id, status)
                    written += 1
        return written

    def recover(self) -> int:
        """Put back what this worker was doing when it died; returns how many.

        Called by the worker before it starts to work, holding its lock: nobody runs these. DBOS would do the same
        after its start, but then a later job may be taken before the interrupted one.
        """
        # One worker for a SQLite file: whatever was taken from it, under whatever name of the host, was ours.
        return self._put_back(lambda executor, _: not self.shared or executor == executor_id())

    def take_over(self, leases: Leases) -> int:
        """Put back what dead workers on other hosts were doing; returns how many."""
        with leases.turn():
            living = {f"worker-{name}" for name in leases.workers()}
            held = leases.held()
            return self._put_back(lambda executor, job_id: executor not in living and job_id not in held)

    def _put_back(self, dead: Callable[[str | None, str], bool]) -> int:
        """Enqueue again every message that was taken by a worker of which ``dead`` says so."""
        with self._client() as client:
            taken = client.list_workflows(
                status="PENDING",
                name=WORKFLOW,
                queue_name=[self.queue_name(kind) for kind in CONCURRENCY],
                load_input=False,
                load_output=False,
            )
            lost = [flow for flow in taken if dead(flow.executor_id, flow.workflow_id.split(".")[0])]
            for workflow in lost:
                client.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
        return len(lost)

    def prepare_database(self) -> str | None:
        """Create or upgrade the database; a damaged SQLite file is set aside first. Returns its new name if so."""
        from dbos import DBOS

        aside = None
        with flocked(self.folder / "migrate.lock"):
            if not self.shared and self.database.exists() and not healthy(self.database):
                aside = f"queue.damaged-{time.strftime('%Y%m%d-%H%M%S')}.sqlite"
                self.database.rename(self.folder / aside)
                for rest in self.folder.glob("queue.sqlite-*"):  # a journal of the damaged file
                    rest.unlink()
                log.error(
                    "the queue database was damaged; set aside as %s and rebuilt from the job folders", aside
                )
            DBOS.migrate(self.url)
        return aside

    def _renew(self, job_id: str, status: Status) -> None:
        with self._client() as client:
            ended = client.list_workflows(
                workflow_ids=[message_id(job_id, status.run)], load_input=False, load_output=False
            )
        if any(workflow.status not in _WAITING for workflow in ended):
            # The database calls the run ended, the folder does not, and the folder is the truth: a new run.
            expected = status.run

            def change(old: Status) -> Status:
                return replace(old, run=old.run + 1) if old.run == expected and old.state in ACTIVE else old

            self.store.update(job_id, change)
        self.enqueue(job_id)

    def _post(self, job_id: str) -> None:
        """Enqueue now if possible; the worker's next reconciliation does it otherwise."""
        from dbos import error as dbos_errors
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if not self.shared and not self.database.exists():
                self.prepare_database()
            self.enqueue(job_id)
        except (SQLAlchemyError, dbos_errors.DBOSException, OSError) as error:
            log.warning(
                "job %s is accepted, its message is not written yet: %s", job_id, type(error).__name__
            )

    def _withdraw(self, old: Status, new: Status, job_id: str) -> None:
        """Take the message of a job that left the queue before it ran; if that fails, its claim will be void."""
        if old.state != JobState.QUEUED or new.state == JobState.QUEUED:
            return
        from dbos import error as dbos_errors
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._client() as client:
                client.cancel_workflow(message_id(job_id, old.run))
        except (SQLAlchemyError, dbos_errors.DBOSException) as error:
            log.warning("the message of job %s stays behind: %s", job_id, type(error).__name__)

    def _require(self, job_id: str, owner: str | None, states: set[JobState] | frozenset[JobState]) -> None:
        state = self.store.get(job_id, owner).state
        if state not in states:
            raise JobError("job.state", f"The job is {state}, so this is not possible.")

    @contextlib.contextmanager
    def _client(self) -> Iterator[DBOSClient]:
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        quiet()
        engine = make_engine(self.url)
        client = DBOSClient(
            system_database_engine=engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
            lazy=True,
        )
        try:
            yield client
        finally:
            client.destroy()
            engine.dispose()


def message_id(job_id: str, run: int) -> str:
    """Id of the workflow that does one run of a job."""
    return f"{job_id}.{run}"


def executor_id() -> str:
    """Name of this machine's worker: the same after a restart, so that its work is found again."""
    return f"worker-{worker_name()}"
