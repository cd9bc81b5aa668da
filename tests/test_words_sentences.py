"""Errors and findings are said in the language of the reader although their figures are in them already."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from talker import errors
from talker.errors import VideoError
from talker.ui import html, words
from talker.ui.words import SPANISH, SPANISH_SENTENCES, say, spoken
from talker.ui.words.sentences import PLACE, TRANSLATED, Sentences

TALKER = Path(words.__file__).parents[2]

NOT_ON_A_PAGE = (
    *("cli", "train/ablation", "model", "render", "jit", "losses.py", "device.py", "train/together.py"),
    *("train/densify.py", "train/presets.py", "train/schedule.py", "train/syncnet.py", "train/warm_start.py"),
    *(
        "train/create.py",
        "audio/pretrained.py",
        "audio/phone_scores.py",
        "dataset/sample.py",
        "jobs/child.py",
    ),
    *("jobs/database.py", "jobs/supervisor.py", "studio/presets.py"),
)
"""What only a command line, a researcher or the operator of a server can cause."""

TELLING = {name for name, kind in vars(errors).items() if isinstance(kind, type)} | {"Finding", "at"}
LOGGED = "{} Trying again from the last checkpoint."
SENTENCE = re.compile(r"[A-Z{0-9].*[.?!]", re.DOTALL)
UNTOLD = {
    *("Words.", "{} {}.", "Check {}."),  # an example, nothing but places, to the operator
    *("Paused because the worker was stopped; it goes on when the worker is back.", LOGGED),
}
"""Not translated; the last two stand in the log of a job."""


def shape(text: str) -> str:
    """The text with all places alike."""
    return PLACE.sub("{}", text)


def told() -> Iterator[tuple[str, str]]:
    """Where, and the shape of every sentence of an error or a finding that may reach a page."""
    for path in sorted(TALKER.rglob("*.py")):
        name = path.relative_to(TALKER).as_posix()
        if any(name == skipped or name.startswith(skipped + "/") for skipped in NOT_ON_A_PAGE):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
        telling = [c for c in calls if getattr(c.func, "id", getattr(c.func, "attr", "")) in TELLING]
        # Findings are put into words beforehand: message = f"...".
        worded = [
            n for n in ast.walk(tree) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) in WORDED
        ]
        for node in (*telling, *worded):
            for text in _texts(node):
                if SENTENCE.fullmatch(text):
                    yield f"{name}:{node.lineno}", text


WORDED = {"message", "todo", "said", "_ADVICE", "DAMAGED_ADVICE"}


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield shape(node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


TOLD = list(told())
KNOWN = {shape(text) for text in (*SPANISH, *SPANISH_SENTENCES)} | UNTOLD


def test_every_error_and_finding_has_its_translation() -> None:
    assert len(TOLD) > 250, "the search finds them"
    assert [f"{where}: {text}" for where, text in TOLD if text not in KNOWN] == [], (
        "add it to es_sentences.toml"
    )


def test_none_is_left_over() -> None:
    every = "\n".join(
        text
        for path in TALKER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for text in _texts_of(node)
    ).split("\n")
    assert {shape(text) for text in SPANISH_SENTENCES} - set(every) == set()


def _texts_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.JoinedStr, ast.Constant)):
        yield from _texts(node)


def test_no_sentence_is_in_both_files() -> None:
    assert SPANISH.keys() & SPANISH_SENTENCES.keys() == set()


@pytest.mark.parametrize("english", SPANISH_SENTENCES)
def test_a_sentence_comes_out_as_its_own_translation(english: str) -> None:
    """Not as that of another one whose pattern fits as well."""
    spanish = SPANISH_SENTENCES[english]
    values = {place: f"{place}-7.5" for place in PLACE.findall(english)}
    assert sorted(PLACE.findall(spanish)) == sorted(values)
    assert spanish.strip() == spanish != ""
    assert (english[-1] in ".?!:") == (spanish[-1] in ".?!:"), "a sentence stays a sentence"
    assert not set("<>`$") & set(spanish), "texts carry no markup"
    with spoken("es"):
        assert say(english.format(**values)) == spanish.format(**values)
    assert say(english.format(**values)) == english.format(**values)


def test_what_a_place_holds_is_translated_only_if_it_is_ours() -> None:
    with spoken("es"):
        picture = "Create is not a video we can read: it looks like a PNG picture."
        assert say(picture) == "Create no es un vídeo que se pueda leer: parece una imagen PNG."
        assert say("The face is dark.") == "La cara está oscura."
        assert say("the text.mov is empty (0 bytes).") == "the text.mov está vacío (0 bytes)."
        assert say("{x} is empty (0 bytes).") == "{x} está vacío (0 bytes).", "nobody's braces are filled"


def test_an_error_is_said_in_one_language() -> None:
    error = VideoError(
        "video.too_large",
        "my. holiday.mp4 has 5000 MB.",
        expected="At most 4 GB.",
        todo="Delete old jobs or avatars, then try again. Running jobs are safe.",
    )
    assert words.say_error(error) == str(error)
    with spoken("es"):
        said = (
            "my. holiday.mp4 tiene 5000 MB. Como mucho 4 GB. "
            "Borra tareas o avatares antiguos e inténtalo otra vez. Las tareas en marcha están a salvo."
        )
        assert words.say_error(error) == said
        assert words.say_all(str(error)) == said
        assert said.rsplit(". ", maxsplit=1)[-1] in html.message("error", str(error))


def test_the_reason_of_a_kept_job_is_found_over_two_sentences() -> None:
    with spoken("es"):
        said = words.say_all(
            "No such thing here. What was kept is safe; resume to go on from there. Its log is at hub/1."
        )
    assert said == (
        "No such thing here. Lo guardado está a salvo; reanuda para seguir desde ahí. Su registro está en hub/1."
    )


def test_the_pattern_that_says_more_wins() -> None:
    both = Sentences({"{a} has {b}.": "{a}: {b}", "{a} has {b} MB.": "{a}: {b} megas"})
    assert both.translate("x has 3 MB.", str) == "x: 3 megas"
    assert both.translate("x has wheels.", str) == "x: wheels"
    assert both.translate("x had wheels.", str) is None
    with pytest.raises(ValueError, match="twice"):
        Sentences({"{a} and {a}": "{a}"})
    assert TRANSLATED.isdisjoint({"name", "n", "size"})
