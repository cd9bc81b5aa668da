"""The worker process: killed at any moment, restarted, told to end, doubled."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs_support import (
    RUNNER,
    environment,
    make_clip,
    make_queue,
    request,
    trainers,
    undisturbed,
    wait_for,
    wait_state,
    worker_for,
)

from talker.errors import JobError
from talker.jobs.job import JobState
from talker.jobs.supervisor import Supervisor, SupervisorConfig, take_lock, worker_state

KILLS = 10
STEPS, EVERY = 160, 8


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_killed_ten_times_at_random_moments_of_both_stages(home: Path, tmp_path: Path) -> None:
    queue = make_queue(home)
    options = {"steps": STEPS, "step_s": 0.02, "checkpoint_every": EVERY}
    job_id = queue.submit(make_clip(tmp_path / "in"), request(options=options))
    trace = queue.store.folder(job_id) / "avatar.state" / "trace"
    dice = random.Random(7)
    # Kill after so many further steps: over both stages, sometimes before a first checkpoint of the attempt.
    aims = [*sorted(dice.sample(range(5, 2 * STEPS - 10), KILLS - 2)), None, None]

    def done() -> int:
        return len(set(trace.read_text().splitlines())) if trace.exists() else 0

    killed_in = []
    with worker_for(home) as worker:
        for aim in aims:
            if aim is None:  # while the worker or the trainer is only starting
                time.sleep(dice.random())
            else:
                wait_for(lambda: done() >= aim or queue.get(job_id).state == JobState.DONE, 90)  # noqa: B023
            worker.kill()
            assert queue.get(job_id).state == JobState.RUNNING
            wait_for(lambda: not trainers(home), 5, "the trainer to die with its worker")
            killed_in.append(queue.get(job_id).stage)
            worker.start()
        job = wait_state(queue, job_id, "done", "failed", timeout_s=120)
        assert job.state == JobState.DONE, job.error
        assert worker.starts == KILLS + 1
    assert {"static", "deform"} <= set(killed_in), killed_in

    lines = trace.read_text().splitlines()
    last_static = max(i for i, line in enumerate(lines) if line.startswith("static"))
    first_deform = min(i for i, line in enumerate(lines) if line.startswith("deform"))
    assert last_static < first_deform, "stage 1 is never repeated"
    assert len(set(lines)) == 2 * STEPS
    assert len(lines) - 2 * STEPS <= KILLS * EVERY, "each kill costs at most one checkpoint interval"

    avatar = queue.store.folder(job_id) / "avatar" / "avatar.json"
    whole = undisturbed(tmp_path / "calm", make_clip(tmp_path / "in"), options)
    assert avatar.read_bytes() == whole, "bit-identical to a run without kills"


def test_three_queued_jobs_survive_a_restart_of_everything_in_order(home: Path, tmp_path: Path) -> None:
    queue = make_queue(home)
    blocker = queue.submit(make_clip(tmp_path / "in"), request("blocker", options={"steps": 100_000}))
    with worker_for(home) as worker:
        wait_state(queue, blocker, "running")
        ids = []
        for number in range(3):
            clip = make_clip(tmp_path / f"upload{number}", f"clip {number}", f"upload{number}.mp4")
            ids.append(queue.submit(clip, request(f"n{number}", options={"steps": 10, "seed": number})))
            clip.unlink()  # an emptied upload folder must not matter
        worker.kill()
    queue = make_queue(home)  # the app is started again
    assert [queue.get(i).position for i in ids] == [1, 2, 3]
    (queue.folder / "queue.sqlite").unlink()  # and even its database is gone
    queue.cancel(blocker)
    with worker_for(home):
        for job_id in ids:
            wait_state(queue, job_id, "done", "failed")
    jobs = [queue.get(i) for i in ids]
    assert [job.state for job in jobs] == [JobState.DONE] * 3
    assert sorted(jobs, key=lambda job: job.started or 0) == jobs, "in their order"
    assert all((a.finished or 0) <= (b.started or 0) for a, b in itertools.pairwise(jobs)), "one at a time"
    assert [job.clip_name for job in jobs] == ["upload0.mp4", "upload1.mp4", "upload2.mp4"]
    assert queue.get(blocker).state == JobState.CANCELLED


def test_sigterm_saves_and_the_next_worker_goes_on(home: Path, tmp_path: Path) -> None:
    queue = make_queue(home)
    options = {"steps": 150, "step_s": 0.01, "checkpoint_every": 100_000}
    job_id = queue.submit(make_clip(tmp_path / "in"), request(options=options))
    trace = queue.store.folder(job_id) / "avatar.state" / "trace"
    with worker_for(home) as worker:
        wait_for(lambda: trace.exists() and len(trace.read_text().splitlines()) > 20)
        assert worker.terminate() == 0
        assert queue.get(job_id).state == JobState.QUEUED
        assert "Paused" in queue.get(job_id).message
        worker.start()
        wait_state(queue, job_id, "done")
    lines = trace.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 300, "no step was lost"


def test_there_is_one_worker_per_home(home: Path) -> None:
    lock = take_lock(home)
    assert worker_state(home).pid == os.getpid()
    with pytest.raises(JobError) as error:
        take_lock(home, wait_s=0.1)
    assert error.value.code == "worker.running"
    second = subprocess.run(
        [sys.executable, "-m", "talker.worker", "--home", str(home), "--runner", RUNNER],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 1
    assert "already running" in second.stderr and "Traceback" not in second.stderr
    lock.close()
    assert not worker_state(home).alive


def test_the_supervisor_replaces_a_dead_worker_and_ends_it_with_the_app(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    config = SupervisorConfig(check_s=0.05, backoff_s=0.05, max_backoff_s=0.1)
    supervisor = Supervisor(home, runner=RUNNER, config=config).start()
    try:
        wait_for(lambda: supervisor.state.alive)
        first = supervisor.state.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: supervisor.state.alive and supervisor.state.pid != first)
        second = Supervisor(home, runner=RUNNER, config=config).start()
        time.sleep(0.3)
        second.stop()
        assert supervisor.state.alive, "a second app adopts the worker and leaves it running"
    finally:
        supervisor.stop()
    assert not worker_state(home).alive


def test_a_database_that_breaks_while_working_is_rebuilt(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    queue = make_queue(home)
    options = {"steps": 80, "step_s": 0.02}
    ids = [queue.submit(make_clip(tmp_path / "in"), request(f"n{i}", options=options)) for i in range(2)]
    supervisor = Supervisor(home, runner=RUNNER, config=SupervisorConfig(check_s=0.1, backoff_s=0.1)).start()
    try:
        wait_for(lambda: queue.get(ids[0]).step > 5, 90)
        queue.database.write_bytes(b"garbage" * 5000)
        for job_id in ids:
            assert wait_state(queue, job_id, "done", "failed", timeout_s=150).state == JobState.DONE
    finally:
        supervisor.stop()
    assert len(list(queue.folder.glob("queue.damaged-*.sqlite"))) == 1
    for job_id in ids:
        lines = (queue.store.folder(job_id) / "avatar.state" / "trace").read_text().splitlines()
        assert len(lines) == len(set(lines)) == 160, "and not a step was lost"
