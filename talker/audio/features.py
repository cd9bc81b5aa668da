"""Sound features that drive the lips, 50 a second.

Every encoder maps a whole recording to one row per 20 ms; row k covers the time k/50 to (k+1)/50 s. All of
them share three properties the model relies on:

* **Silence is one fixed vector**: rows inside digital silence (below ``SILENCE_DB`` for at least ``SILENCE_MIN_S``)
  equal ``encoder.silence`` exactly, whatever surrounds them and whoever speaks.
* **Loudness and microphone are taken out** by statistics of the recording's *active speech* only, shrunk towards a
  fixed prior while there is little of it. So a pause more or less changes nothing, and the features of a
  prefix agree with the same rows of the whole recording once about two seconds of speech are in it.
* **Deterministic**: the same samples give the same rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from talker.errors import ConfigError
from talker.types import SAMPLE_RATE

FEATURE_RATE = 50
"""Rows a second."""
HOP = SAMPLE_RATE // FEATURE_RATE
"""Samples a row."""

SILENCE_DB = -72.0
"""Relative to full scale, RMS over one row. Room noise is louder; 16-bit dither is not."""
SILENCE_MIN_S = 0.1

ENCODERS = ("auto", "mel", "phones", "mel+phones", "moonshine", "mel+moonshine", "hubert", "wav2vec2")


class AudioEncoder(ABC):
    """Maps a recording to features."""

    name: str
    dim: int
    silence: np.ndarray
    """[dim] float32: the row of digital silence."""

    @abstractmethod
    def parts(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """The rows of ``encode``, in order, a part [P, dim] at a time; of long recordings the first comes early."""

    def encode(self, waveform: np.ndarray) -> np.ndarray:
        """Features [T, dim] float32 of [S] float32 samples at ``SAMPLE_RATE``; T = ``n_rows(S)``."""
        return np.concatenate(list(self.parts(waveform)))


def n_rows(n_samples: int) -> int:
    """Rows that cover ``n_samples`` samples, at least one."""
    return max(1, -(-n_samples // HOP))


class Chunk(NamedTuple):
    """A piece of a recording, encoded with sound around it whose rows are thrown away.

    Attributes:
        samples: What is encoded, with its context.
        rows: Rows of the recording that come of it.
        kept: The same rows, counted among those of ``samples``.
    """

    samples: slice
    rows: slice
    kept: slice

    def part(self, encoded: np.ndarray, silent: np.ndarray, silence: np.ndarray) -> np.ndarray:
        """Its rows [P, dim] of those ``encoded`` from its samples; ``silence`` [dim] where it is ``silent`` [T]."""
        part = encoded[self.kept]
        part[silent[self.rows]] = silence
        return part


def chunks(n_samples: int, chunk_s: float, context_s: float) -> Iterator[Chunk]:
    """Pieces of ``chunk_s`` seconds, the last shorter, with up to ``context_s`` before and after each."""
    chunk, context = round(chunk_s * SAMPLE_RATE), round(context_s * SAMPLE_RATE)
    for start in range(0, n_samples, chunk):
        low, high = max(0, start - context), min(n_samples, start + chunk + context)
        first, last = start // HOP, min(n_rows(n_samples), (start + chunk) // HOP)
        before = low // HOP
        yield Chunk(slice(low, high), slice(first, last), slice(first - before, last - before))


def get_encoder(name: str, *, model_path: str | None = None) -> AudioEncoder:
    """The encoder called ``name``.

    ``auto`` is ``hubert`` if its weights are on this machine, else ``mel+moonshine``, whose weights always are. The
    returned encoder's ``name`` says what was chosen; store that, never ``auto``.

    Args:
        name: One of ``ENCODERS``.
        model_path: Folder with weights for ``hubert`` and ``wav2vec2``; by default the Hub's local cache.

    Raises:
        ConfigError: For an unknown name.
        BackendError: When the weights are not there.
    """
    if name not in ENCODERS:
        raise ConfigError(
            "config.encoder",
            f"There is no audio encoder called {name!r}.",
            expected=f"One of {', '.join(ENCODERS)}.",
        )
    if name in ("auto", "hubert", "wav2vec2"):
        from talker.audio.pretrained import TransformerEncoder, weights_available

        if name != "auto":
            return TransformerEncoder(name, model_path)
        if weights_available("hubert", model_path):
            return TransformerEncoder("hubert", model_path)
        name = "mel+moonshine"
    if name == "mel":
        return MelEncoder()
    if "moonshine" in name:
        from talker.audio.moonshine import MoonshineEncoder as Other
    else:
        from talker.audio.phones import PhoneEncoder as Other
    return MelAnd(Other()) if name.startswith("mel+") else Other()


def silent_rows(waveform: np.ndarray) -> np.ndarray:
    """Which rows, [T] bool, lie inside digital silence."""
    quiet = row_level_db(waveform) < SILENCE_DB
    least = round(SILENCE_MIN_S * FEATURE_RATE)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < min(least, len(quiet)):
            quiet[start:end] = False
    return quiet


def row_level_db(waveform: np.ndarray) -> np.ndarray:
    """RMS level of each row, [T] decibels of full scale; -200 for zeros."""
    rows = n_rows(len(waveform))
    padded = np.pad(waveform.astype(np.float64), (0, rows * HOP - len(waveform)))
    power = (padded.reshape(rows, HOP) ** 2).mean(axis=1)
    return 10 * np.log10(np.maximum(power, 1e-20))


def active_rows(waveform: np.ndarray) -> np.ndarray:
    """Rows with speech, [T] bool: within 30 dB of the recording's loud parts, and not silence."""
    level = row_level_db(waveform)
    heard = level > SILENCE_DB
    if not heard.any():
        return heard
    return heard & (level > np.percentile(level[heard], 95) - 30.0)


def speech_gain(waveform: np.ndarray) -> float:
    """Factor that brings the loud parts of a recording to -20 dB of full scale; at most 40."""
    level = row_level_db(waveform)
    heard = level[level > SILENCE_DB]
    return float(min(40.0, 10 ** ((-20.0 - np.percentile(heard, 95)) / 20))) if len(heard) else 1.0


class MelEncoder(AudioEncoder):
    """Log-mel bands, each relative to its mean over the recording's active speech.

    The power spectrum of 25 ms Hann windows every 10 ms goes through triangular mel filters; two frames are
    averaged per row. A value of 0 is the band's speech average, 1 is ``SCALE`` nats above it; -3 is the
    floor and means silence.
    """

    name = "mel"

    N_BANDS = 40
    SCALE = 2.5
    """Nats; about the standard deviation of active speech in a band."""
    LIMIT = 3.0
    _LOW_HZ, _HIGH_HZ = 50.0, 7600.0
    _WINDOW, _FFT = 400, 512
    _PRIOR_ROWS = 25
    """Weight of the typical voice, in rows of active speech (half a second)."""

    def __init__(self) -> None:
        self.dim = self.N_BANDS
        self.silence = np.full(self.dim, -self.LIMIT, np.float32)
        self._filters = _mel_filters(self.N_BANDS, self._FFT, self._LOW_HZ, self._HIGH_HZ)
        self._window = np.hanning(self._WINDOW).astype(np.float32)

    def parts(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """See :class:`AudioEncoder`."""
        bands = self._log_bands(waveform)
        active = active_rows(waveform)
        level = self._speech_level(bands, active)
        rows = np.clip((bands - level) / self.SCALE, -self.LIMIT, self.LIMIT).astype(np.float32)
        rows[silent_rows(waveform)] = self.silence
        yield rows

    def _log_bands(self, waveform: np.ndarray) -> np.ndarray:
        """[T, N_BANDS] natural logarithm of the power in each band."""
        rows, step = n_rows(len(waveform)), HOP // 2
        # Frames are centred at 5 and 15 ms of each row, so that a row's centre of gravity is its middle.
        before = self._WINDOW // 2 - step // 2
        after = rows * HOP - len(waveform) + self._WINDOW // 2
        padded = np.pad(waveform.astype(np.float32), (before, after))
        frames = np.lib.stride_tricks.sliding_window_view(padded, self._WINDOW)[::step][: 2 * rows]
        bands = np.empty((2 * rows, self.N_BANDS), np.float32)
        for start in range(0, 2 * rows, 4096):  # bounded memory for long recordings
            spectrum = np.fft.rfft(frames[start : start + 4096] * self._window, self._FFT)
            power = (spectrum.real**2 + spectrum.imag**2) @ self._filters
            bands[start : start + 4096] = np.log(power + 1e-9)
        return bands.reshape(rows, 2, self.N_BANDS).mean(axis=1)

    def _speech_level(self, bands: np.ndarray, active: np.ndarray) -> np.ndarray:
        """[N_BANDS] mean over active speech; while there is little, a typical voice of the same loudness."""
        count = int(active.sum())
        if not count:
            return _TYPICAL_VOICE
        mean = bands[active].mean(axis=0)
        typical = _TYPICAL_VOICE + (mean - _TYPICAL_VOICE).mean()
        return (count * mean + self._PRIOR_ROWS * typical) / (count + self._PRIOR_ROWS)


class MelAnd(AudioEncoder):
    """``mel`` and another encoder side by side: the exact sound of the moment, and what is being said."""

    def __init__(self, other: AudioEncoder) -> None:
        self._mel, self._other = MelEncoder(), other
        self.name = f"mel+{other.name}"
        self.dim = self._mel.dim + other.dim
        self.silence = np.concatenate([self._mel.silence, other.silence])

    def parts(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """See :class:`AudioEncoder`."""
        mel, at = self._mel.encode(waveform), 0
        for rows in self._other.parts(waveform):
            yield np.concatenate([mel[at : at + len(rows)], rows], axis=1)
            at += len(rows)


def _mel_filters(n_bands: int, fft: int, low_hz: float, high_hz: float) -> np.ndarray:
    """[fft // 2 + 1, n_bands] triangles, evenly spaced on the mel scale 2595 log10(1 + f / 700)."""
    low, high = 2595 * np.log10(1 + np.array([low_hz, high_hz]) / 700)
    mel = np.linspace(low, high, n_bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE * fft
    bins = np.arange(fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)


_TYPICAL_VOICE = np.interp(
    np.arange(MelEncoder.N_BANDS), [0, 4, 12, 20, 28, 39], [0.0, 0.5, -2.5, -4.0, -4.5, -7.0]
)
"""[N_BANDS] nats: speech at about -23 dB of full scale, loudest at a few hundred hertz and falling above."""
