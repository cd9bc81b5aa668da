"""The choice of a language, and of a voice that speaks it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from talker.ui.words import say

ENGLISH = ("en", "en-us", "en-gb")
Choice = tuple[str, str]


def languages(voices: Sequence[Any]) -> list[Choice]:
    """Names and codes of the languages somebody speaks, in the order of their names."""
    names: dict[str, str] = {}
    for voice in voices:
        name = _language_name(voice.name)
        code = _code(voice.language)
        known = names.setdefault(code, name)
        if name and (not known or len(name) < len(known)):
            names[code] = name
    return sorted((say(name or code), code) for code, name in names.items())


def of_language(voices: Sequence[Any], language: str) -> list[Choice]:
    """Names and ids of the voices that speak ``language``, of the usual regions first."""
    fitting = [v for v in voices if _code(v.language) == language]
    fitting.sort(
        key=lambda v: v.language.lower() not in ENGLISH
    )  # a stable sort: the best engine stays first
    return [(v.name.replace(" (basic voice)", ""), v.id) for v in fitting]


def preferred(
    voices: Sequence[Any], language: str, voice: str | None
) -> tuple[str, list[Choice], str | None]:
    """A language that is there, its voices, and the wanted one of them or the first."""
    known = {code for _, code in languages(voices)}
    language = language if language in known else "en" if "en" in known else min(known, default="")
    choices = of_language(voices, language)
    ids = [identity for _, identity in choices]
    return language, choices, voice if voice in ids else next(iter(ids), None)


def _code(tag: str) -> str:
    """``en-us`` -> ``en``."""
    return tag.lower().split("-")[0]


def _language_name(voice: str) -> str:
    """``English (America), low (basic voice)`` -> ``English``; nothing for a voice not named after one."""
    name, comma, _ = voice.partition(", ")
    return re.sub(r"\s*\(.*", "", name).replace("_", " ").strip() if comma else ""
