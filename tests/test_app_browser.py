"""The whole story in a real browser: a clip becomes an avatar, the avatar says what is typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
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


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from talker.dataset.sample import make_sample

    path = tmp_path_factory.mktemp("clip") / "my film (final).mp4"
    make_sample(path, seconds=10, size=256)
    return path


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
def test_clip_to_talking_avatar(page: Page, app: App, clip: Path, tmp_path: Path) -> None:
    job_address = create(page, app, clip)
    watch(page, app, job_address)
    avatar = page.locator("#tk-open-talk")
    avatar.click()
    page.wait_for_url("**/talk?avatar=ada-test")
    speak(page, tmp_path / "said.mp4")
    gallery(page, app)


def create(page: Page, app: App, clip: Path) -> str:
    """Upload, read the report, consent, choose, start; returns the address of the job."""
    open_page(page, app, "")
    page.set_input_files("#tk-upload input[type=file]", clip)
    expect(page.locator("#tk-report .tk-strip img").first).to_be_visible(timeout=3 * MINUTE)
    expect(page.locator("#tk-report .tk-error")).to_have_count(0)
    choose_a_part(page)
    page.fill("#tk-name textarea, #tk-name input", "Ada Test")
    page.click("#tk-go")
    expect(page.get_by_text("consent", exact=False).first).to_be_visible()
    assert page.url.rstrip("/") == app.address.rstrip("/"), "nothing starts without consent"
    page.fill("#tk-who textarea, #tk-who input", "Ada King")
    page.check("#tk-agreed input")
    assert page.locator("#tk-preset label").count() == 4
    page.click("#tk-go")
    page.wait_for_url("**/jobs?job=*")
    return page.url


def choose_a_part(page: Page) -> None:
    """The timeline describes itself; a shorter part changes what is said about time."""
    expect(page.locator("#tk-report .tk-track")).to_have_attribute(
        "aria-label", re.compile("Timeline of the clip, 10 s")
    )
    expect(page.locator("#tk-total")).to_contain_text("from 10 s of video")
    expect(page.locator("#tk-total")).to_contain_text("GB of memory")
    expect(page.locator("#tk-bounds")).to_be_hidden()
    page.check("#tk-only-part input")
    expect(page.locator("#tk-bounds")).to_be_visible()
    page.fill("#tk-end input[type=number]", "9")
    page.press("#tk-end input[type=number]", "Tab")
    expect(page.locator("#tk-part-note")).to_contain_text("0:00 to 0:09, 9 s of 10 s.")
    expect(page.locator("#tk-total")).to_contain_text("from 9 s of video")


def watch(page: Page, app: App, address: str) -> None:
    """See progress and pictures, reload and restart on the way, wait for the end."""
    expect(page.locator("#tk-job-detail h2")).to_have_text("Ada Test")
    expect(page.locator("#tk-job-detail .tk-meta")).to_contain_text("0:00 to 0:09")
    expect(page.locator("#tk-job-detail .tk-bar")).to_be_visible(timeout=2 * MINUTE)
    page.reload()
    expect(page.locator("#tk-job-detail h2")).to_have_text("Ada Test")
    expect(page.locator("#tk-previews img").first).to_be_visible(timeout=5 * MINUTE)
    assert page.locator("#tk-previews img").first.evaluate("(i) => i.complete && i.naturalWidth") >= 64
    page.goto("about:blank")
    app.stop()
    app.start()
    page.goto(address)
    expect(page.locator("#tk-job-detail .tk-pill")).to_have_text("Done", timeout=8 * MINUTE)
    expect(page.locator("#tk-open-talk")).to_be_visible()
    assert (app.home / "jobs" / address.rsplit("=", 1)[1] / "previews" / "clip.webp").is_file()
    assert not (app.home / "jobs" / address.rsplit("=", 1)[1] / "avatar").exists(), (
        "it moved into the gallery"
    )
    assert (app.home / "avatars" / "ada-test" / "avatar.json").is_file()


def speak(page: Page, target: Path) -> None:
    """Type a sentence, see it live, then play and download the finished clip."""
    import av

    from talker.provenance import inspect

    expect(page.locator("#tk-who-speaks .tk-tile[aria-pressed=true]")).to_contain_text("Ada Test")
    page.fill("#tk-text textarea", "My name is Ada. Papa bought a big blue boat.")
    page.click("#tk-speak")
    live = page.locator("#tk-live video")
    page.wait_for_function(
        "() => document.querySelector('#tk-live video')?.currentTime > 0.2", timeout=3 * MINUTE
    )
    assert live.evaluate("(v) => v.videoWidth") == 128
    final = page.locator("#tk-final video")
    final.wait_for(state="visible", timeout=3 * MINUTE)
    page.wait_for_function("() => document.querySelector('#tk-final video').readyState >= 1")
    assert 2 < final.evaluate("(v) => v.duration") < 8
    final.evaluate("(v) => { v.muted = true; return v.play(); }")
    page.wait_for_function("() => document.querySelector('#tk-final video').currentTime > 0.5")
    page.wait_for_function("() => document.querySelector('#tk-final video').textTracks[0]?.cues?.length >= 2")
    with page.expect_download() as download:
        page.click("#tk-download")
    download.value.save_as(target)
    with av.open(str(target)) as film:
        kinds = {s.type: s.codec_context.name for s in film.streams}
        frames = [f.to_ndarray(format="rgb24") for f in film.decode(video=0)]
    assert kinds == {"video": "h264", "audio": "aac"}
    assert frames[0].shape == (128, 128, 3)
    assert abs(len(frames) / 25 - final.evaluate("(v) => v.duration")) < 0.2
    assert any((a != b).any() for a, b in pairwise(frames)), "the picture moves"
    marks = inspect(target)
    assert marks["ai_generated"]
    assert marks["c2pa"]["intact"], "the download is the signed file, byte for byte"
    with page.expect_download() as download:
        page.click("#tk-srt")
    assert "boat" in Path(download.value.path()).read_text()
    page.reload()
    expect(page.locator("#tk-clips .tk-tile")).to_have_count(1)


def gallery(page: Page, app: App) -> None:
    """The avatar in the gallery: figures, 3D file, deletion."""
    open_page(page, app, "avatars")
    expect(page.locator("#tk-avatar-facts")).to_contain_text("Ada King")
    with page.expect_download() as download:
        page.click("#tk-ply")
    assert Path(download.value.path()).read_bytes().startswith(b"ply\n")
    page.click("#tk-show-3d")
    expect(page.locator("#tk-model canvas")).to_be_visible()
    page.get_by_text("Delete", exact=True).click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#tk-delete-avatar")
    expect(page.locator(".tk-empty")).to_be_visible()
    assert list((app.home / "avatars").iterdir()) == []


def test_names_are_text_not_markup(page: Page, app: App) -> None:
    name = "<img src=x onerror=\"document.title='hit'\">${document.title='hit'}{{document}}"
    put_avatar(app.home / "avatars" / "guest", name=name)
    for path in ("avatars", "talk"):
        open_page(page, app, path)
        tile = page.locator(".tk-tile[data-id=guest] .tk-name")
        expect(tile).to_have_text(name)
        assert "hit" not in page.title()
