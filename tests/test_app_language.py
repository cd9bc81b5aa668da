"""The pages in the language of a real browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from talker.ui.words import SPANISH
from tests.browser_support import App, chromium, running
from tests.studio_support import speaking_avatar_folder

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

MINUTE = 60_000
HEADINGS = {
    "": "A short video becomes an avatar that says anything.",
    "talk": "Talk",
    "avatars": "Avatars",
    "jobs": "Jobs",
    "origin": "Was this made here?",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    chromium()
    home = tmp_path_factory.mktemp("language") / "home"
    speaking_avatar_folder(home / "avatars" / "zoe", name="Zoe")
    a_failed_job(home)
    with running(home) as instance:
        yield instance


def a_failed_job(home: Path) -> None:
    from talker.jobs.job import JobRequest, JobState
    from talker.jobs.store import JobStore
    from talker.provenance import new_consent

    clip = home / "film.mp4"
    clip.write_bytes(b"x")
    store = JobStore(home)
    job = store.create(clip, JobRequest("Zoe", "local", new_consent("Ada")))
    for state in (JobState.RUNNING, JobState.FAILED):
        store.update(job, lambda old, s=state: dataclasses.replace(old, state=s))


def open_page(browser: Browser, app: App, path: str, locale: str, width: int = 1280) -> Page:
    context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale)
    context.set_default_timeout(MINUTE)
    page = context.new_page()
    page.goto(app.address + path)
    page.wait_for_selector(".tk-footer", state="attached")
    expect(page.locator(".tk-skeleton")).to_be_hidden(timeout=MINUTE)
    return page


def lines(page: Page) -> set[str]:
    """What is seen, and what is said to those who do not see."""
    seen: str = page.evaluate("document.body.innerText")
    said: list[str] = page.evaluate(
        "['aria-label', 'title', 'alt', 'placeholder'].flatMap((name) =>"
        " [...document.querySelectorAll(`.gradio-container [${name}]`)].map((e) => e.getAttribute(name)))"
    )
    return {line.strip() for line in [*seen.splitlines(), *said]}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("path", HEADINGS)
def test_a_spanish_browser_sees_spanish(browser: Browser, app: App, path: str, width: int) -> None:
    page = open_page(browser, app, path, "es-ES", width)
    expect(page.locator("h1")).to_have_text(SPANISH[HEADINGS[path]])
    assert page.evaluate("document.documentElement.lang") == "es"
    english = {text for text, spanish in SPANISH.items() if text != spanish}
    assert lines(page) & english == set()
    assert "__i18n__" not in page.inner_text("body")
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"{overflow} px too wide"
    page.context.close()


@pytest.mark.parametrize(("path", "locale"), [*((path, "en-US") for path in HEADINGS), ("", "de-DE")])
def test_everybody_else_sees_english(browser: Browser, app: App, path: str, locale: str) -> None:
    page = open_page(browser, app, path, locale)
    expect(page.locator("h1")).to_have_text(HEADINGS[path])
    assert page.evaluate("document.documentElement.lang") == "en"
    spanish = {text for english, text in SPANISH.items() if text not in SPANISH and len(text) > 3}
    assert lines(page) & spanish == set()
    assert "__i18n__" not in page.inner_text("body")
    page.context.close()


def test_what_the_server_says_is_spanish_too(browser: Browser, app: App) -> None:
    page = open_page(browser, app, "jobs", "es-MX")
    expect(page.locator("#tk-job-detail .tk-pill")).to_have_text("Fallido")
    expect(page.locator("#tk-job-detail .tk-banner")).to_contain_text("Esta tarea ha fallado")
    expect(page.locator("#tk-delete")).to_have_text("Borrar")
    page.click("#tk-delete")
    expect(
        page.get_by_text(SPANISH["Delete the record of this job? A finished avatar stays."])
    ).to_be_visible()
    page.context.close()


def test_the_first_sentence_is_spoken_in_its_own_language(browser: Browser, app: App) -> None:
    page = open_page(browser, app, "talk", "es-ES")
    assert page.locator("#tk-text textarea").input_value().startswith("¡Hola!")
    expect(page.locator("#tk-language input")).to_have_value("Español")
    expect(page.locator("#tk-voice input")).to_have_value("Spanish (Spain), low")
    page.get_by_role("tab", name="Varios").click()
    page.click("#tk-speak")
    expect(page.locator("#tk-talk-status .tk-error")).to_contain_text(SPANISH["There is nothing to say yet."])
    page.context.close()


def test_a_question_of_the_browser_is_asked_in_its_language(browser: Browser, app: App) -> None:
    page = open_page(browser, app, "avatars", "es-ES")
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Borrar", exact=False).first.click()
    page.click("#tk-delete-avatar")
    page.wait_for_timeout(500)
    assert asked == ["¿Borrar este avatar para siempre?"]
    expect(page.locator(".tk-tile")).to_have_count(1)
    page.context.close()


def test_an_error_with_figures_is_said_in_spanish(browser: Browser, app: App, tmp_path: Path) -> None:
    page = open_page(browser, app, "", "es-ES")
    (tmp_path / "notas.mp4").write_text("no es un vídeo\n" * 20)
    page.set_input_files("#tk-upload input[type=file]", tmp_path / "notas.mp4")
    said = page.locator("#tk-report .tk-error")
    expect(said).to_contain_text(
        "no es un vídeo que se pueda leer: parece texto sin formato.", timeout=MINUTE
    )
    page.context.close()
