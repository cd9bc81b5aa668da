"""Where a job can be trained: here, in a train Space, or on a machine of the Hub. One small interface for all."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from talker import errors
from talker.errors import HubError, JobError, TalkerError
from talker.jobs.job import Job, JobRequest
from talker.jobs.limits import Limits
from talker.jobs.queue import JobQueue
from talker.jobs.store import DEFAULT_RUNNER

if TYPE_CHECKING:
    from gradio_client import Client

SPACE_URL, SPACE_TOKEN = "TALKER_SPACE_URL", "TALKER_SPACE_TOKEN"
JOBS_SETTINGS = ("TALKER_JOBS_ACCOUNT", "TALKER_JOBS_IMAGE", "HF_TOKEN")
TOKEN_HEADER = "x-talker-authorization"
"""Not ``Authorization``: in front of a private Space that one belongs to the Hub."""
Order = Literal["stop", "cancel", "resume", "delete"]
MAX_FILE_BYTES, MAX_FILES = 1 << 30, 64
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_WORDS: Mapping[str, str] = {
    "code": "job.space",
    "found": "The train Space refused.",
    "expected": "",
    "todo": "",
}


@dataclass(frozen=True)
class Report:
    """A job and what happened to it since the last look."""

    job: Job
    events: list[dict[str, Any]]
    """As :meth:`talker.jobs.store.JobStore.events`."""
    next: int
    """Offset to ask with next time."""
    preview: bytes | None = None
    """Newest picture (PNG), if it is another than the one known."""
    clip: bytes | None = None
    """The moving preview (WebP), once: with the event that says it is there."""


class Launcher(Protocol):
    """What every place to train can do."""

    name: str

    def submit(self, clip: Path, request: JobRequest, *, job_id: str | None = None) -> str:
        """Hand over clip and request; returns the id of the job, which from now on survives anything."""
        ...

    def status(self, job_id: str) -> Job:
        """Where the job stands."""
        ...

    def stop(self, job_id: str) -> None:
        """Save and stop."""
        ...

    def cancel(self, job_id: str) -> None:
        """End for good and delete the work."""
        ...

    def resume(self, job_id: str) -> None:
        """Go on from the last checkpoint."""
        ...

    def delete(self, job_id: str) -> None:
        """Delete every trace."""
        ...

    def fetch(self, job_id: str, dest: Path) -> Path:
        """Bring the finished avatar to ``dest``."""
        ...


class LocalLauncher:
    """The queue of this machine. It also carries the jobs that follow a train Space: see ``talker.jobs.remote``.

    Args:
        home: Folder of the application.
        runner: Module that trains.
        limits: What is accepted.
    """

    name = "local"

    def __init__(self, home: Path, *, runner: str = DEFAULT_RUNNER, limits: Limits | None = None) -> None:
        self.queue = JobQueue(home, runner=runner, limits=limits)

    def submit(self, clip: Path, request: JobRequest, *, job_id: str | None = None) -> str:
        """See :class:`Launcher`."""
        return self.queue.submit(clip, request, job_id=job_id)

    def status(self, job_id: str) -> Job:
        """See :class:`Launcher`."""
        return self.queue.get(job_id)

    def stop(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.queue.stop(job_id)

    def cancel(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.queue.cancel(job_id)

    def resume(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.queue.resume(job_id)

    def delete(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.queue.delete(job_id)

    def fetch(self, job_id: str, dest: Path) -> Path:
        """See :class:`Launcher`; the avatar is moved."""
        return self.queue.take_avatar(job_id, dest)


class HubJobsLauncher(LocalLauncher):
    """Hugging Face Jobs: each job of the queue rents a machine for itself; see ``talker.jobs.hub_jobs``."""

    name = "jobs"

    def submit(self, clip: Path, request: JobRequest, *, job_id: str | None = None) -> str:
        """See :class:`Launcher`; show :meth:`price` first."""
        return super().submit(clip, replace(request, launcher="jobs"), job_id=job_id)

    def price(self) -> str:
        """What a job costs, in words: the machine, its price an hour, and the most that may be spent.

        Raises:
            JobError: ``job.launcher``: Jobs are not set up.
            HubError: The Hub cannot be reached, or has no such machine.
        """
        from talker.jobs.hub_jobs import quote

        return str(quote())

    def logs(self, job_id: str) -> list[str]:
        """The last lines the machine printed; empty before it started.

        Raises:
            JobError: ``job.launcher``.
            HubError: The Hub cannot be reached.
        """
        from talker.jobs.hub_jobs import LABEL, JobsConfig

        compute = JobsConfig.from_environment().compute
        found = compute.find(LABEL, job_id)
        return compute.logs(found.id) if found is not None else []


class SpaceLauncher:
    """A train Space (``train_space/``) reached over HTTP.

    Args:
        url: Address, or ``owner/name`` on the Hub.
        token: The Space's own token.
        hub_token: Hub token for a private Space; also used to fetch the avatar from the Hub.

    Raises:
        JobError: ``job.space_token``: the token cannot be one.
    """

    name = "space"

    def __init__(self, url: str, token: str, *, hub_token: str | None = None) -> None:
        if not re.fullmatch(r"[!-~]+", token):  # it travels in a header
            raise refused(401)
        self._url, self._token, self._hub_token = url, token, hub_token
        self._client: Client | None = None
        self._downloads = Path(tempfile.mkdtemp(prefix="talker-space-"))

    @classmethod
    def from_environment(cls) -> SpaceLauncher:
        """The Space named by ``TALKER_SPACE_URL``, with ``TALKER_SPACE_TOKEN`` and ``HF_TOKEN``.

        Raises:
            JobError: ``job.launcher``: no Space is set up.
        """
        url, token = os.environ.get(SPACE_URL), os.environ.get(SPACE_TOKEN)
        if not url or not token:
            raise JobError(
                "job.launcher",
                "No train Space is set up.",
                expected=f"{SPACE_URL} and {SPACE_TOKEN} name it.",
                todo="Train on this machine, or set both and start the app again.",
            )
        return cls(url, token, hub_token=os.environ.get("HF_TOKEN"))

    def close(self) -> None:
        """Delete what was downloaded on the way."""
        shutil.rmtree(self._downloads, ignore_errors=True)

    def submit(self, clip: Path, request: JobRequest, *, job_id: str | None = None) -> str:
        """Upload the clip; with ``job_id`` repeating it is harmless. See :class:`Launcher`."""
        from gradio_client import handle_file

        wanted = asdict(request) | {"job_id": job_id, "clip_name": clip.name}
        return self._call("/submit", handle_file(clip), json.dumps(wanted))["id"]

    def status(self, job_id: str) -> Job:
        """See :class:`Launcher`."""
        return self.poll(job_id).job

    def poll(self, job_id: str, *, after: int = 0, preview: str = "") -> Report:
        """The job, its events since ``after``, and its newest picture unless that is ``preview``."""
        answer = self._call("/status", job_id, after, preview)
        try:
            picture, clip = answer.get("preview_png"), answer.get("clip_webp")
            return Report(
                job=Job.from_dict(answer["job"]),
                events=[event for event in answer["events"] if isinstance(event, dict)],
                next=int(answer["next"]),
                preview=base64.b64decode(picture, validate=True) if picture else None,
                clip=base64.b64decode(clip, validate=True) if clip else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(
                "job.space",
                "The train Space answered something unknown.",
                todo="Bring both to the same version.",
            ) from error

    def stop(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.order(job_id, "stop")

    def cancel(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.order(job_id, "cancel")

    def resume(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.order(job_id, "resume")

    def delete(self, job_id: str) -> None:
        """See :class:`Launcher`."""
        self.order(job_id, "delete")

    def order(self, job_id: str, order: Order) -> None:
        """Send one of the four wishes."""
        self._call("/cancel", job_id, order)

    def fetch(self, job_id: str, dest: Path) -> Path:
        """Bring the finished avatar here: from the Hub if it was published there, else file by file.

        Raises:
            JobError: ``job.space``, ``job.state``.
            HubError: The Hub refuses, or cannot be reached.
        """
        answer, files = self._predict("/result", job_id)
        self._raise(answer)
        repo_id = answer.get("repo_id")
        if repo_id:
            from talker.hub import Hub

            return Hub(token=self._hub_token).pull(str(repo_id), dest, replace=True)
        return self._unpack(files or [], dest)

    def _unpack(self, files: list[str], dest: Path) -> Path:
        """Move downloaded files into ``dest``: plain names only, checked before anything is visible."""
        building = dest.with_name(f".fetch-{dest.name}")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        try:
            if not 0 < len(files) <= MAX_FILES:
                raise JobError(
                    "job.space", f"The train Space sent {len(files)} files.", expected="An avatar has a few."
                )
            for file in map(Path, files):
                if not _FILE_NAME.fullmatch(file.name) or file.stat().st_size > MAX_FILE_BYTES:
                    raise JobError("job.space", "The train Space sent a file that is no part of an avatar.")
                shutil.move(file, building / file.name)
            shutil.rmtree(dest, ignore_errors=True)
            building.rename(dest)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return dest

    def _call(self, endpoint: str, *arguments: object) -> dict[str, Any]:
        answer = self._predict(endpoint, *arguments)
        self._raise(answer)
        return answer

    def _predict(self, endpoint: str, *arguments: object) -> Any:
        """One call; whatever goes wrong on the way is one :class:`JobError` that says whether to try again."""
        import httpx

        try:
            if self._client is None:
                self._client = self._connect()
            return self._client.predict(*arguments, api_name=endpoint)
        except httpx.HTTPStatusError as error:
            self._client = None
            raise refused(error.response.status_code) from error
        except (httpx.HTTPError, OSError, ValueError, TimeoutError) as error:
            # gradio_client raises ValueError for everything the server refuses (AppError, AuthenticationError, 404).
            self._client = None
            raise JobError(
                "job.space_unreachable",
                f"The train Space cannot be reached ({type(error).__name__}).",
                todo="It may be starting; the job goes on by itself once it answers.",
            ) from error

    def _connect(self) -> Client:
        from gradio_client import Client

        return Client(
            self._url,
            token=self._hub_token,
            headers={TOKEN_HEADER: f"Bearer {self._token}"},
            verbose=False,
            download_files=self._downloads,
            analytics_enabled=False,
            httpx_kwargs={"timeout": 120.0},
        )

    @staticmethod
    def _raise(answer: Any) -> None:
        if not isinstance(answer, dict):
            raise JobError("job.space", "The train Space answered something unknown.")
        told = answer.get("error")
        if told:
            words = {key: str(told.get(key, default))[:500] for key, default in _WORDS.items()}
            kind = getattr(errors, str(told.get("kind")), JobError)
            kind = kind if isinstance(kind, type) and issubclass(kind, TalkerError) else JobError
            raise kind(words["code"], words["found"], expected=words["expected"], todo=words["todo"])


def launchers(home: Path) -> dict[str, Launcher]:
    """The places the app can offer, by the name a :class:`JobRequest` carries in ``launcher``.

    ``space`` is there when ``TALKER_SPACE_URL`` and ``TALKER_SPACE_TOKEN`` are set, ``jobs`` when
    ``TALKER_JOBS_ACCOUNT``, ``TALKER_JOBS_IMAGE`` and ``HF_TOKEN`` are. All go through this machine's queue: a job
    elsewhere is followed by a job here, so that it survives everything a local one does.
    """
    local = LocalLauncher(home)
    found: dict[str, Launcher] = {"local": local}
    if os.environ.get(SPACE_URL) and os.environ.get(SPACE_TOKEN):
        found["space"] = local
    if all(os.environ.get(name) for name in JOBS_SETTINGS):
        found["jobs"] = HubJobsLauncher(home)
    return found


def refused(status: int) -> JobError:
    """What an HTTP status of the train Space means."""
    if status in (401, 403):
        return JobError(
            "job.space_token", "The train Space does not accept the token.", todo=f"Check {SPACE_TOKEN}."
        )
    if status == 413:
        return JobError("job.space_size", "The clip is too large for the train Space.", todo="Shorten it.")
    return JobError(
        "job.space_unreachable",
        f"The train Space answered with status {status}.",
        todo="It may be starting; the job goes on by itself once it answers.",
    )


def retryable(error: TalkerError) -> bool:
    """Whether the same call may work later."""
    return isinstance(error, HubError) or error.code == "job.space_unreachable"
