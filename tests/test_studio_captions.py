"""Captions keep the words, their order and their times."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from talker.studio.captions import MAX_CHARS, cues, srt, vtt
from talker.types import Word


def spoken(text: str, step: float = 0.3) -> list[Word]:
    return [Word(w, i * step, i * step + 0.25) for i, w in enumerate(text.split())]


def test_sentences_and_pauses_break_captions() -> None:
    words = [*spoken("Hello there. How are you"), Word("later", 9.0, 9.4)]
    assert [c.text for c in cues(words)] == ["Hello there.", "How are you", "later"]


@given(st.lists(st.text(st.characters(categories=["L", "P"]), min_size=1, max_size=30), max_size=60))
def test_no_word_is_lost_or_moved(texts: list[str]) -> None:
    words = [Word(t, i * 0.4, i * 0.4 + 0.3) for i, t in enumerate(texts)]
    made = cues(words)
    assert " ".join(c.text for c in made) == " ".join(texts)
    assert all(len(c.text) <= MAX_CHARS or " " not in c.text for c in made)
    assert all(c.start_s < c.end_s for c in made)
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in pairwise(made))


def test_srt_is_numbered_and_timed() -> None:
    text = srt([Word("Late", 3661.5, 3662.25)])
    assert text == "1\n01:01:01,500 --> 01:01:02,250\nLate\n"


def test_vtt_escapes_markup() -> None:
    text = vtt([Word("<b>&", 0.0, 1.0)])
    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n&lt;b&gt;&amp;\n")


def test_times_of_both_formats_agree() -> None:
    words = spoken("one two three four five six seven eight nine ten eleven twelve thirteen")
    times = re.findall(r"[\d:]+[.,]\d+", vtt(words))
    assert [t.replace(",", ".") for t in re.findall(r"[\d:]+[.,]\d+", srt(words))] == times
