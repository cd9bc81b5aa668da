"""One field for several speakers: what moves a face is learnt from all of them, what a face is from its own clip.

Every speaker keeps their own Gaussians, each with its vector: that is the embedding of the identity, place by place.
The networks that read the vectors and the control are the same for all. For a control to mean the same for
everybody, all codes count lips in the components of the first speaker. The speakers take steps in turn.

Source: our own; one model for several speakers is an open question of both papers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.events import Event, Progress, StageStarted
from talker.model.avatar import FACE, Avatar, ModelConfig
from talker.train.align import align_poses, learnt_track
from talker.train.build import Conditioning, build, refit_motion
from talker.train.loop import LoopConfig, StageRun
from talker.train.presets import Preset
from talker.train.sampling import FrameSampler
from talker.train.schedule import LearningRates, Stage
from talker.train.state import TrainState

PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True)
class Speaker:
    """One of those who share a field, while training."""

    dataset: TalkingHeadDataset
    state: TrainState
    conditioning: Conditioning

    @property
    def avatar(self) -> Avatar:
        """What is trained; whole, with the shared networks in it."""
        return self.state.avatar


def build_together(
    datasets: Sequence[TalkingHeadDataset], model: ModelConfig, seed: int
) -> tuple[Speaker, ...]:
    """Avatars at step 0 whose fields are the same object. Deterministic for a seed.

    Args:
        datasets: A prepared clip of each speaker; the first one's lips give the code its components.
        model: The switches.
        seed: Of everything random.

    Raises:
        ConfigError: The switches leave no place for an identity: the Gaussians carry no vectors, or no motion code
            drives them, or there is a second field.
        TrackingError: Too few usable frames of somebody.
    """
    if model.face.encoder != "embedding" or model.face.signal != "motion" or model.mouth is not None:
        raise ConfigError(
            "together.model",
            f"A shared field of the encoder {model.face.encoder}, driven by {model.face.signal}.",
            expected="One field with the encoder embedding, driven by motion.",
        )
    speakers: list[Speaker] = []
    for dataset in datasets:
        like = speakers[0].avatar.lip_code if speakers else None
        avatar, conditioning = build(dataset, model, seed, like=like)
        if speakers:
            avatar.branch(FACE).deformation = speakers[0].avatar.branch(FACE).deformation
        state = TrainState(avatar, dataset.n_frames, LearningRates())
        speakers.append(Speaker(dataset, state, conditioning))
    return tuple(speakers)


def train_together(
    speakers: Sequence[Speaker],
    preset: Preset,
    seed: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Every stage of ``preset`` for every speaker, step by step in turn, on the CPU.

    Nothing is kept on the way: it is for comparing, and starts anew when it was stopped.

    Raises:
        TrainingError: A loss stopped being finite.
    """
    config = LoopConfig(Path(), "", seed)
    for stage in preset.stages:
        runs = []
        for speaker in speakers:
            yield from _begun(speaker, stage, preset.stages, should_stop)
            train = speaker.dataset.train_indices()
            sampler = FrameSampler(train, speaker.dataset.expression, speaker.dataset.mouth_open, seed)
            parts = (speaker.state, speaker.conditioning, speaker.dataset)
            runs.append(StageRun(*parts, preset.stages, sampler, config))
        yield StageStarted(stage.name, stage.steps)
        yield from _in_turn(runs, stage, should_stop)
        if should_stop():
            return
        for speaker in speakers:
            speaker.state.end_stage()
            speaker.state.position.stage += 1
            speaker.state.position.step = 0
    for speaker in speakers:
        speaker.avatar.track = learnt_track(speaker.state, speaker.dataset)
        if (codes := speaker.state.refined_codes(speaker.conditioning.signal)) is not None:
            speaker.avatar.motion = refit_motion(speaker.avatar, speaker.dataset, codes)
        speaker.avatar.eval().requires_grad_(False)


def _begun(
    speaker: Speaker, stage: Stage, stages: tuple[Stage, ...], should_stop: Callable[[], bool]
) -> Iterator[Event]:
    """As a run of one speaker begins a stage."""
    number = speaker.state.position.stage
    if stage.align and number > 0:
        static = stages[number - 1].static
        yield from align_poses(
            speaker.state, speaker.conditioning, speaker.dataset, should_stop, static=static
        )
    speaker.state.begin_stage(stage)


def _in_turn(runs: Sequence[StageRun], stage: Stage, should_stop: Callable[[], bool]) -> Iterator[Event]:
    told = time.monotonic()
    for step in range(1, stage.steps + 1):
        for run in runs:
            run.step()
        if should_stop():
            return
        if time.monotonic() - told >= PROGRESS_EVERY_S or step == stage.steps:
            told = time.monotonic()
            yield Progress(stage.name, step, stage.steps)
