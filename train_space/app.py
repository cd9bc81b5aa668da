"""A train Space: takes clips over HTTP, trains avatars in its own queue, hands them back. Wiring only.

Settings (environment; secrets of a Space):
    TALKER_SPACE_TOKENS   one or more tokens, separated by commas; each sees its own jobs only. Required.
    HF_TOKEN              lets finished avatars be published to the repository a job names.
    TALKER_HOME           folder for jobs; default ``~/talker-train``.
    TALKER_MAX_UPLOAD_MB  largest clip; default 300.
    TALKER_KEEP_DAYS      how long ended jobs stay; default 3.
    TALKER_KEEP_WORK      "off": do not keep unfinished jobs on the Hub. By default they are, with an HF_TOKEN.
    TALKER_KEEP_EVERY_S   seconds between two checkpoints that are kept; default 120.
    TALKER_KEEP_ACCOUNT   account that holds them; default that of the token.
    TALKER_SPACE_NAME     name of this machine, the same after it is replaced; default SPACE_ID, else the host's name.
    TALKER_SLEEP_MINUTES  a Space without work and visits sleeps after so many; needs an HF_TOKEN. Default: it stays.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if (
    Path(__file__).parents[1] / "talker"
).is_dir():  # started from the repository; on a Space talker/ lies beside
    sys.path.insert(0, str(Path(__file__).parents[1]))

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from talker.errors import JobError, TalkerError
from talker.hub.work import WorkRepos
from talker.jobs.idle import SleepWhenIdle
from talker.jobs.job import Job, JobRequest, JobState
from talker.jobs.keep import KeepConfig, Keeper
from talker.jobs.launchers import TOKEN_HEADER
from talker.jobs.limits import Limits
from talker.jobs.queue import JobQueue
from talker.jobs.recorder import PREVIEW_CLIP
from talker.jobs.store import DEFAULT_RUNNER
from talker.jobs.supervisor import ensure_worker, worker_state

log = logging.getLogger(__name__)

RESULT_FILES = 64
HAND_OUT_S = 3600.0
GUARDED = ("/gradio_api/upload", "/gradio_api/file", "/upload", "/file")


@dataclass(frozen=True)
class SpaceConfig:
    """Settings of one train Space."""

    home: Path
    tokens: tuple[str, ...]
    max_upload_mb: int = 300
    keep_days: float = 3.0
    max_waiting: int = 20
    free_gb: float = 2.0
    runner: str = DEFAULT_RUNNER
    keep: bool = False
    """Keep unfinished jobs on the Hub."""
    keep_every_s: float = 120.0
    keep_account: str | None = None
    place: str = "here"
    """Name of this machine, under which its successor finds them."""
    space_id: str = ""
    sleep_minutes: float = 0.0
    """0: never, or this is no Space."""
    look_s: float = 20.0
    """Seconds between two looks whether it may sleep."""

    @classmethod
    def from_environment(cls) -> SpaceConfig:
        """Read the settings; see the head of this file."""
        tokens = tuple(t.strip() for t in os.environ.get("TALKER_SPACE_TOKENS", "").split(",") if t.strip())
        if not tokens:
            raise SystemExit("TALKER_SPACE_TOKENS is not set: without a token nobody could use this Space.")
        return cls(
            home=Path(os.environ.get("TALKER_HOME") or Path.home() / "talker-train").resolve(),
            tokens=tokens,
            max_upload_mb=int(os.environ.get("TALKER_MAX_UPLOAD_MB", "300")),
            keep_days=float(os.environ.get("TALKER_KEEP_DAYS", "3")),
            keep=bool(os.environ.get("HF_TOKEN")) and os.environ.get("TALKER_KEEP_WORK", "").lower() != "off",
            keep_every_s=float(os.environ.get("TALKER_KEEP_EVERY_S", "120")),
            keep_account=os.environ.get("TALKER_KEEP_ACCOUNT") or None,
            place=os.environ.get("TALKER_SPACE_NAME") or os.environ.get("SPACE_ID") or socket.gethostname(),
            space_id=os.environ.get("SPACE_ID", ""),
            sleep_minutes=float(os.environ.get("TALKER_SLEEP_MINUTES", "0")),
        )


class Service:
    """The four endpoints. Every one checks the token; a job of another token does not exist."""

    def __init__(self, config: SpaceConfig) -> None:
        self.config = config
        limits = Limits(
            free_bytes=int(config.free_gb * (1 << 30)),
            max_waiting=config.max_waiting,
            max_clip_bytes=config.max_upload_mb << 20,
        )
        self.queue = JobQueue(config.home, runner=config.runner, limits=limits)
        self.keeper: Keeper | None = None
        if config.keep:
            work = WorkRepos(config.keep_account, config.place, token=os.environ.get("HF_TOKEN"))
            self.keeper = Keeper(self.queue.store, work, KeepConfig(every_s=config.keep_every_s))

    def start(self) -> None:
        """Bring back what an earlier machine left, then follow the jobs; before any worker starts."""
        if self.keeper is not None:
            back = self.keeper.restore()
            log.info("brought back %d jobs of an earlier machine", back)
            atexit.register(self.keeper.start().stop)
        if self.config.space_id and self.config.sleep_minutes > 0:
            after_s = max(300, round(60 * self.config.sleep_minutes))
            token = os.environ.get("HF_TOKEN")
            sleep = SleepWhenIdle(
                self.queue.store, self.config.space_id, after_s, token=token, look_s=self.config.look_s
            )
            sleep.start()

    def owner(self, header: str | None) -> str:
        """The owner a token stands for.

        Raises:
            JobError: ``job.space_token``.
        """
        given = (header or "").removeprefix("Bearer ").encode()
        # Compare with every token, always in full: the time taken says nothing about any of them.
        matches = [hmac.compare_digest(given, token.encode()) for token in self.config.tokens]
        if not any(matches):
            raise JobError(
                "job.space_token", "The train Space does not accept the token.", todo="Check the token."
            )
        return "token-" + hashlib.sha256(given).hexdigest()[:16]

    def submit(self, owner: str, clip: str | None, wanted: str) -> dict[str, Any]:
        """Accept a clip; returns the id of the job."""
        self._sweep()
        if not clip:
            raise JobError("job.clip", "No clip was sent.")
        path = Path(clip)
        try:
            value = json.loads(wanted)
            request = replace(JobRequest.from_dict(value), owner=owner, launcher="local", keep_inputs=False)
            job_id = value.get("job_id")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JobError("job.request", "The request is malformed.") from error
        try:
            accepted = self.queue.submit(path, request, job_id=str(job_id) if job_id else None)
        finally:
            path.unlink(missing_ok=True)  # the upload folder of Gradio is no place for a face
        self.queue.get(accepted, owner)  # an id that belongs to somebody else is refused
        return {"id": accepted}

    def status(self, owner: str, job_id: str, after: float, preview: str) -> dict[str, Any]:
        """The job, its events since ``after``, its newest picture unless that is ``preview``.

        The moving preview goes along with the event that says it is there, so each look but one is small.
        """
        job = self.queue.get(job_id, owner)
        events, offset = self.queue.events(job_id, owner, after=int(after))
        answer: dict[str, Any] = {"job": job.to_dict(), "events": events, "next": offset}
        wanted: dict[str, str] = {}
        if job.preview and job.preview != preview:
            wanted["preview_png"] = job.preview
        if any(event.get("type") == "clip" for event in events):
            wanted["clip_webp"] = PREVIEW_CLIP
        for key, name in wanted.items():
            with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
                content = (self.queue.store.folder(job_id) / "previews" / name).read_bytes()
                answer[key] = base64.b64encode(content).decode()
        return answer

    def cancel(self, owner: str, job_id: str, order: str) -> dict[str, Any]:
        """Stop, cancel, resume or delete."""
        orders: dict[str, Callable[[str, str], object]] = {
            "stop": self.queue.stop,
            "cancel": self.queue.cancel,
            "resume": self.queue.resume,
            "delete": self.queue.delete,
        }
        if order not in orders:
            raise JobError("job.order", "There is no such order.", expected=f"One of {', '.join(orders)}.")
        self.queue.get(job_id, owner)  # somebody else's is not touched, here nor on the Hub
        if self.keeper is not None and order in ("cancel", "delete"):
            self.keeper.forget(job_id)  # first: a job that is gone must not come back on another machine
        orders[order](job_id, owner)
        return {"ok": True}

    def result(self, owner: str, job_id: str) -> tuple[dict[str, Any], list[str]]:
        """Where the finished avatar is: published, or as files."""
        job = self.queue.get(job_id, owner)
        if job.state != JobState.DONE:
            raise JobError("job.state", f"The job is {job.state}, so there is no avatar yet.")
        if job.summary.get("published"):
            return {"repo_id": job.repo_id, "url": job.summary["published"]}, []
        folder = self.queue.store.folder(job_id) / "avatar"
        return {"repo_id": None}, self._hand_out(
            [path for path in sorted(folder.iterdir()) if path.is_file()]
        )

    def _hand_out(self, files: list[Path]) -> list[str]:
        """Links in the one folder the server may read; old ones are removed."""
        root = self.config.home / "out"
        for old in root.glob("*"):
            if time.time() - old.stat().st_mtime > HAND_OUT_S:
                shutil.rmtree(old, ignore_errors=True)
        folder = root / secrets.token_hex(16)
        folder.mkdir(parents=True, mode=0o700)
        for path in files[:RESULT_FILES]:
            os.link(path, folder / path.name)
        return [str(path) for path in sorted(folder.iterdir())]

    def overview(self) -> str:
        """One line without anything private."""
        jobs = self.queue.jobs()
        running = sum(job.state in (JobState.RUNNING, JobState.STOPPING) for job in jobs)
        waiting = sum(job.state == JobState.QUEUED for job in jobs)
        worker = "ready" if worker_state(self.config.home).alive else "starting"
        return f"Worker {worker}. {running} training, {waiting} waiting."

    def _sweep(self) -> None:
        """Ended jobs do not stay: whoever wanted the avatar has fetched it."""
        limit = time.time() - self.config.keep_days * 86400
        for job in self.queue.jobs():
            if _ended_before(job, limit):
                with contextlib.suppress(JobError):
                    self.queue.delete(job.id)


def _ended_before(job: Job, limit: float) -> bool:
    return not job.active and job.updated < limit


class TokenGate:
    """ASGI middleware: uploads and files need the token, and no request is larger than allowed."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.max_bytes = (service.config.max_upload_mb << 20) + (1 << 20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer 401 or 413."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if path.startswith(GUARDED):
            try:
                self.service.owner(headers.get(TOKEN_HEADER))
            except JobError:
                await _refuse(send, 401)
                return
        if int(headers.get("content-length") or 0) > self.max_bytes:
            await _refuse(send, 413)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # A body without a declared length is cut off as a dropped connection is.
            return {"type": "http.disconnect"} if received > self.max_bytes else message

        await self.app(scope, limited, send)


async def _refuse(send: Send, status: int) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}
    )
    await send({"type": "http.response.body", "body": b"refused"})


def build_app(service: Service) -> gr.Blocks:
    """The status page and the four endpoints."""

    def guarded(work: Callable[[str], Any], request: gr.Request) -> Any:
        """The answer, or a typed error as data: the caller shows it in its own words."""
        try:
            return work(service.owner(request.headers.get(TOKEN_HEADER)))
        except TalkerError as error:
            words = {"code": error.code, "found": error.found, "expected": error.expected, "todo": error.todo}
            return {"error": {"kind": type(error).__name__, **words}}

    def submit(clip: str | None, wanted: str, request: gr.Request) -> dict[str, Any]:
        """Queue a clip: a JSON request in, the id of the job out."""
        return guarded(lambda owner: service.submit(owner, clip, wanted), request)

    def status(job_id: str, after: float, preview: str, request: gr.Request) -> dict[str, Any]:
        """A job and what happened since."""
        return guarded(lambda owner: service.status(owner, job_id, after, preview), request)

    def cancel(job_id: str, order: str, request: gr.Request) -> dict[str, Any]:
        """Stop, cancel, resume or delete a job."""
        return guarded(lambda owner: service.cancel(owner, job_id, order), request)

    def result(job_id: str, request: gr.Request) -> tuple[dict[str, Any], list[str]]:
        """The finished avatar: where it was published, or its files."""
        answer = guarded(lambda owner: service.result(owner, job_id), request)
        return answer if isinstance(answer, tuple) else (answer, [])

    with gr.Blocks(title="talker train Space", delete_cache=(3600, 86400)) as demo:
        gr.Markdown(
            "# talker train Space\nTrains talking avatars for a talker app. Nothing to do here by hand."
        )
        state = gr.Markdown(service.overview())
        demo.load(service.overview, outputs=state, api_visibility="private")
        with gr.Column(visible=False):
            clip = gr.File(label="clip", type="filepath")
            texts = [gr.Textbox(label=label) for label in ("request", "job", "order", "preview")]
            wanted, job_id, order, preview = texts
            after = gr.Number(label="after", value=0)
            answer, files = gr.JSON(label="answer"), gr.File(label="files", file_count="multiple")
            button = gr.Button("call")
            # Handlers are quick (training is in the worker), so they need not wait for one another.
            limit = {"concurrency_limit": 8, "show_progress": "hidden"}
            button.click(submit, [clip, wanted], answer, api_name="submit", **limit)
            button.click(status, [job_id, after, preview], answer, api_name="status", **limit)
            button.click(cancel, [job_id, order], answer, api_name="cancel", **limit)
            button.click(result, [job_id], [answer, files], api_name="result", **limit)
    demo.queue(api_open=False, max_size=64)
    return demo


def launch(config: SpaceConfig, **options: Any) -> gr.Blocks:
    """Start worker and server; ``options`` go to ``gr.Blocks.launch``."""
    service = Service(config)
    service.start()
    ensure_worker(config.home, runner=config.runner)
    demo = build_app(service)
    settings: dict[str, Any] = {
        "max_file_size": config.max_upload_mb << 20,
        "allowed_paths": [str(config.home / "out")],
        "blocked_paths": [str(config.home / "queue"), str(config.home / "jobs")],
        "show_error": False,
        "share": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "app_kwargs": {"middleware": [Middleware(TokenGate, service=service)]},
    }
    demo.launch(**{**settings, **options})
    return demo


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    launch(SpaceConfig.from_environment())
