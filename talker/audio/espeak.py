"""eSpeak NG through ctypes, inside the limited child process: the library may end its process on trouble.

It is GPL software; here it runs as a program of its own that is sent text and returns sound. Imports
nothing heavy.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
_UTF8, _BY_CHARACTER, _RATE = 1, 1, 1
_EVENT_END, _EVENT_WORD = 0, 1
_WORDS_A_MINUTE = 165
"""eSpeak's own default is 175; a little slower is easier to read from lips."""


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """The initialised library and its sample rate."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    with tempfile.TemporaryDirectory(prefix="talker-") as folder:
        # Data paths beyond some 160 characters are ignored by the library: a link makes every path short.
        home = Path(folder)
        (home / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(home).encode(), _DO_NOT_EXIT)
        if rate <= 0:
            raise RuntimeError("eSpeak NG did not start")
        yield library, rate
        library.espeak_Terminate()


def voices(request: dict, progress: Callable[[int], None]) -> dict[str, Any]:
    """Child work: ``{"voices": [[language, name], ...]}``, the default voice of every language."""
    with _library() as (library, _):
        found = [[language, name] for language, name, _ in _listed(library)]
    return {"voices": found}


def _listed(library: ctypes.CDLL) -> list[tuple[str, str, str]]:
    """(language, name, file) of every voice."""
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    listed = library.espeak_ListVoices(None)
    found, k = [], 0
    while listed[k]:
        voice = listed[k].contents
        # A list of (priority byte, language, zero); the first language is the voice's own.
        language = ctypes.string_at(voice.languages + 1).decode()
        file = (voice.identifier or b"").decode(errors="replace")
        found.append((language, (voice.name or b"").decode(errors="replace"), file))
        k += 1
    return found


def _choose(library: ctypes.CDLL, voice: str) -> bool:
    """Set the voice ``language[+variant]``. Some languages, such as ``en-gb``, are found by their file only."""
    language, plus, variant = voice.partition("+")
    files = (Path(file).name for known, _, file in _listed(library) if known == language)
    return any(library.espeak_SetVoiceByName(f"{n}{plus}{variant}".encode()) == 0 for n in (language, *files))


def speak(request: dict, progress: Callable[[int], None]) -> dict[str, Any]:
    """Child work: speak ``text`` with ``voice`` at ``speed`` times normal speed (all of the request).

    Writes mono float32 at ``rate`` to ``out`` (npy). Result: ``marks``, a list of [position in the text,
    length, start in seconds] of every word; None for an unknown voice.
    """
    import soxr

    pieces: list[np.ndarray] = []
    marks: list[list[float]] = []

    def receive(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        k = 0
        while events[k].type != _EVENT_END:
            if events[k].type == _EVENT_WORD:
                marks.append([events[k].text_position - 1, events[k].length, events[k].audio_ms / 1000])
            k += 1
        return 0

    callback = _Callback(receive)  # must stay referenced while the library may call it
    with _library() as (library, rate):
        if not _choose(library, request["voice"]):
            return {"marks": None}
        library.espeak_SetSynthCallback(callback)
        library.espeak_SetParameter(_RATE, round(_WORDS_A_MINUTE * request["speed"]), 0)
        text = request["text"].encode() + b"\0"
        # Plain UTF-8: neither SSML nor phoneme notation in the text is interpreted.
        library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, _BY_CHARACTER, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    pcm = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    np.save(request["out"], soxr.resample(pcm.astype(np.float32) / 32768, rate, request["rate"]))
    return {"marks": marks}
