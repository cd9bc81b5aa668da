"""Commands about jobs and sharing."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from talker.cli.show import say
from talker.errors import JobError


def home_of(a: Namespace) -> Path:
    """The application's folder: ``--home``, ``$TALKER_HOME`` or ``home`` in the current directory."""
    return Path(a.home or os.environ.get("TALKER_HOME") or "home")


def publish(a: Namespace) -> None:
    """``publish AVATAR owner/name``."""
    from talker.hub import Hub

    say(Hub(token=a.token).publish(a.avatar, a.repo, private=not a.public))


def pull(a: Namespace) -> None:
    """``pull owner/name``."""
    from talker.hub import Hub

    out = a.out or Path(a.repo.split("/")[-1])
    say(str(Hub(token=a.token).pull(a.repo, out, revision=a.revision)))


def list_avatars(a: Namespace) -> None:
    """``list``: shared avatars, or local ones with ``--home``."""
    if a.home is not None:
        from talker.card import AVATAR_JSON, read_card

        for folder in sorted(p.parent for p in (a.home / "avatars").glob(f"*/{AVATAR_JSON}")):
            card = read_card(folder)
            say(f"{folder.name}  {card.preset}  {card.size} px  {card.bytes / 2**20:.1f} MB")
        return
    from talker.hub import Hub

    for found in Hub(token=a.token).search():
        say(str(found.repo_id))


def worker(a: Namespace) -> None:
    """``worker``: until SIGTERM."""
    from talker.worker import serve

    code = serve(home_of(a))
    # Threads of the queue may still wait for jobs handed over to the next worker: leave at once.
    os._exit(code)


def jobs(a: Namespace) -> None:
    """``jobs list|show|cancel|stop|resume|delete``."""
    from talker.jobs.queue import JobQueue

    queue = JobQueue(home_of(a))
    if a.action == "list":
        for job in queue.jobs():
            say(f"{job.id}  {job.state}  {job.name}  {job.stage} {job.step}/{job.total}")
        return
    if a.id is None:
        raise JobError("job.no_id", f"'jobs {a.action}' needs the id of a job.", todo="See 'jobs list'.")
    if a.action == "show":
        job = queue.get(a.id)
        for name in (
            "id",
            "name",
            "state",
            "preset",
            "size",
            "stage",
            "step",
            "total",
            "eta_s",
            "message",
            "error",
        ):
            say(f"{name}: {getattr(job, name)}")
        return
    {"cancel": queue.cancel, "stop": queue.stop, "resume": queue.resume, "delete": queue.delete}[a.action](
        a.id
    )
    say(f"{a.id}: {a.action}")
