"""From an upload to a job to an avatar in the gallery, with the real queue's folders and a small trainer's output."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from talker.errors import ConfigError, ConsentError, JobError, TalkerError
from talker.jobs.job import JobState
from talker.jobs.queue import JobQueue
from talker.studio import LOCAL, Studio, StudioConfig
from tests.avatar_support import tiny_avatar_folder as put_avatar

A, B = "a" * 32, "b" * 32


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "home", config=StudioConfig(sizes=(128, 256)))


def submit(studio: Studio, tmp_path: Path, owner: str = A, **changes: object) -> str:
    clip = tmp_path / "me talking.mp4"
    clip.write_bytes(b"film")
    upload = studio.take(clip, owner)
    request = {"name": "Ada", "preset": "preview", "size": 256, "who": "Ada King", "agreed": True}
    return studio.submit(upload.id, owner, **(request | changes))  # type: ignore[arg-type]


def queue_of(studio: Studio) -> JobQueue:
    return JobQueue(studio.home)


def test_submitted_job_holds_everything(studio: Studio, tmp_path: Path) -> None:
    job_id = submit(studio, tmp_path)
    accepted = queue_of(studio).store.accepted(job_id)
    assert accepted.request.consent.who == "Ada King"
    assert accepted.request.consent.statement == studio.consent_text()
    assert (studio.home / "jobs" / job_id / accepted.clip).read_bytes() == b"film"
    assert accepted.clip_name == "me-talking.mp4"
    assert list(studio.inbox.root.iterdir()) == []
    assert [j.id for j in Studio(studio.home).jobs(A)] == [job_id]


@pytest.mark.parametrize(("who", "agreed"), [("", True), ("  ", True), ("Ada", False), ("", False)])
def test_no_job_without_consent(studio: Studio, tmp_path: Path, who: str, agreed: bool) -> None:
    with pytest.raises(ConsentError):
        submit(studio, tmp_path, who=who, agreed=agreed)
    assert studio.jobs(A) == []
    assert len(list(studio.inbox.root.iterdir())) == 1, "the upload is still there for the next try"


@pytest.mark.parametrize(
    "changes", [{"name": " "}, {"name": "\u202e"}, {"size": 512}, {"size": 10_000}, {"preset": "free"}]
)
def test_only_what_is_offered(studio: Studio, tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        submit(studio, tmp_path, **changes)
    assert studio.jobs(A) == []


def test_foreign_upload_cannot_be_trained_on(studio: Studio, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"film")
    upload = studio.take(clip, A)
    with pytest.raises(JobError, match="no longer here"):
        studio.submit(upload.id, B, name="X", preset="preview", size=256, who="B", agreed=True)


def test_foreign_job_is_a_missing_job_everywhere(studio: Studio, tmp_path: Path) -> None:
    job_id = submit(studio, tmp_path)
    for method in (
        studio.job, studio.job_events, studio.job_previews, studio.cancel, studio.stop, studio.resume, studio.delete,
    ):  # fmt: skip
        answers = []
        for wrong in (job_id, "0" * 24, "../" + job_id):
            with pytest.raises(TalkerError) as caught:
                method(wrong, B)
            answers.append((caught.value.code, str(caught.value)))
        assert len(set(answers)) == 1, method.__name__
    assert studio.jobs(B) == []
    assert studio.job(job_id, A).state == JobState.QUEUED


def finish(studio: Studio, job_id: str) -> None:
    """What the worker leaves: the avatar in the job's folder and the state done."""
    store = queue_of(studio).store
    put_avatar(store.folder(job_id) / "avatar", name="avatar")
    for state in (JobState.RUNNING, JobState.DONE):
        store.update(job_id, lambda old, s=state: dataclasses.replace(old, state=s))


def test_finished_job_becomes_an_avatar_of_its_owner(studio: Studio, tmp_path: Path) -> None:
    job_id = submit(studio, tmp_path, name="Ada K.")
    finish(studio, job_id)
    assert [a.card.name for a in studio.avatars(A)] == ["Ada K."]
    assert studio.avatars(B) == []
    assert studio.job_avatar(job_id) == "ada-k"
    assert len(studio.avatars(A)) == 1, "collecting twice changes nothing"
    studio.delete(job_id, A)
    assert studio.jobs(A) == []
    assert [a.slug for a in studio.avatars(A)] == ["ada-k"], "the avatar outlives the record of its making"
    studio.delete_avatar("ada-k", A)
    assert list((studio.home / "avatars").iterdir()) == []


def test_one_damaged_avatar_hides_no_jobs(studio: Studio, tmp_path: Path) -> None:
    bad, good = submit(studio, tmp_path, name="Bad"), submit(studio, tmp_path, name="Good")
    finish(studio, bad)
    finish(studio, good)
    (queue_of(studio).store.folder(bad) / "avatar" / "avatar.json").write_text("[]")
    assert {j.id for j in studio.jobs(A)} == {bad, good}
    assert [a.card.name for a in studio.avatars(A)] == ["Good"]


def test_cancel_deletes_the_clip(studio: Studio, tmp_path: Path) -> None:
    job_id = submit(studio, tmp_path)
    folder = studio.home / "jobs" / job_id
    studio.cancel(job_id, A)
    assert studio.job(job_id, A).state == JobState.CANCELLED
    assert not list(folder.glob("clip*"))
    studio.delete(job_id, A)
    assert not folder.exists()


def test_events_are_read_to_the_end(studio: Studio, tmp_path: Path) -> None:
    job_id = submit(studio, tmp_path)
    store = queue_of(studio).store
    for step in range(4500):
        store.log(job_id, "progress", stage="deform", step=step, values={"loss": 1.0 / (step + 1)})
    events = studio.job_events(job_id, A)
    assert [e["step"] for e in events if e["type"] == "progress"] == list(range(4500))


def test_speaking_needs_exactly_one_source(studio: Studio, tmp_path: Path) -> None:
    put_avatar(studio.home / "avatars" / "guide")
    for text, audio in ((None, None), ("  ", None), ("Hello", tmp_path / "x.wav")):
        with pytest.raises(TalkerError) as caught:
            next(studio.talk("guide", LOCAL, text=text, audio=audio))
        assert caught.value.code == "speech.nothing"
    with pytest.raises(TalkerError) as caught:
        next(studio.talk("nobody", LOCAL, text="Hello"))
    assert caught.value.code == "avatar.unknown"


def test_estimates_respect_the_operators_limit(tmp_path: Path) -> None:
    free = Studio(tmp_path / "a").presets(60, 256)
    bound = Studio(tmp_path / "b", config=StudioConfig(max_minutes=1.0)).presets(60, 256)
    assert {"preview", "standard", "egstalker", "pgstalker"} <= {p.name for p in free}
    assert all(p.minutes > 0 for p in free)
    assert all(p.minutes <= 1.0 + 1.5 for p in bound)
    shutil.rmtree(tmp_path / "a")


def test_configuration_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKER_SIZES", "128, 256")
    monkeypatch.setenv("TALKER_MAX_MINUTES", "1.5")
    config = StudioConfig.from_environment()
    assert (config.sizes, config.max_minutes) == ((128, 256), 1.5)
    monkeypatch.delenv("TALKER_SIZES")
    monkeypatch.setenv("TALKER_MAX_MINUTES", "")
    assert StudioConfig.from_environment() == StudioConfig()


def test_a_part_of_the_clip_reaches_the_trainer(studio: Studio, tmp_path: Path) -> None:
    from talker.jobs.child import make_config
    from talker.train.create import CreateConfig

    job_id = submit(studio, tmp_path, part=(3.0, 27.5))
    request = queue_of(studio).store.accepted(job_id).request  # read back from disk
    assert (request.start_s, request.end_s) == (3.0, 27.5)
    config = make_config(CreateConfig, request)
    assert (config.start_s, config.end_s) == (3.0, 27.5)
    assert (studio.job(job_id, A).start_s, studio.job(job_id, A).end_s) == (3.0, 27.5)
    whole = queue_of(studio).store.accepted(submit(studio, tmp_path)).request
    assert (whole.start_s, whole.end_s) == (0.0, None)


def test_an_impossible_part_starts_nothing(studio: Studio, tmp_path: Path) -> None:
    for part in ((5.0, 6.0), (9.0, 2.0), (-1.0, 20.0)):
        with pytest.raises(TalkerError) as caught:
            submit(studio, tmp_path, part=part)
        assert caught.value.code == "video.part"
    assert studio.jobs(A) == []


def test_requests_of_an_older_version_are_still_read(studio: Studio, tmp_path: Path) -> None:
    import json

    from talker.jobs.job import Job

    job_id = submit(studio, tmp_path)
    path = studio.home / "jobs" / job_id / "request.json"
    value = json.loads(path.read_text())
    for name in ("start_s", "end_s"):
        del value["request"][name]
    path.write_text(json.dumps(value))
    job = studio.job(job_id, A)
    assert (job.start_s, job.end_s) == (0.0, None)
    plain = {k: v for k, v in job.to_dict().items() if k not in ("start_s", "end_s")}
    assert Job.from_dict(plain) == job
