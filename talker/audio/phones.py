"""What is being said rather than how it sounds: the probability of each English phone, row by row.

The acoustic model that comes inside the pocketsphinx wheel (Gaussian mixtures over cepstra, trained on many
speakers) scores the three states of every context-independent phone ten milliseconds apart. A tempered
softmax over those scores is the feature. Decoding phones first and then using the winners loses what the
lips need: between hard decisions and these probabilities the correlation of a linear probe with the mouth
opening rises from 0.59 to 0.68 on one speaker and from 0.39 to 0.66 on another (eleven-fold, 400 ms
window).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from talker.audio.features import HOP, MelEncoder, n_rows, silent_rows, speech_gain
from talker.types import SAMPLE_RATE

_NAMES = """
    +NSN+ +SPN+ AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG
    OW OY P R S SH SIL T TH UH UW V W Y Z ZH
"""
PHONES = tuple(_NAMES.split())
"""In the order of the model's states: noise, spoken noise, then the CMU phone set with silence."""
_STATES = 3
_SILENCE = PHONES.index("SIL")

TEMPERATURE = 0.4
"""Factor on the scores: those of neighbouring frames are far from independent, so they are overconfident."""
_SCORE_TO_NATS = 1024 * np.log(1.0001)
"""Scores are logarithms to the base 1.0001, shifted right by ten bits, relative to the frame's best state."""
_UNSEEN = 500
"""Score of a state the search had switched off; larger than any that occurs."""

CHUNK_S = 60.0
CONTEXT_S = 2.0
"""Long recordings go through the decoder in chunks, with so much sound before and after that is thrown away."""


class PhoneEncoder:
    """Square roots of the phone probabilities, brought to about zero mean and unit deviation over speech."""

    name = "phones"

    _MEAN, _SCALE = 0.12, 0.1
    _SILENCE_SHARE = 0.6
    """Probability the acoustic model itself gives to SIL in an empty recording; the rest spreads over all."""

    def __init__(self) -> None:
        self.dim = len(PHONES)
        rest = np.full(self.dim, (1 - self._SILENCE_SHARE) / (self.dim - 1), np.float32)
        rest[_SILENCE] = self._SILENCE_SHARE
        self.silence = self._scaled(rest)
        with tempfile.TemporaryDirectory(prefix="talker-phones-") as folder:
            self._decoder(Path(folder))  # fails now, not at the first recording

    def encode(self, waveform: np.ndarray) -> np.ndarray:
        """See :class:`AudioEncoder`."""
        rows, silent = n_rows(len(waveform)), silent_rows(waveform)
        result = np.tile(self.silence, (rows, 1))
        if silent.all():
            return result
        # The decoder takes 16 bits, and its acoustic model heard speech at ordinary levels.
        waveform = waveform * speech_gain(waveform)
        chunk, context = round(CHUNK_S * SAMPLE_RATE), round(CONTEXT_S * SAMPLE_RATE)
        for start in range(0, len(waveform), chunk):
            low, high = max(0, start - context), min(len(waveform), start + chunk + context)
            scores = self._scores(waveform[low:high])
            first, last = start // HOP, min(rows, (start + chunk) // HOP)
            result[first:last] = self._scaled(_probabilities(scores))[first - low // HOP : last - low // HOP]
        result[silent] = self.silence
        return result

    def _scaled(self, probabilities: np.ndarray) -> np.ndarray:
        return (np.sqrt(probabilities) - self._MEAN) / self._SCALE

    def _scores(self, waveform: np.ndarray) -> np.ndarray:
        """[2 n_rows, states] nats <= 0, two frames a row."""
        rows = n_rows(len(waveform))
        # The decoder's 25.6 ms frames start at multiples of 10 ms: shifting the sound by 8 ms centres pairs
        # of them on their row. The padding at the end covers the last frames and the differences over time.
        padded = np.pad(waveform, (128, rows * HOP - len(waveform) + 1600))
        pcm = np.round(np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes()
        with tempfile.TemporaryDirectory(prefix="talker-phones-") as folder:
            decoder = self._decoder(Path(folder))
            decoder.start_utt()
            decoder.process_raw(pcm, full_utt=True)
            decoder.end_utt()
            del decoder  # closes the log
            (log,) = Path(folder).glob("*.sen")
            scores = _read_scores(log.read_bytes())
        return scores[: 2 * rows] * -_SCORE_TO_NATS

    def _decoder(self, log: Path):
        from pocketsphinx import Decoder, get_model_path

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


class MelPhonesEncoder:
    """``mel`` and ``phones`` side by side: articulation seen twice, by its sound and by its meaning."""

    name = "mel+phones"

    def __init__(self) -> None:
        self._parts = (MelEncoder(), PhoneEncoder())
        self.dim = sum(part.dim for part in self._parts)
        self.silence = np.concatenate([part.silence for part in self._parts])

    def encode(self, waveform: np.ndarray) -> np.ndarray:
        """See :class:`AudioEncoder`."""
        return np.concatenate([part.encode(waveform) for part in self._parts], axis=1)


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """[2 T, states] scores to [T, phones] probabilities."""
    likelihood = np.exp(TEMPERATURE * (scores - scores.max(axis=1, keepdims=True)))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    return likelihood.reshape(-1, 2, len(PHONES), _STATES).mean(axis=1).sum(axis=-1).astype(np.float32)


def _read_scores(log: bytes) -> np.ndarray:
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
        scores = np.full(len(PHONES) * _STATES, _UNSEEN, np.float32)
        scores[states] = np.frombuffer(log, "<i2", count, position)
        position += 2 * count
        frames.append(scores)
    frames[0] = frames[1]  # in the first frame only the start states are alive
    return np.array(frames)
