"""One job in its own process: every way it can end, and that it never outlives or outruns its claim."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jobs_support import LIMITS, RUNNER, TESTS, environment, make_clip, request, trainers, wait_for

from talker.jobs.job import JobState
from talker.jobs.runner import JobRunner, RunnerConfig, ShutdownError, kill, read_outcome, reap, start
from talker.jobs.store import JobStore

CONFIG = RunnerConfig(retry_wait_s=0.01, stop_grace_s=20, shutdown_grace_s=20, poll_s=0.02)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    return JobStore(tmp_path / "home", LIMITS)


def submit(store: JobStore, tmp_path: Path, **options) -> str:
    values = {key: options.pop(key) for key in ("keep_inputs", "launcher") if key in options}
    return store.create(make_clip(tmp_path / "in"), request(options=options, **values), runner=RUNNER)


def work(store: JobStore, job_id: str, run: int = 1, config: RunnerConfig = CONFIG) -> str:
    return JobRunner(store, threading.Event(), config).run(job_id, run)


def in_background(store: JobStore, job_id: str, shutdown: threading.Event | None = None, run: int = 1):
    """Run the job in a thread; returns the thread and a list that will hold its result or exception."""
    results: list = []
    runner = JobRunner(store, shutdown or threading.Event(), CONFIG)

    def target() -> None:
        try:
            results.append(runner.run(job_id, run))
        except ShutdownError as error:
            results.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread, results


def reached(store: JobStore, job_id: str, stage: str, step: int = 1) -> bool:
    return store.live(job_id).marks.get(stage, -2) >= step


def avatar(store: JobStore, job_id: str) -> dict:
    return json.loads((store.folder(job_id) / "avatar" / "avatar.json").read_text())


def trace(store: JobStore, job_id: str) -> list[str]:
    return (store.folder(job_id) / "avatar.state" / "trace").read_text().splitlines()


def test_a_job_that_ends_well(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10)
    assert work(store, job_id) == "done"
    job = store.get(job_id)
    assert (job.state, job.attempts, job.stage, job.step, job.fraction) == (
        JobState.DONE,
        1,
        "deform",
        10,
        1.0,
    )
    assert job.metrics == {"B": {"psnr": 30.0}}
    assert job.summary == {"seconds": 1.0}
    assert job.started and job.finished and job.finished >= job.started
    kinds = [event["type"] for event in store.events(job_id)[0]]
    assert kinds[0] == "state" and kinds[-2:] == ["finished", "state"]
    assert {"stage", "progress", "preview", "checkpoint", "evaluated"} <= set(kinds)
    pictures = store.previews(job_id)
    assert [path.name.split("-")[1:3] for path in pictures][-1] == ["deform", "000010.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert work(store, job_id) == "void", "an old message changes nothing"


def test_without_keep_inputs_only_the_avatar_stays(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=4, keep_inputs=False)
    assert work(store, job_id) == "done"
    folder = store.folder(job_id)
    assert (folder / "avatar").is_dir()
    assert not list(folder.glob("clip*")) and not (folder / "avatar.state").exists()


def test_stop_and_resume_is_bit_identical_to_no_stop(store: JobStore, tmp_path: Path) -> None:
    whole = submit(store, tmp_path, steps=30, step_s=0.0)
    assert work(store, whole) == "done"
    parted = submit(store, tmp_path, steps=30, step_s=0.03)
    thread, results = in_background(store, parted)
    wait_for(lambda: reached(store, parted, "deform"))
    store.wish(parted, "stop")
    thread.join(30)
    assert results == ["stopped"]
    assert store.get(parted).resumable
    done_before = trace(store, parted)
    run = store.requeue(parted).run
    assert work(store, parted, run) == "done"
    assert avatar(store, parted)["w"] == avatar(store, whole)["w"]
    assert trace(store, parted) == trace(store, whole), "no step was repeated or left out"
    assert len(done_before) < len(trace(store, parted))


def test_three_attempts_without_progress_then_failed(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10, step_s=0.0, fault="abort")
    assert work(store, job_id) == "failed"
    job = store.get(job_id)
    # The first attempt finished stage 1: that is progress, so the count starts with the crash that ended it.
    assert (job.state, job.attempts, job.error_code) == (JobState.FAILED, 3, "job.crash")
    assert "SIGABRT" in job.error and "3 times" in job.error
    assert trace(store, job_id).count("static 10") == 1, "stage 1 was not repeated"
    assert job.resumable


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [("raise", "job.crash", "ZeroDivisionError"), ("memory", "job.memory", "out of memory")],
)
def test_a_crash_is_described_without_paths(
    store: JobStore, tmp_path: Path, fault: str, code: str, words: str
) -> None:
    job_id = submit(store, tmp_path, steps=10, step_s=0.0, fault=fault)
    assert work(store, job_id, config=replace(CONFIG, attempts=1)) == "failed"
    job = store.get(job_id)
    assert job.error_code == code and words in job.error
    assert "/" not in job.error, "no path of the server"


def test_a_crash_that_does_not_come_back_costs_one_attempt(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10, step_s=0.0, fault="abort_once")
    assert work(store, job_id) == "done"
    assert store.get(job_id).attempts == 2


def test_a_user_error_fails_at_once_in_its_own_words(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10, step_s=0.0, fault="user")
    assert work(store, job_id) == "failed"
    job = store.get(job_id)
    assert (job.error_code, job.attempts) == ("video.no_face", 1)
    assert job.error == "No face was found. Film the face from the front."


def test_an_unknown_option_is_an_error_with_its_name(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, stepz=10)
    assert work(store, job_id) == "failed"
    assert "stepz" in store.get(job_id).error


def test_a_full_disk_pauses_the_job(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10, step_s=0.0, fault="disk")
    assert work(store, job_id) == "stopped"
    assert "disk is full" in store.get(job_id).message
    assert store.get(job_id).resumable


def test_a_hanging_trainer_is_ended(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=4, step_s=0.0, fault="hang")
    config = replace(CONFIG, silence_s=6.0, attempts=1)
    assert work(store, job_id, config=config) == "failed"
    assert "stopped answering" in store.get(job_id).error
    assert not trainers(store.home)


@pytest.mark.parametrize("moment", ["running", "hanging"])
def test_cancel_ends_the_process_and_deletes_its_work(store: JobStore, tmp_path: Path, moment: str) -> None:
    job_id = submit(store, tmp_path, steps=10_000 if moment == "running" else 4, fault="hang")
    thread, results = in_background(store, job_id)
    wait_for(lambda: reached(store, job_id, *(("static", 1) if moment == "running" else ("deform", -1))))
    store.wish(job_id, "cancel")
    thread.join(10)
    assert results == ["cancelled"]
    folder = store.folder(job_id)
    assert not list(folder.glob("clip*")) and not (folder / "avatar.state").exists()
    assert not trainers(store.home)


def test_delete_while_running_removes_the_folder(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10_000)
    thread, results = in_background(store, job_id)
    wait_for(lambda: reached(store, job_id, "static"))
    store.wish(job_id, "delete")
    thread.join(10)
    assert results == ["cancelled"]
    assert store.ids() == [] and not trainers(store.home)


def test_shutdown_saves_and_puts_the_job_back(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=1000, step_s=0.01, checkpoint_every=100_000)
    shutdown = threading.Event()
    thread, results = in_background(store, job_id, shutdown)
    wait_for(
        lambda: (store.folder(job_id) / "avatar.state" / "trace").exists() and len(trace(store, job_id)) > 20
    )
    shutdown.set()
    thread.join(30)
    assert isinstance(results[0], ShutdownError)
    status = store.status(job_id)
    assert (status.state, status.open_attempt, status.stalled) == (JobState.QUEUED, False, 0)
    saved = json.loads((store.folder(job_id) / "avatar.state" / "checkpoint.json").read_text())
    assert trace(store, job_id)[-1] == f"static {saved['step']}", "the last step done is the one saved"


def test_a_trainer_that_lost_its_claim_writes_nothing_more(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10_000, step_s=0.01)
    thread, results = in_background(store, job_id)
    wait_for(lambda: reached(store, job_id, "static", 5))
    store.update(job_id, lambda old: replace(old, fence=old.fence + 1, message="taken over"))
    thread.join(10)
    assert results == ["void"]
    state = store.folder(job_id) / "avatar.state"
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    time.sleep(0.3)
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before
    assert store.status(job_id).message == "taken over"
    assert not trainers(store.home)


def test_an_outcome_under_another_claim_counts_for_nothing(store: JobStore, tmp_path: Path) -> None:
    folder = store.folder(submit(store, tmp_path))
    (folder / "outcome.json").write_text('{"fence": 3, "kind": "done"}')
    assert read_outcome(folder, 3)["kind"] == "done"
    assert read_outcome(folder, 4) == {}
    (folder / "outcome.json").write_text("{torn")
    assert read_outcome(folder, 3) == {}


def test_two_trainers_of_one_job_never_run_at_once(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10_000)
    folder = store.folder(job_id)
    store.update(job_id, lambda old: replace(old, fence=1))
    first = start(folder, 1)
    wait_for(lambda: reached(store, job_id, "static"))
    second = start(folder, 1)
    time.sleep(1.5)
    steps = [line for line in trace(store, job_id)]
    assert len(steps) == len(set(steps)), "the second one waits for the first one's lock"
    kill(second, folder)
    kill(first, folder)


def test_left_over_processes_of_a_job_are_killed_before_it_runs_again(
    store: JobStore, tmp_path: Path
) -> None:
    folder = store.folder(submit(store, tmp_path))
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], cwd=folder, start_new_session=True
    )
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=tmp_path)
    try:
        wait_for(lambda: reap(folder) == 1)
        assert left.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_trainer_dies_with_its_worker(store: JobStore, tmp_path: Path) -> None:
    job_id = submit(store, tmp_path, steps=10_000)
    store.update(job_id, lambda old: replace(old, fence=1))
    script = (
        "import time; from pathlib import Path; from talker.jobs.runner import start;"
        f"start(Path({str(store.folder(job_id))!r}), 1); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment())
    try:
        wait_for(lambda: reached(store, job_id, "static"))
        assert trainers(store.home)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not trainers(store.home), 5.0)
