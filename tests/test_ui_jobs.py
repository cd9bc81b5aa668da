"""What the job page says about a job, from the real store's values."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from talker.events import Preview, PreviewClip, Progress, StageStarted
from talker.jobs.job import Job, JobRequest, JobState
from talker.jobs.recorder import PREVIEW_CLIP, Recorder, RecorderConfig
from talker.jobs.store import JobStore
from talker.provenance import new_consent
from talker.studio.config import LOCAL
from talker.ui import notices
from talker.ui.job_html import clip_html, curves, detail, job_list, log_text, previews, stage_name
from talker.ui.pictures import thumbnail

NAME = "<b>Ada</b> ${1}"


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path)


def new_job(store: JobStore, tmp_path: Path, *states: JobState) -> Job:
    clip = tmp_path / "a film.mp4"
    clip.write_bytes(b"x")
    job_id = store.create(clip, JobRequest(NAME, "local", new_consent("Ada")))
    for state in states:
        store.update(job_id, lambda old, s=state: dataclasses.replace(old, state=s))
    return store.get(job_id)


def text(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", markup)).strip()


def test_queue_places_are_said_in_words(store: JobStore, tmp_path: Path) -> None:
    first, second, third = (new_job(store, tmp_path) for _ in range(3))
    said = [text(detail(store.get(j.id), [])) for j in (first, second, third)]
    assert "It is the next to run." in said[0]
    assert "There is 1 job before it." in said[1]
    assert "There are 2 jobs before it." in said[2]
    listed = job_list(store.jobs(), second.id, {})
    assert listed.count('aria-pressed="true"') == 1
    assert re.search(rf'data-id="{second.id}" aria-pressed="true"', listed)
    assert "<b>Ada</b>" not in listed
    assert "&lt;b&gt;Ada" in listed


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ((JobState.RUNNING,), "Training"),
        ((JobState.RUNNING, JobState.STOPPING), "Saving"),
        ((JobState.STOPPED,), "Resume whenever you like"),
        ((JobState.RUNNING, JobState.FAILED), "This job failed"),
        ((JobState.CANCELLED,), "Its work was deleted"),
        ((JobState.RUNNING, JobState.DONE), "The avatar is ready"),
    ],
)
def test_every_state_says_what_it_means(
    store: JobStore, tmp_path: Path, states: tuple[JobState, ...], word: str
) -> None:
    assert word in text(detail(new_job(store, tmp_path, *states), []))


def test_progress_with_share_and_time_left(store: JobStore, tmp_path: Path) -> None:
    job = new_job(store, tmp_path, JobState.RUNNING)
    running = dataclasses.replace(
        job, stage="deform", step=1300, total=5200, eta_s=95.0, values={"psnr": 27.25}
    )
    events = [{"type": "stage", "stage": s} for s in ("prepare/pose", "prepare/torso", "static", "deform")]
    said = detail(running, events)
    assert 'aria-valuenow="25"' in said
    assert "1,300 of 5,200 · about 1 min 35 s left" in text(said)
    assert re.findall(r"<li class=\"(tk-\w+)\">([^<]+)", said) == [
        ("tk-past", "Prepare"),
        ("tk-past", "Learn the head"),
        ("tk-now", "Learn the motion"),
    ]
    unknown = detail(dataclasses.replace(running, total=0, eta_s=None), events)
    assert "tk-unknown" in unknown
    assert "left" not in text(unknown)


def test_curves_go_on_over_the_stages_and_stay_small() -> None:
    events: list[dict[str, object]] = [
        {"type": "progress", "stage": "prepare/masks", "step": 500, "values": {}}
    ]
    for stage, steps in (("static", 800), ("deform", 5200)):
        events += [
            {
                "type": "progress",
                "stage": stage,
                "step": s,
                "values": {"loss": 1 / s, "psnr": None if s < 3 else 20.0},
            }
            for s in range(1, steps + 1)
        ]
    loss, psnr = curves(events)
    assert loss["step"].is_monotonic_increasing
    assert loss["step"].iloc[0] == 1
    assert 5900 < loss["step"].iloc[-1] <= 6000
    assert list(dict.fromkeys(loss["stage"])) == [stage_name("static"), stage_name("deform")]
    assert len(loss) <= 601
    assert psnr["psnr"].notna().all()


def test_pictures_are_inside_the_page(store: JobStore, tmp_path: Path) -> None:
    from PIL import Image

    job = new_job(store, tmp_path, JobState.RUNNING)
    paths = []
    for index in range(20):
        paths.append(tmp_path / f"{index:05d}.png")
        Image.new("RGB", (300, 300), (index, 0, 0)).save(paths[-1])
    shown = previews(paths, job)
    sources = re.findall(r'src="([^"]+)"', shown)
    assert 4 <= len(sources) <= 8
    assert all(s.startswith("data:image/jpeg;base64,") for s in sources)
    paths[-1].unlink()
    assert str(tmp_path) not in previews(paths, job), "a picture that vanished is no error"


def test_log_is_text(store: JobStore, tmp_path: Path) -> None:
    job = new_job(store, tmp_path)
    store.log(job.id, "note", message="<script>alert(1)</script>", level="warning")
    store.log(job.id, "evaluated", protocol="B", metrics={"psnr": 28.123, "lpips": None})
    shown = log_text(store.events(job.id)[0])
    assert "<script" not in shown
    assert "! &lt;script&gt;" in shown
    assert "Protocol B: psnr 28.123" in shown
    assert "[queued]" in shown


def test_what_the_worker_records_is_what_is_shown(store: JobStore, tmp_path: Path) -> None:
    job = new_job(store, tmp_path, JobState.RUNNING)
    recorder = Recorder(store.folder(job.id), lambda: None, RecorderConfig(live_s=0.0, log_s=0.0))
    picture = np.full((64, 64, 3), 200, np.uint8)
    for event in (
        StageStarted("static", 100),
        Progress("static", 40, 100, 65.0, {"loss": 0.05, "psnr": 27.5, "gaussians": 20_000.0}),
        Preview("static", 40, picture),
    ):
        recorder.record(event)
    job, events = store.get(job.id), store.events(job.id)[0]
    assert "Learn the head" in text(detail(job, events))
    assert "40 of 100 · about 1 min 5 s left" in text(detail(job, events))
    assert "27.5 dB" in text(previews(store.previews(job.id), job))
    assert "data:image/jpeg" in previews(store.previews(job.id), job)
    assert [len(table) for table in curves(events)] == [1, 1]


def test_the_part_of_the_clip_is_said(store: JobStore, tmp_path: Path) -> None:
    job = new_job(store, tmp_path)
    assert "from a film.mp4 ·" in text(detail(job, []))
    part = dataclasses.replace(job, start_s=3.0, end_s=67.2)
    assert "from a film.mp4, 0:03 to 1:07 ·" in text(detail(part, []))
    assert "0:03 to the end" in text(detail(dataclasses.replace(part, end_s=None), []))


def test_the_moving_preview_is_kept_and_shown(store: JobStore, tmp_path: Path) -> None:
    from PIL import Image

    job = new_job(store, tmp_path, JobState.RUNNING)
    recorder = Recorder(store.folder(job.id), lambda: None)
    frames = np.zeros((6, 48, 64, 3), np.uint8)
    frames[np.arange(6), :, np.arange(6) * 10] = 255
    recorder.record(PreviewClip("static", 600, frames, 12))
    path = store.folder(job.id) / "previews" / PREVIEW_CLIP
    with Image.open(path) as film:
        assert (film.format, film.size, film.n_frames) == ("WEBP", (64, 48), 7)  # type: ignore[attr-defined]
        assert film.info["loop"] == recorder.config.preview_loops > 0
        film.seek(2)
        assert np.asarray(film.convert("L"))[24].argmax() == 20
    assert store.previews(job.id) == [], "it is none of the still pictures"
    assert not list(path.parent.glob(".*"))
    assert 'src="data:image/webp;base64,' in clip_html(path)
    path.unlink()
    assert clip_html(path) == clip_html(None) == ""
    assert any(e["type"] == "clip" for e in store.events(job.id)[0])


def test_only_jobs_that_ended_meanwhile_are_news(store: JobStore, tmp_path: Path) -> None:
    import json

    jobs = [
        new_job(store, tmp_path, JobState.RUNNING, JobState.DONE),
        new_job(store, tmp_path, JobState.RUNNING, JobState.FAILED),
        new_job(store, tmp_path, JobState.CANCELLED),
        new_job(store, tmp_path, JobState.RUNNING),
    ]
    before = {job.id: "running" for job in jobs}
    assert notices.ended(jobs, before) == jobs[:2]
    assert notices.ended(jobs, {}) == [], "a page just opened brings no old news"
    assert notices.ended(jobs, notices.states(jobs)) == []
    assert notices.news([], {}) == ""
    told = json.loads(notices.news(jobs[:2], {jobs[0].id: "ada"}))
    assert [n["level"] for n in told] == ["done", "failed"]
    assert told[0]["title"] == f"{NAME} is ready" and told[0]["href"] == "./talk?avatar=ada"
    assert told[1]["href"] == f"./jobs?job={jobs[1].id}" and told[1]["text"]
    assert json.loads(notices.news(jobs[:1], {}))[0]["href"] == f"./jobs?job={jobs[0].id}"
    assert "innerHTML" not in notices.TELL, "names are text"


class Page:
    """The values a browser would have, kept over the updates of the real page."""

    def __init__(self, home: Path) -> None:
        import gradio as gr

        from talker.studio import Studio
        from talker.ui.context import Context
        from talker.ui.jobs import JobsPage

        self.studio = Studio(home)
        with gr.Blocks() as demo:
            self.page = JobsPage(Context(self.studio), demo)
        self.seen: dict = {}

    def look(self, job_id: str = "") -> dict:
        """One tick; what it changed, by component."""
        updates = self.page.on_tick(job_id, self.seen, None)  # type: ignore[arg-type]
        changed = dict(zip(self.page.outputs, updates, strict=True))
        self.seen = changed[self.page.seen]
        return {
            c: v
            for c, v in changed.items()
            if not (isinstance(v, dict) and v.get("__type__") == "update" and len(v) == 1)
        }


def test_a_page_hears_of_the_end_once(tmp_path: Path) -> None:
    import json

    page = Page(tmp_path / "home")
    store = JobStore(tmp_path / "home")
    job = new_job(store, tmp_path, JobState.RUNNING)
    first = page.look()
    assert page.page.news not in first
    assert first[page.page.buttons["stop"]]["visible"] is True
    store.update(job.id, lambda old: dataclasses.replace(old, state=JobState.FAILED))
    second = page.look(job.id)
    assert json.loads(second[page.page.news])[0]["level"] == "failed"
    assert second[page.page.buttons["resume"]] == {
        "__type__": "update",
        "visible": True,
        "value": "Try again",
    }
    assert second[page.page.buttons["stop"]]["visible"] is False
    third = page.look(job.id)
    assert page.page.news not in third and page.page.buttons["resume"] not in third
    other = Page(tmp_path / "home").look()
    assert other, "another device sees the same job"
    assert job.id in str(other.values())


def test_the_moving_preview_is_sent_once(tmp_path: Path) -> None:
    page = Page(tmp_path / "home")
    store = JobStore(tmp_path / "home")
    job = new_job(store, tmp_path, JobState.RUNNING)
    assert not page.look().get(page.page.clip)
    Recorder(store.folder(job.id), lambda: None).record(
        PreviewClip("static", 9, np.zeros((2, 8, 8, 3), np.uint8), 12)
    )
    assert "data:image/webp" in page.look(job.id)[page.page.clip]
    assert page.page.clip not in page.look(job.id)
    store.update(job.id, lambda old: dataclasses.replace(old, state=JobState.DONE))
    assert page.look(job.id)[page.page.clip] == "", "the avatar itself is there now"


def test_a_finished_job_shows_its_avatar(tmp_path: Path) -> None:
    """Whatever picture of the training came last: of a short one that is a wall without a person."""
    from tests.avatar_support import tiny_avatar_folder

    page, store = Page(tmp_path / "home"), JobStore(tmp_path / "home")
    job = new_job(store, tmp_path, JobState.RUNNING)
    wall = np.full((64, 64, 3), 90, np.uint8)
    Recorder(store.folder(job.id), lambda: None).record(Preview("prepare/background", 0, wall))
    during = page.look()[page.page.pictures]
    slug = page.studio.gallery.adopt(tiny_avatar_folder(tmp_path / "made"), "Zoe", LOCAL, f"job:{job.id}")
    store.update(job.id, lambda old: dataclasses.replace(old, state=JobState.DONE))
    after = page.look(job.id)
    poster = thumbnail(page.studio.gallery.get(slug, LOCAL).poster, 512)
    assert poster and after[page.page.pictures].index(poster) < after[page.page.pictures].index("tk-beside")
    assert poster not in during
