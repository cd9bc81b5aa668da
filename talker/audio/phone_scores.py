"""How well every state of every phone fits the sound: the acoustic model inside the pocketsphinx wheel.

The decoder holds Python's lock while it listens, a second for twenty seconds of sound, in which neither a page is
served nor a frame drawn. So anything but a short recording is scored in child processes, several side by side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from talker.errors import BackendError
from talker.sandbox import Limits, run

_NAMES = """
    +NSN+ +SPN+ AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG
    OW OY P R S SH SIL T TH UH UW V W Y Z ZH
"""
PHONES = tuple(_NAMES.split())
"""In the order of the model's states: noise, spoken noise, then the CMU phone set with silence."""
STATES = 3
FRAME_RATE = 100

_SCORE_TO_NATS = 1024 * np.log(1.0001)
"""Scores are logarithms to the base 1.0001, shifted right by ten bits, relative to the frame's best state."""
_UNSEEN = 500
"""Score of a state the search had switched off; larger than any that occurs."""
_TARGET = "talker.audio.phone_scores:score_in_child"


def scores(pcm: np.ndarray) -> np.ndarray:
    """Scores [T, states] nats <= 0, ``FRAME_RATE`` a second, of samples [S] int16 at ``SAMPLE_RATE``."""
    with tempfile.TemporaryDirectory(prefix="talker-phones-") as folder:
        decoder = make_decoder(Path(folder))
        decoder.start_utt()
        decoder.process_raw(pcm.astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        del decoder  # closes the log
        (log,) = Path(folder).glob("*.sen")
        return _read_log(log.read_bytes()) * -_SCORE_TO_NATS


def scores_apart(pcm: np.ndarray) -> np.ndarray:
    """``scores``, worked out in a child process."""
    limits = Limits(wall_s=60 + len(pcm) / 4000, memory_mb=2048, file_mb=256)
    with tempfile.TemporaryDirectory(prefix="talker-phones-") as folder:
        sound, result = Path(folder) / "pcm.npy", Path(folder) / "scores.npy"
        np.save(sound, pcm)
        run(_TARGET, {"pcm": str(sound), "scores": str(result)}, limits)
        return np.load(result)


def score_in_child(request: dict[str, Any], progress: Callable[[int], None]) -> dict[str, Any]:
    """Entry point of the child process: from the file ``pcm`` to the file ``scores``."""
    np.save(request["scores"], scores(np.load(request["pcm"])))
    return {}


def make_decoder(log: Path):
    """A decoder that writes the score of every state to a file in the folder ``log``.

    Raises:
        BackendError: ``backend.package`` where its package is not installed; the app itself does not need it.
    """
    try:
        from pocketsphinx import Decoder, get_model_path
    except ImportError as e:
        raise BackendError(
            "backend.package",
            "The sound features 'phones' need the package pocketsphinx, which is not installed here.",
            todo="Install it, or use mel+moonshine, which needs nothing more.",
        ) from e

    model = Path(get_model_path()) / "en-us"
    # The all-phone search with context-independent units and no pruning keeps every state alive, so
    # that the log of state scores is complete; its own result is not used.
    return Decoder(
        hmm=str(model / "en-us"),
        allphone=str(model / "en-us-phone.lm.bin"),
        allphone_ci=True,
        beam=1e-300,
        pbeam=1e-300,
        wbeam=1e-300,
        senlogdir=str(log),
        loglevel="FATAL",
    )


def _read_log(log: bytes) -> np.ndarray:
    """Parse the decoder's log of state scores to [frames, states].

    After a text header and a byte-order mark, each frame holds the number of active states (int16), the
    steps from one active state to the next (uint8 each) and their scores (int16 each).
    """
    position = log.index(b"endhdr\n") + len(b"endhdr\n") + 4
    frames: list[np.ndarray] = []
    while position < len(log):
        count = int.from_bytes(log[position : position + 2], "little")
        position += 2
        states = np.cumsum(np.frombuffer(log, np.uint8, count, position))
        position += count
        row = np.full(len(PHONES) * STATES, _UNSEEN, np.float32)
        row[states] = np.frombuffer(log, "<i2", count, position)
        position += 2 * count
        frames.append(row)
    frames[0] = frames[1]  # in the first frame only the start states are alive
    return np.array(frames)
