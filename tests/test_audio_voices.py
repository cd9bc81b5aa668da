"""Languages that eSpeak NG lists under one name and finds under another."""

from __future__ import annotations

import pytest

from talker.audio.tts import EspeakEngine, speak


@pytest.mark.parametrize("voice", ["espeak:en-gb", "espeak:en-gb+f3", "espeak:fr-fr"])
def test_listed_voices_can_be_chosen(voice: str) -> None:
    assert voice in {v.id for v in EspeakEngine().voices()}
    assert speak("Hello", voice=voice).duration_s > 0.3
