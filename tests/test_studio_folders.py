"""Uploads, avatars and clips on disk: private, owned, gone when deleted."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from talker.errors import CheckpointError, JobError, TalkerError, VideoError
from talker.studio.clips import ClipShelf
from talker.studio.gallery import Gallery, slug_of
from talker.studio.inbox import Inbox, clean_label
from tests.avatar_support import tiny_avatar_folder as put_avatar

A, B = "a" * 32, "b" * 32


def upload(tmp_path: Path, name: str = "my clip.mp4", data: bytes = b"film") -> Path:
    path = tmp_path / "cache" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def failure(call, *arguments) -> tuple[str, str]:
    with pytest.raises(TalkerError) as caught:
        call(*arguments)
    return caught.value.code, str(caught.value)


def test_upload_leaves_the_public_cache_at_once(tmp_path: Path) -> None:
    source = upload(tmp_path)
    taken = Inbox(tmp_path / "inbox").take(source, A, max_mb=1)
    assert not source.exists()
    assert taken.path.read_bytes() == b"film"
    assert taken.label == "my clip.mp4"
    assert taken.path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "name",
    [
        "a;rm -rf.mp4",
        "..%2f..%2fpasswd",
        "\u202egpj.exe",
        "<img src=x>.webm",
        "é" * 200 + ".mp4",
        ".mp4",
        "no suffix",
    ],
)
def test_no_name_chooses_a_path(tmp_path: Path, name: str) -> None:
    source = upload(tmp_path, name[:100])
    inbox = Inbox(tmp_path / "inbox")
    taken = inbox.take(source, A, max_mb=1)
    assert taken.path.resolve().parent.parent == inbox.root.resolve()
    assert taken.path.name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert taken.path.name.isascii()
    assert inbox.get(taken.id, A) == taken


def test_label_is_for_the_eye_only() -> None:
    assert clean_label("C:\\films\\me.mp4") == "me.mp4"
    assert clean_label("../../etc/passwd") == "passwd"
    assert clean_label("a\u202eb\nc\x00.mp4") == "abc.mp4"
    assert len(clean_label("x" * 500)) == 80


def test_foreign_upload_is_a_missing_one(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    taken = inbox.take(upload(tmp_path), A, max_mb=1)
    foreign = failure(inbox.get, taken.id, B)
    assert foreign == failure(inbox.get, "0" * 32, B) == failure(inbox.get, "../" + taken.id, A)
    assert inbox.get(taken.id, A) == taken


def test_bad_uploads_are_refused(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    with pytest.raises(VideoError, match="0 bytes"):
        inbox.take(upload(tmp_path, data=b""), A, max_mb=1)
    with pytest.raises(VideoError, match="2 MB"):
        inbox.take(upload(tmp_path, data=b"x" * 2_000_000), A, max_mb=1)
    with pytest.raises(VideoError, match="did not arrive"):
        inbox.take(tmp_path / "absent.mp4", A, max_mb=1)
    assert not inbox.root.exists()


def test_old_uploads_are_swept(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    old, new = (inbox.take(upload(tmp_path), A, max_mb=1) for _ in range(2))
    past = time.time() - 7200
    os.utime(old.path.parent, (past, past))
    assert inbox.sweep(1.0) == 1
    assert not old.path.exists()
    assert inbox.get(new.id, A) == new


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Ada Lovelace", "ada-lovelace"),
        ("Zoë / 2", "zoe-2"),
        ("日本", "avatar"),
        ("../..", "avatar"),
        ("x" * 99, "x" * 40),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_avatars_belong_to_their_makers(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "avatars")
    mine = gallery.adopt(put_avatar(tmp_path / "made"), "Ada", A, "job:1")
    theirs = gallery.adopt(put_avatar(tmp_path / "made2"), "Ada", B, "job:2")
    assert (mine, theirs) == ("ada", "ada-2")
    assert [a.slug for a in gallery.all(A)] == ["ada"]
    assert (
        failure(gallery.get, theirs, A)
        == failure(gallery.get, "nobody", A)
        == failure(gallery.get, "../made", A)
    )
    assert failure(gallery.delete, theirs, A)[0] == "avatar.unknown"
    assert gallery.find_source("job:2") == theirs
    gallery.delete(mine, A)
    assert gallery.all(A) == []
    assert sorted(p.name for p in gallery.root.iterdir()) == ["ada-2", "ada-2.json"]


def test_operators_avatars_are_for_all_and_safe_from_all(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "avatars")
    put_avatar(tmp_path / "avatars" / "guide")
    assert [a.slug for a in gallery.all(A)] == ["guide"]
    with pytest.raises(CheckpointError):
        gallery.delete("guide", A)
    assert (gallery.root / "guide").is_dir()


def test_unreadable_note_does_not_open_an_avatar(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "avatars")
    slug = gallery.adopt(put_avatar(tmp_path / "made"), "Ada", A, "job:1")
    (gallery.root / f"{slug}.json").write_text("{torn")
    assert gallery.all(B) == []


def test_damaged_avatar_is_left_out_of_the_list(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "avatars")
    put_avatar(tmp_path / "avatars" / "good")
    (put_avatar(tmp_path / "avatars" / "bad") / "avatar.json").write_text("{}")
    assert [a.slug for a in gallery.all(A)] == ["good"]


def test_crash_while_adopting_leaves_nobody_elses_avatar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery(tmp_path / "avatars")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.move", killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.adopt(put_avatar(tmp_path / "made"), "Ada", A, "job:1")
    assert gallery.all(A) == []
    assert gallery.find_source("job:1") is None
    assert gallery.adopt(tmp_path / "made", "Ada", A, "job:1") == "ada"
    assert gallery.find_source("job:1") == "ada"


def test_clips_are_kept_until_deleted(tmp_path: Path) -> None:
    shelf = ClipShelf(tmp_path / "clips")
    unfinished = shelf.open()
    folder = shelf.open()
    (folder / "clip.mp4").write_bytes(b"film")
    clip = shelf.keep(folder, A, "ada", "Hello", 2.5)
    assert shelf.all(A) == [clip]
    assert clip.srt is None
    (folder / "clip.srt").write_text("1")
    assert clip.srt is not None
    assert shelf.all(B) == []
    assert failure(shelf.get, clip.id, B) == failure(shelf.get, "f" * 32, B) == failure(shelf.get, "..", B)
    shelf.sweep()
    assert not unfinished.exists()
    assert shelf.all(A) == [clip]
    with pytest.raises(JobError):
        shelf.delete(clip.id, B)
    shelf.delete(clip.id, A)
    assert not folder.exists()


def test_records_hold_no_path(tmp_path: Path) -> None:
    taken = Inbox(tmp_path / "inbox").take(upload(tmp_path), A, max_mb=1)
    shelf = ClipShelf(tmp_path / "clips")
    clip = shelf.keep(shelf.open(), A, "ada", "Hello", 1.0)
    for record in (taken.path.with_name("upload.json"), clip.folder / "clip.json"):
        assert str(tmp_path) not in json.dumps(json.loads(record.read_text()))


def test_a_history_is_ordered_shared_out_and_deleted(tmp_path: Path) -> None:
    shelf = ClipShelf(tmp_path / "clips")
    mine = [shelf.keep(shelf.open(), A, "ada", f"{i}", 1.0, batch="b" if i else "") for i in range(3)]
    theirs = shelf.keep(shelf.open(), B, "ada", "theirs", 1.0, batch="b")
    assert [c.title for c in shelf.all(A)] == ["2", "1", "0"]
    assert [c.title for c in shelf.all(A, 2)] == ["2", "1"]
    assert shelf.of_batch("b", A) == mine[1:]
    assert shelf.of_batch("", A) == []
    assert shelf.delete_all(A) == 3
    assert shelf.all(A) == [] and shelf.all(B) == [theirs]
    assert [f.name for f in shelf.root.iterdir()] == [theirs.id]


def test_clips_of_an_earlier_version_are_still_read(tmp_path: Path) -> None:
    shelf = ClipShelf(tmp_path / "clips")
    folder = shelf.open()
    old = {
        "id": folder.name,
        "owner": A,
        "avatar": "ada",
        "title": "Hi",
        "seconds": 1.0,
        "created": "2026-11-20",
    }
    (folder / "clip.json").write_text(json.dumps(old))
    assert shelf.get(folder.name, A).background == "clip"
