"""Jobs of the Hub: the real client against a local server that really runs what it is given, in a process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fake_hub import FakeHub
from hub_support import fake, waits
from jobs_support import (
    TESTS,
    make_clip,
    make_queue,
    request,
    undisturbed,
    wait_for,
    wait_state,
    worker_for,
)
from space_support import hub_environment

from talker.errors import HubError, JobError
from talker.hub.compute import CloudJob, Compute
from talker.jobs.hub_jobs import JobsConfig, quote
from talker.jobs.job import JobState
from talker.jobs.launchers import HubJobsLauncher, launchers

KEPT = "alice/talker-work-jobs-"


def setup(hub: FakeHub, folder: Path, **more: str) -> dict[str, str]:
    """What an app is started with."""
    jobs = {
        "ACCOUNT": "alice",
        "IMAGE": "hf.co/spaces/alice/talker-train",
        "RUNNER": "tiny_trainer",
        "POLL_S": "0.3",
    }
    return hub_environment(hub, folder) | {f"TALKER_JOBS_{k}": v for k, v in jobs.items()} | more


@pytest.fixture
def hub(tmp_path: Path, fake: FakeHub) -> FakeHub:
    image = {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "HF_ENDPOINT": fake.endpoint}
    fake.job_environment = image | {"HF_HOME": str(tmp_path / "cloud-hf"), "HF_HUB_DISABLE_XET": "1"}
    return fake


@pytest.fixture
def app(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings, in this process too."""
    env = setup(hub, tmp_path, TALKER_KEEP_EVERY_S="0.5")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


def test_the_price_is_known_before_anything_starts(hub: FakeHub, app: dict[str, str], tmp_path: Path) -> None:
    config = JobsConfig("alice", "image", token=hub.token("alice"))
    compute = Compute("alice", token=hub.token("alice"), endpoint=hub.endpoint)
    assert [p.flavor for p in compute.prices()] == ["cpu-upgrade", "l4x1"]
    price = compute.price("l4x1")
    assert price.at_most(90, 3) == pytest.approx(0.013333 * 270)
    with pytest.raises(HubError, match="cpu-upgrade, l4x1"):
        compute.price("h900")
    assert config.timeout_minutes * 60 > 1800, "never the default of half an hour"
    found = launchers(tmp_path / "home")
    assert list(found) == ["local", "jobs"] and isinstance(found["jobs"], HubJobsLauncher)
    text = str(quote_at(hub, config))
    assert (
        text
        == "Nvidia L4 (L4, 24 GB): $0.80 an hour, paid by the minute. At most $3.60 for 3 attempts of 90 minutes."
    )
    assert not hub.jobs


def quote_at(hub: FakeHub, config: JobsConfig):
    """The quote, asked of the local server: the library read ``HF_ENDPOINT`` when it was imported."""
    from huggingface_hub import constants

    before, constants.ENDPOINT = constants.ENDPOINT, hub.endpoint
    try:
        return quote(config)
    finally:
        constants.ENDPOINT = before


def test_a_job_has_its_limits_its_bucket_and_its_account(hub: FakeHub) -> None:
    compute = Compute("alice", token=hub.token("alice"), endpoint=hub.endpoint)
    job = CloudJob(
        "hf.co/spaces/alice/talker-train",
        ("python", "-c", "import os; print('hello', os.environ['A'], len(os.environ['HF_TOKEN']))"),
        "l4x1",
        timeout_s=60,
        attempts=2,
        name="n",
        env={"A": "b"},
        secrets={"HF_TOKEN": "hf_secret"},
        labels={"talker-job": "x"},
        bucket="alice/work",
    )
    assert "hf_secret" not in repr(job)
    state = compute.run(job)
    wait_for(lambda: compute.state(state.id).ended, 30)
    assert compute.state(state.id).stage == "COMPLETED"
    assert compute.logs(state.id) == ["hello b 9"]
    spec = hub.jobs[state.id].spec
    assert (spec["spaceId"], spec["flavor"], spec["timeoutSeconds"], spec["attempts"]) == (
        "alice/talker-train",
        "l4x1",
        60,
        2,
    )
    assert spec["volumes"] == [{"type": "bucket", "source": "alice/work", "mountPath": "/work"}]
    assert hub.buckets == {"alice/work": True}, "private"
    found = compute.find("talker-job", "x")
    assert found is not None and found.id == state.id and compute.find("talker-job", "y") is None
    assert "/api/whoami-v2" not in hub.paths(), "the account is always named"
    hub.credit = False
    with pytest.raises(HubError) as error:
        compute.run(job)
    assert error.value.code == "hub.payment" and "credit" in str(error.value)
    with pytest.raises(HubError) as error:
        Compute("bob", token=hub.token("alice"), endpoint=hub.endpoint).run(job)
    assert error.value.code == "hub.forbidden"


@pytest.mark.parametrize("bucket", ["alice/talker-work", "off"])
def test_a_job_of_the_app_is_trained_on_the_hub_survives_kills_and_leaves_nothing(
    hub: FakeHub, app: dict[str, str], tmp_path: Path, bucket: str
) -> None:
    queue = make_queue(tmp_path / "home")
    options = {"steps": 150, "step_s": 0.03, "checkpoint_every": 10}
    asked = request(launcher="jobs", options=options)
    job_id = queue.submit(make_clip(tmp_path / "in"), asked)
    clean = {name: value for name, value in app.items() if name != "HF_ENDPOINT"}
    saved = hub.storage / "buckets" / "alice__talker-work" / job_id / "avatar.state" / "checkpoint.json"

    def checkpoint() -> dict:
        if bucket == "off":
            files = hub.files(KEPT + job_id) if KEPT + job_id in hub.repos else {}
            found = files.get("avatar.state/checkpoint.json", b"")
        else:
            found = saved.read_bytes() if saved.exists() else b""  # empty also while it is being written
        return json.loads(found or b'{"stage": 0, "step": 0}')

    env = clean | {"HF_ENDPOINT": hub.endpoint, "TALKER_JOBS_BUCKET": bucket}
    with worker_for(queue.store.home, **env) as worker:
        wait_for(
            lambda: checkpoint()["stage"] == 1 and checkpoint()["step"] >= 20, 120, "a checkpoint of stage 2"
        )
        (cloud,) = hub.jobs.values()
        worker.kill()  # the app's side; the Job does not notice
        cloud.kill()  # and the machine on the Hub: the second attempt goes on
        wait_for(lambda: cloud.tries == 2, 30)
        worker.start()
        job = wait_state(queue, job_id, "done", "failed", timeout_s=180)
        log = (cloud.folder / "log").read_text()
        assert job.state == JobState.DONE, f"{job.error}\n{log}"
    assert len(hub.jobs) == 1, "the follower found its Job again"
    assert cloud.spec["timeoutSeconds"] == 5400 and cloud.spec["attempts"] == 3
    assert bool(cloud.spec.get("volumes")) == (bucket != "off")
    events = [e for e in queue.events(job_id)[0] if e["type"] == "note"]
    assert any("$0.80 an hour" in e["message"] for e in events)
    avatar = queue.store.folder(job_id) / "avatar" / "avatar.json"
    assert avatar.read_bytes() == undisturbed(tmp_path / "calm", make_clip(tmp_path / "in"), options)
    assert not hub.repos, "clip and checkpoints are gone from the Hub"
    assert not list((hub.storage / "buckets").rglob("check*")), "and from the bucket"


def test_cancelling_here_ends_the_job_there(hub: FakeHub, app: dict[str, str], tmp_path: Path) -> None:
    queue = make_queue(tmp_path / "home")
    job_id = queue.submit(make_clip(tmp_path / "in"), request(launcher="jobs", options={"steps": 90_000}))
    with worker_for(queue.store.home, **app, TALKER_JOBS_BUCKET="off"):
        wait_for(lambda: queue.get(job_id).stage == "static", 90)
        queue.cancel(job_id)
        wait_state(queue, job_id, "cancelled")
    (cloud,) = hub.jobs.values()
    wait_for(lambda: cloud.stage == "CANCELED", 10)
    assert not hub.repos


def test_a_reason_of_the_clip_arrives_in_its_own_words(
    hub: FakeHub, app: dict[str, str], tmp_path: Path
) -> None:
    queue = make_queue(tmp_path / "home")
    job_id = queue.submit(
        make_clip(tmp_path / "in"), request(launcher="jobs", options={"steps": 6, "fault": "user"})
    )
    with worker_for(queue.store.home, **app, TALKER_JOBS_BUCKET="off"):
        job = wait_state(queue, job_id, "done", "failed")
    assert job.state == JobState.FAILED and job.error_code == "video.no_face"
    assert next(iter(hub.jobs.values())).tries == 1, "a clip without a face is not paid for twice"


def test_without_settings_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TALKER_JOBS_ACCOUNT", "TALKER_JOBS_IMAGE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JobError, match="not set up"):
        JobsConfig.from_environment()
    assert "jobs" not in launchers(tmp_path / "home")


__all__ = ["fake", "waits"]
