"""Everything the app may do, for one owner at a time. No layout, no tensors; heavy parts are imported on use."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker.errors import ConfigError, TalkerError
from talker.studio import preflight, talking
from talker.studio.clips import ClipShelf
from talker.studio.config import LOCAL, StudioConfig, default_home
from talker.studio.gallery import AvatarInfo, Gallery
from talker.studio.inbox import Inbox, Upload, clean_label
from talker.studio.line import Line
from talker.studio.presets import PresetInfo, hourly_price, preset_infos
from talker.studio.sharing import Sharing
from talker.studio.speaking import Speaking

if TYPE_CHECKING:
    from talker.hub import Hub
    from talker.jobs.job import Job
    from talker.jobs.queue import JobQueue

log = logging.getLogger(__name__)

MAX_NAME = 60
EXAMPLE_S, EXAMPLE_SIZE = 16, 384

SHORT_TURN_S = 0.0005
"""A tenth of what Python gives a thread by itself."""


class Studio(Speaking):
    """The use cases of the app.

    Every method that touches something private takes ``owner`` and answers "not here" for what belongs to
    somebody else. Errors are :class:`talker.errors.TalkerError`.

    Args:
        home: Folder of everything that lasts; default ``TALKER_HOME`` or ``home`` beside the package.
        hub: The Hub; None connects on first use.
        queue: Where jobs go; None means the queue of ``home``.
        config: What the operator allows.
    """

    def __init__(
        self,
        home: Path | None = None,
        hub: Hub | None = None,
        queue: JobQueue | None = None,
        config: StudioConfig | None = None,
    ) -> None:
        self.home = Path(home or default_home()).expanduser().resolve()
        self.config = config or StudioConfig()
        self._queue = queue
        self._lock = threading.RLock()
        self._importing = threading.RLock()
        self._talked = False
        self.inbox = Inbox(self.home / "inbox")
        self.gallery = Gallery(self.home / "avatars")
        self.shelf = ClipShelf(self.home / "clips")
        self.line = Line()
        self.sharing = Sharing(self.gallery, self.home / "pulled", hub, self._engine)
        self._loader = talking.Loader(self.config.loaded_avatars)
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- clips to train from -----------------------------------------------------------------------------

    def take(self, upload: Path, owner: str) -> Upload:
        """Move an uploaded file into a private folder at once."""
        self.inbox.sweep(self.config.keep_uploads_h)
        return self.inbox.take(upload, owner, max_mb=self.config.max_upload_mb)

    def example(self, owner: str) -> Upload:
        """The example clip: a speaker drawn by code, made on first use."""
        self._engine()
        path = self.home / "examples" / f"synthetic-speaker-{EXAMPLE_S}s.mp4"
        with self._lock:
            if not path.is_file():
                from talker.dataset.sample import make_sample

                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(f".making-{path.name}")
                make_sample(unfinished, seconds=EXAMPLE_S, size=EXAMPLE_SIZE)
                unfinished.replace(path)
        return self.inbox.take(path, owner, max_mb=self.config.max_upload_mb, move=False)

    def check(self, upload_id: str, owner: str) -> preflight.Report:
        """Look at an upload: is it usable, and what could be better."""
        upload = self.inbox.get(upload_id, owner)
        return preflight.run(upload.path, upload.path.parent)

    def presets(self, seconds: float, size: int) -> list[PresetInfo]:
        """What can be chosen, with the time each takes on this machine for a clip of ``seconds``."""
        self._engine()
        return preset_infos(seconds, size, self.config.max_minutes)

    def launchers(self) -> list[str]:
        """Where a job can be trained: ``local``; ``space`` and ``jobs`` (Hugging Face Jobs) if they are set up."""
        from talker.jobs.launchers import JOBS_SETTINGS, SPACE_URL

        space = ["space"] if os.environ.get(SPACE_URL) else []
        return ["local", *space, *(["jobs"] if all(os.environ.get(name) for name in JOBS_SETTINGS) else [])]

    def price_words(self, launcher: str) -> str:
        """What training there costs, as the place itself says it; empty where it says nothing."""
        from talker.jobs.launchers import HubJobsLauncher

        if launcher != "jobs" or launcher not in self.launchers():
            return ""
        try:
            return HubJobsLauncher(self.home).price()
        except TalkerError as error:
            return f"The price is not known right now. {error}"

    def price(self, launcher: str) -> float | None:
        """Dollars an hour of a place to train: 0 for this machine, None where nobody says."""
        if launcher == "local":
            return 0.0
        if launcher != "jobs":
            return hourly_price()
        from talker.jobs.hub_jobs import quote

        try:
            return 60 * quote().price.usd_a_minute
        except TalkerError:  # price_words says why
            return None

    def consent_text(self) -> str:
        """The declaration a person has to agree to."""
        from talker.provenance import CONSENT_TEXT

        return CONSENT_TEXT

    # --- jobs --------------------------------------------------------------------------------------------

    def submit(  # noqa: PLR0913 - each is one independent choice of the person
        self,
        upload_id: str,
        owner: str,
        *,
        name: str,
        preset: str,
        size: int,
        who: str,
        agreed: bool,
        launcher: str = "local",
        part: tuple[float, float] | None = None,
    ) -> str:
        """Start the making of an avatar; returns the id of the job, which then survives anything.

        ``part`` is the first and the last second of what is used of the clip; all of it by default.

        Raises:
            ConsentError: Without the declaration and the name of who makes it.
            ConfigError: For a name, preset or size that is not offered.
            VideoError: For a part that is none, or too short.
            JobError: When the upload is gone or the queue takes no more.
        """
        from talker.jobs.job import JobRequest

        consent = self._consent(who, agreed)
        title = self._name(name)
        if size not in self.config.sizes or preset not in {p.name for p in self.presets(30, size)}:
            raise ConfigError(
                "job.options", "This quality is not offered.", todo="Reload the page and choose again."
            )
        if launcher not in self.launchers():
            raise ConfigError(
                "job.launcher", "This place to train is not set up.", todo="Choose another one."
            )
        start_s, end_s = (0.0, None) if part is None else preflight.checked_part(*part)
        upload = self.inbox.get(upload_id, owner)
        request = JobRequest(
            name=title,
            owner=owner,
            consent=consent,
            preset=preset,
            size=size,
            max_minutes=self.config.max_minutes,
            start_s=start_s,
            end_s=end_s,
            launcher=launcher,
            keep_inputs=self.config.keep_inputs,
        )
        job_id = self._jobs().submit(upload.path, request)
        self.inbox.discard(upload_id, owner)
        return job_id

    def jobs(self, owner: str) -> list[Job]:
        """The jobs of ``owner``, newest first."""
        self._collect()
        return self._jobs().jobs(owner)

    def job(self, job_id: str, owner: str) -> Job:
        """One job."""
        self._collect()
        return self._jobs().get(job_id, owner)

    def job_events(self, job_id: str, owner: str) -> list[dict[str, Any]]:
        """Everything the job reported, oldest first."""
        events: list[dict[str, Any]] = []
        offset = 0
        while True:
            more, offset = self._jobs().events(job_id, owner, after=offset)
            if not more:
                return events
            events += more

    def job_previews(self, job_id: str, owner: str) -> list[Path]:
        """Preview pictures of a job, oldest first."""
        return self._jobs().previews(job_id, owner)

    def job_clip(self, job_id: str, owner: str) -> Path | None:
        """The newest moving preview of a job (WebP), if there is one yet."""
        from talker.jobs.recorder import PREVIEW_CLIP

        self._jobs().get(job_id, owner)
        path = self._jobs().store.folder(job_id) / "previews" / PREVIEW_CLIP
        return path if path.is_file() else None

    def job_avatar(self, job_id: str) -> str | None:
        """Slug of the avatar a finished job made, if it is still here."""
        return self.gallery.find_source(f"job:{job_id}")

    def cancel(self, job_id: str, owner: str) -> None:
        """End a job for good; its work is deleted."""
        self._jobs().cancel(job_id, owner)

    def stop(self, job_id: str, owner: str) -> None:
        """Save and stop; :meth:`resume` continues."""
        self._jobs().stop(job_id, owner)

    def resume(self, job_id: str, owner: str) -> None:
        """Continue a stopped or failed job from its last checkpoint."""
        self._jobs().resume(job_id, owner)

    def delete(self, job_id: str, owner: str) -> None:
        """Delete a job with its clip, training state and log. A finished avatar stays in the gallery."""
        self._jobs().delete(job_id, owner)

    # --- avatars -----------------------------------------------------------------------------------------

    def avatars(self, owner: str = LOCAL) -> list[AvatarInfo]:
        """The avatars ``owner`` may use, newest first."""
        self._collect()
        return self.gallery.all(owner)

    def avatar(self, slug: str, owner: str = LOCAL) -> AvatarInfo:
        """One avatar."""
        return self.gallery.get(slug, owner)

    def view_of(self, slug: str, owner: str, target: Path) -> Path:
        """Write a copy of an avatar's 3D file, turned to the viewer of the browser, to ``target``."""
        self._engine()
        from talker.studio.viewing import write_view

        write_view(self.gallery.get(slug, owner).ply, target)
        return target

    def delete_avatar(self, slug: str, owner: str) -> None:
        """Delete an avatar from this machine."""
        self.gallery.delete(slug, owner)

    def splat_of(self, slug: str, owner: str, target: Path) -> Path:
        """Write the neutral pose of an avatar as a ``.splat`` to ``target``."""
        from talker.studio.viewing import write_splat

        write_splat(self.gallery.get(slug, owner).ply, target)
        return target

    def origin_of(self, clip: Path) -> dict[str, Any]:
        """What the marks of a video say about its origin; see :func:`talker.provenance.inspect`."""
        from talker.provenance import inspect

        return inspect(clip)

    # --- inside ------------------------------------------------------------------------------------------

    def start(self, *, worker: bool = True) -> None:
        """Called once by the app: clears what a crash left behind and, if wished, keeps a worker running."""
        self.shelf.sweep()
        self.inbox.sweep(self.config.keep_uploads_h)
        if worker:
            from talker.jobs.supervisor import Supervisor

            self._supervisor = Supervisor(self.home).start()

    def warm_up(self) -> None:
        """Make ready what the first who talks would otherwise wait for; meant for a background thread."""
        self._engine()
        if self._talked:
            return
        avatars = self.gallery.all(LOCAL)
        try:
            if avatars:
                talking.rehearse(self._loader.load(avatars[0]))
            else:  # on a new machine the first avatar then finds its renderer compiled
                from talker.render import warmup

                warmup()
        except TalkerError as error:  # whoever uses that avatar is told
            log.warning("no rehearsal: %s", error)

    def _engine(self) -> None:
        """Import what loads, drives and trains avatars: seconds, which lists and pages do without.

        One thread at a time: numba and PyTorch import each other's halves in circles, and two threads that start
        at different ends get a half-made module.
        """
        with self._importing:
            # A page is served in some hundred short turns of other threads: let them wait less for this one.
            turn = sys.getswitchinterval()
            sys.setswitchinterval(SHORT_TURN_S)
            try:
                import talker.checkpoint
                import talker.drive
                import talker.hub
                import talker.render.cpu.autograd
                import talker.train.presets
                import talker.video.live  # noqa: F401
            finally:
                sys.setswitchinterval(turn)

    def _consent(self, who: str, agreed: bool) -> Any:
        from talker.errors import ConsentError
        from talker.provenance import new_consent, require

        if not agreed or not who.strip():
            raise ConsentError(
                "consent.missing",
                "The declaration of consent is not complete.",
                todo="Read it, tick the box and write your name." if not agreed else "Write your name.",
            )
        consent = new_consent(who.strip()[:MAX_NAME])
        require(consent)
        return consent

    @staticmethod
    def _name(name: str) -> str:
        title = clean_label(" ".join(name.replace("/", " ").split()), default="")[:MAX_NAME].strip()
        if not title:
            raise ConfigError(
                "job.name", "The avatar has no name.", todo="Give it one, for example your own."
            )
        return title

    def _jobs(self) -> JobQueue:
        with self._lock:
            if self._queue is None:
                from talker.jobs.queue import JobQueue

                self._queue = JobQueue(self.home)
            return self._queue

    def _collect(self) -> None:
        """Move the avatars of finished jobs into the gallery; safe to repeat after a crash at any point."""
        from talker.jobs.job import JobState

        with self._lock:
            for job in self._jobs().jobs():
                folder = self._jobs().store.folder(job.id) / "avatar"
                if job.state != JobState.DONE or not (folder / "avatar.json").is_file():
                    continue
                try:
                    self._name_card(folder, job.name)
                except TalkerError as error:
                    # One damaged folder must not hide everybody's jobs.
                    log.error("the avatar of job %s cannot be read: %s", job.id, error)
                    continue
                slug = self.gallery.adopt(folder, job.name, job.owner, f"job:{job.id}")
                log.info("job %s became avatar %s", job.id, slug)

    @staticmethod
    def _name_card(folder: Path, name: str) -> None:
        from talker.card import read_card, update_card

        if read_card(folder).name != name:
            update_card(folder, name=name)
