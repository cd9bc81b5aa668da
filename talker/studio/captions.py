"""Captions from word timings: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from talker.types import Word

MAX_CHARS = 42
"""Longest caption; a line of broadcast subtitles."""
MAX_GAP_S = 0.8
"""A longer pause starts a new caption."""


@dataclass(frozen=True)
class Cue:
    """One caption and when it is shown."""

    text: str
    start_s: float
    end_s: float


def cues(words: Sequence[Word]) -> list[Cue]:
    """Group words into captions: at most ``MAX_CHARS`` long, broken at pauses and ends of sentences."""
    groups: list[list[Word]] = []
    for word in words:
        current = groups[-1] if groups else None
        if (
            current is None
            or len(" ".join(w.text for w in current)) + 1 + len(word.text) > MAX_CHARS
            or word.start_s - current[-1].end_s > MAX_GAP_S
            or current[-1].text.endswith((".", "!", "?"))
        ):
            groups.append([word])
        else:
            current.append(word)
    return [
        Cue(" ".join(w.text for w in g), g[0].start_s, max(g[-1].end_s, g[0].start_s + 0.2)) for g in groups
    ]


def srt(words: Sequence[Word]) -> str:
    """SubRip text."""
    blocks = [
        f"{n}\n{_clock(c.start_s, ',')} --> {_clock(c.end_s, ',')}\n{c.text}\n"
        for n, c in enumerate(cues(words), 1)
    ]
    return "\n".join(blocks)


def vtt(words: Sequence[Word]) -> str:
    """WebVTT text. ``&`` and ``<`` are escaped: the format knows markup."""
    lines = ["WEBVTT", ""]
    for cue in cues(words):
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        lines += [f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}", text, ""]
    return "\n".join(lines)


def _clock(seconds: float, separator: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{separator}{rest % 1000:03d}"
