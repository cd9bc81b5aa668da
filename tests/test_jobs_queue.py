"""The queue's database: settings, messages, and that losing it loses nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from jobs_support import make_clip, make_queue, request
from sqlalchemy import text

from talker.errors import JobError
from talker.jobs.database import healthy, make_engine
from talker.jobs.job import JobState
from talker.jobs.queue import APPLICATION_VERSION, JobQueue, message_id


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return make_queue(tmp_path / "home")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "upload")


def rows(queue: JobQueue, columns: str = "workflow_uuid, status") -> list[tuple]:
    with closing(sqlite3.connect(queue.database)) as connection:
        query = f"SELECT {columns} FROM workflow_status ORDER BY priority, created_at"
        return connection.execute(query).fetchall()


def test_sqlite_keeps_a_rollback_journal_and_syncs_fully(queue: JobQueue) -> None:
    queue.prepare_database()
    engine = make_engine(queue.url)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "delete"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 30000
    assert not list(queue.folder.glob("*-wal"))


def test_a_message_is_json_with_an_id_and_a_run_and_nothing_else(queue: JobQueue, clip: Path) -> None:
    job_id = queue.submit(clip, request(name="secret name"))
    columns = "workflow_uuid, status, serialization, application_version, queue_name"
    assert rows(queue, columns) == [
        (message_id(job_id, 1), "ENQUEUED", "portable_json", APPLICATION_VERSION, "train")
    ]
    content = queue.database.read_bytes()
    assert f'{{"namedArgs":{{}},"positionalArgs":["{job_id}",1]}}'.encode() in content
    assert b"secret name" not in content


def test_messages_come_in_the_order_of_the_folders(queue: JobQueue, clip: Path) -> None:
    ids = [queue.submit(clip, request(f"n{i}")) for i in range(3)]
    assert [row[0] for row in rows(queue)] == [message_id(i, 1) for i in ids]


@pytest.mark.parametrize("damage", ["gone", "zeros", "text", "flipped"])
def test_a_lost_or_damaged_database_is_rebuilt_in_order(queue: JobQueue, clip: Path, damage: str) -> None:
    ids = [queue.submit(clip, request(f"n{i}")) for i in range(3)]
    content = queue.database.read_bytes()
    if damage == "gone":
        queue.database.unlink()
    elif damage == "zeros":
        queue.database.write_bytes(b"\0" * len(content))
    elif damage == "text":
        queue.database.write_text("this is not a database")
    else:  # the page with the schema
        queue.database.write_bytes(
            content[:100] + bytes(b ^ 0x5A for b in content[100:4096]) + content[4096:]
        )
    aside = queue.prepare_database()
    assert (aside is None) == (damage == "gone")
    assert queue.reconcile() == 3
    assert [row[0] for row in rows(queue)] == [message_id(i, 1) for i in ids]
    assert queue.reconcile() == 0, "repeating it changes nothing"
    assert healthy(queue.database)


def test_a_job_is_accepted_even_if_the_database_refuses(
    queue: JobQueue, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue.database.write_text("this is not a database")
    job_id = queue.submit(clip, request())
    assert "message is not written yet" in caplog.text
    assert queue.get(job_id).state == JobState.QUEUED
    queue.prepare_database()
    assert queue.reconcile() == 1


def test_a_run_the_database_calls_ended_is_renewed_when_the_folder_says_otherwise(
    queue: JobQueue, clip: Path
) -> None:
    job_id = queue.submit(clip, request())
    with closing(sqlite3.connect(queue.database)) as connection:
        connection.execute("UPDATE workflow_status SET status = 'SUCCESS'")
        connection.commit()
    assert queue.reconcile() == 1
    assert rows(queue) == [(message_id(job_id, 1), "SUCCESS"), (message_id(job_id, 2), "ENQUEUED")]


def test_stop_resume_cancel_of_a_waiting_job(queue: JobQueue, clip: Path) -> None:
    first, second = queue.submit(clip, request("a")), queue.submit(clip, request("b"))
    assert queue.stop(first).state == JobState.STOPPED
    assert queue.get(second).position == 1
    assert queue.resume(first).position == 2
    assert queue.resume(first).position == 2, "twice is once"
    assert dict(rows(queue)) == {
        message_id(first, 1): "CANCELLED",
        message_id(second, 1): "ENQUEUED",
        message_id(first, 2): "ENQUEUED",
    }
    assert queue.cancel(first).state == JobState.CANCELLED
    assert not list(queue.store.folder(first).glob("clip*")), "files are deleted"
    assert queue.cancel(first).state == JobState.CANCELLED
    for forbidden in (queue.resume, queue.stop):
        with pytest.raises(JobError, match="cancelled"):
            forbidden(first)
    assert queue.cancel(second, keep_files=True).state == JobState.CANCELLED
    assert (queue.store.folder(second) / "clip.mp4").exists()


def test_delete_leaves_nothing(queue: JobQueue, clip: Path) -> None:
    job_id = queue.submit(clip, request())
    queue.delete(job_id)
    assert queue.jobs() == []
    assert not [path for path in queue.store.root.iterdir() if path.is_dir()]
    assert rows(queue) == [(message_id(job_id, 1), "CANCELLED")]
    with pytest.raises(JobError, match="no such job"):
        queue.delete(job_id)


def test_a_deletion_that_was_interrupted_is_finished(queue: JobQueue, clip: Path) -> None:
    job_id = queue.submit(clip, request())
    queue.stop(job_id)
    queue.store.wish(job_id, "delete")  # what a killed process got done
    assert queue.jobs() == []
    queue.reconcile()
    assert queue.store.ids() == []


def test_every_order_checks_the_owner(queue: JobQueue, clip: Path) -> None:
    job_id = queue.submit(clip, request(owner="me"))
    for order in (
        queue.get,
        queue.stop,
        queue.cancel,
        queue.resume,
        queue.delete,
        queue.events,
        queue.previews,
    ):
        with pytest.raises(JobError) as error:
            order(job_id, "you")
        assert error.value.code == "job.missing"
    assert queue.get(job_id).state == JobState.QUEUED
    with pytest.raises(JobError, match="no launcher"):
        queue.submit(clip, request(launcher="moon"))
