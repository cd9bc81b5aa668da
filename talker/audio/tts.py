"""Text to speech: a list of engines, of which the first available one speaks. No voice is ever cloned."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from talker import sandbox
from talker.audio.weights import cached_snapshot, has_weights
from talker.errors import SpeechError
from talker.types import SAMPLE_RATE, Speech, Word

MAX_TEXT = 2000
"""Characters."""
MIN_RATE, MAX_RATE = 0.5, 2.0
LEAD_S, TAIL_S = 0.2, 0.4
"""Silence around the speech: the face is seen at rest before and after."""
_LIMITS = sandbox.Limits(wall_s=60.0, memory_mb=1024, file_mb=64)
_USUAL_REGION = {"en": "en-us", "fr": "fr-fr", "zh": "cmn"}
_LONG_TOKEN = 24
"""Characters; longer runs without a space are languages that write without spaces."""


@dataclass(frozen=True)
class Voice:
    """A voice that can be asked for."""

    id: str
    """Unique over all engines, for example ``espeak:en-us``."""
    name: str
    language: str
    """BCP 47 tag in lower case, for example ``en-us``."""
    engine: str


class SpeechEngine(Protocol):
    """Something that speaks."""

    name: str

    def available(self) -> bool:
        """Whether it can speak on this machine now, without a download."""
        ...

    def voices(self) -> Sequence[Voice]:
        """Its voices; empty when it is not available."""
        ...

    def speak(self, text: str, voice: Voice, rate: float) -> Speech:
        """Speak checked text at ``rate`` times normal speed."""
        ...


class EspeakEngine:
    """eSpeak NG: small, robotic, many languages, always there. Runs in a limited child process."""

    name = "espeak"

    def available(self) -> bool:
        """See :class:`SpeechEngine`."""
        return find_spec("espeakng_loader") is not None

    def voices(self) -> Sequence[Voice]:
        """See :class:`SpeechEngine`: for every language one lower and one higher voice."""
        return self._voices if self.available() else ()

    @cached_property
    def _voices(self) -> tuple[Voice, ...]:
        listed = self._run("voices", {})["voices"]
        found = []
        for language, name in dict((language, name) for language, name in listed).items():
            for variant, label in (("", "low"), ("+f3", "high")):
                voice = f"{self.name}:{language}{variant}"
                found.append(Voice(voice, f"{name}, {label} (basic voice)", language.lower(), self.name))
        return tuple(found)

    def speak(self, text: str, voice: Voice, rate: float) -> Speech:
        """See :class:`SpeechEngine`."""
        with tempfile.TemporaryDirectory(prefix="talker-speech-") as folder:
            out = Path(folder) / "speech.npy"
            request = {"text": text, "voice": voice.id.removeprefix(f"{self.name}:"), "speed": rate}
            answer = self._run("speak", request | {"rate": SAMPLE_RATE, "out": str(out)})
            if answer["marks"] is None:
                raise _no_voice(voice.id)
            waveform = np.load(out, allow_pickle=False)
        return _speech(text, waveform, answer["marks"], voice)

    @staticmethod
    def _run(function: str, request: dict) -> dict:
        try:
            return sandbox.run(f"talker.audio.espeak:{function}", request, _LIMITS)
        except sandbox.SandboxError as e:
            raise SpeechError(
                "speech.engine",
                "The speech engine stopped on this text.",
                todo="Try a shorter or simpler text, or another voice.",
            ) from e


class TransformersEngine:
    """A VITS model of the transformers library, when its weights are on this machine.

    Args:
        model_path: Folder with a VITS model; by default ``TALKER_TTS_MODEL``, then the Hub's local cache.
        language: What the model speaks.
    """

    name = "transformers"
    REPOSITORY = "facebook/mms-tts-eng"
    """Used if somebody has it in the cache; its licence forbids commercial use, so it is never fetched."""

    def __init__(self, model_path: str | None = None, *, language: str = "en") -> None:
        self._given = model_path or os.environ.get("TALKER_TTS_MODEL")
        self._language = language

    def _folder(self) -> Path | None:
        if self._given is None:
            return cached_snapshot(self.REPOSITORY)
        return Path(self._given) if has_weights(Path(self._given)) else None

    def available(self) -> bool:
        """See :class:`SpeechEngine`."""
        return self._folder() is not None

    def voices(self) -> Sequence[Voice]:
        """See :class:`SpeechEngine`."""
        if not self.available():
            return ()
        return (Voice(f"{self.name}:{self._language}", "Natural voice", self._language, self.name),)

    @cached_property
    def _model(self):
        from talker.torchvision_fix import ensure_torchvision

        ensure_torchvision()
        from transformers import AutoTokenizer, VitsModel

        folder = str(self._folder())
        model = VitsModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def speak(self, text: str, voice: Voice, rate: float) -> Speech:
        """See :class:`SpeechEngine`. Word times are estimated from the lengths of the words in each sentence."""
        import soxr

        pieces: list[np.ndarray] = []
        marks: list[list[float]] = []
        at = 0.0
        for match in re.finditer(r"[^.!?…。]{1,300}[.!?…。]*\s*", text):
            piece = soxr.resample(*self._sentence(match.group(), rate), SAMPLE_RATE).astype(np.float32)
            seconds, length = len(piece) / SAMPLE_RATE, len(match.group())
            for word in re.finditer(r"\S+", match.group()):
                start = at + seconds * word.start() / length
                marks.append([match.start() + word.start(), len(word.group()), start])
            pieces.append(piece)
            at += seconds
        waveform = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
        return _speech(text, waveform, marks, voice)

    def _sentence(self, text: str, rate: float) -> tuple[np.ndarray, int]:
        """Samples and their rate; the same every time, although the model draws noise."""
        import torch

        model, tokenizer = self._model
        tokens = tokenizer(text, return_tensors="pt")
        if not tokens["input_ids"].shape[-1]:
            return np.zeros(0, np.float32), model.config.sampling_rate
        model.speaking_rate = rate
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            waveform = model(**tokens).waveform[0]
        return waveform.float().cpu().numpy(), model.config.sampling_rate


def engines() -> tuple[SpeechEngine, ...]:
    """All engines, best first, available or not."""
    return _ENGINES


def speak(text: str, *, voice: Voice | str | None = None, language: str = "en", rate: float = 1.0) -> Speech:
    """Speak a text.

    Args:
        text: Plain text, at most ``MAX_TEXT`` characters; markup is spoken, never interpreted.
        voice: A voice or its id; by default the first one of the first available engine for the language.
        language: Wanted language when no voice is given; ``en`` takes ``en-us`` as well.
        rate: 1 is normal speed; 0.5 to 2.

    Raises:
        SpeechError: ``speech.empty``, ``speech.too_long``, ``speech.rate``, ``speech.no_voice``,
            ``speech.nothing_said``,
            ``speech.engine``.
    """
    text = clean(text)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise SpeechError(
            "speech.rate", f"The speed {rate:g} is out of range.", expected=f"{MIN_RATE} to {MAX_RATE}."
        )
    wanted = voice if isinstance(voice, Voice) else _find(voice, language)
    for engine in engines():
        if engine.name == wanted.engine and engine.available():
            return engine.speak(text, wanted, rate)
    raise _no_voice(wanted.id)


def clean(text: str) -> str:
    """Text as it is spoken: no control characters, single spaces, not empty, not too long."""
    if len(text) <= 4 * MAX_TEXT:  # otherwise refused below; no need to look at every character
        text = "".join(_spoken_form(c) for c in text)
    spoken = " ".join(text.split())
    if not spoken:
        raise SpeechError("speech.empty", f"Please type some text (up to {MAX_TEXT:,} characters).")
    if len(spoken) > MAX_TEXT:
        raise SpeechError(
            "speech.too_long",
            f"The text has {len(spoken):,} characters.",
            expected=f"At most {MAX_TEXT:,}.",
            todo="Split it into parts.",
        )
    return spoken


def _spoken_form(character: str) -> str:
    kind = unicodedata.category(character)
    return {"Cc": " ", "Cf": "", "Cs": "", "Co": "", "Cn": ""}.get(kind, character)


def _find(voice: str | None, language: str) -> Voice:
    known = [v for engine in engines() for v in engine.voices()]
    if voice is not None:
        matches = [v for v in known if v.id == voice]
    else:
        language = language.lower()
        matches = [v for v in known if v.language == _USUAL_REGION.get(language, language)]
        matches += [v for v in known if v.language.split("-")[0] == language.split("-")[0]]
    if not matches:
        raise _no_voice(voice or f"for the language {language!r}")
    return matches[0]


def _no_voice(wanted: str) -> SpeechError:
    return SpeechError(
        "speech.no_voice",
        f"There is no voice {wanted} on this machine.",
        todo="Choose one from the list of voices.",
    )


def _speech(text: str, waveform: np.ndarray, marks: list[list[float]], voice: Voice) -> Speech:
    """Pad with silence, bring to an ordinary level, and give every written word its time."""
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak < 1e-3:
        raise SpeechError(
            "speech.nothing_said",
            "Nothing in this text can be spoken.",
            expected="Words.",
            todo="Type some words.",
        )
    lead, tail = (np.zeros(round(s * SAMPLE_RATE), np.float32) for s in (LEAD_S, TAIL_S))
    padded = np.concatenate([lead, waveform.astype(np.float32) * min(1.0, 0.9 / peak), tail])
    return Speech(padded, _words(text, marks, padded), voice.name)


def _words(text: str, marks: list[list[float]], waveform: np.ndarray) -> tuple[Word, ...]:
    """Spoken marks to written words with their punctuation; joined by spaces they are the text again.

    Pieces nobody speaks (a dash, a symbol) stay with the word before them.
    """
    starts: dict[int, float] = {}
    tokens = [(m.start(), m.end()) for m in re.finditer(r"\S+", text)]
    for first, last in tokens:
        inside = sorted((int(p), t) for p, _, t in marks if first <= p < last)
        # Without spaces, as in Chinese, the engine's own words are the units.
        for position, time_s in inside if last - first > _LONG_TOKEN else inside[:1]:
            starts.setdefault(position if position != inside[0][0] else first, LEAD_S + time_s)
    if not starts:
        return ()
    positions = sorted(starts)
    positions[0] = 0
    starts[0] = min(starts.values())
    ends = [*positions[1:], len(text)]
    times = [starts[p] for p in positions]
    borders = [*times[1:], len(waveform) / SAMPLE_RATE]
    return tuple(
        Word(text[p:e].strip(), t, _last_sound(waveform, t, b))
        for p, e, t, b in zip(positions, ends, times, borders, strict=True)
    )


def _last_sound(waveform: np.ndarray, start_s: float, border_s: float) -> float:
    """When the sound that begins at ``start_s`` fades, at the latest at ``border_s``: pauses belong to no word."""
    part = waveform[round(start_s * SAMPLE_RATE) : round(border_s * SAMPLE_RATE)]
    loud = np.flatnonzero(np.abs(part) > 0.01)
    return start_s + (loud[-1] + 1) / SAMPLE_RATE if len(loud) else border_s


_ENGINES: tuple[SpeechEngine, ...] = (TransformersEngine(), EspeakEngine())
