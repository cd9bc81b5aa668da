"""The pages in a real browser: what they show when empty, what they say of bad input, what they never believe."""

from __future__ import annotations

import dataclasses
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageColor
from playwright.sync_api import Browser, Page, expect

from tests.avatar_support import tiny_avatar_folder as put_avatar
from tests.browser_support import App, chromium, running

pytestmark = pytest.mark.browser

MINUTE = 60_000
PAGES = ("", "talk", "avatars", "jobs")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    chromium()
    home = tmp_path_factory.mktemp("browser") / "home"
    with running(home, TALKER_SIZES="128", TALKER_MAX_MINUTES="0.2") as instance:
        yield instance


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(MINUTE)
    page = context.new_page()
    page.errors = []  # type: ignore[attr-defined]
    page.foreign = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    page.on(
        "request",
        lambda r: (
            page.foreign.append(r.url) if not re.match(r"(http://127\.0\.0\.1|data:|blob:)", r.url) else None
        ),  # type: ignore[attr-defined]
    )
    yield page
    assert page.errors == []  # type: ignore[attr-defined]
    assert page.foreign == [], "the page fetched something from outside"  # type: ignore[attr-defined]
    context.close()


def open_page(page: Page, app: App, path: str) -> None:
    page.goto(app.address + path)
    page.wait_for_selector(".tk-footer", state="attached")
    expect(page.locator(".tk-skeleton")).to_be_hidden(timeout=MINUTE)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_teach_when_empty(browser: Browser, app: App, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(MINUTE)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for path in PAGES:
        open_page(page, app, path)
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, f"/{path} is {overflow} px too wide"
        assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
        if path:
            expect(page.locator(".tk-empty")).to_be_visible()
            assert page.locator(".tk-empty a").get_attribute("href") == "./"
        current = page.locator(".tk-header nav a[aria-current]")
        assert current.inner_text().lower() == (path or "create")
    assert errors == []
    context.close()


def test_a_text_file_gets_one_clear_message(page: Page, app: App, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("this is no film\n")
    open_page(page, app, "")
    page.set_input_files("#tk-upload input[type=file]", tmp_path / "notes.mp4")
    banner = page.locator("#tk-report .tk-error")
    expect(banner).to_be_visible(timeout=MINUTE)
    assert "/" not in banner.inner_text().replace("and/or", "")
    expect(page.locator("#tk-go")).to_be_hidden()
    page.click("#tk-again")
    expect(page.locator("#tk-upload")).to_be_visible()


LOOKING_AWAY = """
document.hasFocus = () => false;
window.told = [];
window.Notification = class {
  static permission = 'granted';
  constructor(title, options) { window.told.push(title + ': ' + options.body); }
};
"""


def test_the_end_of_a_job_is_news_once(page: Page, app: App, tmp_path: Path) -> None:
    """A clip that is none fails within seconds: in the page, in its title, and as a notification."""
    from talker.jobs.job import JobRequest
    from talker.jobs.queue import JobQueue
    from talker.provenance import new_consent

    page.add_init_script(LOOKING_AWAY)
    queue = JobQueue(app.home)
    clip = tmp_path / "notes.mp4"
    clip.write_text("this is no film\n")
    open_page(page, app, "jobs")
    ids = [
        queue.submit(clip, JobRequest(name, "local", new_consent("Ada")))
        for name in ("First", "<b>Second</b>")
    ]
    page.locator(f"[data-id='{ids[1]}']").click()
    toast = page.locator(".tk-toast.tk-failed", has_text="<b>Second</b> failed")
    expect(toast).to_be_visible(timeout=3 * MINUTE)
    assert page.title() == "<b>Second</b> failed"
    assert toast.locator("a").get_attribute("href") == f"./jobs?job={ids[1]}"
    assert "not a video" in toast.inner_text()
    expect(page.locator("#tk-job-detail .tk-pill")).to_have_text("Failed")
    expect(page.locator("#tk-resume")).to_have_text("Try again")
    page.wait_for_timeout(5000)  # two more looks
    told = page.evaluate("window.told")
    assert len([t for t in told if t.startswith("<b>Second</b> failed")]) == 1
    assert page.locator(".tk-toast", has_text="Second").count() == 1
    toast.locator("button").click()
    expect(toast).to_have_count(0)
    page.reload()
    expect(page.locator("#tk-job-detail .tk-pill")).to_have_text("Failed")
    page.wait_for_timeout(3000)
    expect(page.locator(".tk-toast")).to_have_count(0)
    for job_id in ids:
        page.goto(f"{app.address}jobs?job={job_id}")
        page.click("#tk-delete")
        page.click("#tk-yes")
        expect(page.locator(f"[data-id='{job_id}']")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_names_are_text_not_markup(page: Page, app: App) -> None:
    name = "<img src=x onerror=\"document.title='hit'\">${document.title='hit'}{{document}}"
    put_avatar(app.home / "avatars" / "guest", name=name)
    for path in ("avatars", "talk"):
        open_page(page, app, path)
        tile = page.locator(".tk-tile[data-id=guest] .tk-name")
        expect(tile).to_have_text(name)
        assert "hit" not in page.title()


def colours(page: Page, selector: str) -> set[tuple[int, int, int]]:
    """Every colour of what is seen of an element."""
    picture = Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")
    found = picture.getcolors(picture.width * picture.height)
    assert found is not None
    return {colour for _, colour in found}  # type: ignore[misc]


def rgb(name: str) -> tuple[int, int, int]:
    return ImageColor.getrgb(name)[:3]


def test_a_stage_that_begins_while_one_looks_gets_its_curve(page: Page, app: App, tmp_path: Path) -> None:
    from talker.events import Progress
    from talker.jobs.job import JobRequest, JobState
    from talker.jobs.recorder import Recorder, RecorderConfig
    from talker.jobs.store import JobStore
    from talker.provenance import new_consent
    from talker.ui.jobs import COLOURS

    store = JobStore(app.home)
    (tmp_path / "film.mp4").write_bytes(b"no film")
    job = store.create(tmp_path / "film.mp4", JobRequest("Ada", "local", new_consent("Ada")))
    for state in (
        JobState.RUNNING,
        JobState.STOPPED,
    ):  # a worker leaves it alone; the page looks all the same
        store.update(job, lambda old, s=state: dataclasses.replace(old, state=s))
    recorder = Recorder(store.folder(job), lambda: None, RecorderConfig(live_s=0.0, log_s=0.0))

    def trained(stage: str, steps: int) -> None:
        for step in range(0, steps + 1, steps // 20):
            values = {"loss": 0.1 + 0.05 * (step % 200 > 0), "psnr": 20 + step / 100}
            recorder.record(Progress(stage, step, steps, 60.0, values))

    trained("static", 600)
    open_page(page, app, f"jobs?job={job}")
    for stage in ("static", "deform", "refine"):
        if stage != "static":
            trained(stage, 1000)
        deadline = time.monotonic() + 60
        while rgb(COLOURS[stage]) not in colours(page, "#tk-plots"):
            assert time.monotonic() < deadline, f"no line of the stage {stage}"
            page.wait_for_timeout(500)
    seen = colours(page, "#tk-plots")
    assert all(rgb(colour) in seen for colour in COLOURS.values()), "the earlier ones stay"
    store.remove(job)
