"""The Talk page in a real browser: manner, background, captions, several at once, stopping, waiting, history."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from talker.provenance import inspect
from tests.browser_support import App, chromium, running
from tests.studio_support import speaking_avatar_folder

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

MINUTE = 60_000
LONG = "This sentence is said again and again, so that there is time to press a button. " * 20


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    chromium()
    home = tmp_path_factory.mktemp("talk") / "home"
    speaking_avatar_folder(home / "avatars" / "zoe")
    with running(home) as instance:
        yield instance


@pytest.fixture(scope="module")
def browser_context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(2 * MINUTE)
    yield context
    context.close()


@pytest.fixture
def page(app: App, browser_context: BrowserContext) -> Iterator[Page]:
    page = browser_context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_talk(page, app)
    yield page
    page.close()
    assert errors == []


def open_talk(page: Page, app: App) -> None:
    page.goto(app.address + "talk")
    expect(page.locator("#tk-idle-picture img")).to_be_visible()


def clips(app: App) -> list[Path]:
    root = app.home / "clips"
    return sorted(root.iterdir()) if root.is_dir() else []


def say(page: Page, text: str) -> None:
    page.fill("#tk-text textarea", text)
    page.click("#tk-speak")
    page.locator("#tk-final video").wait_for(state="visible")
    expect(page.locator("#tk-halt")).to_be_hidden()


def track_mode(page: Page, mode: str) -> None:
    page.wait_for_function(
        f"() => document.querySelector('#tk-final video')?.textTracks[0]?.mode === '{mode}'"
    )


def test_captions_language_and_speed_are_remembered(page: Page, app: App) -> None:
    page.click("#tk-language input")
    page.get_by_role("option", name="German", exact=True).click()
    expect(page.locator("#tk-voice input")).to_have_value("German, low")
    page.fill("#tk-rate input[type=number]", "1.3")
    page.locator("#tk-rate input[type=number]").blur()
    say(page, "Guten Tag. Das ist ein Test.")
    track_mode(page, "showing")
    page.uncheck("#tk-captions input")
    track_mode(page, "hidden")
    for name, words in (("#tk-srt", "00:00:00,"), ("#tk-vtt", "WEBVTT")):
        with page.expect_download() as download:
            page.click(name)
        assert words in Path(download.value.path()).read_text()
    time.sleep(1)
    open_talk(page, app)
    expect(page.locator("#tk-language input")).to_have_value("German")
    expect(page.locator("#tk-rate input[type=number]")).to_have_value("1.3")
    page.locator("#tk-clips .tk-tile").first.click()
    track_mode(page, "hidden")
    video = page.locator("#tk-final video")
    box = video.bounding_box()
    assert box is not None
    assert abs(box["width"] - box["height"]) < 2, "no bars beside a square picture"


def test_a_transparent_clip_plays_and_downloads(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name="How it moves").click()
    page.fill("#tk-intensity input[type=number]", "0")
    page.get_by_role("button", name="Background").click()
    page.get_by_label("Transparent").check()
    say(page, "Hello.")
    page.wait_for_function("() => document.querySelector('#tk-final video').readyState >= 2")
    with page.expect_download() as download:
        page.click("#tk-download")
    assert download.value.suggested_filename == "clip.mov"
    download.value.save_as(tmp_path / "clip.mov")
    assert inspect(tmp_path / "clip.mov")["c2pa"]["intact"]
    before = len(page.locator("#tk-clips .tk-tile").all())
    page.click("#tk-delete-clip")
    expect(page.locator("#tk-clips .tk-tile")).to_have_count(before - 1)


def test_stop_works_at_once_and_leaves_nothing(page: Page, app: App) -> None:
    before = clips(app)
    page.fill("#tk-text textarea", LONG)
    page.click("#tk-speak")
    page.wait_for_function("() => document.querySelector('#tk-live video')?.currentTime > 0.1")
    pressed = time.monotonic()
    page.click("#tk-halt")
    while clips(app) != before:
        assert time.monotonic() - pressed < 10
        time.sleep(0.02)
    expect(page.locator("#tk-talk-status")).to_contain_text("Stopped.")
    expect(page.locator("#tk-speak")).to_be_enabled()
    say(page, "And it works again.")
    assert len(clips(app)) == len(before) + 1


def test_several_become_clips_and_a_zip(page: Page, app: App, tmp_path: Path) -> None:
    before = len(clips(app))
    (tmp_path / "broken.wav").write_text("no sound")
    page.get_by_role("tab", name="Several").click()
    page.fill("#tk-texts textarea", "One little text.\nTwo little texts.")
    page.set_input_files("#tk-sounds input[type=file]", tmp_path / "broken.wav")
    expect(page.locator("#tk-sounds")).to_contain_text("broken")
    page.click("#tk-speak")
    expect(page.locator("#tk-talk-status")).to_contain_text("of 3")
    expect(page.locator("#tk-talk-status")).to_contain_text("2 of 3 clips are done")
    expect(page.locator("#tk-talk-status")).to_contain_text("broken.wav")
    assert len(clips(app)) == before + 2
    page.locator("#tk-final video").wait_for(state="visible")
    expect(page.locator("#tk-zip")).to_have_text("Download all 2 as zip")
    with page.expect_download() as download:
        page.click("#tk-zip")
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert names[0] == "01-One-little-text.mp4" and len(names) == 6


def test_a_text_over_the_limit_gets_a_message(page: Page) -> None:
    page.fill("#tk-text textarea", LONG * 2)
    page.click("#tk-speak")
    expect(page.locator("#tk-talk-status .tk-error")).to_contain_text("At most 2,000")
    expect(page.locator("#tk-speak")).to_be_enabled()


def test_who_comes_second_is_told(page: Page, app: App, browser_context) -> None:
    other = browser_context.new_page()
    open_talk(other, app)
    page.fill("#tk-text textarea", LONG)
    page.click("#tk-speak")
    expect(page.locator("#tk-talk-status")).to_contain_text("Rendering")
    other.fill("#tk-text textarea", "Me too.")
    other.click("#tk-speak")
    expect(other.locator("#tk-talk-status")).to_contain_text("1 rendering is before yours")
    page.click("#tk-halt")
    other.locator("#tk-final video").wait_for(state="visible")
    other.close()


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Page) -> None:
    for name in ("How it moves", "Background", "Speak into a video of this person"):
        button = page.get_by_role("button", name=name)
        button.focus()
        page.keyboard.press("Enter")
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, textarea')]
      .filter((e) => e.offsetParent && !e.disabled)
      .filter((e) => !(e.ariaLabel || e.title || e.innerText?.trim() || e.labels?.length
        || e.getAttribute('aria-labelledby') || e.placeholder))
      .map((e) => e.outerHTML.slice(0, 160))""")
    assert nameless == []


def test_all_clips_are_deleted_after_a_question(page: Page, app: App) -> None:
    assert clips(app)
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("#tk-wipe")
    time.sleep(1)
    assert clips(app)
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#tk-wipe")
    expect(page.locator("#tk-clips .tk-tile")).to_have_count(0)
    assert clips(app) == []
