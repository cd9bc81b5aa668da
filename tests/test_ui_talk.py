"""The small parts of the Talk page: languages and voices, colours, words."""

from __future__ import annotations

from pathlib import Path

import pytest

from talker.audio.tts import Voice
from talker.errors import VideoError
from talker.studio import Manner, TalkChunk, TalkNote
from talker.ui import stage, voices
from talker.ui.question import COLOUR, Asked, hex_colour

VOICES = [
    Voice("vits:en", "Natural voice", "en", "vits"),
    Voice("espeak:en-029", "English (Caribbean), low (basic voice)", "en-029", "espeak"),
    Voice("espeak:en-us", "English (America), low (basic voice)", "en-us", "espeak"),
    Voice("espeak:de", "German, low (basic voice)", "de", "espeak"),
    Voice("espeak:de+f3", "German, high (basic voice)", "de", "espeak"),
    Voice("espeak:cmn", "Chinese (Mandarin, latin as English), low (basic voice)", "cmn", "espeak"),
]


def test_languages_have_names_and_every_voice_belongs_to_one() -> None:
    found = voices.languages(VOICES)
    assert found == [("Chinese", "cmn"), ("English", "en"), ("German", "de")]
    assert voices.of_language(VOICES, "de") == [
        ("German, low", "espeak:de"),
        ("German, high", "espeak:de+f3"),
    ]
    assert [i for _, i in voices.of_language(VOICES, "en")] == ["vits:en", "espeak:en-us", "espeak:en-029"]
    assert sum(len(voices.of_language(VOICES, code)) for _, code in found) == len(VOICES)


def test_real_voices_all_have_a_language_with_a_name() -> None:
    from talker.audio.tts import engines

    known = [voice for engine in engines() if engine.available() for voice in engine.voices()]
    found = voices.languages(known)
    assert ("English", "en") in found and ("German", "de") in found and len(found) > 50
    assert sum(len(voices.of_language(known, code)) for _, code in found) == len(known)
    assert all(name and name[0].isalpha() for name, _ in found)


def test_what_was_chosen_comes_back_if_it_is_still_there() -> None:
    assert voices.preferred(VOICES, "de", "espeak:de+f3")[::2] == ("de", "espeak:de+f3")
    assert voices.preferred(VOICES, "de", "gone")[::2] == ("de", "espeak:de")
    assert voices.preferred(VOICES, "fr", None)[::2] == ("en", "vits:en")
    assert voices.preferred([], "en", None) == ("", [], None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("#00B140", "#00b140"),
        ("rgba(0, 177, 64, 1)", "#00b140"),
        ("rgb(255.4 0 12.6)", "#ff000d"),
        ("x", "x"),
    ],
)
def test_colours_of_the_browser(value: str, expected: str) -> None:
    assert hex_colour(value) == expected


def asked(**changes: object) -> Asked:
    values: dict[str, object] = {
        "avatar": "zoe", "source": "text", "text": "Hello", "sound": None, "spoken": None, "texts": "",
        "sounds": None, "language": "en", "voice": None, "rate": 1.0, "intensity": 1.0, "head_motion": 1.0,
        "backdrop": "clip", "colour": "#00b140", "film_file": None, "film": "", "agreed": False,
    }  # fmt: skip
    return Asked(*(values | changes).values())  # type: ignore[arg-type]


def test_choices_become_a_manner() -> None:
    assert asked().options()["manner"] == Manner()
    chosen = asked(backdrop=COLOUR, colour="rgb(1, 2, 3)", intensity=0.5, head_motion=0.0)
    assert chosen.options()["manner"] == Manner(0.5, 0.0, "#010203")
    assert asked(source="file", sound="/x/my talk.wav").said() == {
        "audio": Path("/x/my talk.wav"), "title": "my talk.wav",
    }  # fmt: skip
    assert asked(source="mic", spoken="/x/audio.wav").said()["title"] is None


def test_a_video_needs_its_check() -> None:
    with pytest.raises(VideoError):
        asked(film_file="/x/film.mp4").options()
    options = asked(film_file="/x/film.mp4", film="1" * 32, agreed=True).options()
    assert (options["over"], options["agreed"]) == ("1" * 32, True)
    assert asked(film_file="/x/film.mp4", film="1" * 32).options()["agreed"] is False


def test_progress_says_where_it_is() -> None:
    chunk = TalkChunk(Path("x.ts"), 1.0, 3.0, 10.0)
    assert "3 of 10 s" in stage.under_way(chunk) and 'aria-valuenow="30"' in stage.under_way(chunk)
    inside = stage.under_way(chunk, "2 of 5", part=1, of=5)
    assert "2 of 5" in inside and 'aria-valuenow="26"' in inside
    assert "Finding the face" in stage.under_way(TalkNote("Finding the face", 0.5))
    assert "tk-unknown" in stage.under_way(TalkNote("Getting ready"))
    assert "<b>x" not in stage.summary([], [("<b>x", "<i>y")])
