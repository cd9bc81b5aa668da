"""The whole story in one browser, on a fresh data folder: from a clip to an avatar that went to the Hub and back.

Set ``TALKER_SHOTS`` to a folder to keep the picture taken at each stage.
"""

from __future__ import annotations

import logging
import os
import re
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from talker.provenance import inspect
from tests.browser_support import FLAGS, App, chromium, running
from tests.fake_hub import FakeHub

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]

log = logging.getLogger(__name__)

MINUTE = 60_000
CANARY, WRONG = "hf_canary5c21e9aa", "hf_canary_wrong77"
REPO = "alice/ada"
ALL_VALUES = "[...document.querySelectorAll('input, textarea')].map((field) => field.value).join()"
STORED = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


@dataclass
class Story:
    """Everything the chapters share."""

    page: Page
    app: App
    hub: FakeHub
    shots: Path
    work: Path
    began: float
    seen: list[str]
    """What the pages held at the end of each chapter, to look for the token in."""

    def shot(self, name: str) -> None:
        number = len(self.seen) + 1
        self.page.screenshot(path=self.shots / f"{number:02}-{name}.png", full_page=True)
        self.look()
        log.info("%6.1f s  %s", time.monotonic() - self.began, name)

    def look(self) -> None:
        """Remember what the page holds, its fields and what it stored."""
        self.seen += [self.page.content() + self.page.evaluate(ALL_VALUES) + self.page.evaluate(STORED)]

    def open(self, path: str) -> None:
        self.page.goto(self.app.address + path)
        self.page.wait_for_selector(".tk-footer", state="attached")
        expect(self.page.locator(".tk-skeleton")).to_be_hidden()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence of the built-in voice, three seconds long; a file to upload, and what the microphone hears."""
    from talker.audio.tts import speak

    sound = speak("The microphone hears this sentence about a big blue boat.").waveform
    path = tmp_path_factory.mktemp("sound") / "recording.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes((np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes())
    return path


@pytest.fixture
def story(tmp_path: Path, recording: Path) -> Iterator[Story]:
    shots = Path(os.environ.get("TALKER_SHOTS", tmp_path / "shots"))
    shots.mkdir(parents=True, exist_ok=True)
    microphone = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    ]
    with FakeHub(tmp_path / "server") as hub, sync_playwright() as play:
        hub._users[CANARY] = "alice"
        browser = play.chromium.launch(executable_path=chromium(), args=[*FLAGS, *microphone])
        context = browser.new_context(viewport={"width": 1280, "height": 900}, permissions=["microphone"])
        context.set_default_timeout(2 * MINUTE)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        with running(tmp_path / "home", **settings(hub, tmp_path)) as app:
            yield Story(page, app, hub, shots, tmp_path, time.monotonic(), [])
        browser.close()
    assert errors == []


def settings(hub: FakeHub, work: Path) -> dict[str, str]:
    """The smallest and shortest training, and a Hub that is not the real one; nobody is signed in."""
    return {
        "TALKER_SIZES": "128",
        "TALKER_MAX_MINUTES": "0.15",
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(work / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "",
    }


def test_the_whole_story(story: Story, recording: Path, tmp_path: Path) -> None:
    expect.set_options(timeout=2 * MINUTE)
    address = create(story)
    reload_restart_finish(story, address)
    talk_by_text(story)
    talk_by_file(story, recording)
    talk_by_microphone(story)
    publish(story)
    delete_here(story)
    load_from_the_hub(story)
    talk_again(story)
    assert_no_trace(story)


def create(story: Story) -> str:
    """Check, consent, create; returns the address of the job."""
    from talker.dataset.sample import make_sample

    page, clip = story.page, story.work / "my film (final).mp4"
    make_sample(clip, seconds=10, size=256)
    story.open("")
    story.shot("start")
    page.set_input_files("#tk-upload input[type=file]", clip)
    expect(page.locator("#tk-report .tk-strip img").first).to_be_visible()
    expect(page.locator("#tk-report .tk-error")).to_have_count(0)
    story.shot("checked")
    choose_a_part(page)
    page.fill("#tk-name textarea, #tk-name input", "Ada")
    page.click("#tk-go")
    page.wait_for_timeout(1000)
    assert page.url == story.app.address, "nothing starts without consent"
    page.fill("#tk-who textarea, #tk-who input", "Ada King")
    page.check("#tk-agreed input")
    assert page.locator("#tk-preset label").count() == 4
    story.shot("consented")
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


def reload_restart_finish(story: Story, address: str) -> None:
    page, job = story.page, address.rsplit("=", 1)[1]
    expect(page.locator("#tk-job-detail .tk-meta")).to_contain_text("0:00 to 0:09")
    expect(page.locator("#tk-job-detail .tk-bar")).to_be_visible()
    page.reload()
    expect(page.locator("#tk-job-detail h2")).to_have_text("Ada")
    expect(page.locator("#tk-previews img").first).to_be_visible()
    story.shot("training")
    page.goto("about:blank")
    story.app.stop()
    story.app.start()
    page.goto(address)
    expect(page.locator("#tk-open-talk")).to_be_visible(timeout=4 * MINUTE)
    assert (story.app.home / "avatars" / "ada" / "avatar.json").is_file()
    assert not (story.app.home / "jobs" / job / "avatar").exists(), "it moved into the gallery"
    assert (story.app.home / "jobs" / job / "previews" / "clip.webp").is_file(), "the head as it turned"
    story.shot("finished")
    page.click("#tk-open-talk")
    page.wait_for_url("**/talk?avatar=ada")


def talk_by_text(story: Story) -> None:
    """Watched while it is made; captions on."""
    page = story.page
    expect(page.locator("#tk-idle-picture img")).to_be_visible()
    story.shot("talk")
    page.fill("#tk-text textarea", "My name is Ada. I was a short video, and now I say what you type.")
    page.click("#tk-speak")
    page.wait_for_function("() => document.querySelector('#tk-live video')?.currentTime > 0.2")
    story.shot("live")
    finished(story, "text")
    page.wait_for_function(
        "() => document.querySelector('#tk-final video').textTracks[0]?.mode === 'showing'"
    )
    page.wait_for_function(
        "() => document.querySelector('#tk-final video').textTracks[0].activeCues.length > 0"
    )
    story.shot("captions")
    with page.expect_download() as download:
        page.click("#tk-srt")
    assert "short video" in Path(download.value.path()).read_text()


def talk_by_file(story: Story, recording: Path) -> None:
    story.page.locator("#tk-source button[role=tab]").nth(1).click()
    story.page.set_input_files("#tk-sound input[type=file]", recording)
    expect(story.page.locator("#tk-sound input[type=file]")).to_have_count(0)
    story.page.click("#tk-speak")
    seconds = finished(story, "file")
    with wave.open(str(recording)) as sound:
        assert abs(seconds - sound.getnframes() / 16_000) < 0.2
    story.shot("by-file")


def talk_by_microphone(story: Story) -> None:
    page = story.page
    page.locator("#tk-source button[role=tab]").nth(2).click()
    page.click("#tk-mic button.record-button")
    page.wait_for_timeout(3000)
    story.shot("recording")
    page.click("#tk-mic button.stop-button")
    expect(page.locator("#tk-mic #waveform")).to_be_visible()
    page.click("#tk-speak")
    assert finished(story, "microphone") > 2
    story.shot("by-microphone")


def finished(story: Story, name: str) -> float:
    """Wait for the finished clip, play it, download it, look at it; returns its seconds."""
    page = story.page
    page.locator("#tk-stage.tk-show-final #tk-final video").wait_for(state="visible")
    expect(page.locator("#tk-halt")).to_be_hidden()
    page.wait_for_function("() => document.querySelector('#tk-final video').readyState >= 2")
    page.locator("#tk-final video").evaluate("(v) => { v.muted = true; v.currentTime = 0; return v.play(); }")
    page.wait_for_function("() => document.querySelector('#tk-final video').currentTime > 0.5")
    with page.expect_download() as download:
        page.click("#tk-download")
    film = story.work / f"{name}.mp4"
    download.value.save_as(film)
    assert inspect(film)["c2pa"]["intact"]
    return heard_and_seen(film)


def heard_and_seen(film: Path) -> float:
    """A film moves and is not silent."""
    with av.open(str(film)) as opened:
        frames = [frame.to_ndarray(format="gray") for frame in opened.decode(video=0)]
    with av.open(str(film)) as opened:
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in opened.decode(audio=0)])
    assert frames[0].shape == (128, 128)
    assert np.abs(sound).max() > 0.02
    assert np.abs(np.diff(np.asarray(frames[:40], np.int16), axis=0)).mean() > 0.05
    return len(frames) / 25


def publish(story: Story) -> None:
    """Private at first; a second step shows it to everybody."""
    page = story.page
    story.open("avatars?avatar=ada")
    expect(page.locator("#tk-avatar-facts")).to_contain_text("Ada King")
    story.shot("avatar")
    with page.expect_download() as download:
        page.click("#tk-ply")
    assert Path(download.value.path()).read_bytes().startswith(b"ply\n")
    page.click("#tk-show-3d")
    expect(page.locator("#tk-model canvas")).to_be_visible()
    page.get_by_text("Publish to the Hugging Face Hub").click()
    page.wait_for_timeout(1500)  # what is folded away gets its values when it is opened
    page.fill("#tk-repo-to input, #tk-repo-to textarea", REPO)
    page.fill("#tk-token input", WRONG)
    page.click("#tk-publish")
    expect(page.locator(".toast-body.error")).to_be_visible()
    story.shot("refused")
    page.fill("#tk-token input", CANARY)
    page.click("#tk-publish")
    expect(page.locator("#tk-published")).to_contain_text(f"{story.hub.endpoint}/{REPO}")
    assert story.hub.repos[REPO].private
    expect(page.locator("#tk-token input")).to_have_value("")
    page.fill("#tk-token input", CANARY)
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#tk-public")
    expect(page.locator("#tk-token input")).to_have_value("")
    assert not story.hub.repos[REPO].private
    story.shot("published")


def delete_here(story: Story) -> None:
    page = story.page
    page.get_by_text("Delete", exact=True).click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#tk-delete-avatar")
    expect(page.locator(".tk-empty")).to_be_visible()
    assert list((story.app.home / "avatars").iterdir()) == []
    story.shot("deleted")


def load_from_the_hub(story: Story) -> None:
    """Found by its name, looked at, loaded; nobody is signed in."""
    page = story.page
    page.click("#tk-browse")
    page.locator(f"#tk-found [data-id='{REPO}']").click()
    expect(page.locator("#tk-look img").first).to_be_visible()
    story.shot("looked-at")
    page.click("#tk-load")
    expect(page.locator("#tk-avatar-head h2")).to_have_text("Ada")
    assert (story.app.home / "avatars" / "ada" / "avatar.json").is_file()
    story.shot("loaded")


def talk_again(story: Story) -> None:
    page = story.page
    page.click("#tk-open-talk")
    page.wait_for_url("**/talk?avatar=ada")
    expect(page.locator("#tk-idle-picture img")).to_be_visible()
    page.fill("#tk-text textarea", "I went to the Hub and came back.")
    page.click("#tk-speak")
    assert 1 < finished(story, "again") < 6
    expect(page.locator("#tk-clips .tk-tile")).to_have_count(4)
    story.shot("again")


def assert_no_trace(story: Story) -> None:
    """The token was used, and is in no row, log, file or page."""
    for path in ("", "talk", "avatars", "jobs", "origin"):
        story.open(path)
        story.look()
    story.app.stop()
    assert any(request.token == CANARY for request in story.hub.requests), "it was used"
    assert story.hub.files(REPO)["avatar.json"]
    assert CANARY not in "".join(story.seen)
    assert CANARY not in "".join(map(str, story.hub.files(REPO).values()))
    files = [path for path in story.work.rglob("*") if path.is_file()]
    assert {"queue.sqlite", "worker.log", "home.log"} <= {path.name for path in files}
    assert [path for path in files if CANARY.encode() in path.read_bytes() or CANARY in path.name] == []
    assert not re.search(r"Traceback|Error", story.app.log.read_text()), story.app.log.read_text()
