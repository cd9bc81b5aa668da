"""Is a job ever lost, finished twice, or alive again after it was cancelled? Random kills, random cancels, counted.

    python -m benchmarks.chaos_jobs kills [--number 200] [--jobs 30] [--workers 1] [--database URL] [--seed 0]
    python -m benchmarks.chaos_jobs cancels [--number 500] ...

The jobs are those of ``tests/tiny_trainer.py``: two stages, real checkpoints, a result that any repeated or skipped
step would change. Half of the kills hit a worker, half a trainer, at any moment, starting included. Writes
``benchmarks/results/chaos_jobs_<what>.json``; the exit status is 0 only if nothing was lost, doubled or resurrected.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from talker.errors import JobError
from talker.jobs.database import DATABASE_VARIABLE
from talker.jobs.job import JobRequest, JobState
from talker.jobs.leases import WORKER_VARIABLE
from talker.jobs.limits import Limits
from talker.jobs.queue import JobQueue
from talker.train.origin import commit, machine
from talker.types import Consent

RESULTS = Path(__file__).parent / "results"
TESTS = Path(__file__).parents[1] / "tests"
RUNNER = "tiny_trainer"
CONSENT = Consent("A measurement; deleted when it ends.", "bench", "2026-01-01T00:00:00Z")
WORKER = """
import os, sys
from pathlib import Path
from talker.jobs.runner import RunnerConfig
from talker.worker import WorkerConfig, serve
# Whoever is killed without end must not give up: here that is the measurement and not the job's fault.
patient = RunnerConfig(attempts=10**6, interruptions=10**6, retry_wait_s=0.1)
os._exit(serve(Path(sys.argv[1]), runner=sys.argv[2], config=WorkerConfig(reconcile_s=1.0), runner_config=patient))
"""


class Chaos:
    """Jobs, and workers that do not survive.

    Args:
        home: Folder of the jobs.
        workers: How many.
        database: Shared queue; None for SQLite and one worker.
        seed: Of every choice.
    """

    def __init__(self, home: Path, workers: int, database: str | None, seed: int) -> None:
        self.home, self.dice = home, random.Random(seed)
        limits = Limits(free_bytes=0, max_waiting=10**6)
        self.queue = JobQueue(home, database_url=database, runner=RUNNER, limits=limits)
        self.queue.prepare_database()
        self.env = {k: v for k, v in os.environ.items() if k not in (DATABASE_VARIABLE, WORKER_VARIABLE)}
        self.env |= {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"}
        if database:
            self.env[DATABASE_VARIABLE] = database
        self.until = float("inf")
        """When to stop making trouble, by ``time.monotonic``."""
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        for number in range(workers):
            self.start(f"chaos{number}")

    def start(self, name: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(self.home), RUNNER],
                env=self.env | {WORKER_VARIABLE: name},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill_a_worker(self) -> None:
        name, process = self.dice.choice(sorted(self.workers.items()))
        process.kill()
        process.wait()
        self.start(name)

    def kill_a_trainer(self) -> bool:
        running = self.trainers()
        if not running:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.dice.choice(running), signal.SIGKILL)
        return True

    def wait_for_a_trainer(self, timeout_s: float) -> None:
        """On a busy machine a worker needs long until its trainer works, and a kill at any moment hits little."""
        until = time.monotonic() + timeout_s
        while not self.trainers() and time.monotonic() < until:
            self.revive()
            time.sleep(0.05)

    def trainers(self) -> list[int]:
        """Processes that work inside a job folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if (entry / "cwd").readlink().is_relative_to(self.home / "jobs"):
                        found.append(int(entry.name))
        return found

    def revive(self) -> None:
        """A worker that ended by itself is started again, as a supervisor would."""
        for name, process in list(self.workers.items()):
            if process.poll() is not None:
                self.start(name)

    def submit(self, number: int, steps: int, step_s: float) -> str:
        clip = self.home / "clip.mp4"
        clip.write_bytes(f"clip {number}".encode() * 50)
        options = {"steps": steps, "step_s": step_s, "checkpoint_every": 5}
        request = JobRequest(f"job {number}", "chaos", CONSENT, options=options)
        return self.queue.submit(clip, request)

    def states(self, job_id: str) -> list[str]:
        """Every state the job's log records, in order."""
        return [e["state"] for e in self.queue.events(job_id)[0] if e["type"] == "state"]

    def wait_idle(self, timeout_s: float) -> None:
        """Until no job is active, or the time is over."""
        until = time.monotonic() + timeout_s
        while self.queue.store.active() and time.monotonic() < until:
            self.revive()
            time.sleep(0.2)

    def end(self) -> None:
        for process in self.workers.values():
            process.kill()
            process.wait()


def expected(number: int, steps: int, folder: Path) -> bytes:
    """The result of a job that nobody disturbs."""
    sys.path.insert(0, str(TESTS))
    import tiny_trainer

    folder.mkdir()
    clip = folder / "clip.mp4"
    clip.write_bytes(f"clip {number}".encode() * 50)
    config = tiny_trainer.CreateConfig(steps=steps, step_s=0.0, checkpoint_every=10**6)
    for _ in tiny_trainer.create(clip, folder / "avatar", CONSENT, config):
        pass
    return (folder / "avatar" / "avatar.json").read_bytes()


def kills(chaos: Chaos, number: int, jobs: int, calm: Path) -> dict:
    """Kill until ``number`` kills are done; new jobs follow whenever the old ones are finished."""
    dice, steps = chaos.dice, 60
    ids: list[str] = []
    done = {"worker": 0, "trainer": 0}
    while sum(done.values()) < number and time.monotonic() < chaos.until:
        if sum(1 for _, s in chaos.queue.store.active()) < 3:
            ids += [chaos.submit(len(ids) + i, steps, 0.04) for i in range(max(3, jobs // 10))]
        hit_trainer = dice.random() < 0.5
        if hit_trainer or dice.random() < 0.6:  # the rest hit a worker while it starts, claims or ends a job
            chaos.wait_for_a_trainer(60.0)
        time.sleep(dice.uniform(0.0, 2.0))
        chaos.revive()
        if not (hit_trainer and chaos.kill_a_trainer()):
            chaos.kill_a_worker()
            done["worker"] += 1
        else:
            done["trainer"] += 1
    ids += [chaos.submit(len(ids) + i, steps, 0.04) for i in range(max(0, jobs - len(ids)))]
    chaos.wait_idle(400.0)
    lost = [i for i in ids if chaos.queue.get(i).state != JobState.DONE]
    twice = [i for i in ids if chaos.states(i).count("done") > 1]
    wrong, repeated = [], 0
    for index, job_id in enumerate(ids):
        folder = chaos.queue.store.folder(job_id)
        if job_id not in lost:
            result = (folder / "avatar" / "avatar.json").read_bytes()
            wrong += [job_id] if result != expected(index, steps, calm / str(index)) else []
            lines = (folder / "avatar.state" / "trace").read_text().splitlines()
            repeated += len(lines) - len(set(lines))
    return {
        "kills": done,
        "jobs": len(ids),
        "lost": len(lost),
        "finished_twice": len(twice),
        "results_that_differ": len(wrong),
        "steps": 2 * steps * len(ids),
        "steps_repeated": repeated,
        "bad": len(lost) + len(twice) + len(wrong),
    }


def cancels(chaos: Chaos, number: int) -> dict:
    """Cancel jobs that wait, start, train and end; kill workers in between; nobody may come back."""
    dice = chaos.dice
    when = {"waiting": 0, "running": 0, "too late": 0}
    ids: list[str] = []
    late: set[str] = set()
    while when["waiting"] + when["running"] < number and time.monotonic() < chaos.until:
        batch = [chaos.submit(len(ids) + i, 4000, 0.01) for i in range(10)]
        batch += [chaos.submit(len(ids) + 10, 2, 0.0)]  # ends by itself, perhaps before it is cancelled
        ids += batch
        time.sleep(dice.uniform(0.0, 3.0))
        for job_id in dice.sample(batch, len(batch)):
            if dice.random() < 0.1:
                time.sleep(dice.uniform(0.0, 3.0))
            if dice.random() < 0.02:
                chaos.kill_a_worker()
            state = chaos.queue.get(job_id).state
            try:
                chaos.queue.cancel(job_id)
                when["waiting" if state == JobState.QUEUED else "running"] += 1
            except JobError:
                late.add(job_id)
                when["too late"] += 1
        chaos.revive()
    chaos.wait_idle(200.0)
    for name in list(chaos.workers):  # and nobody remembers them after a restart, nor without a database
        chaos.workers[name].kill()
        chaos.workers[name].wait()
    if not chaos.queue.shared:
        chaos.queue.database.unlink()
    chaos.revive()
    time.sleep(15.0)
    cancelled = [i for i in ids if i not in late]
    # A job may end before its cancel is seen, while the request is already made: it is then finished, not revived.
    outrun = [i for i in cancelled if chaos.states(i)[-1] == "done" and "cancelled" not in chaos.states(i)]
    back = [i for i in cancelled if i not in outrun and chaos.states(i)[-1] != "cancelled"]
    back += [i for i in cancelled if "cancelled" in chaos.states(i)[:-1]]
    left = [i for i in cancelled if i not in outrun and list(chaos.queue.store.folder(i).glob("clip*"))]
    return {
        "cancelled": when,
        "finished_before_the_cancel_was_seen": len(outrun),
        "resurrected": len(set(back)),
        "clips_left": len(left),
        "trainers_left": len(chaos.trainers()),
        "bad": len(set(back)) + len(left) + len(chaos.trainers()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("what", choices=("kills", "cancels"))
    parser.add_argument("--number", type=int, default=None, help="kills (200) or cancels (500)")
    parser.add_argument("--jobs", type=int, default=30, help="at least so many")
    parser.add_argument("--workers", type=int, default=1, help="more than one needs --database")
    parser.add_argument("--database", default=None, help="postgresql://..., a database that may be filled")
    parser.add_argument(
        "--minutes", type=float, default=None, help="stop killing or cancelling after so many"
    )
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if a.workers > 1 and not a.database:
        parser.error("several workers share a PostgreSQL: give --database")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the workers end with it
    number = a.number or {"kills": 200, "cancels": 500}[a.what]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve() / "home"
        home.mkdir()
        chaos, began = Chaos(home, a.workers, a.database, a.seed), time.monotonic()
        if a.minutes:
            chaos.until = time.monotonic() + 60 * a.minutes
        try:
            calm = Path(folder) / "calm"
            calm.mkdir()
            results = kills(chaos, number, a.jobs, calm) if a.what == "kills" else cancels(chaos, number)
        finally:
            chaos.end()
        results["seconds"] = round(time.monotonic() - began, 1)
    place = f"PostgreSQL, {a.workers} workers" if a.database else "SQLite, one worker"
    record = {"command": f"python -m benchmarks.chaos_jobs {a.what} --number {number} --seed {a.seed}"}
    record |= {"queue": place, "date": datetime.now(UTC).date().isoformat()}
    record |= {"commit": commit(), "machine": machine(), "results": results}
    name = f"chaos_jobs_{a.what}{'_shared' if a.database else ''}.json"
    (RESULTS / name).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    sys.exit(1 if results["bad"] else 0)


if __name__ == "__main__":
    main()
