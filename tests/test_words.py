"""Every text of the pages has both languages, and everybody gets theirs."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from gradio.context import LocalContext

from talker.audio.tts import engines
from talker.errors import VideoError
from talker.studio import Studio
from talker.ui import html, voices, words
from talker.ui.words import LANGUAGES, SPANISH, SPANISH_FILE, TRANSLATIONS, say, spoken
from tests.words_support import FOR_PROGRAMS, UI, bare_texts, constants, readable

SAME_IN_BOTH = {"Zip", "Ada"}
"""Names, and what is a word of both languages."""
NOT_SEEN = {"no secret", " (basic voice)"}
UNREACHED = {"Sign out {}"}
"""Gradio puts the name into it on the server before the page can translate."""

PLACE = re.compile(r"\{[^}]*\}")
TEXTS = [
    (path.name, line, text)
    for path in sorted(UI.glob("*.py"))
    if path.name not in FOR_PROGRAMS
    for text, line in constants(path)
    if readable(text)
]


def test_no_text_of_the_pages_is_left_out() -> None:
    known = SPANISH.keys() | SAME_IN_BOTH | NOT_SEEN | UNREACHED
    left = [f"{name}:{line}: {text!r}" for name, line, text in TEXTS if text not in known]
    assert len(TEXTS) > 200, "the search finds the texts"
    assert left == [], "add them to talker/ui/words/es.toml, and let the page say() them"


@pytest.mark.parametrize(
    "path", [p for p in sorted(UI.glob("*.py")) if p.name not in FOR_PROGRAMS], ids=lambda p: p.stem
)
def test_components_are_given_texts_of_both_languages(path: Path) -> None:
    """``label="Cancel"`` would stay English although there is a translation of it."""
    bare = [f"{path.name}:{line}: {text!r}" for text, line in bare_texts(path) if text not in SAME_IN_BOTH]
    assert bare == [], "write fixed(...)"


def test_no_translation_is_left_over() -> None:
    sources = UI.parent.rglob("*.py")
    used = {
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    languages = tomllib.loads(SPANISH_FILE.read_text(encoding="utf-8"))["languages"]
    assert SPANISH.keys() - used - languages.keys() == set()
    known = {name for name, _ in voices.languages([v for engine in engines() for v in engine.voices()])}
    assert languages.keys() - known == set()


@pytest.mark.parametrize("english", SPANISH)
def test_both_languages_have_the_same_places(english: str) -> None:
    spanish = SPANISH[english]
    assert sorted(PLACE.findall(english)) == sorted(PLACE.findall(spanish))
    assert spanish.strip() == spanish != ""
    assert (english[-1] in ".?!:") == (spanish[-1] in ".?!:"), "a sentence stays a sentence"
    assert not set("<>`$") & set(spanish), "texts carry no markup"


def test_every_english_text_is_translated_once() -> None:
    keys = re.findall(r'^"((?:[^"\\]|\\.)*)" = ', SPANISH_FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(keys) == len(set(keys)) == len(SPANISH)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("es-ES,es;q=0.9,en;q=0.8", "es"),
        ("es-MX", "es"),
        ("ES", "es"),
        ("en-US,en;q=0.9,es;q=0.8", "en"),
        ("de-DE,es;q=0.9", "en"),
        ("est", "en"),
        ("", "en"),
        ("*", "en"),
        (";;,,\x00", "en"),
    ],
)
def test_the_first_language_of_the_browser_decides(header: str, language: str) -> None:
    assert words.accepted(header) == language


def test_the_request_decides_what_the_server_says() -> None:
    assert say("Cancel") == "Cancel"
    request = SimpleNamespace(headers={"accept-language": "es"})
    before = LocalContext.request.set(request)  # type: ignore[arg-type]
    try:
        assert say("Cancel") == "Cancelar"
        assert say("{n} min ago", n=5) == "hace 5 min"
        assert say("no such text {here}") == "no such text {here}"
        assert "Se hizo" in html.footer()
    finally:
        LocalContext.request.reset(before)


def test_values_are_not_read_as_texts() -> None:
    with spoken("es"):
        assert say("{name} failed", name="{Cancel}") == "{Cancel} ha fallado"
        assert html.message("info", "<b>{x}").count("<b>") == 0


def test_errors_are_said_sentence_by_sentence() -> None:
    error = VideoError("x.y", "The film has 3 legs.", expected="A video.", todo="Choose another file.")
    assert words.say_error(error) == str(error)
    with spoken("es"):
        assert words.say_error(error) == "The film has 3 legs. Un vídeo. Elige otro archivo."


def test_spanish_dates() -> None:
    with spoken("es"):
        assert html.ago("2020-01-05T12:00:00+00:00") == "05 ene 2020"
    assert html.ago("2020-01-05T12:00:00+00:00") == "05 Jan 2020"


def test_scripts_speak_both_languages() -> None:
    assert words.in_script("Close") == 'tkSay("Close")'
    assert '"Close": "Cerrar"' in words.script()
    assert "</script" not in words.script()


def test_what_the_browser_translates_comes_in_all_languages(tmp_path, monkeypatch) -> None:
    from talker.ui import build_app

    monkeypatch.chdir(tmp_path)
    demo = build_app(Studio(tmp_path / "home"))
    there = [TRANSLATIONS.translations[name] for name in LANGUAGES]
    assert there[0].keys() == there[1].keys()
    config = str(demo.get_config_file())
    for key in re.findall(r'__i18n__\{.*?"key": "((?:[^"\\]|\\.)*)"', config.replace('\\"', '"')):
        assert key.encode().decode("unicode_escape") in there[0]
    seen = [text for text in there[1].values() if not text.startswith("<")]
    assert "Crear avatar" in seen
    assert any("Un vídeo corto" in text for text in there[1].values())
