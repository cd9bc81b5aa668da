"""A real, tiny avatar speaks: pieces while rendering, a marked and captioned clip at the end, nothing left over."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest

from talker.audio.waveform import save_wav
from talker.errors import ProvenanceError, TalkerError
from talker.provenance import inspect
from talker.studio import LOCAL, Studio, TalkChunk, TalkDone
from talker.studio.clips import Clip
from talker.video.live import LiveWriter
from tests.studio_support import speaking_avatar_folder

TEXT = "Hello there. This is a <test>, and it goes on for a little while."


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    studio = Studio(tmp_path / "home")
    speaking_avatar_folder(studio.home / "avatars" / "zoe")
    return studio


def run(studio: Studio, **options: object) -> tuple[list[bytes], list[TalkChunk], Clip]:
    data, chunks = [], []
    for made in studio.talk("zoe", LOCAL, **options):  # type: ignore[arg-type]
        if isinstance(made, TalkChunk):
            data.append(made.path.read_bytes())
            chunks.append(made)
        else:
            assert isinstance(made, TalkDone)
            return data, chunks, made.clip
    raise AssertionError("the run ended without a clip")


def test_pieces_are_the_clip(studio: Studio) -> None:
    data, chunks, clip = run(studio, text=TEXT)
    assert len(chunks) > 2
    assert [c.done_s for c in chunks] == sorted(c.done_s for c in chunks)
    assert all(c.total_s == chunks[0].total_s for c in chunks)
    assert not any(c.path.exists() for c in chunks), "pieces are gone afterwards"
    with av.open(io.BytesIO(b"".join(data))) as stream:
        pts = [f.pts for f in stream.decode(video=0)]
    with av.open(str(clip.video)) as film:
        frames = [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]
    assert len(pts) == len(frames) == round(clip.seconds * 25)
    assert set(np.diff(pts)) == {3600}, "no gap and no overlap at 25 fps"
    with av.open(io.BytesIO(b"".join(data))) as stream:
        sound = [f.pts for f in stream.decode(audio=0)]
    assert set(np.diff(sound)) == {1920}, "no gap in the sound either"


def test_finished_clip_is_marked_captioned_and_owned(studio: Studio) -> None:
    _, _, clip = run(studio, text=TEXT)
    marks = inspect(clip.video)
    assert marks["ai_generated"]
    assert marks["c2pa"]["intact"]
    assert clip.title == TEXT.replace("/", " ")
    assert clip.vtt is not None
    assert "Hello there." in clip.vtt.read_text()
    assert "&lt;test&gt;" in clip.vtt.read_text()
    assert clip.srt is not None
    assert "<test>" in clip.srt.read_text()
    assert [c.id for c in studio.clips(LOCAL)] == [clip.id]
    assert studio.clips("a" * 32) == []


def test_a_recording_speaks_without_captions(studio: Studio, tmp_path: Path) -> None:
    seconds = 1.3
    sound = 0.2 * np.sin(2 * np.pi * 200 * np.arange(round(seconds * 16000)) / 16000)
    save_wav(tmp_path / "x.wav", sound.astype(np.float32))
    _, _, clip = run(studio, audio=tmp_path / "x.wav")
    assert clip.seconds == pytest.approx(seconds, abs=0.05)
    assert (clip.vtt, clip.srt) == (None, None)
    assert str(tmp_path) not in clip.title


def test_closing_early_leaves_nothing(studio: Studio, tmp_path: Path) -> None:
    making = studio.talk("zoe", LOCAL, text=TEXT)
    next(making)
    making.close()  # type: ignore[attr-defined]
    assert list(studio.shelf.root.iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert studio.clips(LOCAL) == []


def test_no_clip_without_its_mark(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ProvenanceError("mark.failed", "The mark could not be written.")

    monkeypatch.setattr("talker.provenance.sign", broken)
    with pytest.raises(ProvenanceError):
        run(studio, text="Hello")
    assert list(studio.shelf.root.iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_bad_sound_gets_words(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "x.mp3").write_text("no sound")
    with pytest.raises(TalkerError) as caught:
        run(studio, audio=tmp_path / "x.mp3")
    assert str(tmp_path) not in str(caught.value)


def test_live_pieces_arrive_while_frames_are_written(tmp_path: Path) -> None:
    writer = LiveWriter(tmp_path, 32, 32, seconds=1.0)
    arrived: list[int] = []
    for index in range(60):
        writer.write(np.full((32, 32, 3), index * 4, np.uint8))
        writer.write_audio(np.zeros(640, np.float32))
        arrived += [index for _ in writer.pieces()]
    writer.close()
    writer.close()
    rest = list(writer.pieces())
    assert len(arrived) == 2
    assert arrived[0] <= 27, "about a second after the first frame, not at the end"
    assert len(rest) == 1
    assert rest[0].start_s + rest[0].duration_s == pytest.approx(60 / 25, abs=0.05)
