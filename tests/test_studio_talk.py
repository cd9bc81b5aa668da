"""A real, tiny avatar speaks: pieces while rendering, a marked and captioned clip at the end, nothing left over."""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from talker.audio.waveform import save_wav
from talker.errors import ConfigError, ProvenanceError, TalkerError
from talker.provenance import inspect
from talker.studio import LOCAL, Manner, Studio, TalkChunk, TalkDone, TalkNote, batch
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
        elif not isinstance(made, TalkNote):
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
    for background in ("clip", "transparent"):
        making = studio.talk("zoe", LOCAL, text=TEXT, manner=Manner(background=background))
        next(made for made in making if isinstance(made, TalkChunk))
        making.close()  # type: ignore[attr-defined]
        assert list(studio.shelf.root.iterdir()) == []
        assert list((tmp_path / "tmp").iterdir()) == []
        assert studio.clips(LOCAL) == []


def test_the_caller_can_stop_at_any_moment(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow frames are, the next moment to stop comes within a second."""
    import talker.drive as driving

    drive = driving.drive

    def slowly(*arguments: object, **options: object) -> Iterator[np.ndarray]:
        for frame in drive(*arguments, **options):  # type: ignore[arg-type]
            time.sleep(0.1)
            yield frame

    monkeypatch.setattr(driving, "drive", slowly)
    making = studio.talk("zoe", LOCAL, text=TEXT)
    moments = []
    for made in making:
        moments.append(time.monotonic())
        if isinstance(made, TalkNote) and (made.share or 0) > 0.2:
            break
    before = time.monotonic()
    making.close()  # type: ignore[attr-defined]
    assert time.monotonic() - before < 1
    frames_began = [i for i, m in enumerate(moments[1:]) if m - moments[i] > 0.05][1:]
    assert max(moments[i + 1] - moments[i] for i in frames_began) < 1
    assert list(studio.shelf.root.iterdir()) == []


# --- manner


def pictures(path: Path, form: str = "rgb24") -> np.ndarray:
    with av.open(str(path)) as film:
        return np.stack([f.to_ndarray(format=form) for f in film.decode(video=0)])


def test_a_transparent_clip_is_two_signed_films(studio: Studio) -> None:
    _, chunks, clip = run(studio, text="Hello there.", manner=Manner(background="transparent"))
    assert chunks, "it can be watched while it is made"
    assert (clip.video.name, clip.download.name) == ("clip.mp4", "clip.mov")
    for path in (clip.video, clip.download):
        marks = inspect(path)
        assert marks["ai_generated"] and marks["c2pa"]["intact"], path.name
    alpha = pictures(clip.download, "rgba")[..., 3]
    assert alpha.min() == 0 and alpha.max() > 200, "the tiny avatar is not quite opaque"
    assert len(alpha) == len(pictures(clip.video))
    assert studio.clip(clip.id, LOCAL).background == "transparent"


def test_a_colour_replaces_the_background(studio: Studio) -> None:
    _, _, clip = run(studio, text="Hello.", manner=Manner(background="#00b140"), label=False)
    corner = pictures(clip.download)[:, -2:, -2:].reshape(-1, 3).astype(int)
    assert np.abs(np.median(corner, 0) - (0x00, 0xB1, 0x40)).max() < 20
    assert clip.download == clip.video


def test_what_is_out_of_range_is_said_before_anything_is_made(studio: Studio) -> None:
    for manner in (Manner(intensity=3), Manner(head_motion=-1), Manner(background="plaid")):
        with pytest.raises(ConfigError):
            run(studio, text="Hello", manner=manner)
    assert not studio.shelf.root.exists() or not list(studio.shelf.root.iterdir())


def test_a_language_without_a_voice_named_speaks(studio: Studio) -> None:
    _, _, clip = run(studio, text="Guten Tag.", language="de")
    assert clip.seconds > 0.5
    with pytest.raises(TalkerError, match="no voice"):
        run(studio, text="Hello", language="xx")


def test_a_text_over_the_limit_gets_its_figures(studio: Studio) -> None:
    with pytest.raises(TalkerError) as caught:
        run(studio, text="word " * 500)
    assert "2,499 characters" in str(caught.value) and "2,000" in str(caught.value)


# --- several in one go


def together(studio: Studio, parts: list[batch.Part]) -> list[batch.BatchStep | batch.BatchDone]:
    def say(part: batch.Part) -> Iterator[Any]:
        return studio.talk("zoe", LOCAL, text=part.text, audio=part.audio, title=part.title, batch_id="b1")

    return list(batch.run(parts, say))


def test_one_failure_does_not_lose_the_others(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no sound")
    parts = batch.parts_of("First one.\nSecond one.", [tmp_path / "broken.wav"])
    steps = together(studio, [parts[0], parts[2], parts[1]])
    done = steps[-1]
    assert isinstance(done, batch.BatchDone)
    assert [clip.title for clip in done.clips] == ["First one.", "Second one."]
    assert [part.title for part, _ in done.failures] == ["broken.wav"]
    assert str(tmp_path) not in done.failures[0][1]
    assert {(s.number, s.total) for s in steps if isinstance(s, batch.BatchStep)} >= {(1, 3), (3, 3)}
    assert [c.title for c in studio.clips(LOCAL)] == ["Second one.", "First one."]
    names = zipfile.ZipFile(studio.bundle("b1", LOCAL, tmp_path / "all.zip")).namelist()
    assert names == [
        "01-First-one.mp4", "01-First-one.srt", "01-First-one.vtt",
        "02-Second-one.mp4", "02-Second-one.srt", "02-Second-one.vtt",
    ]  # fmt: skip
    with pytest.raises(TalkerError):
        studio.bundle("b1", "a" * 32, tmp_path / "stolen.zip")
    zipfile.ZipFile(tmp_path / "all.zip").extract("01-First-one.mp4", tmp_path)
    assert inspect(tmp_path / "01-First-one.mp4")["c2pa"]["intact"]


def test_stopping_several_keeps_what_is_finished(studio: Studio) -> None:
    parts = batch.parts_of("One.\nTwo is much longer than one, so that it can be stopped.\nThree.")
    running = batch.run(parts, lambda part: studio.talk("zoe", LOCAL, text=part.text))
    for step in running:
        if isinstance(step, batch.BatchStep) and step.number == 2 and isinstance(step.made, TalkChunk):
            break
    running.close()  # type: ignore[attr-defined]
    assert [clip.title for clip in studio.clips(LOCAL)] == ["One."]
    assert len(list(studio.shelf.root.iterdir())) == 1


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\nstill one\n\n  \ntwo", ["one still one", "two"]),
        ("one\r\n\r\ntwo", ["one", "two"]),
        (" \n one \n", ["one"]),
    ],
)
def test_lines_or_paragraphs(texts: str, expected: list[str]) -> None:
    assert [part.text for part in batch.parts_of(texts)] == expected


def test_too_little_and_too_much_are_said_in_words(tmp_path: Path) -> None:
    for texts, code in (
        ("", "speech.nothing"),
        ("x\n" * 21, "batch.too_many"),
        ("short\n" + "x" * 2001, "speech.too_long"),
    ):
        with pytest.raises(TalkerError) as caught:
            batch.parts_of(texts)
        assert caught.value.code == code
    assert "Text 2 of 2" in str(caught.value)


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
