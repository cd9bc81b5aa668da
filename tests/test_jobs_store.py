"""Job folders: acceptance, order, ownership, states."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from jobs_support import LIMITS, make_clip, request

from talker.errors import JobError
from talker.jobs.files import append_event, to_json
from talker.jobs.job import TRANSITIONS, Job, JobRequest, JobState, Live, check_transition, grew
from talker.jobs.limits import Limits
from talker.jobs.store import JobStore, OwnershipLostError


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "home", LIMITS)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "upload", name="My holiday.MP4")


def test_an_accepted_job_is_complete_and_independent_of_the_upload(store: JobStore, clip: Path) -> None:
    content = clip.read_bytes()
    job_id = store.create(clip, request(preset="standard", size=512, options={"steps": 3}))
    clip.unlink()
    folder = store.folder(job_id)
    assert (folder / "clip.mp4").read_bytes() == content
    accepted = store.accepted(job_id)
    assert accepted.clip_name == "My holiday.MP4"
    assert accepted.request == request(preset="standard", size=512, options={"steps": 3})
    job = store.get(job_id)
    assert (job.state, job.position, job.preset, job.size) == (JobState.QUEUED, 1, "standard", 512)
    assert (store.root.stat().st_mode & 0o777) == 0o700
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    assert not list(store.root.glob(".new-*"))


def test_order_is_the_order_of_submission_also_when_the_last_job_is_gone(store: JobStore, clip: Path) -> None:
    ids = [store.create(clip, request(f"n{i}")) for i in range(4)]
    assert store.queued() == ids
    assert [job.position for job in store.jobs()] == [4, 3, 2, 1]
    store.remove(ids[3])
    again = store.create(clip, request("again"))
    assert store.status(again).sequence == 5
    assert store.queued() == [*ids[:3], again]


def test_submissions_from_many_threads_get_distinct_places(store: JobStore, clip: Path) -> None:
    threads = [threading.Thread(target=lambda: store.create(clip, request())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status.sequence for _, status in store.active()) == list(range(1, 9))


def test_the_same_submission_twice_is_one_job(store: JobStore, clip: Path) -> None:
    job_id = "ab" * 12
    assert (
        store.create(clip, request(), job_id=job_id) == store.create(clip, request(), job_id=job_id) == job_id
    )
    assert store.ids() == [job_id]


@pytest.mark.parametrize("job_id", ["", "..", "../../etc", "x" * 24, "ab" * 12, "AB" * 12, "ab" * 12 + "\n"])
def test_what_is_no_job_does_not_exist(store: JobStore, job_id: str) -> None:
    with pytest.raises(JobError) as error:
        store.get(job_id)
    assert error.value.code == "job.missing"


def test_a_foreign_job_looks_exactly_like_a_missing_one(store: JobStore, clip: Path) -> None:
    job_id = store.create(clip, request(owner="me"))
    with pytest.raises(JobError) as foreign:
        store.get(job_id, "somebody else")
    with pytest.raises(JobError) as absent:
        store.get("00" * 12, "somebody else")
    assert (foreign.value.code, str(foreign.value)) == (absent.value.code, str(absent.value))
    assert store.jobs("somebody else") == []


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(free_bytes=1 << 60), "job.disk"),
        (Limits(free_bytes=0, max_clip_bytes=10), "job.clip"),
        (Limits(free_bytes=0, max_waiting=1), "job.waiting"),
    ],
)
def test_limits_refuse_with_a_reason_and_leave_nothing(
    tmp_path: Path, clip: Path, limits: Limits, code: str
) -> None:
    JobStore(tmp_path / "home", LIMITS).create(clip, request())
    store = JobStore(tmp_path / "home", limits)
    with pytest.raises(JobError) as error:
        store.create(clip, request())
    assert error.value.code == code
    assert str(tmp_path) not in str(error.value)
    assert len(store.ids()) == 1
    assert not list(store.root.glob(".new-*"))


def test_a_vanished_upload_is_a_clear_error(store: JobStore, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no longer there"):
        store.create(tmp_path / "gone.mp4", request())


def test_a_stale_owner_cannot_write(store: JobStore, clip: Path) -> None:
    job_id = store.create(clip, request())
    store.update(job_id, lambda old: replace(old, fence=7))
    with pytest.raises(OwnershipLostError):
        store.update(job_id, lambda old: replace(old, message="stale"), fence=6)
    assert store.status(job_id).message != "stale"
    store.update(job_id, lambda old: replace(old, message="mine"), fence=7)
    assert store.status(job_id).message == "mine"


def test_ended_states_are_final() -> None:
    for state in (JobState.DONE, JobState.CANCELLED):
        assert not TRANSITIONS[state]
        for other in set(JobState) - {state}:
            with pytest.raises(JobError, match="cannot become"):
                check_transition(state, other)
    check_transition(JobState.STOPPED, JobState.QUEUED)


def test_requeue_goes_to_the_end_and_clears_the_wish(store: JobStore, clip: Path) -> None:
    first, second = store.create(clip, request("a")), store.create(clip, request("b"))
    store.wish(first, "stop")
    store.update(first, lambda old: replace(old, state=JobState.STOPPED, stalled=2))
    status = store.requeue(first)
    assert (status.state, status.run, status.stalled) == (JobState.QUEUED, 2, 0)
    assert store.queued() == [second, first]
    assert not store.wished(first, "stop")
    store.update(second, lambda old: replace(old, state=JobState.CANCELLED))
    with pytest.raises(JobError):
        store.requeue(second)


def test_log_survives_a_torn_line_and_is_read_piecewise(store: JobStore, clip: Path) -> None:
    job_id = store.create(clip, request())
    path = store.folder(job_id) / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"t": 1, "type": "torn\n')
    append_event(store.folder(job_id), "note", {"message": "after", "value": float("nan")})
    events, offset = store.events(job_id)
    assert [event["type"] for event in events] == ["state", "note"]
    assert events[1]["value"] is None
    with path.open("ab") as file:
        file.write(b'{"t": 2, "type": "unfinished"')
    assert store.events(job_id, offset) == ([], offset)
    with path.open("ab") as file:
        file.write(b"}\n")
    assert [event["type"] for event in store.events(job_id, offset)[0]] == ["unfinished"]


def test_a_damaged_folder_spoils_nothing_else(store: JobStore, clip: Path) -> None:
    broken, whole = store.create(clip, request("a")), store.create(clip, request("b"))
    (store.folder(broken) / "status.json").write_text('{"state": "no such state"}')
    assert [job.id for job in store.jobs()] == [whole]
    assert store.queued() == [whole]
    with pytest.raises(JobError) as error:
        store.get(broken)
    assert error.value.code == "job.damaged"
    (store.folder(whole) / "progress.json").write_text("{torn")
    assert store.live(whole) == Live()
    third = store.create(clip, request("c"))
    assert store.queued() == [whole, third]


def test_drop_work_leaves_no_byte_of_the_person(store: JobStore, clip: Path) -> None:
    job_id = store.create(clip, request())
    folder = store.folder(job_id)
    for name in ("avatar", "avatar.data", "avatar.state", "previews"):
        (folder / name).mkdir()
        (folder / name / "face.npy").write_bytes(b"face")
    store.drop_work(job_id)
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left == {"request.json", "status.json", "events.jsonl", ".lock"} & left
    assert store.get(job_id).clip_name == "My holiday.MP4"


def test_sweep_removes_what_kills_left(store: JobStore, clip: Path) -> None:
    job_id = store.create(clip, request())
    for name in (".new-1", ".trash-2"):
        (store.root / name).mkdir()
        (store.root / name / "x").write_text("x")
    assert store.sweep() == 1, "a submission that may still be under way is left alone"
    assert store.sweep(older_than_s=-1) == 1
    assert store.ids() == [job_id]


def test_progress_means_surviving_work() -> None:
    assert grew({}, {"static": -1})
    assert grew({"static": 10}, {"static": 11})
    assert grew({"static": 10}, {"static": 10, "deform": -1})
    assert not grew({"static": 10}, {"static": 10})
    assert not grew({"static": 10}, {})


def test_requests_survive_json() -> None:
    asked = request(options={"a": 1}, max_minutes=3.5, repo_id="me/ada", keep_inputs=False)
    from dataclasses import asdict

    assert JobRequest.from_dict(json.loads(to_json(asdict(asked)))) == asked
