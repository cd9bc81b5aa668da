"""Speaking into a video: only into one that passed the check, with a declaration, stoppable, nothing left over."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from core_support import stir, tiny_avatar

from talker.card import AvatarCard
from talker.checkpoint import save_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError, ConsentError, JobError, TalkerError, VideoError
from talker.provenance import inspect, new_consent
from talker.studio import LOCAL, Manner, Studio, TalkDone, TalkNote, dubbing, preflight
from talker.studio.inbox import Upload

OTHER = "a" * 32


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: TalkingHeadDataset) -> Studio:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    studio = Studio(tmp_path / "home")
    made, _ = tiny_avatar(dataset)
    consent = new_consent("Zoë Doe").__dict__
    card = AvatarCard(
        "Zoë", "2026-11-20T12:00:00+00:00", "preview", dataset.size, made.n_gaussians, "mel", consent, {}
    )
    save_avatar(stir(made).eval().requires_grad_(False), studio.home / "avatars" / "zoe", card)
    return studio


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from talker.dataset.sample import make_sample

    path = tmp_path_factory.mktemp("film") / "my film.mp4"
    make_sample(path, seconds=10, size=256)
    return path


def put(studio: Studio, clip: Path, *, ok: bool = True) -> Upload:
    """An upload whose check is done."""
    upload = studio.inbox.take(clip, LOCAL, max_mb=100, move=False)
    finding = {"code": "face.none", "severity": "error", "message": "Nobody is seen.", "todo": "Film a face."}
    report = {
        "ok": ok,
        "summary": "x",
        "seconds": 10.0,
        "pictures": [],
        "facts": {},
        "part": None,
        "part_ok": False,
    }
    import json

    report["findings"] = [] if ok else [finding | {"when": [], "spans": []}]
    (upload.path.parent / preflight.REPORT).write_text(json.dumps(report))
    return upload


def test_what_is_no_video_is_refused_and_not_kept(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("this is no film")
    with pytest.raises(VideoError) as caught:
        studio.film(tmp_path / "notes.mp4", LOCAL)
    assert str(tmp_path) not in str(caught.value)
    assert not list(studio.inbox.root.iterdir())


def test_every_condition_is_said_in_words(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"film")
    unfit, fit = put(studio, tmp_path / "film.mp4", ok=False), put(studio, tmp_path / "film.mp4")

    def attempt(over: str, owner: str = LOCAL, **options: object) -> None:
        next(studio.talk("zoe", owner, text="Hello", over=over, **options))  # type: ignore[arg-type]

    with pytest.raises(ConsentError):
        attempt(fit.id)
    with pytest.raises(VideoError, match=r"Nobody is seen\. Film a face\."):
        attempt(unfit.id, agreed=True)
    with pytest.raises(TalkerError):
        attempt(fit.id, OTHER, agreed=True)
    with pytest.raises(JobError):
        attempt("f" * 32, agreed=True)
    for manner in (Manner(background="transparent"), Manner(head_motion=0.5)):
        with pytest.raises(ConfigError):
            attempt(fit.id, agreed=True, manner=manner)


def test_stopping_ends_the_child(studio: Studio, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remembered(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        children.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return children[-1]

    monkeypatch.setattr(dubbing.subprocess, "Popen", remembered)
    preparing = dubbing.prepare(put(studio, clip), 64)
    assert isinstance(next(preparing), TalkNote)
    (child,) = children
    assert child.poll() is None
    preparing.close()  # type: ignore[attr-defined]
    assert child.poll() is not None


def test_a_broken_video_raises_what_the_child_met(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"this is no film" * 100)
    with pytest.raises(VideoError):
        list(dubbing.prepare(put(studio, tmp_path / "film.mp4"), 64))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_face_speaks_in_the_video(studio: Studio, clip: Path) -> None:
    upload = studio.film(clip, LOCAL)
    assert clip.is_file(), "the page may need it again"
    made = list(studio.talk("zoe", LOCAL, text="Hello there.", over=upload.id, agreed=True))
    words = {note.message for note in made if isinstance(note, TalkNote)}
    assert "Following the head" in words
    shares = [
        n.share for n in made if isinstance(n, TalkNote) and n.share is not None and n.message != "Rendering"
    ]
    assert shares == sorted(shares) and shares[-1] == 1.0
    done = made[-1]
    assert isinstance(done, TalkDone)
    assert done.clip.declaration == dubbing.DECLARATION
    assert inspect(done.clip.video)["c2pa"]["intact"]
    again = list(studio.talk("zoe", LOCAL, text="And again.", over=upload.id, agreed=True))
    assert not {n.message for n in again if isinstance(n, TalkNote)} & (words - {"Reading the video"}) - {
        "Getting ready", "Rendering", "Finishing the video",
    }, "prepared once"  # fmt: skip
    studio.inbox.discard(upload.id, LOCAL)
    assert not list(studio.inbox.root.iterdir())
