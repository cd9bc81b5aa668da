"""Keeps the unfinished jobs of a place that may vanish, disk and all, on the Hub; brings them back on its successor.

What is kept of a job: its request, its status, the clip and the newest checkpoint; once it is done, the avatar
instead, until it is fetched. What was prepared from the clip is not: making it again is quicker than moving it.
Every write names the commit it follows, so of two places that hold the same job only one can go on writing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from talker.atomic import fsync_folder, write_atomic
from talker.errors import HubError, TalkerError
from talker.hub.work import WorkRepos
from talker.jobs.files import to_json
from talker.jobs.job import ACTIVE, Accepted, JobState, Status
from talker.jobs.store import JobStore

log = logging.getLogger(__name__)

KEPT = "kept.json"
BACK = "The machine was replaced; going on from the last checkpoint that was kept."


@dataclass(frozen=True)
class KeepConfig:
    """How often the Hub hears of a job."""

    every_s: float = 120.0
    """Seconds between two checkpoints of a job that are kept: what a machine that vanishes costs at most."""
    look_s: float = 5.0
    forget_published: bool = True
    """A published avatar needs no keeping."""
    guest: bool = False
    """The app that asked owns what is kept: when it deletes that, it wants no more."""


class Keeper:
    """One thread that follows the job folders.

    Args:
        store: The jobs of this place.
        work: Where they are kept.
        config: How often.
    """

    def __init__(self, store: JobStore, work: WorkRepos, config: KeepConfig | None = None) -> None:
        self.store, self.work, self.config = store, work, config or KeepConfig()
        self._seen: dict[str, tuple[tuple, float]] = {}
        self._known: set[str] = set()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="keeper", daemon=True)

    def start(self) -> Keeper:
        """Follow until :meth:`stop`."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """One last look, so that a machine told to end loses nothing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30.0)
        self.look(all_now=True)

    def restore(self) -> int:
        """Bring back jobs that an earlier machine left; call it before a worker starts. Returns how many.

        A Hub that cannot be reached is no reason not to start: those jobs come back with the next restart.
        """
        back = 0
        try:
            kept = self.work.jobs()
        except HubError as error:
            log.error("the kept jobs could not be listed: %s", error)
            return 0
        for job_id in kept:
            if (self.store.root / job_id).exists():
                continue
            try:
                back += self.bring_back(job_id)
            except (TalkerError, ValueError, KeyError, TypeError, OSError) as error:
                log.error("job %s could not be brought back: %s", job_id, error)
        return back

    def bring_back(self, job_id: str) -> bool:
        """Fetch one job that is kept into the store, ready to go on; false if it is not the one it claims to be.

        Raises:
            HubError: ``hub.conflict``: another place was quicker; ``hub.not_found``, ...
        """
        building = self.store.root / f".new-{secrets.token_hex(8)}"
        building.mkdir(mode=0o700)
        try:
            commit = self.work.pull(job_id, building)
            accepted = Accepted.from_dict(json.loads((building / "request.json").read_text()))
            if accepted.id != job_id:
                return False
            status = Status.from_dict(json.loads((building / "status.json").read_text()))
            write_atomic(building / "status.json", to_json(asdict(_revived(status))))
            # From now on a place that still had the job can no longer write it.
            commit = self.work.push(job_id, {"status.json": building / "status.json"}, commit, whole=False)
            write_atomic(building / KEPT, to_json({"commit": commit}))
            building.rename(self.store.root / job_id)
            fsync_folder(self.store.root)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        self.store.log(job_id, "state", state=self.store.status(job_id).state, message=BACK)
        self._known.add(job_id)
        return True

    def forget(self, job_id: str) -> None:
        """Delete what is kept of a job. If the Hub does not answer, the next look does it."""
        with self._lock, contextlib.suppress(HubError):
            self._known.add(job_id)
            self._seen.pop(job_id, None)
            self.work.forget(job_id)
            self._known.discard(job_id)

    def look(self, *, all_now: bool = False) -> None:
        """Compare every job folder with what is kept of it."""
        present = set(self.store.ids())
        for job_id in self._known - present:
            self.forget(job_id)
        for job_id in sorted(present):
            try:
                self._look_at(job_id, now=all_now)
            except HubError as error:
                if error.code == "hub.conflict" or (self.config.guest and error.code == "hub.not_found"):
                    self._lose(job_id)
                else:
                    log.warning("job %s could not be kept: %s", job_id, error)
            except (TalkerError, OSError) as error:  # deleted, or replaced under our hands: the next look
                log.info("job %s is not kept yet: %s", job_id, error)

    def settle(self, tries: int = 8, pause_s: float = 2.0) -> bool:
        """Look until the Hub has everything as it is; false if it will not take it."""
        for attempt in range(tries):
            self.look(all_now=True)
            if all(self._settled(job_id) for job_id in self.store.ids()):
                return True
            time.sleep(pause_s * 2**attempt)
        return False

    # --- inside ------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._stop.wait(min(self.config.look_s, self.config.every_s)):
            try:
                self.look()
            except Exception:  # this thread must outlive whatever a half-deleted folder does
                log.exception("a look at the jobs failed")

    def _look_at(self, job_id: str, *, now: bool) -> None:
        status = self.store.status(job_id)
        kept = self._kept(job_id)
        if kept.get("lost"):
            return
        ends = any(self.store.wished(job_id, wish) for wish in ("cancel", "delete"))
        if (
            ends
            or status.state == JobState.CANCELLED
            or (self.config.forget_published and status.summary.get("published"))
        ):
            if kept.get("commit"):
                self.forget(job_id)
                (self.store.folder(job_id) / KEPT).unlink(missing_ok=True)
            return
        looks = self._looks(job_id)
        seen, when = self._seen.get(job_id, ((), 0.0))
        due = now or looks[:2] != seen[:2] or time.monotonic() - when >= self.config.every_s
        if looks != seen and due:
            with self._lock:
                self._push(job_id, status.state, kept.get("commit"))
            self._known.add(job_id)
            self._seen[job_id] = (looks, time.monotonic())

    def _settled(self, job_id: str) -> bool:
        seen = self._seen.get(job_id, ((), 0.0))[0]
        return seen == self._looks(job_id) or bool(self._kept(job_id).get("lost"))

    def _looks(self, job_id: str) -> tuple:
        """What makes a job worth another write."""
        status = self.store.status(job_id)
        return status.state, status.run, tuple(sorted(self.store.live(job_id).marks.items()))

    def _push(self, job_id: str, state: JobState, parent: str | None) -> None:
        folder = self.store.folder(job_id)
        with tempfile.TemporaryDirectory(dir=self.store.home, prefix="keeping-") as staging:
            files = {}
            for path in _worth_keeping(folder, done=state == JobState.DONE):
                name = path.relative_to(folder).as_posix()
                target = Path(staging) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                # Every one of them is replaced as a whole, so a second link to it does not change any more.
                with contextlib.suppress(FileNotFoundError):
                    os.link(path, target)
                    files[name] = target
            commit = self.work.push(job_id, files, parent)
        write_atomic(folder / KEPT, to_json({"commit": commit}))

    def _lose(self, job_id: str) -> None:
        """Another machine took the job: stop here, and leave what is kept to it."""
        log.warning("job %s is trained elsewhere by now; stopping it here", job_id)
        write_atomic(self.store.folder(job_id) / KEPT, to_json({"lost": True}))
        self._known.discard(job_id)
        self.store.wish(job_id, "stop")

    def _kept(self, job_id: str) -> dict:
        try:
            return json.loads((self.store.folder(job_id) / KEPT).read_text())
        except (FileNotFoundError, ValueError):
            return {}


def _worth_keeping(folder: Path, *, done: bool) -> list[Path]:
    """Files of a job folder from which another machine can go on."""
    names = ["request.json", "status.json", "progress.json"]
    found = [folder / name for name in names] + ([] if done else sorted(folder.glob("clip.*")))
    part = folder / ("avatar" if done else "avatar.state")
    found += [path for path in sorted(part.rglob("*")) if path.is_file()]
    hidden = (path for path in found if any(p.startswith(".") for p in path.relative_to(folder).parts))
    skip = set(hidden)
    return [path for path in found if path not in skip and path.suffix != ".tmp" and path.is_file()]


def _revived(status: Status) -> Status:
    """The status of a job on its new machine."""
    fresh = replace(status, fence=status.fence + 1, open_attempt=False, updated=time.time())
    if status.state == JobState.STOPPING:  # had it been cancelled, it would not be kept
        return replace(fresh, state=JobState.STOPPED, message="Stopped.")
    return replace(fresh, state=JobState.QUEUED, message=BACK) if status.state in ACTIVE else fresh
