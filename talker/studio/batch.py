"""Several texts or recordings one after the other; what fails is told and does not stop the rest."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from talker.errors import BusyError, SpeechError, TalkerError
from talker.studio.clips import Clip
from talker.studio.inbox import clean_label
from talker.studio.line import TalkWaiting
from talker.studio.notes import TalkNote
from talker.studio.talking import TalkChunk, TalkDone

log = logging.getLogger(__name__)

MAX_PARTS = 20

Made = TalkChunk | TalkDone | TalkNote | TalkWaiting


@dataclass(frozen=True)
class Part:
    """One clip to be made: a text or a recording."""

    title: str
    text: str | None = None
    audio: Path | None = None


@dataclass(frozen=True)
class BatchStep:
    """What happens to one part; ``number`` counts from 1."""

    number: int
    total: int
    part: Part
    made: Made


@dataclass(frozen=True)
class BatchDone:
    """All parts were tried."""

    clips: tuple[Clip, ...]
    failures: tuple[tuple[Part, str], ...]
    """Parts that have no clip, and why."""


def parts_of(texts: str, recordings: Sequence[Path] = ()) -> list[Part]:
    """The parts in what a person gave: paragraphs if there is an empty line between them, else lines.

    Args:
        texts: Everything typed.
        recordings: Sound files; they come after the texts.

    Raises:
        SpeechError: Nothing was given, too much, or one text is too long.
    """
    from talker.audio.tts import MAX_TEXT

    texts = texts.replace("\r\n", "\n").strip()
    pieces = re.split(r"\n[ \t]*\n\s*" if re.search(r"\n[ \t]*\n", texts) else r"\n", texts)
    spoken = [" ".join(piece.split()) for piece in pieces if piece.strip()]
    for number, text in enumerate(spoken, 1):
        if len(text) > MAX_TEXT:
            raise SpeechError(
                "speech.too_long",
                f"Text {number} of {len(spoken)} has {len(text):,} characters.",
                expected=f"At most {MAX_TEXT:,} in each.",
                todo="Split it with an empty line.",
            )
    parts = [Part(clean_title(text), text=text) for text in spoken]
    parts += [Part(clean_label(path.name), audio=path) for path in recordings]
    if not parts:
        raise SpeechError(
            "speech.nothing",
            "There is nothing to say yet.",
            todo="Type one text a line, or choose sound files.",
        )
    if len(parts) > MAX_PARTS:
        raise SpeechError(
            "batch.too_many", f"These are {len(parts)} clips.", expected=f"At most {MAX_PARTS} in one go."
        )
    return parts


def clean_title(text: str) -> str:
    """The first words of a text, fit for lists."""
    words = " ".join(text.replace("/", " ").replace("\\", " ").split())
    return clean_label(words, default="A recording")


def run(parts: Sequence[Part], say: Callable[[Part], Iterator[Made]]) -> Iterator[BatchStep | BatchDone]:
    """Make every part with ``say``, in order. Closing the iterator stops the part under way; clips made stay.

    Raises:
        BusyError: There is no place in the line before the renderer.
    """
    clips: list[Clip] = []
    failures: list[tuple[Part, str]] = []
    for number, part in enumerate(parts, 1):
        try:
            for made in say(part):
                if isinstance(made, TalkDone):
                    clips.append(made.clip)
                yield BatchStep(number, len(parts), part, made)
        except BusyError:  # sent away before the first part: the others would not be let in either
            raise
        except TalkerError as error:
            failures.append((part, str(error)))
        except Exception:  # whatever it was, the other parts are not to blame
            log.exception("part %d of a batch failed", number)
            failures.append((part, "It could not be rendered."))
    yield BatchDone(tuple(clips), tuple(failures))
