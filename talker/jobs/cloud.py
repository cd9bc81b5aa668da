"""One job on a machine of the Hub: ``python -m talker.jobs.cloud JOB_ID [--bucket FOLDER]``.

What runs here is the worker's own code for a job: the same claim, the same child process with ``create``, the same
judgement of its end. Only where the job comes from and goes to differs: request and clip are fetched from the job's
private repository, progress and the finished avatar are pushed there. Checkpoints go to the bucket that every attempt
of the Job sees, or to the repository where there is none. An attempt that is killed is followed by one that goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

from talker.errors import TalkerError
from talker.hub.work import WorkRepos
from talker.jobs.keep import KeepConfig, Keeper
from talker.jobs.limits import Limits
from talker.jobs.runner import JobRunner, ShutdownError
from talker.jobs.store import JobStore

ACCOUNT, EVERY = "TALKER_WORK_ACCOUNT", "TALKER_KEEP_EVERY_S"
PLACE = "jobs"
STATE = "avatar.state/"
EXIT_DONE, EXIT_AGAIN = 0, 1


class BucketWork(WorkRepos):
    """Keeps checkpoints in a mounted bucket, everything else in the repository.

    A bucket is no disk: files are written once, from front to back, and are there when they are closed. So each is
    copied under its final name, the manifest of a checkpoint last: what has none was not copied to its end.
    """

    def __init__(self, account: str, bucket: Path) -> None:
        super().__init__(account, PLACE)
        self.bucket = bucket

    def push(self, job_id: str, files: dict[str, Path], parent: str | None, *, whole: bool = True) -> str:
        """See :meth:`WorkRepos.push`."""
        folder = self.bucket / job_id
        state = {name: path for name, path in files.items() if name.startswith(STATE)}
        for name, path in sorted(
            state.items(), key=lambda item: (item[0].endswith("manifest.json"), item[0])
        ):
            target = folder / name
            if not target.is_file() or target.stat().st_size != path.stat().st_size or name.count("/") == 1:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if whole:
            for old in [p for p in folder.rglob("*") if p.is_file()]:
                if old.relative_to(folder).as_posix() not in state:
                    old.unlink()
        rest = {name: path for name, path in files.items() if name not in state}
        return super().push(job_id, rest, parent, whole=whole)

    def pull(self, job_id: str, dest: Path, *, only: str = "") -> str:
        """See :meth:`WorkRepos.pull`."""
        commit = super().pull(job_id, dest, only=only)
        saved = self.bucket / job_id
        if saved.is_dir():
            shutil.copytree(saved, dest, dirs_exist_ok=True)
        return commit

    def forget(self, job_id: str) -> None:
        """See :meth:`WorkRepos.forget`."""
        shutil.rmtree(self.bucket / job_id, ignore_errors=True)
        super().forget(job_id)


def train(job_id: str, home: Path, bucket: Path | None) -> int:
    """Fetch the job, train it, push what became of it; returns the exit status."""
    account = os.environ[ACCOUNT]
    work = BucketWork(account, bucket) if bucket is not None else WorkRepos(account, PLACE)
    store = JobStore(home, Limits(free_bytes=0))
    every_s = float(os.environ.get(EVERY, "120"))
    keeper = Keeper(store, work, KeepConfig(every_s=every_s, forget_published=False, guest=True))
    keeper.bring_back(job_id)
    shutdown = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: shutdown.set())
    keeper.start()
    try:
        JobRunner(store, shutdown).run(job_id, store.status(job_id).run)
    except ShutdownError:
        return EXIT_AGAIN
    finally:
        keeper.stop()
    if not keeper.settle():
        return EXIT_AGAIN  # the Hub does not take the result: the next attempt begins at the last checkpoint
    if bucket is not None and not store.active():
        shutil.rmtree(bucket / job_id, ignore_errors=True)
    return EXIT_DONE


def main() -> int:
    """Command line of the Job."""
    parser = argparse.ArgumentParser(
        prog="python -m talker.jobs.cloud", description="Train one job of an app."
    )
    parser.add_argument("job")
    parser.add_argument("--bucket", type=Path, default=None, help="folder where the bucket is mounted")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for client in ("httpx", "httpx2"):  # a line for every request would be most of the log
        logging.getLogger(client).setLevel(logging.WARNING)
    if not os.environ.get(ACCOUNT):
        sys.stderr.write(f"{ACCOUNT} is not set: this is started by the app, not by hand.\n")
        return EXIT_AGAIN
    with tempfile.TemporaryDirectory(prefix="talker-cloud-") as home:
        try:
            return train(options.job, Path(home), options.bucket)
        except TalkerError as error:
            sys.stderr.write(f"{error}\n")
            return EXIT_AGAIN


if __name__ == "__main__":
    raise SystemExit(main())
