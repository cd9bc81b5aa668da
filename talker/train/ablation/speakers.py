"""Unseen speakers: an avatar is driven by other people's sound, and its lips are compared with what the sound says.

What their lips did is known for prepared clips only. For every recording there is the ridge probe: a linear model
from sound to mouth opening, fitted to the avatar's own clip. Lips that follow a voice agree with the probe on that
voice and not with the probe on another moment of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from talker import metrics
from talker.audio.features import get_encoder
from talker.audio.waveform import load
from talker.audio.windows import windows
from talker.checkpoint import load_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.schema import HEADER
from talker.dataset.steps.landmarks import find_landmarks
from talker.drive import drive
from talker.errors import ConfigError
from talker.model.avatar import Avatar
from talker.model.motion import MotionConfig, MotionModel
from talker.train.ablation.run import Run
from talker.types import FPS, SAMPLE_RATE, Speech

SECONDS = 10.0
"""Of every source."""


@dataclass(frozen=True)
class Source:
    """Somebody's sound.

    Attributes:
        name: As in the table.
        waveform: [S] at ``SAMPLE_RATE``.
        opening: [T] true mouth opening of the speaker, NaN where it is not known; absent for a recording.
    """

    name: str
    waveform: np.ndarray
    opening: np.ndarray | None = None

    @property
    def speech(self) -> Speech:
        """The sound, to drive with."""
        return Speech(self.waveform, label=self.name)


def sources(dataset: TalkingHeadDataset, others: Sequence[Path]) -> tuple[Source, ...]:
    """The held-out sound of the avatar's own speaker, then the ``others``; without any, earlier parts of the clip.

    Args:
        dataset: The clip the avatar is trained on.
        others: Recordings, clips with sound, or prepared clips.

    Raises:
        AudioError: A recording cannot be read.
        ConfigError: Two of the others have the same name.
        DatasetError: A prepared clip is not complete.
    """
    own = _part(dataset, "own voice, held out", dataset.n_train)
    names = [path.stem for path in others]
    if len(set(names)) < len(names):
        raise ConfigError(
            "ablate.others",
            f"Two of the recordings have the same name: {', '.join(sorted(names))}.",
            todo="Rename one; the table tells them apart by it.",
        )
    if others:
        return (own, *(_other(path) for path in others))
    middle = dataset.n_train // 2
    return (own, _part(dataset, "own voice, start", 0), _part(dataset, "own voice, middle", middle))


def _part(dataset: TalkingHeadDataset, name: str, start: int) -> Source:
    """``SECONDS`` of a prepared clip from frame ``start`` on, with what its speaker's lips did."""
    stop = min(dataset.n_frames, start + round(SECONDS * FPS))
    opening = np.where(dataset.valid, dataset.mouth_open, np.nan)[start:stop]
    waveform = dataset.waveform[start * SAMPLE_RATE // FPS : stop * SAMPLE_RATE // FPS]
    return Source(name, waveform, opening)


def _other(path: Path) -> Source:
    if (path / HEADER).is_file():
        return _part(TalkingHeadDataset(path), path.stem, 0)
    return Source(path.stem, load(path)[: round(SECONDS * SAMPLE_RATE)])


class Probe:
    """Mouth opening from sound by a ridge regression on the training frames of one clip."""

    def __init__(self, dataset: TalkingHeadDataset, config: MotionConfig) -> None:
        self.config = config
        self.encoder = get_encoder(config.features)
        train = dataset.train_indices()
        opening = np.asarray(dataset.mouth_open, np.float32)[train, None]
        rows = self._windows(dataset.waveform, dataset.n_frames)[train]
        # The ridge weighs its targets as standard deviations; one number has only one.
        told, one = opening / max(opening.std(), 1e-6), np.ones(1)
        self.model = MotionModel.fit(rows, told, rest=0 * one, slope=one, config=config)

    def _windows(self, waveform: np.ndarray, n_frames: int) -> np.ndarray:
        return windows(self.encoder.encode(waveform), n_frames, width=self.config.window)

    def __call__(self, speech: Speech) -> np.ndarray:
        """Predicted opening [T], in standard deviations of the clip's."""
        found = self._windows(speech.waveform, speech.n_frames)
        return self.model(torch.from_numpy(np.asarray(found, np.float32)))[:, 0].numpy()


def listening_figures(avatar: Avatar, source: Source, predicted: np.ndarray) -> dict[str, float]:
    """How the lips of ``avatar`` follow a source whose opening the probe predicts as ``predicted`` [T]."""
    frames = drive(avatar, source.speech)
    landmarks = np.stack(list(find_landmarks(frames, np.zeros(len(predicted), np.int32))))
    opening = metrics.mouth_opening(landmarks)
    values = {
        "probe_r": metrics.correlation_with_lag(opening, predicted).r0,
        "probe_r_swapped": metrics.correlation_with_lag(opening, np.roll(predicted, len(predicted) // 2)).r0,
    }
    if source.opening is not None:
        n = min(len(source.opening), len(opening))
        true = source.opening[:n]
        values["own_lips_r"] = metrics.correlation_with_lag(opening[:n], true).r0
        values["probe_own_lips_r"] = metrics.correlation_with_lag(predicted[:n], true).r0
    return {name: round(float(value), 4) for name, value in values.items() if np.isfinite(value)}


def listen(
    runs: Iterable[Run], dataset: TalkingHeadDataset, others: Sequence[Path]
) -> Iterator[tuple[str, dict]]:
    """Name of each source and its result for each trained run, in the form of ``Run.read``."""
    heard = sources(dataset, others)
    probe = None
    for run in runs:
        avatar = load_avatar(run.avatar)
        if probe is None:
            probe = Probe(dataset, replace(avatar.config.motion, dim=1))
            predicted = {source.name: probe(source.speech) for source in heard}
        for source in heard:
            figures = listening_figures(avatar, source, predicted[source.name])
            yield source.name, {**run.read(), "metrics": figures, "curve": []}
