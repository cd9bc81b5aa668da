"""The whole way from a clip to an avatar: check, prepare, both stages, held-out figures, preview."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from talker import __version__
from talker.atomic import atomic_path
from talker.card import POSTER, PREVIEW, TRAINING, AvatarCard, update_card
from talker.checkpoint import save_avatar
from talker.dataset.prepare import PrepareConfig, prepare
from talker.dataset.reader import TalkingHeadDataset
from talker.device import chosen_device
from talker.errors import ConfigError
from talker.events import CheckpointSaved, Evaluated, Event, Finished, Note, Progress, StageStarted
from talker.model.avatar import Avatar
from talker.model_card import write_card
from talker.provenance import require, sign, stamp_frames
from talker.safe_files import write_json
from talker.train.align import learnt_track
from talker.train.build import build, refit_motion
from talker.train.evaluate import EvaluateConfig, evaluate
from talker.train.loop import LoopConfig, train
from talker.train.presets import Preset, get_preset, scaled
from talker.train.schedule import LearningRates
from talker.train.state import TrainState
from talker.train.turntable import turntable
from talker.train.warm_start import WarmStart
from talker.types import BLINK_LEFT, BLINK_RIGHT, FPS, SAMPLE_RATE, Consent, Speech
from talker.video.decode import check_part

SIZES = (128, 256, 512)


@dataclass(frozen=True)
class CreateConfig:
    """What a user chooses."""

    preset: str = "preview"
    size: int = 256
    max_minutes: float | None = None
    """Training time; the stages shrink to fit."""
    seed: int = 0
    name: str = ""
    evaluate: bool = True
    steps_scale: float = 1.0
    """Factor on the preset's steps; for tests and quick looks."""
    start_s: float = 0.0
    """Where the part of the clip that is used begins, seconds."""
    end_s: float | None = None
    """Where it ends; None is the end of the clip."""
    init_from: Path | None = None
    """Folder of an avatar whose networks the new one starts from; nothing of the person is taken over."""

    def __post_init__(self) -> None:
        get_preset(self.preset)
        check_part(self.start_s, self.end_s)
        if self.size not in SIZES:
            raise ConfigError(
                "create.size",
                f"A size of {self.size} pixels.",
                expected=f"One of {', '.join(map(str, SIZES))}.",
            )
        if self.max_minutes is not None and not 0 < self.max_minutes <= 24 * 60:
            raise ConfigError(
                "create.max_minutes",
                f"{self.max_minutes} minutes of training.",
                expected="More than 0, at most a day.",
            )
        if not 0.001 <= self.steps_scale <= 20:
            raise ConfigError(
                "create.steps_scale", f"A factor of {self.steps_scale} on the steps.", expected="0.001 to 20."
            )


def data_folder(avatar_dir: Path) -> Path:
    """Where the prepared clip of an avatar lies."""
    return avatar_dir.with_name(avatar_dir.name + ".data")


def state_folder(avatar_dir: Path) -> Path:
    """Where the training checkpoints of an avatar lie."""
    return avatar_dir.with_name(avatar_dir.name + ".state")


def create(
    clip: Path,
    avatar_dir: Path,
    consent: Consent,
    config: CreateConfig,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Make the avatar ``avatar_dir`` from ``clip``; ends with ``Finished``.

    The prepared clip goes to ``<avatar_dir>.data``, checkpoints to ``<avatar_dir>.state``. When ``should_stop()``
    turns true a checkpoint is written and the run returns without ``Finished``.

    Args:
        clip: The video.
        avatar_dir: Folder of the avatar.
        consent: Who declared that the person shown agrees.
        config: The user's choices.
        resume: Continue from whatever an earlier run left; with nothing there it starts.
        should_stop: Polled every step.

    Raises:
        ConsentError: No declaration.
        TalkerError: The clip, or the avatar to start from, cannot be used; see ``talker.errors``.
    """
    require(consent)
    _warm_start(config, get_preset(config.preset))  # refused before any work, not after the preparation
    clock = Clock()
    avatar_dir.parent.mkdir(parents=True, exist_ok=True)
    preparing = PrepareConfig(size=config.size, start_s=config.start_s, end_s=config.end_s)
    for event in prepare(clip, data_folder(avatar_dir), preparing):
        if not isinstance(event, Finished):  # the preparation is; the whole is not
            yield event
        if should_stop():
            return  # every finished step of the preparation is kept
    clock.lap("prepare")
    dataset = TalkingHeadDataset(data_folder(avatar_dir))
    yield from train_avatar(
        dataset, avatar_dir, consent, config, resume=resume, should_stop=should_stop, clock=clock
    )


def train_avatar(
    dataset: TalkingHeadDataset,
    avatar_dir: Path,
    consent: Consent,
    config: CreateConfig,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Clock | None = None,
    preset: Preset | None = None,
) -> Iterator[Event]:
    """The second half of ``create``: both stages on a prepared clip, figures, preview; ends with ``Finished``.

    Args and errors as for ``create``; ``clock`` holds the seconds already spent, ``preset`` replaces the one that
    ``config`` names (for comparing variants).
    """
    require(consent)
    clock = clock or Clock()
    preset = scaled(preset or get_preset(config.preset), config.steps_scale)
    warm = _warm_start(config, preset)
    if not resume:
        shutil.rmtree(state_folder(avatar_dir), ignore_errors=True)
    yield StageStarted("build", 0)
    device = chosen_device()
    avatar, conditioning = build(dataset, preset.model, config.seed, warm=warm)
    if warm is not None:
        yield warm.give_fields(avatar)
    avatar, conditioning = avatar.place(device), conditioning.to(device)
    yield Note(f"Sound is read as {avatar.audio_encoder}; {avatar.n_gaussians:,} Gaussians to start with.")
    clock.lap("build")
    state = TrainState(avatar, dataset.n_frames, LearningRates())
    fingerprint = _fingerprint(preset, config, dataset, warm)
    if resume and state.load_newest(state_folder(avatar_dir), preset.stages, fingerprint):
        yield Note(f"Continuing after {state.position.elapsed_s / 60:.1f} minutes of training.")
    loop = LoopConfig(state_folder(avatar_dir), fingerprint, config.seed, max_minutes=config.max_minutes)
    static = {stage.name: stage.steps for stage in preset.stages if stage.static}
    for event in train(state, conditioning, dataset, preset.stages, config=loop, should_stop=should_stop):
        yield event
        if isinstance(event, CheckpointSaved) and event.step == static.get(event.stage):
            yield turntable(avatar, conditioning.driving(dataset.reference), event.stage, event.step)
    if state.position.stage < len(preset.stages):
        return
    clock.add("train", state.position.elapsed_s)
    # An avatar carries the motion it was trained on; the held-out tail stays with the data.
    avatar.track = learnt_track(state, dataset)
    if (codes := state.refined_codes(conditioning.signal)) is not None:
        avatar.motion = refit_motion(avatar, dataset, codes, warm=warm).to(device)
    origin = None if warm is None else warm.provenance(avatar)
    yield from _finish(avatar, dataset, avatar_dir, consent, config, clock, origin)


def _warm_start(config: CreateConfig, preset: Preset) -> WarmStart | None:
    """The avatar to start from, if one is asked for; checked whole, and that it fits the preset."""
    return None if config.init_from is None else WarmStart.load(Path(config.init_from), preset.model)


def _finish(
    avatar: Avatar,
    dataset: TalkingHeadDataset,
    avatar_dir: Path,
    consent: Consent,
    config: CreateConfig,
    clock: Clock,
    origin: dict | None,
) -> Iterator[Event]:
    """Save, measure on the held-out tail, draw the poster and the preview."""
    clock.reset()
    avatar.eval().requires_grad_(False)
    card = AvatarCard(
        name=config.name or avatar_dir.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        preset=config.preset,
        size=config.size,
        n_gaussians=avatar.n_gaussians,
        audio_encoder=avatar.audio_encoder,
        consent=dataclasses.asdict(consent),
    )
    save_avatar(avatar, avatar_dir, card)
    yield from _preview(avatar, dataset, avatar_dir)
    clock.lap("preview")
    metrics: dict[str, float] = {}
    if config.evaluate and len(dataset.held_out_indices()) > 0:
        for event in evaluate(avatar, dataset, EvaluateConfig()):
            if isinstance(event, Evaluated):
                metrics = event.metrics
            yield event
    clock.lap("evaluate")
    card = update_card(avatar_dir, metrics=metrics)
    summary = _summary(dataset, config, clock, metrics, card.bytes, origin)
    write_json(avatar_dir / TRAINING, summary)
    write_card(avatar_dir)
    yield Finished(avatar_dir, summary)


def _preview(avatar: Avatar, dataset: TalkingHeadDataset, avatar_dir: Path) -> Iterator[Event]:
    """Five seconds of the clip's own sound as ``preview.mp4``, and its calmest frame as ``poster.jpg``."""
    from PIL import Image

    from talker.drive import drive, speech_signals
    from talker.video.encode import Mp4Writer

    seconds = min(5.0, dataset.n_train / FPS)
    speech = Speech(dataset.waveform[: round(seconds * SAMPLE_RATE)])
    yield StageStarted("preview", speech.n_frames)
    signals = speech_signals(avatar, speech)
    calm, poster = calmest(avatar, signals), None
    with Mp4Writer(avatar_dir / PREVIEW, dataset.size, dataset.size, sample_rate=SAMPLE_RATE) as writer:
        writer.write_audio(speech.waveform)
        for index, frame in enumerate(stamp_frames(drive(avatar, speech, signals=signals))):
            writer.write(frame)
            poster = frame if index == calm else poster
    sign(avatar_dir / PREVIEW, avatar_name=avatar_dir.name)
    assert poster is not None
    with atomic_path(avatar_dir / POSTER) as part:
        Image.fromarray(poster).save(part, format="JPEG", quality=92)
    yield Progress("preview", speech.n_frames, speech.n_frames)


def calmest(avatar: Avatar, signals: torch.Tensor) -> int:
    """The frame for a portrait: eyes open and, where that is known, lips nearest to rest.

    Args:
        avatar: Moving as it does by itself.
        signals: [T, ...] what drives its frames.
    """
    from talker.drive import DriveConfig, own_motion

    lids = own_motion(avatar.track, len(signals), DriveConfig()).expression[:, [BLINK_LEFT, BLINK_RIGHT]]
    unrest = torch.from_numpy(lids.mean(1)) * _BLINK
    if avatar.motion is not None:  # codes are in standard deviations
        unrest = unrest + (signals - avatar.motion.rest).square().mean(1).sqrt().cpu()
    return int(unrest.argmin())


_BLINK = 10.0
"""A closed eye counts as lips ten standard deviations away: no portrait has one."""


def _summary(
    dataset: TalkingHeadDataset,
    config: CreateConfig,
    clock: Clock,
    metrics: dict[str, float],
    size: int,
    origin: dict | None,
) -> dict:
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak_kb / 1024 if sys.platform != "darwin" else peak_kb / 2**20
    return {
        "talker": __version__,
        # A folder of this machine means nothing elsewhere: name and content of the avatar do.
        "config": dataclasses.asdict(dataclasses.replace(config, init_from=None)),
        "init_from": origin,
        "clip_seconds": dataset.n_frames / dataset.fps,
        "seconds": {**clock.seconds, "total": sum(clock.seconds.values())},
        "prepare_seconds": {name: step["seconds"] for name, step in dataset.header["steps"].items()},
        "peak_memory_mb": round(peak_mb),
        "avatar_mb": round(size / 2**20, 2),
        "protocol": "B",
        "metrics": metrics,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "device": chosen_device().type,
            "torch": torch.__version__,
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


class Clock:
    """Seconds by part of the run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.reset()

    def reset(self) -> None:
        """Start measuring anew; what was measured is kept."""
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Book the time since the last lap to ``name``."""
        now = time.monotonic()
        self.add(name, now - self._last)
        self._last = now

    def add(self, name: str, seconds: float) -> None:
        """Book ``seconds`` to ``name``."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 2)


def _fingerprint(
    preset: Preset, config: CreateConfig, dataset: TalkingHeadDataset, warm: WarmStart | None
) -> str:
    """What must agree for a checkpoint to be continued; time limits and names may change."""
    parts = {
        "version": __version__,
        "model": dataclasses.asdict(preset.model),
        "stages": [dataclasses.asdict(stage) for stage in preset.stages],
        "seed": config.seed,
        "size": config.size,
        "frames": dataset.n_frames,
    }
    if config.start_s:
        parts["start_s"] = config.start_s
    if warm is not None:
        parts["init_from"] = warm.sha256
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
