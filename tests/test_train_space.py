"""The train Space on loopback: a real server process, the real client, the real worker, the tiny trainer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from fake_hub import FakeHub
from jobs_support import (
    environment,
    make_clip,
    make_queue,
    request,
    trainers,
    wait_for,
    wait_state,
    worker_for,
)
from space_support import OTHER, ROOT, TOKEN, Space, hub_environment

from talker.errors import JobError, TalkerError, VideoError
from talker.jobs.job import JobState
from talker.jobs.launchers import SPACE_TOKEN, SPACE_URL, TOKEN_HEADER, SpaceLauncher, launchers
from talker.jobs.remote import decode, moving_picture, picture


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    folder = tmp_path_factory.mktemp("space")
    with FakeHub(folder / "hub") as hub:
        space = Space(hub, folder, TALKER_MAX_UPLOAD_MB="2", TALKER_KEEP_WORK="off")
        try:
            yield space
        finally:
            space.process.terminate()
            space.process.wait(30)
        log = space.log.read_text()
        assert "Traceback" not in log, log
        assert TOKEN not in log


@pytest.fixture
def launcher(space: Space) -> Iterator[SpaceLauncher]:
    launcher = SpaceLauncher(space.url, TOKEN)
    yield launcher
    launcher.close()


def wait_remote(launcher: SpaceLauncher, job_id: str, *states: JobState) -> None:
    wait_for(lambda: launcher.status(job_id).state in states, 120, f"{states}, is {launcher.status(job_id)}")


def test_from_submission_to_files(space: Space, launcher: SpaceLauncher, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in", name="Me & you.mp4")
    wanted = request("ada", options={"steps": 20, "turning": True})
    job_id = launcher.submit(clip, wanted, job_id="0a" * 12)
    assert job_id == "0a" * 12
    assert launcher.submit(clip, wanted, job_id=job_id) == job_id, "twice is once"
    wait_remote(launcher, job_id, JobState.DONE, JobState.FAILED)
    report = launcher.poll(job_id)
    assert report.job.state == JobState.DONE, report.job.error
    assert report.job.owner.startswith("token-") and TOKEN not in report.job.owner
    typed = [event for event in map(decode, report.events) if event is not None]
    assert {type(event).__name__ for event in typed} >= {
        "StageStarted",
        "Progress",
        "CheckpointSaved",
        "Evaluated",
    }
    assert report.preview is not None and picture(report.preview).shape == (16, 16, 3)
    assert report.clip is not None
    turning = moving_picture(report.clip, "static", 20)
    assert turning.rgb.shape == (5, 16, 24, 3) and turning.rate == 10
    assert [round(float(p.mean()) / 50) for p in turning.rgb] == [0, 1, 2, 3, 4]
    again = launcher.poll(job_id, after=report.next, preview=report.job.preview or "")
    assert again.events == [] and again.preview is None and again.clip is None
    avatar = launcher.fetch(job_id, tmp_path / "avatar")
    assert [path.name for path in avatar.iterdir()] == ["avatar.json"]
    assert len(json.loads((avatar / "avatar.json").read_text())["w"]) == 8
    left = [path.name for path in (space.home / "jobs" / job_id).rglob("*") if path.parent.name != "previews"]
    assert not [name for name in left if name.startswith("clip")], "the clip does not stay in the Space"
    uploads = [path for path in space.home.parent.glob("gradio/**/*") if "Me" in path.name]
    assert not uploads, "nor in the upload folder"
    launcher.delete(job_id)
    with pytest.raises(JobError, match="no such job"):
        launcher.status(job_id)


def test_stop_resume_cancel(space: Space, launcher: SpaceLauncher, tmp_path: Path) -> None:
    job_id = launcher.submit(make_clip(tmp_path / "in"), request(options={"steps": 5000}))
    wait_remote(launcher, job_id, JobState.RUNNING)
    wait_for(lambda: launcher.status(job_id).step > 5)
    with pytest.raises(JobError, match="no avatar yet"):
        launcher.fetch(job_id, tmp_path / "early")
    launcher.stop(job_id)
    wait_remote(launcher, job_id, JobState.STOPPED)
    launcher.resume(job_id)
    wait_remote(launcher, job_id, JobState.RUNNING)
    launcher.cancel(job_id)
    wait_remote(launcher, job_id, JobState.CANCELLED)
    assert not trainers(space.home)
    with pytest.raises(JobError) as error:
        launcher._call("/cancel", job_id, "explode")
    assert error.value.code == "job.order"


def test_without_the_token_nothing_is_possible(space: Space, tmp_path: Path) -> None:
    mine = SpaceLauncher(space.url, TOKEN)
    job_id = mine.submit(make_clip(tmp_path / "in"), request(options={"steps": 3}))
    strangers = SpaceLauncher(space.url, "guess"), SpaceLauncher(space.url, TOKEN[:-1])
    for stranger in strangers:
        for call in (stranger.status, stranger.cancel, lambda i, s=stranger: s.fetch(i, tmp_path / "x")):
            with pytest.raises(JobError) as error:
                call(job_id)
            assert error.value.code == "job.space_token"
        with pytest.raises(JobError) as error:
            stranger.submit(make_clip(tmp_path / "in"), request())
        assert error.value.code == "job.space_token"
    neighbour = SpaceLauncher(space.url, OTHER)
    with pytest.raises(JobError) as foreign:
        neighbour.status(job_id)
    with pytest.raises(JobError) as absent:
        neighbour.status("00" * 12)
    assert str(foreign.value) == str(absent.value)
    with pytest.raises(JobError, match="no such job"):
        neighbour.submit(make_clip(tmp_path / "in"), request(), job_id=job_id)
    for impossible in ("", "two words", "line\nbreak", "\u00e9"):
        with pytest.raises(JobError) as error:
            SpaceLauncher(space.url, impossible)
        assert error.value.code == "job.space_token"
    for launcher in (mine, neighbour, *strangers):
        launcher.close()


def test_the_server_gives_away_neither_jobs_nor_uploads(space: Space, tmp_path: Path) -> None:
    jobs = space.home / "jobs"
    mine = SpaceLauncher(space.url, TOKEN)
    job_id = mine.submit(make_clip(tmp_path / "in"), request(options={"steps": 3}))
    secret = jobs / job_id / "request.json"
    with_token = {TOKEN_HEADER: f"Bearer {TOKEN}"}
    for header in ({}, {TOKEN_HEADER: ""}, {TOKEN_HEADER: "Bearer"}, {"authorization": f"Bearer {TOKEN}"}):
        assert httpx.get(f"{space.url}/gradio_api/file={secret}", headers=header).status_code == 401
    for prefix in ("/gradio_api/file=", "/file="):
        assert httpx.get(space.url + prefix + str(secret)).status_code == 401
        assert httpx.get(space.url + prefix + str(secret), headers=with_token).status_code in (403, 404)
    file = {"files": ("a.mp4", b"x")}
    assert httpx.post(space.url + "/gradio_api/upload", files=file).status_code == 401
    large = {"files": ("a.mp4", b"x" * (4 << 20))}
    assert httpx.post(space.url + "/gradio_api/upload", files=large, headers=with_token).status_code == 413
    for name in ("submit", "status", "cancel", "result"):
        direct = httpx.post(f"{space.url}/gradio_api/run/{name}", json={"data": [job_id]}, headers=with_token)
        assert direct.status_code == 404, "no way round the queue"
    page = httpx.get(space.url).text
    assert "talker train Space" in page and job_id not in page
    mine.close()


def test_malformed_answers_and_requests_are_typed(
    space: Space, launcher: SpaceLauncher, tmp_path: Path
) -> None:
    from gradio_client import handle_file

    clip = make_clip(tmp_path / "in")
    for wanted in ("", "[]", "{}", '{"name": 1}', "null"):
        with pytest.raises(JobError) as error:
            launcher._call("/submit", handle_file(clip), wanted)
        assert error.value.code == "job.request"
    for answer in (None, [], "text"):
        with pytest.raises(JobError):
            launcher._raise(answer)
    with pytest.raises(VideoError, match="found"):
        launcher._raise({"error": {"kind": "VideoError", "code": "video.x", "found": "found"}})
    for kind in ("__builtins__", "TYPE_CHECKING", 7):
        with pytest.raises(TalkerError):
            launcher._raise({"error": {"kind": kind, "code": "x", "found": "found"}})
    with pytest.raises(JobError, match="no picture"):
        picture(b"GIF89a")
    for webp in (b"GIF89a", b"RIFF\x00\x00\x00\x00WEBP"):
        with pytest.raises(JobError, match="no moving picture"):
            moving_picture(webp, "static", 1)
    assert decode({"type": "progress", "stage": "x"}) is None
    unreachable = SpaceLauncher("http://127.0.0.1:9", TOKEN)
    with pytest.raises(JobError) as error:
        unreachable.status("00" * 12)
    assert error.value.code == "job.space_unreachable"
    unreachable.close()


def test_a_job_of_the_app_is_trained_in_the_space_and_comes_back_through_the_hub(
    space: Space, tmp_path: Path
) -> None:
    queue = make_queue(tmp_path / "home")
    env = hub_environment(space.hub, tmp_path) | {SPACE_URL: space.url, SPACE_TOKEN: TOKEN}
    asked = request(
        "ada",
        launcher="space",
        repo_id="alice/ada-avatar",
        options={"steps": 400, "step_s": 0.01, "real_avatar": True},
    )
    job_id = queue.submit(make_clip(tmp_path / "in"), asked)
    trace = space.home / "jobs" / job_id / "avatar.state" / "trace"
    with worker_for(queue.store.home, **env) as worker:
        wait_for(lambda: any(event.get("stage") == "static" for event in queue.events(job_id)[0]), 90)
        worker.kill()  # following is as durable as training
        wait_for(lambda: not trainers(queue.store.home), 5)
        worker.start()
        wait_for(lambda: "deform 1\n" in trace.read_text(), 90)
        steps = [line for line in trace.read_text().splitlines() if line.startswith("static")]
        assert steps == [f"static {step}" for step in range(1, 401)], "the restart did not start it again"
        job = wait_state(queue, job_id, "done", "failed", timeout_s=180)
        assert job.state == JobState.DONE, job.error
    assert job.preview and job.summary["published"]
    from talker.card import read_card
    from talker.checkpoint import load_avatar

    avatar = queue.store.folder(job_id) / "avatar"
    load_avatar(avatar)
    assert read_card(avatar).name
    repo = space.hub.repos["alice/ada-avatar"]
    assert repo.private
    assert set(space.hub.files("alice/ada-avatar")) >= {"avatar.json", "model.safetensors"}
    assert any(r.method == "GET" and "resolve" in r.path for r in space.hub.requests), "it came from there"
    assert not (space.home / "jobs" / job_id).exists(), "the Space keeps nothing"


def test_cancelling_in_the_app_cancels_in_the_space(space: Space, tmp_path: Path) -> None:
    queue = make_queue(tmp_path / "home")
    job_id = queue.submit(make_clip(tmp_path / "in"), request(launcher="space", options={"steps": 50_000}))
    remote = SpaceLauncher(space.url, TOKEN)
    with worker_for(queue.store.home, **{SPACE_URL: space.url, SPACE_TOKEN: TOKEN}):
        wait_for(lambda: queue.get(job_id).stage == "static", 90)
        queue.cancel(job_id)
        wait_state(queue, job_id, "cancelled")
    wait_remote(remote, job_id, JobState.CANCELLED)
    remote.close()


def test_launchers_are_offered_when_they_are_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SPACE_URL, raising=False)
    assert list(launchers(tmp_path / "home")) == ["local"]
    with pytest.raises(JobError, match="No train Space is set up"):
        SpaceLauncher.from_environment()
    monkeypatch.setenv(SPACE_URL, "http://example.invalid")
    monkeypatch.setenv(SPACE_TOKEN, TOKEN)
    assert list(launchers(tmp_path / "home")) == ["local", "space"]


def test_tokens_are_compared_in_full_and_needed_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (ROOT / "train_space" / "app.py").read_text()
    assert "compare_digest" in source and not re.search(r"==\s*token|token\s*==", source)
    env = {key: value for key, value in environment().items() if key != "TALKER_SPACE_TOKENS"}
    started = subprocess.run(
        [sys.executable, str(ROOT / "train_space" / "app.py")],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert started.returncode == 1
    assert "TALKER_SPACE_TOKENS is not set" in started.stderr and "Traceback" not in started.stderr


@pytest.mark.parametrize("folder", [ROOT, ROOT / "train_space"], ids=["app", "train Space"])
def test_the_front_matter_is_complete(folder: Path) -> None:
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert front["sdk"] == "gradio" and (folder / front["app_file"]).is_file()
    assert str(front["python_version"]) == "3.12"
    assert len(front["short_description"]) <= 60
    assert {
        "title",
        "emoji",
        "colorFrom",
        "colorTo",
        "sdk_version",
        "license",
        "suggested_hardware",
        "tags",
    } <= set(front)
    found = re.search(r"^gradio\[.*\]==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert found and found.group(1) == str(front["sdk_version"])


def test_the_app_asks_a_visitor_for_what_it_needs_alone() -> None:
    front = yaml.safe_load((ROOT / "README.md").read_text().split("---")[1])
    assert front["hf_oauth"] is True and set(front["hf_oauth_scopes"]) == {"contribute-repos", "read-repos"}


def test_the_space_pins_what_the_project_pins() -> None:
    def pins(path: Path) -> set[str]:
        return {line.strip() for line in path.read_text().splitlines() if re.match(r"\w", line)}

    own, project = pins(ROOT / "train_space" / "requirements.txt"), pins(ROOT / "requirements.txt")
    assert own and own <= project, own - project
    assert {re.split("[=>]", line)[0] for line in own} >= {"torch", "dbos", "mediapipe", "av", "gsplat"}
