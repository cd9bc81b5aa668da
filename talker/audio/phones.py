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
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from talker.audio.features import (
    HOP,
    AudioEncoder,
    Chunk,
    chunks,
    n_rows,
    silent_rows,
    speech_gain,
)
from talker.audio.phone_scores import PHONES, STATES, make_decoder, scores, scores_apart
from talker.threads import map_ahead

_SILENCE = PHONES.index("SIL")

TEMPERATURE = 0.4
"""Factor on the scores: those of neighbouring frames are far from independent, so they are overconfident."""

CHUNK_S = 10.0
CONTEXT_S = 2.0
"""Long recordings go through the decoder in chunks, with so much sound before and after that is thrown away."""


class PhoneEncoder(AudioEncoder):
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
            make_decoder(Path(folder))  # fails now, not at the first recording

    def parts(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """See :class:`AudioEncoder`."""
        silent = silent_rows(waveform)
        if silent.all():
            yield np.tile(self.silence, (len(silent), 1))
            return
        gain = speech_gain(waveform)  # the acoustic model heard speech at ordinary levels
        pieces = list(chunks(len(waveform), CHUNK_S, CONTEXT_S))
        listen = scores if len(pieces) == 1 else scores_apart

        def encode(chunk: Chunk) -> np.ndarray:
            sound = waveform[chunk.samples] * gain
            rows = self._scaled(_probabilities(listen(_pcm(sound)), n_rows(len(sound))))
            return chunk.part(rows, silent, self.silence)

        yield from map_ahead(encode, pieces)

    def _scaled(self, probabilities: np.ndarray) -> np.ndarray:
        return (np.sqrt(probabilities) - self._MEAN) / self._SCALE


def _pcm(waveform: np.ndarray) -> np.ndarray:
    """Samples [S] as the decoder takes them, int16.

    Its 25.6 ms frames start at multiples of 10 ms: shifting the sound by 8 ms centres pairs of them on their row. The
    padding at the end covers the last frames and the differences over time.
    """
    padded = np.pad(waveform, (128, n_rows(len(waveform)) * HOP - len(waveform) + 1600))
    return np.round(np.clip(padded, -1, 1) * 32767).astype(np.int16)


def _probabilities(scores: np.ndarray, rows: int) -> np.ndarray:
    """Scores [>= 2 rows, states], two to a row, to probabilities [rows, phones]."""
    scores = scores[: 2 * rows]
    likelihood = np.exp(TEMPERATURE * (scores - scores.max(axis=1, keepdims=True)))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    return likelihood.reshape(-1, 2, len(PHONES), STATES).mean(axis=1).sum(axis=-1).astype(np.float32)
