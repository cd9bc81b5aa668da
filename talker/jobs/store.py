"""Job folders: the truth about every job. The queue's database can be rebuilt from them at any time.

``<home>/jobs/<id>/``::

    request.json     what was accepted; never changes
    clip.mp4         the input
    status.json      state, order, attempts; written by app and worker under ``.lock``
    progress.json    what the running trainer reports; written by it alone
    events.jsonl     log, one JSON object a line
    previews/        PNG pictures
    stop, cancel, delete      wishes of the user, as empty files
    avatar, avatar.data, avatar.state     what the trainer makes

A folder appears in one rename, complete and on disk, and leaves in one rename.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from talker.atomic import fsync_folder, write_atomic
from talker.errors import JobError
from talker.jobs.files import append_event, copy_durably, damaged, flocked, missing, remove, to_json
from talker.jobs.job import (
    ACTIVE,
    Accepted,
    Job,
    JobRequest,
    JobState,
    Live,
    Status,
    check_transition,
    view,
)
from talker.jobs.limits import Limits, check_limits

DEFAULT_RUNNER = "talker.train.create"
WISHES = ("stop", "cancel", "delete")
_ID = re.compile(r"[0-9a-f]{24}")
_CLIP = re.compile(r"clip\.[a-z0-9]{1,5}")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_BULKY = ("avatar", "avatar.data", "avatar.state", "previews")
_NEW, _TRASH = ".new-", ".trash-"


class OwnershipLostError(BaseException):
    """Somebody else claimed the job: stop at once and write nothing. Not a user error, not to be caught."""


class JobStore:
    """Every read and write of job folders under one home.

    Args:
        home: Folder of the application; created if missing, readable by its user only.
        limits: What is accepted.
    """

    def __init__(self, home: Path, limits: Limits | None = None) -> None:
        self.home = Path(home).resolve()
        self.root = self.home / "jobs"
        self.limits = limits or Limits()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- reading -----------------------------------------------------------------------------------------

    def folder(self, job_id: str) -> Path:
        """Where a job lives.

        Raises:
            JobError: ``job.missing`` for anything that is not the id of a job.
        """
        folder = self.root / job_id if _ID.fullmatch(job_id) else None
        if folder is None or not (folder / "request.json").is_file():
            raise missing()
        return folder

    def accepted(self, job_id: str) -> Accepted:
        """What was asked for.

        Raises:
            JobError: ``job.missing`` or ``job.damaged``.
        """
        try:
            return Accepted.from_dict(self._record(job_id))
        except (ValueError, KeyError, TypeError):
            raise damaged() from None

    def asked(self, job_id: str, field: str) -> Any:
        """One field of the request, without reading the others.

        Raises:
            JobError: ``job.missing`` or ``job.damaged``.
        """
        try:
            return self._record(job_id)["request"][field]
        except (KeyError, TypeError):
            raise damaged() from None

    def status(self, job_id: str) -> Status:
        """Where it stands.

        Raises:
            JobError: ``job.missing`` or ``job.damaged``.
        """
        try:
            return Status.from_dict(json.loads((self.folder(job_id) / "status.json").read_text()))
        except FileNotFoundError:
            raise missing() from None
        except (ValueError, KeyError, TypeError):
            raise damaged() from None

    def live(self, job_id: str) -> Live:
        """What the trainer last reported; empty before it started."""
        try:
            return Live.from_dict(json.loads((self.folder(job_id) / "progress.json").read_text()))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # Written without fsync for speed: after a power cut it may be torn, and it is only a display.
            return Live()

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job. With ``owner``, somebody else's job does not exist.

        Raises:
            JobError: ``job.missing`` or ``job.damaged``.
        """
        accepted = self.accepted(job_id)
        if (owner is not None and accepted.request.owner != owner) or self.wished(job_id, "delete"):
            raise missing()
        status = self.status(job_id)
        position = self._position(status) if status.state == JobState.QUEUED else 0
        return view(accepted, status, self.live(job_id), position=position)

    def jobs(self, owner: str | None = None) -> list[Job]:
        """All jobs of ``owner`` (None: of everybody), newest first; damaged folders are left out."""
        found = []
        order = self.queued()
        for job_id in self.ids():
            with contextlib.suppress(JobError):
                accepted = self.accepted(job_id)
                if (owner is not None and accepted.request.owner != owner) or self.wished(job_id, "delete"):
                    continue
                position = order.index(job_id) + 1 if job_id in order else 0
                found.append(view(accepted, self.status(job_id), self.live(job_id), position=position))
        return sorted(found, key=lambda job: (job.created, job.sequence), reverse=True)

    def ids(self) -> list[str]:
        """Every folder that is named like a job."""
        return [entry.name for entry in self.root.iterdir() if _ID.fullmatch(entry.name)]

    def active(self) -> list[tuple[str, Status]]:
        """Jobs somebody has to work on, in the order of the queue."""
        found = []
        for job_id in self.ids():
            with contextlib.suppress(JobError):
                status = self.status(job_id)
                if status.state in ACTIVE or self.wished(job_id, "delete"):
                    found.append((job_id, status))
        return sorted(found, key=lambda item: item[1].sequence)

    def queued(self) -> list[str]:
        """Ids of the waiting jobs, the next one first."""
        return [job_id for job_id, status in self.active() if status.state == JobState.QUEUED]

    def events(self, job_id: str, after: int = 0, limit: int = 2000) -> tuple[list[dict[str, Any]], int]:
        """Events from byte ``after`` of the log on, and the offset to ask for next time.

        Each event is a dict with ``t`` (seconds since the epoch), ``type`` (``stage``, ``progress``,
        ``preview``, ``note``, ``checkpoint``, ``evaluated``, ``finished``, ``state``) and the event's fields.
        """
        found: list[dict[str, Any]] = []
        path = self.folder(job_id) / "events.jsonl"
        if not path.is_file():
            return [], 0
        with path.open("rb") as file:
            file.seek(max(0, after))
            offset = file.tell()
            for line in file:
                if not line.endswith(b"\n") or len(found) >= limit:
                    break
                offset += len(line)
                # A kill in the middle of a line leaves a torn one: skip it.
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found, offset

    def previews(self, job_id: str) -> list[Path]:
        """Preview pictures, oldest first."""
        folder = self.folder(job_id) / "previews"
        return sorted(folder.glob("*.png"), key=lambda p: p.name) if folder.is_dir() else []

    def wished(self, job_id: str, wish: str) -> bool:
        """Whether the user asked for ``stop``, ``cancel`` or ``delete``."""
        return (self.root / job_id / wish).exists()

    # --- writing -----------------------------------------------------------------------------------------

    def create(
        self,
        clip: Path,
        request: JobRequest,
        *,
        runner: str = DEFAULT_RUNNER,
        job_id: str | None = None,
    ) -> str:
        """Accept a request: when this returns, clip and request are on disk and survive a power cut.

        Args:
            clip: File to copy into the job folder.
            request: What to do with it.
            runner: Module that does the work.
            job_id: Chosen by the caller to make a repeated submission harmless; None for a new one.

        Raises:
            JobError: ``job.clip``, ``job.disk``, ``job.waiting`` or ``job.id``.
        """
        clip = Path(clip)
        job_id = job_id or secrets.token_hex(12)
        if not _ID.fullmatch(job_id):
            raise JobError("job.id", "The id of the job is not 24 hexadecimal digits.")
        if (self.root / job_id).exists():
            return job_id
        check_limits(self.limits, clip, self.root, self._waiting(request.owner))
        suffix = clip.suffix.lower() if _SUFFIX.fullmatch(clip.suffix.lower()) else ".bin"
        building = self.root / f"{_NEW}{job_id}-{secrets.token_hex(4)}"
        building.mkdir(mode=0o700)
        try:
            digest = copy_durably(clip, building / f"clip{suffix}")
            accepted = Accepted(
                id=job_id,
                request=request,
                clip=f"clip{suffix}",
                clip_name=clip.name,
                clip_bytes=clip.stat().st_size,
                clip_sha256=digest,
                runner=runner,
                created=time.time(),
            )
            write_atomic(building / "request.json", to_json(asdict(accepted)))
            with self._queue_lock():
                status = Status(
                    sequence=self._next_sequence(), updated=time.time(), message="Waiting in the queue."
                )
                write_atomic(building / "status.json", to_json(asdict(status)))
                if (self.root / job_id).exists():  # the same submission arrived twice at once
                    return job_id
                building.rename(self.root / job_id)
                fsync_folder(self.root)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        self.log(job_id, "state", state=JobState.QUEUED, message=status.message)
        return job_id

    def update(
        self, job_id: str, change: Callable[[Status], Status], *, fence: int | None = None
    ) -> tuple[Status, Status]:
        """Change the status atomically; returns it before and after.

        Args:
            job_id: The job.
            change: Gives the new status; may raise to leave it alone.
            fence: If given, the claim under which the writer acts.

        Raises:
            OwnershipLostError: The fence is no longer the present one.
            JobError: ``job.state`` for a forbidden transition, ``job.missing``.
        """
        with self.lock(job_id):
            old = self.status(job_id)
            if fence is not None and old.fence != fence:
                raise OwnershipLostError(job_id)
            new = change(old)
            check_transition(old.state, new.state)
            if new != old:
                new = replace(new, updated=time.time())
                write_atomic(self.folder(job_id) / "status.json", to_json(asdict(new)))
        if new.state != old.state or new.message != old.message:
            self.log(job_id, "state", state=new.state, message=new.message)
        return old, new

    def requeue(self, job_id: str) -> Status:
        """Put a stopped or failed job at the end of the queue.

        Raises:
            JobError: ``job.state`` unless it is stopped or failed.
        """
        with self._queue_lock():
            sequence = self._next_sequence()

            def change(old: Status) -> Status:
                if old.state == JobState.STOPPING:
                    raise JobError("job.state", "The job is still stopping.", todo="Try again in a moment.")
                if old.state in ACTIVE:
                    return old
                for wish in ("stop", "cancel"):  # before it can be claimed again
                    (self.folder(job_id) / wish).unlink(missing_ok=True)
                return replace(
                    old,
                    state=JobState.QUEUED,
                    sequence=sequence,
                    run=old.run + 1,
                    stalled=0,
                    interrupted=0,
                    reason=None,
                    finished=None,
                    message="Waiting in the queue.",
                )

            return self.update(job_id, change)[1]

    def wish(self, job_id: str, wish: str, text: str = "") -> None:
        """Leave a wish for whoever works on the job."""
        assert wish in WISHES
        (self.folder(job_id) / wish).write_text(text)

    def log(self, job_id: str, kind: str, **values: Any) -> None:
        """Append one event to the job's log."""
        append_event(self.folder(job_id), kind, values)

    def drop_work(self, job_id: str) -> None:
        """Delete the clip and everything made from it; request, status and log stay."""
        folder = self.folder(job_id)
        for path in (*(folder / name for name in _BULKY), self._clip(job_id)):
            remove(path)

    def drop_inputs(self, job_id: str) -> None:
        """Delete clip, dataset and training state; the avatar stays."""
        folder = self.folder(job_id)
        for path in (folder / "avatar.data", folder / "avatar.state", self._clip(job_id)):
            remove(path)

    def remove(self, job_id: str) -> None:
        """Delete the whole folder, in one rename for every reader."""
        trash = self.root / f"{_TRASH}{job_id}-{secrets.token_hex(4)}"
        try:
            self.folder(job_id).rename(trash)
        except FileNotFoundError:
            raise missing() from None
        shutil.rmtree(trash, ignore_errors=True)

    def sweep(self, *, older_than_s: float = 3600.0) -> int:
        """Delete what interrupted submissions and deletions left; the number of folders."""
        swept = 0
        for entry in self.root.iterdir():
            old = entry.name.startswith(_TRASH) or (
                entry.name.startswith(_NEW) and time.time() - entry.stat().st_mtime > older_than_s
            )
            if old:
                shutil.rmtree(entry, ignore_errors=True)
                swept += 1
        return swept

    @contextlib.contextmanager
    def lock(self, job_id: str) -> Iterator[None]:
        """Exclusive access to the job's status; freed by the kernel if the process dies."""
        with flocked(self.folder(job_id) / ".lock"):
            yield

    # --- inside ------------------------------------------------------------------------------------------

    def _record(self, job_id: str) -> dict[str, Any]:
        try:
            record = json.loads((self.folder(job_id) / "request.json").read_text())
        except FileNotFoundError:
            raise missing() from None
        except ValueError:
            raise damaged() from None
        if not isinstance(record, dict):
            raise damaged()
        return record

    def _clip(self, job_id: str) -> Path:
        """Where the clip lies; its name inside the folder is ours, never the user's."""
        name = str(self._record(job_id).get("clip", ""))
        return self.folder(job_id) / (name if _CLIP.fullmatch(name) else "clip.bin")

    def _position(self, status: Status) -> int:
        return 1 + sum(
            1
            for _, other in self.active()
            if other.state == JobState.QUEUED and other.sequence < status.sequence
        )

    def _queue_lock(self) -> contextlib.AbstractContextManager[None]:
        return flocked(self.root / ".lock")

    def _next_sequence(self) -> int:
        """One more than ever given: kept in a file, because the last job may have been deleted."""
        path = self.root / "sequence"
        stored = int(path.read_text()) if path.is_file() and path.read_text().isdigit() else 0
        highest = max(
            [stored, *(self.status(job_id).sequence for job_id in self.ids() if self._intact(job_id))]
        )
        write_atomic(path, str(highest + 1).encode())
        return highest + 1

    def _waiting(self, owner: str) -> int:
        return sum(1 for job_id in self.queued() if self.asked(job_id, "owner") == owner)

    def _intact(self, job_id: str) -> bool:
        try:
            self.status(job_id)
        except JobError:
            return False
        return True
