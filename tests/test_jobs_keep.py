"""A machine that vanishes with its disk: its jobs come back on the next one. A real Space, the real Hub client."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_support import free_port
from fake_hub import FakeHub
from hub_support import fake, waits
from jobs_support import make_clip, make_queue, request, trainers, undisturbed, wait_for
from space_support import TOKEN, Space

from talker.hub.work import WorkRepos
from talker.jobs.idle import NEVER, SleepWhenIdle
from talker.jobs.job import JobState
from talker.jobs.keep import KeepConfig, Keeper
from talker.jobs.launchers import SpaceLauncher
from talker.jobs.supervisor import worker_state

NOW = KeepConfig(every_s=0.0, look_s=0.1)


class Machine(Space):
    """One Space on one machine: a disk of its own, and a place it shares with whoever replaces it."""

    def __init__(self, hub: FakeHub, folder: Path, port: int) -> None:
        keeping = {"TALKER_KEEP_EVERY_S": "1", "TALKER_SLEEP_MINUTES": "10", "SPACE_ID": "alice/train"}
        super().__init__(hub, folder, port, **keeping)

    def vanish(self) -> None:
        """Everything at once, the disk too."""
        worker = worker_state(self.home).pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not trainers(self.home), 10)
        shutil.rmtree(self.folder)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub(tmp_path / "hub") as running:
        yield running


def kept(hub: FakeHub, job_id: str) -> dict[str, bytes]:
    """Files that are kept of a job; empty if there are none."""
    names = [name for name in hub.repos if name.endswith(job_id)]
    return hub.files(names[0]) if names else {}


def test_a_redeployed_space_goes_on_from_what_the_last_one_kept(hub: FakeHub, tmp_path: Path) -> None:
    port = free_port()
    first = Machine(hub, tmp_path / "first", port)
    space = SpaceLauncher(first.url, TOKEN)
    options = {"steps": 160, "step_s": 0.03, "checkpoint_every": 10}
    job_id = space.submit(make_clip(tmp_path / "in"), request(options=options))
    gone = space.submit(make_clip(tmp_path / "in", "other"), request("gone", options=options))

    def checkpoint() -> dict:
        return json.loads(kept(hub, job_id).get("avatar.state/checkpoint.json", b'{"stage": 0, "step": 0}'))

    both = job_id, gone
    wait_for(lambda: all("clip.mp4" in kept(hub, i) for i in both), 120, "what another machine goes on from")
    assert all(repo.private for repo in hub.repos.values())
    space.cancel(gone)
    assert not kept(hub, gone), "what is cancelled is gone from the Hub before the answer"
    wait_for(lambda: checkpoint()["stage"] == 1 and checkpoint()["step"] >= 20, 120)
    before = checkpoint()
    first.vanish()
    assert hub.sleep_times[-1] == ("alice/train", NEVER), "a Space with work does not sleep"

    second = Machine(hub, tmp_path / "second", port)
    try:
        wait_for(lambda: space.status(job_id).state in ("done", "failed"), 120, "the job to end")
        report = space.poll(job_id)
        assert report.job.state == JobState.DONE, report.job.error
        notes = [e["message"] for e in report.events if e["type"] == "note"]
        at = next(int(n.split()[-1].rstrip(".")) for n in notes if n.startswith("Continuing deform at step"))
        assert at >= before["step"], "stage 1 is not repeated, nor what was kept of stage 2"
        avatar = json.loads((space.fetch(job_id, tmp_path / "avatar") / "avatar.json").read_text())
        wait_for(
            lambda: "avatar/avatar.json" in kept(hub, job_id), 20, "the avatar to be kept until it is fetched"
        )
        assert not [name for name in kept(hub, job_id) if name.startswith("clip")], "but not the clip"
        assert [job.id for job in make_queue(second.home).jobs()] == [job_id], (
            "the cancelled one did not come back"
        )
        wait_for(lambda: hub.sleep_times[-1] == ("alice/train", 600), 40, "the idle Space to be let sleep")
        space.delete(job_id)
        assert not hub.repos, "nothing is left on the Hub"
    finally:
        second.vanish()
        space.close()
    whole = undisturbed(tmp_path / "calm", make_clip(tmp_path / "in"), options)
    assert json.loads(whole) == avatar, "as if nothing had happened"


def keeper(fake: FakeHub, home: Path, place: str = "lab") -> Keeper:
    work = WorkRepos("alice", place, endpoint=fake.endpoint, token=fake.token("alice"))
    return Keeper(make_queue(home).store, work, NOW)


def test_of_two_places_with_the_same_job_only_the_later_one_writes(fake: FakeHub, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    queue = make_queue(one)
    job_id = queue.submit(make_clip(tmp_path / "in"), request())
    old = keeper(fake, one)
    old.look()
    assert set(kept(fake, job_id)) >= {"request.json", "status.json", "clip.mp4"}
    assert keeper(fake, tmp_path / "else", "other").restore() == 0, "another place's jobs are not ours"
    new = keeper(fake, two)
    assert new.restore() == 1 and new.restore() == 0
    assert make_queue(two).get(job_id).state == JobState.QUEUED
    assert make_queue(two).store.status(job_id).fence == 1
    commits = len(fake.repos[new.work.repo_id(job_id)].commits)
    queue.stop(job_id)
    old.look()
    assert queue.store.wished(job_id, "stop"), "the old place stops"
    assert len(fake.repos[new.work.repo_id(job_id)].commits) == commits, "and writes nothing"
    old.look()
    assert kept(fake, job_id), "nor deletes"


def test_a_hub_that_is_away_stops_nothing(fake: FakeHub, tmp_path: Path) -> None:
    queue = make_queue(tmp_path / "home")
    job_id = queue.submit(make_clip(tmp_path / "in"), request())
    here = keeper(fake, tmp_path / "home")
    fake.fail("", ".*", 401, times=3)
    here.look()
    assert not fake.repos and here.restore() == 0
    fake.faults.clear()
    here.look()
    assert kept(fake, job_id), "the next look makes up for it"
    queue.delete(job_id)
    fake.fail("DELETE", ".*", 403)
    here.look()
    assert kept(fake, job_id)
    here.look()
    assert not fake.repos, "what is deleted here is deleted there"


def test_what_is_kept_is_read_as_a_strangers(fake: FakeHub, tmp_path: Path) -> None:
    here = keeper(fake, tmp_path / "home")
    job_id = "0a" * 12
    fake.seed(
        here.work.repo_id(job_id), {"request.json": b"{}", "../../evil.txt": b"x", "a/.b": b"x"}, private=True
    )
    assert here.restore() == 0
    assert not list(tmp_path.rglob("evil*")) and not list((tmp_path / "home" / "jobs").glob("*0a*"))


def test_the_time_of_sleep_follows_the_work(fake: FakeHub, tmp_path: Path) -> None:
    queue = make_queue(tmp_path / "home")
    where = {"token": fake.token("alice"), "endpoint": fake.endpoint}
    sleep = SleepWhenIdle(queue.store, "alice/train", 900, **where)
    sleep.look()
    job_id = queue.submit(make_clip(tmp_path / "in"), request())
    fake.fail("POST", "sleeptime", 403)
    sleep.look()
    sleep.look()
    sleep.look()
    queue.cancel(job_id)
    time.sleep(0.01)
    sleep.look()
    assert fake.sleep_times == [("alice/train", 900), ("alice/train", NEVER), ("alice/train", 900)]


__all__ = ["fake", "waits"]
