"""The pre-flight check: one clear code for each thing that can be wrong with a clip, and none for a good one."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from dataset_support import film, noise, speaker, speaker_arrays
from media_support import tone, write_clip

from talker.dataset.check import CheckReport, check
from talker.dataset.moments import longest_part, names, spans, timecode
from talker.dataset.synthetic.character import Character
from talker.dataset.synthetic.performance import camera_matrix, perform
from talker.errors import VideoError
from talker.geometry import rotvec_to_matrix
from talker.types import FPS, SAMPLE_RATE

ORDINARY = {"length.short", "face.small"}
"""All clips here last a few seconds and are 256 pixels wide."""


@pytest.fixture(scope="module")
def good() -> CheckReport:
    return check(speaker()[0])


def codes(report: CheckReport, *severities: str) -> set[str]:
    return {f.code for f in report.findings if f.severity in (severities or ("warning", "error"))}


def only(report: CheckReport, code: str):
    """The one finding but for what all of these clips have."""
    assert codes(report) - ORDINARY - {"length.too_short"} == {code}
    return next(f for f in report.findings if f.code == code)


def test_a_good_clip_is_told_so(good) -> None:
    assert good.ok and codes(good) <= ORDINARY
    assert good.facts["Face visible"] == "100 %"
    assert good.summary().startswith("speaker.mp4 (4.0 s) can be used.")
    assert check(speaker()[0], name="me.mov").summary().startswith("me.mov (4.0 s)")


def test_report_is_plain_values_and_pictures(good) -> None:
    plain = json.loads(json.dumps(good.to_dict()))
    assert plain["ok"] and "length.short" in {f["code"] for f in plain["findings"]}
    assert plain["duration_s"] == pytest.approx(4.0)
    frames = speaker_arrays()[0]
    assert len(good.frames) == 4
    for picture in good.frames:
        assert picture.shape == frames.shape[1:] and picture.dtype == np.uint8
    # The first example is the first frame with the face's box drawn in.
    assert np.abs(good.frames[0].astype(int) - frames[0]).max() > 60


def test_no_face(tmp_path) -> None:
    report = check(film(tmp_path / "noise.mp4", noise(80), tone(80 / FPS)))
    assert not report.ok and "cannot be used" in report.summary()
    assert only(report, "face.none").severity == "error"


def test_face_in_part_of_the_clip(tmp_path) -> None:
    frames, sound = speaker_arrays()
    frames = frames.copy()
    frames[30:60] = 90
    report = check(film(tmp_path / "away.mp4", frames, sound))
    finding = next(f for f in report.findings if f.code == "face.missing")
    assert finding.severity == "warning" and report.ok
    assert finding.timecodes == ("0:01.2-0:02.0",)
    assert next(f for f in report.findings if f.code == "picture.cuts").timecodes == ("0:01.2", "0:02.4")
    frames[15:95] = 90
    report = check(film(tmp_path / "gone.mp4", frames, sound))
    assert "face.missing" in codes(report, "error") and not report.ok


def test_two_faces(tmp_path) -> None:
    frames, sound = speaker_arrays()
    half = frames[:, :, 64:192]
    report = check(film(tmp_path / "pair.mp4", np.concatenate([half, half[:, :, ::-1]], axis=2), sound))
    finding = only(report, "face.two")
    assert finding.severity == "error" and not report.ok
    assert finding.timecodes and finding.timecodes[0].startswith("0:00.0-")


def test_one_frame(tmp_path) -> None:
    frames, _ = speaker_arrays()
    report = check(film(tmp_path / "still.mp4", frames[:1], tone(1 / FPS)))
    assert not report.ok and codes(report, "error") == {"length.too_short"}


def test_too_short(tmp_path) -> None:
    frames, sound = speaker_arrays()
    report = check(film(tmp_path / "short.mp4", frames[:40], sound[: 40 * SAMPLE_RATE // FPS]))
    assert not report.ok and codes(report, "error") == {"length.too_short"}


def test_no_sound_and_silence(tmp_path) -> None:
    frames, sound = speaker_arrays()
    report = check(film(tmp_path / "mute.mp4", frames, None))
    assert not report.ok and only(report, "sound.none").severity == "error"
    report = check(film(tmp_path / "silent.mp4", frames, np.zeros_like(sound)))
    assert not report.ok and only(report, "sound.silent").severity == "error"


def test_sound_too_quiet_to_be_speech(tmp_path) -> None:
    frames, sound = speaker_arrays()
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)  # -80 dB
    assert only(check(film(tmp_path / "hiss.mp4", frames, hiss)), "sound.silent").severity == "error"


def turned_by(degrees: float) -> np.ndarray:
    """The speaker seen from the side [H, W, 3]."""
    performance = perform(np.zeros(SAMPLE_RATE, np.float32), 2, 0)
    T = performance.T_cam_head[0].copy()
    T[:3, :3] = rotvec_to_matrix(torch.tensor([0.0, np.radians(degrees), 0.0])).numpy() @ T[:3, :3]
    person = Character(0, 256)
    return person.draw(performance.face(0), camera_matrix(256), T, performance.T_cam_body[0])


@pytest.mark.parametrize("degrees", [65, -80])
def test_seen_from_the_side(tmp_path, degrees: float) -> None:
    _, sound = speaker_arrays()
    profile = turned_by(degrees)[None].repeat(80, axis=0)
    report = check(film(tmp_path / "side.mp4", profile, sound[: 80 * SAMPLE_RATE // FPS]))
    finding = next(f for f in report.findings if f.code == "face.turned")
    assert finding.severity == "error" and not report.ok and "45 degrees" in finding.message


def test_turned_away_for_a_moment(tmp_path) -> None:
    frames, sound = speaker_arrays()
    frames = frames.copy()
    frames[30:50] = turned_by(75)
    finding = only(check(film(tmp_path / "glance.mp4", frames, sound)), "face.turned")
    assert finding.severity == "warning" and "20 %" in finding.message
    assert finding.timecodes[0].startswith("0:01.")


def test_a_face_behind_a_mask(tmp_path) -> None:
    frames, sound = speaker_arrays()
    covered = frames.copy()
    covered[:, 120:190, 70:190] = 230
    report = check(film(tmp_path / "mask.mp4", covered, sound))
    assert not report.ok, report.summary()
    assert codes(report, "error") <= {"face.turned", "face.none", "mouth.still", "face.missing"}


def test_lips_without_their_sound(tmp_path) -> None:
    frames, sound = speaker_arrays()
    report = check(
        film(tmp_path / "listening.mp4", frames[:1].repeat(80, axis=0), sound[: 80 * SAMPLE_RATE // FPS])
    )
    assert not report.ok and only(report, "mouth.still").severity == "error"


def test_dark_blurred_and_small(tmp_path) -> None:
    frames, sound = speaker_arrays()
    frames, sound = frames[:60], sound[: 60 * SAMPLE_RATE // FPS]
    assert "picture.dark" in codes(check(film(tmp_path / "dark.mp4", frames // 6, sound)))
    soft = np.stack([cv2.GaussianBlur(f, (0, 0), 6) for f in frames])
    assert "picture.blurred" in codes(check(film(tmp_path / "soft.mp4", soft, sound)))
    far = np.full((60, 256, 256, 3), 120, np.uint8)
    far[:, 64:192, 64:192] = np.stack(
        [cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in frames]
    )
    finding = next(
        f for f in check(film(tmp_path / "far.mp4", far, sound)).findings if f.code == "face.small"
    )
    assert finding.severity == "error"


def test_unreadable_files_raise_what_decoding_says(tmp_path) -> None:
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.write_bytes(b"")
    text.write_text("Dear diary, this is no film at all.\n" * 50)
    for path, code in ((empty, "video.empty"), (text, "video.not_a_video")):
        with pytest.raises(VideoError) as caught:
            check(path, name="mine.mp4")
        assert caught.value.code == code and "mine.mp4" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def upright(k: int, *_: int) -> np.ndarray:
    return speaker_arrays()[0][k]


def test_turned_clip_is_looked_at_upright(tmp_path) -> None:
    sound = np.repeat(speaker_arrays()[1], 3)[: 80 * 48_000 // FPS]
    for rotation in (90, -90):
        path = write_clip(
            tmp_path / f"r{rotation}.mp4",
            n=80,
            size=(256, 256),
            picture=lambda k, *_, r=rotation: np.ascontiguousarray(np.rot90(upright(k), -r // 90)),
            rotation=rotation,
            sound=sound,
        )
        report = check(path)
        assert report.ok and codes(report) - ORDINARY == set()
        assert report.facts["Face visible"] == "100 %"


def test_variable_frame_rate(tmp_path) -> None:
    # Every frame lasts as long as its number says: 40 ms, then 20 ms, then 40 ms again.
    times = np.cumsum([0.0, *([0.04] * 40), *([0.02] * 20), *([0.06] * 30)])
    path = write_clip(
        tmp_path / "vfr.mp4",
        times=list(times),
        size=(256, 256),
        picture=upright,
        sound=np.repeat(speaker_arrays()[1], 3),
    )
    report = check(path)
    assert report.duration_s == pytest.approx(times[-1], abs=0.1)
    assert report.ok and report.facts["Face visible"] == "100 %"


def test_4k(tmp_path) -> None:
    frames = speaker_arrays()[0]

    def large(k: int, *_: int) -> np.ndarray:
        picture = np.full((2160, 3840, 3), 110, np.uint8)
        picture[:, 840:3000] = cv2.resize(frames[k], (2160, 2160))
        return picture

    path = write_clip(
        tmp_path / "large.mp4",
        n=8,
        size=(3840, 2160),
        picture=large,
        options={},
        sound=tone(0.32, 48_000),
    )
    report = check(path)
    assert report.facts["Picture"].startswith("3840 x 2160")
    assert codes(report, "error") == {"length.too_short"}
    assert "face.small" not in codes(report)


def test_timecodes() -> None:
    assert [timecode(t) for t in (0.0, 4.2, 61.24, 59.97)] == ["0:00.0", "0:04.2", "1:01.2", "1:00.0"]


def test_findings_come_with_pictures_of_their_moments(tmp_path) -> None:
    frames, sound = speaker_arrays()
    frames = frames.copy()
    frames[30:60] = 90
    report = check(film(tmp_path / "away.mp4", frames, sound))
    missing = next(f for f in report.findings if f.code == "face.missing")
    assert missing.spans == ((1.2, 2.0),)
    assert "about 30 frames will be skipped" in missing.message
    shown = {p.code: p for p in report.pictures}
    assert set(shown) == {"", "face.missing", "picture.cuts"}
    assert 1.2 <= shown["face.missing"].seconds <= 2.0
    assert len(report.frames) == 4
    # Nobody is in the picture, so only the kept square may be drawn over the grey.
    green = (shown["face.missing"].rgb.astype(int) - (80, 220, 120)).__abs__().max(-1) < 12
    assert not green.any()
    assert ((report.frames[0].astype(int) - (80, 220, 120)).__abs__().max(-1) < 12).sum() > 100, (
        "a face has a box"
    )


def test_a_clip_that_cannot_be_used_may_have_a_part_that_can(tmp_path) -> None:
    frames, sound = speaker_arrays()
    alone = np.pad(frames, ((0, 0), (0, 0), (128, 128), (0, 0)), constant_values=90)
    half = frames[:, :, 64:192]
    pair = np.pad(
        np.concatenate([half, half[:, :, ::-1]], axis=2),
        ((0, 0), (0, 0), (128, 128), (0, 0)),
        constant_values=90,
    )
    both = np.concatenate([pair[:95], alone[:80]])
    report = check(
        film(tmp_path / "guest.mp4", both, np.concatenate([sound, sound])[: 175 * SAMPLE_RATE // FPS])
    )
    assert not report.ok and "face.two" in codes(report, "error")
    assert report.part_ok and report.part is not None
    assert report.part[0] == pytest.approx(3.8, abs=0.5) and report.part[1] == pytest.approx(7.0, abs=0.1)
    assert "can be used" in report.summary().splitlines()[-1]
    assert any(p.code == "face.two" and p.seconds < 3.8 for p in report.pictures)


def test_the_longest_part() -> None:
    index = np.arange(0, 250, 10)
    no = np.zeros(25, bool)
    assert longest_part(index, no, no, 10.0) == (0.0, 10.0)
    short, long, guest = no.copy(), no.copy(), no.copy()
    short[[5, 12, 13]] = True
    assert longest_part(index, short, no, 10.0) == (0.0, 10.0), "a few missing frames are skipped"
    long[8:11] = True
    assert longest_part(index, long, no, 10.0) == (4.4, 10.0)
    guest[20] = True
    assert longest_part(index, long, guest, 10.0) == (4.4, 7.6)
    assert longest_part(index, ~no, no, 10.0) is None


def test_spans_join_neighbours_and_names_are_few() -> None:
    index = np.arange(0, 250, 10)
    assert spans(index, np.isin(index, [0, 10, 20, 50, 240])) == ((0.0, 0.8), (2.0, 2.0), (9.6, 9.6))
    assert names(((0.0, 0.8), (2.0, 2.0))) == ("0:00.0-0:00.8", "0:02.0")
    assert names(((1.0, 1.0),) * 9)[-1] == "..." and len(names(((1.0, 1.0),) * 9)) == 7
