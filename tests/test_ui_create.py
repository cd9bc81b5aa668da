"""What the Create page says about a clip, a part of it, and what an avatar of it takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from talker.errors import ConfigError, VideoError
from talker.studio.preflight import Finding, Report, Shot, checked_part
from talker.studio.presets import PRICE_VARIABLE, dollars_at_most, hourly_price, memory_gb, preset_infos
from talker.ui.costs import preset_card, total
from talker.ui.report import part_note, report_html, timeline
from talker.ui.trimming import chosen_part, kept_seconds, required_part

GUEST = Finding("face.two", "error", "A second face <b>", "Crop it.", ("0:00.0-0:09.0",), ((0.0, 9.0),))
AWAY = Finding(
    "face.missing", "warning", "Nobody there.", "", ("0:12.0", "0:20.0"), ((12.0, 12.0), (20.0, 20.0))
)
CUT = Finding("picture.cuts", "info", "The clip is cut once.", "", ("0:10.0",), ((10.0, 10.0),))


def report(
    *findings: Finding, ok: bool = True, part: tuple[float, float] | None = (0.0, 30.0), **more
) -> Report:
    return Report(ok, "film.mp4 (30.0 s) said.", 30.0, findings, part=part, part_ok=part is not None, **more)


def text(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", markup)).strip()


def test_timeline_marks_every_span_and_says_the_same_in_words() -> None:
    drawn = timeline(report(GUEST, AWAY, CUT, ok=False, part=(9.0, 30.0)))
    places = re.findall(r'<i class="tk-([a-z]+)" style="left:([\d.]+)%;width:([\d.]+)%', drawn)
    assert [(kind, float(left)) for kind, left, _ in places] == [
        ("cut", 33.33),
        ("warning", 40.0),
        ("warning", 66.67),
        ("error", 0.0),
        ("part", 30.0),
    ], "what is worse lies above"
    assert all(float(left) + float(width) <= 100.01 and float(width) > 0.5 for _, left, width in places)
    assert [float(w) for kind, _, w in places if kind in ("error", "part")] == [30.0, 70.0]
    label = re.search(r'role="img" aria-label="([^"]+)"', drawn)
    assert label is not None
    for words in (
        "30 s",
        "Problem: A second face",
        "(0:00.0-0:09.0)",
        "Nobody there. (0:12.0, 0:20.0)",
        "cut once",
    ):
        assert words in label.group(1)
    assert "<b>" not in label.group(1)
    assert "0:00 0:08 0:15 0:22 0:30" in text(drawn)


def test_a_spotless_clip_has_a_spotless_timeline() -> None:
    drawn = timeline(report())
    assert "<i class" not in drawn.split("tk-legend")[0]
    assert "Nothing is wrong." in drawn


def test_findings_show_the_frames_they_are_about(tmp_path: Path) -> None:
    shots = []
    for index, (seconds, code) in enumerate([(0.0, ""), (15.0, ""), (3.0, "face.two")]):
        path = tmp_path / f"frame-{index}.jpg"
        Image.new("RGB", (64, 48), (index * 60, 0, 0)).save(path)
        shots.append(Shot(path, seconds, code))
    shown = report_html(report(GUEST, AWAY, ok=False, part=(9.0, 30.0), pictures=tuple(shots)), "film.mp4")
    assert re.findall(r"<figcaption>([^<]+)", shown) == ["0:00", "0:15", "0:03"]
    evidence = shown[shown.index("tk-evidence") :]
    assert evidence.index("0:03") < evidence.index("Nobody there."), "beside its finding"
    assert 'alt="A second face &lt;b&gt; (frame at 0:03)"' in shown
    assert str(tmp_path) not in shown


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (report(), "Good to go"),
        (report(CUT), "Good to go"),
        (report(AWAY), "Usable, and could be better"),
        (report(GUEST, ok=False, part=(9.0, 30.0)), "0:09 to 0:30 is fine. It is chosen below."),
        (report(GUEST, ok=False, part=None), "This clip cannot be used"),
    ],
)
def test_verdicts(found: Report, words: str) -> None:
    assert words in text(report_html(found, "film.mp4"))


def test_a_bad_clip_is_used_in_its_good_part_only() -> None:
    found = report(GUEST, ok=False, part=(9.0, 30.0))
    assert found.usable
    assert required_part(found, (9.0, 30.0)) == (9.0, 30.0)
    assert required_part(found, (12.0, 20.0)) == (12.0, 20.0)
    for part in (None, (0.0, 30.0), (5.0, 20.0)):
        with pytest.raises(VideoError) as caught:
            required_part(found, part)
        assert caught.value.code == "video.part"
        assert "9.0 to 30.0" in str(caught.value)
    assert required_part(report(AWAY), None) is None
    assert required_part(report(AWAY), (0.0, 5.0)) == (0.0, 5.0)
    assert not report(GUEST, ok=False, part=None).usable


def test_choosing_a_part() -> None:
    assert chosen_part(False, 3.0, 9.0) is None
    assert chosen_part(True, 3.0, 9.0) == (3.0, 9.0)
    assert kept_seconds(report(), None) == 30.0
    assert kept_seconds(report(), (20.0, 60.0)) == 10.0
    assert kept_seconds(report(), (9.0, 3.0)) == 0.0


@pytest.mark.parametrize(
    ("part", "kind", "words"),
    [
        ((3.0, 28.0), "tk-info", "0:03 to 0:28, 25 s of 30 s."),
        ((3.0, 9.0), "tk-warning", "little to learn"),
        ((3.0, 4.0), "tk-error", "That leaves 1.0 seconds"),
        ((9.0, 4.0), "tk-error", "That leaves 0.0 seconds"),
    ],
)
def test_a_chosen_part_is_said_in_words(part: tuple[float, float], kind: str, words: str) -> None:
    note = part_note(report(), part)
    assert kind in note
    assert words in text(note)
    assert part_note(report(), None) == ""


def test_leaving_the_good_part_is_said_at_once() -> None:
    note = part_note(report(GUEST, ok=False, part=(9.0, 30.0)), (2.0, 25.0))
    assert "tk-error" in note
    assert "Only what lies within 0:09 to 0:30" in text(note)


@pytest.mark.parametrize(
    "part", [(-1.0, 9.0), (5.0, 5.0), (5.0, 7.9), (0.0, float("inf")), (float("nan"), 9.0)]
)
def test_the_server_takes_no_impossible_part(part: tuple[float, float]) -> None:
    with pytest.raises(VideoError) as caught:
        checked_part(*part)
    assert caught.value.code == "video.part"
    assert checked_part(1.234567, 9) == (1.23, 9.0)


def test_memory_is_what_was_measured() -> None:
    assert [memory_gb(size) for size in (128, 256, 512, 1024)] == [1.7, 1.7, 2.4, 2.4]


def test_every_preset_says_time_memory_and_purpose() -> None:
    infos = preset_infos(30.0, 256, None)
    assert len(infos) == 4
    for info in infos:
        lines = preset_card(info, "local", 0.0).split("\n")
        assert len(lines) == 4
        assert lines[0] and lines[1].startswith("For ")
        assert lines[2].startswith("About ") and lines[2].endswith("on this machine")
        assert lines[3] == "About 1.7 GB of memory"
    longer = preset_infos(120.0, 512, None)
    assert all(b.minutes > a.minutes for a, b in zip(infos, longer, strict=True))


def test_elsewhere_the_price_is_said_before_the_start() -> None:
    info = preset_infos(30.0, 256, None)[0]
    minutes = max(1, round(info.minutes))
    card = preset_card(info, "space", 0.8)
    assert f"At most ${dollars_at_most(info.minutes, 0.8):.2f}, at $0.80 an hour" in card
    assert "this machine" not in card
    assert f"at most {minutes} min" in text(total(info, 256, 30.0, "space", 0.8))
    assert "the price is not stated" in total(info, 256, 30.0, "space", None)
    assert "It costs nothing" in total(info, 256, 30.0, "space", 0.0)
    here = text(total(info, 256, 30.0, "local", 0.0))
    assert here.startswith("Preview, 256 × 256, from 30 s of video: about ")
    assert "and 1.7 GB of memory on this machine" in here and "It costs nothing" in here


def test_started_minutes_are_paid_and_cents_rounded_up() -> None:
    assert dollars_at_most(3.2, 0.6) == 0.04
    assert dollars_at_most(60.0, 0.8) == 0.8
    assert dollars_at_most(1.0, 0.0) == 0.0


def test_the_stated_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRICE_VARIABLE, raising=False)
    assert hourly_price() is None
    monkeypatch.setenv(PRICE_VARIABLE, " 0.80 ")
    assert hourly_price() == 0.8
    for wrong in ("cheap", "-1", "nan"):
        monkeypatch.setenv(PRICE_VARIABLE, wrong)
        with pytest.raises(ConfigError):
            hourly_price()


class Page:
    """The real page over a real studio; only the minutes of looking at a clip are left out."""

    def __init__(self, home: Path, found: Report, monkeypatch: pytest.MonkeyPatch) -> None:
        import gradio as gr

        from talker.studio import LOCAL, Studio, preflight
        from talker.ui.context import Context
        from talker.ui.create import CreatePage

        monkeypatch.setattr(preflight, "run", lambda clip, out: found)
        self.studio = Studio(home)
        with gr.Blocks():
            self.page = CreatePage(Context(self.studio))
        clip = home / "film.mp4"
        clip.write_bytes(b"film")
        self.upload = self.studio.take(clip, LOCAL)
        values = self.page._look(self.upload, LOCAL)
        self.shown = dict(zip(self.page.outputs, values, strict=True))

    def start(self, **values: object) -> str:
        page = self.page
        given = {
            page.upload_id: self.upload.id, page.name: "Ada", page.who: "Ada King", page.agreed: True,
            page.preset: "preview", page.size: 256, page.where: "local", page.found: self.shown[page.found],
            page.only_part: False, page.start: 0.0, page.end: 30.0,
        }  # fmt: skip
        chosen = {getattr(page, name): value for name, value in values.items()}
        return page.on_go({**given, **chosen}, None)  # type: ignore[arg-type]


def test_a_good_clip_is_used_whole_unless_a_part_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Page(tmp_path / "home", report(), monkeypatch)
    page, shown = it.page, it.shown
    assert shown[page.part_box]["visible"] is True and shown[page.only_part] is False
    assert (shown[page.start]["value"], shown[page.end]["value"], shown[page.end]["maximum"]) == (
        0.0,
        30.0,
        30.0,
    )
    assert shown[page.quality_card]["visible"] is True
    assert "from 30 s of video" in shown[page.total]
    bounds, note, cards, total_now = page.on_choice(report(), True, 3.0, 23.0, 512, "local", "standard")
    assert bounds["visible"] is True and "20 s of 30 s" in note
    assert cards["value"] == "standard" and len(cards["choices"]) == 4
    assert "Standard, 512 × 512, from 20 s of video" in total_now
    request = it.studio._jobs().store.accepted(it.start(only_part=True, start=3.0, end=23.0)).request
    assert (request.start_s, request.end_s) == (3.0, 23.0)


def test_a_bad_clip_is_offered_its_good_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio as gr

    it = Page(tmp_path / "home", report(GUEST, ok=False, part=(9.0, 30.0)), monkeypatch)
    page, shown = it.page, it.shown
    assert shown[page.only_part] is True and shown[page.bounds]["visible"] is True
    assert (shown[page.start]["value"], shown[page.end]["value"]) == (9.0, 30.0)
    assert "from 21 s of video" in shown[page.total]
    assert shown[page.quality_card]["visible"] is True
    for wrong in ({"only_part": False}, {"only_part": True, "start": 2.0}):
        with pytest.raises(gr.Error, match="cannot be used"):
            it.start(**wrong)
    assert it.studio.jobs("local") == []
    request = it.studio._jobs().store.accepted(it.start(only_part=True, start=9.0, end=30.0)).request
    assert (request.start_s, request.end_s) == (9.0, 30.0)


def test_a_hopeless_clip_goes_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Page(tmp_path / "home", report(GUEST, ok=False, part=None), monkeypatch)
    for part in (it.page.part_box, it.page.quality_card, it.page.consent_card):
        assert it.shown[part]["visible"] is False
