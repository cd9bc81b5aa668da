"""The words of the pages. The code says them in English; ``es.toml`` beside this file has the Spanish.

Errors and findings come from below the pages, with their figures in them: ``es_sentences.toml`` has those.

Two ways lead to a reader, and both follow the language of the browser:

* :func:`fixed` and :func:`in_each_language` for what is laid out once, when the app starts. The page carries both
  languages, and Gradio's own translation (``gr.I18n``) picks one in the browser.
* :func:`say` for what the server puts together while somebody asks: the request says in which language.

A text without a translation stays English, and so does everything outside of a request.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext

from talker.errors import TalkerError
from talker.ui.words.sentences import PLACE, Sentences

LANGUAGES = ("en", "es")
ENGLISH, SPANISH_FILE = LANGUAGES[0], Path(__file__).with_name("es.toml")
SENTENCES_FILE = SPANISH_FILE.with_name("es_sentences.toml")


def _read(path: Path) -> dict[str, str]:
    """The sections of the file are for its readers; here they are one dictionary."""
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    return {english: spanish for section in sections.values() for english, spanish in section.items()}


SPANISH: Mapping[str, str] = _read(SPANISH_FILE)
SPANISH_SENTENCES: Mapping[str, str] = _read(SENTENCES_FILE)
_PATTERNS = Sentences({text: meant for text, meant in SPANISH_SENTENCES.items() if PLACE.search(text)})
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?]) ")
TRANSLATIONS = gr.I18n(**{language: {} for language in LANGUAGES})
"""Passed to ``launch``; holds what :func:`fixed` and :func:`in_each_language` were asked for."""

_chosen: ContextVar[str | None] = ContextVar("talker_language", default=None)
_in_scripts: set[str] = set()


def language() -> str:
    """The language of whoever asks at the moment."""
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    request = LocalContext.request.get(None)  # set by Gradio around every call of a handler
    return accepted(request.headers.get("accept-language", "")) if request is not None else ENGLISH


def accepted(header: str) -> str:
    """The language for an ``Accept-Language`` header: of its first entry, as in the browser's own choice."""
    first = header.split(",", maxsplit=1)[0].split(";", maxsplit=1)[0].strip().lower()
    return next((known for known in LANGUAGES if first.split("-")[0] == known), ENGLISH)


@contextmanager
def spoken(chosen: str) -> Iterator[None]:
    """Everything inside is said in this language."""
    before = _chosen.set(chosen)
    try:
        yield
    finally:
        _chosen.reset(before)


def say(text: str, **values: object) -> str:
    """A text in the language of the moment; ``values`` fill its places, such as ``{count}``.

    Without values it may also be a sentence of an error or a finding that has its figures in it already.
    """
    words = (_in_spanish(text, finished=not values) or text) if language() == "es" else text
    return words.format(**values) if values else words


def say_all(text: str) -> str:
    """Several sentences, one after the other: what is not known in the language of the moment stays as it is."""
    if language() == ENGLISH or _in_spanish(text):
        return say(text)
    left, said = _BETWEEN_SENTENCES.split(text), []
    while left:
        # A translation may be of two sentences together, and a name may have a full stop in it.
        known = (n for n in range(1, len(left) + 1) if _in_spanish(" ".join(left[:n])))
        n = next(known, 1)
        said.append(say(" ".join(left[:n])))
        left = left[n:]
    return " ".join(said)


def say_error(error: TalkerError) -> str:
    """What was found, expected, and can be done."""
    return " ".join(say_all(part) for part in (error.found, error.expected, error.todo) if part)


def _in_spanish(text: str, *, finished: bool = True) -> str | None:
    known = SPANISH.get(text) or SPANISH_SENTENCES.get(text)
    return known or (_PATTERNS.translate(text, say) if finished else None)


def fixed(text: str) -> str:
    """A text of a component, as a mark that Gradio replaces in the browser."""
    return _mark(text, {name: _in(name, lambda: say(text)) for name in LANGUAGES})


def in_each_language(make: Callable[[], str]) -> str:
    """The same for markup: ``make`` is called once for each language."""
    made = {name: _in(name, make) for name in LANGUAGES}
    return _mark(f"html-{hashlib.sha256(made[ENGLISH].encode()).hexdigest()[:12]}", made)


def in_script(text: str) -> str:
    """A JavaScript expression that is ``text`` in the language of the browser."""
    _in_scripts.add(text)
    return f"tkSay({json.dumps(text)})"


def script() -> str:
    """JavaScript behind :func:`in_script`; also tells the language of the page to those who read it aloud."""
    spanish = json.dumps({text: SPANISH.get(text, text) for text in sorted(_in_scripts)}, ensure_ascii=False)
    return (
        "const tkSpanish = navigator.language.toLowerCase().split('-')[0] === 'es';\n"
        "document.documentElement.lang = tkSpanish ? 'es' : 'en';\n"
        f"const tkWords = {spanish};\n"
        "window.tkSay = (text) => (tkSpanish && tkWords[text]) || text;"
    ).replace("</", "<\\/")


def _in(name: str, make: Callable[[], str]) -> str:
    with spoken(name):
        return make()


def _mark(key: str, made: Mapping[str, str]) -> str:
    assert "}" not in key, "Gradio looks for the end of a mark at the first brace"
    for name, text in made.items():
        TRANSLATIONS.translations[name][key] = text
    return str(TRANSLATIONS(key))
