"""Figures on held-out frames: raw renders before any encoding, protocol named, a control beside every claim.

Protocol A draws the head over the true torso and background, B the whole frame from the avatar alone. Both follow the
head and torso of the true frames, whose poses are aligned to the avatar as those of the training frames were; with the
poses as tracked, before that, the same figures are reported under names that say so. The sound of the held-out frames
is moved by what the sound of the clip is late, or early, at the end of its training part (``talker.train.av_offset``);
how far is among the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from talker import metrics
from talker.alignment import aligned_track
from talker.atomic import atomic_path
from talker.audio.features import get_encoder
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps.landmarks import find_landmarks
from talker.drive import drive, follow, speech_signals
from talker.errors import ConfigError, DatasetError
from talker.events import Evaluated, Event, FrameSeries, Note, Progress, StageStarted
from talker.model.avatar import Avatar
from talker.render.compose import to_uint8
from talker.train.av_offset import av_offset
from talker.train.comparison import comparison
from talker.train.controls import Controls, exact_sound, measure_controls, other_words
from talker.train.head_over import head_over
from talker.train.lip_sync import MIN_FRAMES, LipSyncMeter
from talker.train.regions import Box, mouth_box
from talker.train.syncnet import load_syncnet
from talker.types import FPS, SAMPLE_RATE, Driving, MotionTrack, Speech

PROTOCOLS = ("A", "B")


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured, and what is written beside the figures."""

    protocol: str = "B"
    frames_dir: Path | None = None
    """Where the raw audio-driven frames are written as PNG."""
    video: Path | None = None
    """Where truth and avatar are written side by side as MP4, with the sound and the marks of a generated video."""
    name: str = ""
    """What the avatar is called in the title of the video."""
    syncnet: Path | None = None
    """Weights of SyncNet for LSE-C and LSE-D."""
    controls: bool = True
    """Also: true motion, swapped sound, silence, blinks."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigError(
                "evaluate.protocol",
                f"There is no protocol {self.protocol!r}.",
                expected=f"One of {', '.join(PROTOCOLS)}.",
            )
        if self.video is not None and self.video.suffix.lower() != ".mp4":
            raise ConfigError(
                "evaluate.video",
                f"{self.video.name} is no name for the video.",
                expected="A name that ends in .mp4.",
            )


Receiver = Callable[[int, np.ndarray, np.ndarray], None]
"""Takes every measured frame: its number, the true and the rendered one, [S, S, 3] uint8 each."""


class _ImageFigures(NamedTuple):
    """One frame against the truth; all NaN where the clip has no tracked face, ``lpips`` also without its weights."""

    psnr: float = float("nan")
    psnr_mouth: float = float("nan")
    ssim: float = float("nan")
    lpips: float = float("nan")


@dataclass
class _Take:
    """Landmarks and image figures of one rendered take, frame by frame."""

    landmarks: list[np.ndarray] = field(default_factory=list)
    images: list[_ImageFigures] = field(default_factory=list)


def evaluate(
    avatar: Avatar, dataset: TalkingHeadDataset, config: EvaluateConfig, *, control: np.ndarray | None = None
) -> Iterator[Event]:
    """Measure ``avatar`` on the held-out tail of ``dataset``; ends with ``Evaluated``.

    Args:
        avatar: The avatar.
        dataset: The prepared clip it was trained on.
        config: What is measured.
        control: Waveform of another clip for the swapped-audio control; by default the sound of an earlier part
            of the same clip, which says other words.

    Raises:
        DatasetError: The dataset has no held-out frames, or another size.
        CheckpointError: The weights of SyncNet cannot be used.
        ProvenanceError: The video cannot be marked.
    """
    _check(avatar, dataset)
    start, n = dataset.n_train, dataset.n_frames - dataset.n_train
    meter = _lip_sync_meter(avatar, dataset, config)
    truth = _truth(dataset)
    offset = _last_offset(avatar, dataset)
    speech = exact_sound(dataset.waveform[round((start + offset) * SAMPLE_RATE / FPS) :], n)
    other = exact_sound(other_words(dataset) if control is None else control, n)
    take = _Take()
    track = yield from _aligned(avatar, dataset, speech)
    yield StageStarted("evaluate", n)
    frames = _rendered(avatar, dataset, speech, track, config.protocol)
    with ExitStack() as stack:
        receivers = _receivers(stack, config, dataset.size, speech, meter)
        yield from _handed_out(_measured(frames, take, dataset), dataset, receivers)
    found = np.stack(take.landmarks)
    values = _image_figures(take) | _lip_figures(found, truth, dataset)
    values |= {"frames": float(n), "av_offset_frames": offset}
    yield from _unavailable(config, n)
    controls = Controls()
    if config.controls:
        yield Note("Controls: true motion, swapped sound, silence, blinks.")
        controls = measure_controls(avatar, dataset, track, truth, found, other)
        values |= _as_tracked(avatar, dataset, speech, config.protocol)
    values |= controls.values
    if meter is not None:
        values |= meter.figures(speech.waveform, other.waveform if config.controls else None)
    figures = {name: round(float(v), 4) for name, v in values.items() if np.isfinite(v)}
    yield Evaluated(config.protocol, figures, _series(take, found, truth, dataset, controls))


def _check(avatar: Avatar, dataset: TalkingHeadDataset) -> None:
    if len(dataset.held_out_indices()) == 0:
        raise DatasetError(
            "evaluate.nothing", "The clip has no held-out frames with a face.", todo="Use a longer clip."
        )
    if dataset.size != avatar.camera.width:
        raise DatasetError(
            "evaluate.size",
            f"The dataset has {dataset.size} px frames, the avatar {avatar.camera.width} px.",
            todo="Evaluate on the dataset the avatar was trained on.",
        )


def _last_offset(avatar: Avatar, dataset: TalkingHeadDataset) -> float:
    """Frames by which the sound of the last training frame is late: that of the held-out frames is taken as late."""
    features = get_encoder(avatar.audio_encoder).encode(dataset.waveform)
    found = av_offset(features, dataset.mouth_open, dataset.train_indices(), avatar.config.motion)
    return float(found[-1])


def _truth(dataset: TalkingHeadDataset) -> np.ndarray:
    """Landmarks [T, 478, 3] of the true held-out frames, found as those of the rendered ones are."""
    frames = (np.asarray(dataset.frames[i]) for i in range(dataset.n_train, dataset.n_frames))
    n = dataset.n_frames - dataset.n_train
    return np.stack(list(find_landmarks(frames, np.zeros(n, np.int32))))


def _aligned(
    avatar: Avatar, dataset: TalkingHeadDataset, speech: Speech
) -> Generator[Event, None, MotionTrack]:
    """Motion of the held-out frames, their poses aligned to the avatar that speaks."""
    start = dataset.n_train
    return (
        yield from aligned_track(
            avatar, dataset.frames[start:], dataset.track[start:], speech_signals(avatar, speech)
        )
    )


def _as_tracked(
    avatar: Avatar, dataset: TalkingHeadDataset, speech: Speech, protocol: str
) -> dict[str, float]:
    """Figures with the poses as tracked: what the alignment is worth, in pictures and in a head that trembles less."""
    take = _Take()
    frames = _rendered(avatar, dataset, speech, dataset.track[dataset.n_train :], protocol)
    for _ in _measured(frames, take, dataset):
        pass
    images = _image_figures(take)
    return {
        "psnr_as_tracked": images["psnr"],
        "psnr_mouth_as_tracked": images["psnr_mouth"],
        "head_jitter_px_as_tracked": _head_jitter(np.stack(take.landmarks), dataset.size),
    }


def _rendered(
    avatar: Avatar, dataset: TalkingHeadDataset, speech: Speech, track: MotionTrack, protocol: str
) -> Iterator[np.ndarray]:
    if protocol == "B":
        return drive(avatar, speech, track=track)
    return _over_truth(avatar, dataset, speech, track)


def _over_truth(
    avatar: Avatar, dataset: TalkingHeadDataset, speech: Speech, track: MotionTrack
) -> Iterator[np.ndarray]:
    """Protocol A: only what follows the head, over the true frame."""
    signals, motion = speech_signals(avatar, speech), follow(track, speech.n_frames)
    with torch.inference_mode():
        prepared = avatar.prepare()
        for index in range(speech.n_frames):
            driving = Driving(
                signals[index],
                torch.from_numpy(motion.expression[index]),
                torch.from_numpy(motion.T_cam_head[index]),
                torch.from_numpy(motion.T_cam_torso[index]),
            ).to(avatar.device)
            rgb = torch.from_numpy(np.asarray(dataset.frames[dataset.n_train + index], np.float32)) / 255
            rgb = rgb.to(avatar.device)
            rgb = head_over(avatar, driving, rgb, prepared=prepared)
            yield to_uint8(rgb).cpu().numpy()


def _handed_out(
    frames: Iterator[np.ndarray], dataset: TalkingHeadDataset, receivers: list[Receiver]
) -> Iterator[Progress]:
    """Give every measured frame, and the true one, to everybody who wants them."""
    start, n = dataset.n_train, dataset.n_frames - dataset.n_train
    for index, frame in enumerate(frames):
        truth = np.asarray(dataset.frames[start + index])
        for receive in receivers:
            receive(index, truth, frame)
        yield Progress("evaluate", index + 1, n)


def _measured(frames: Iterator[np.ndarray], take: _Take, dataset: TalkingHeadDataset) -> Iterator[np.ndarray]:
    """Pass frames on, collecting figures and landmarks."""
    box = mouth_box(dataset.landmarks, dataset.size)

    def compared() -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames, start=dataset.n_train):
            take.images.append(_compare(frame, dataset, index, box))
            shown.append(frame)
            yield frame

    shown: list[np.ndarray] = []
    n = dataset.n_frames - dataset.n_train
    for landmarks in find_landmarks(compared(), np.zeros(n, np.int32)):
        take.landmarks.append(landmarks)
        yield shown.pop(0)


def _compare(frame: np.ndarray, dataset: TalkingHeadDataset, index: int, box: Box) -> _ImageFigures:
    if not dataset.valid[index]:
        return _ImageFigures()
    real = np.asarray(dataset.frames[index])
    distance = metrics.lpips(frame, real)
    return _ImageFigures(
        metrics.psnr(frame, real),
        metrics.psnr(box.crop(frame), box.crop(real)),
        metrics.ssim(frame, real),
        float("nan") if distance is None else distance,
    )


def _lip_sync_meter(
    avatar: Avatar, dataset: TalkingHeadDataset, config: EvaluateConfig
) -> LipSyncMeter | None:
    """What measures LSE, if it can be measured."""
    if config.syncnet is None:
        return None
    network = load_syncnet(config.syncnet, avatar.device)
    landmarks = np.asarray(dataset.landmarks[dataset.n_train :])
    return LipSyncMeter(network, landmarks) if len(landmarks) >= MIN_FRAMES else None


def _receivers(
    stack: ExitStack, config: EvaluateConfig, size: int, speech: Speech, meter: LipSyncMeter | None
) -> list[Receiver]:
    """Everybody who gets the measured frames; files are finished when ``stack`` is left."""
    receivers: list[Receiver] = [] if meter is None else [meter.add]
    folder = config.frames_dir
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        receivers.append(lambda index, _, frame: _write_frame(frame, folder / f"{index:05d}.png"))
    if config.video is not None:
        video = comparison(
            config.video, size, speech, protocol=config.protocol, avatar_name=config.name or "talker"
        )
        receivers.append(stack.enter_context(video))
    return receivers


def _unavailable(config: EvaluateConfig, n_frames: int) -> Iterator[Note]:
    """What is not among the figures, and why."""
    if not metrics.losses.lpips_available():
        yield Note("LPIPS is unavailable: the AlexNet weights are not on this machine.")
    if config.syncnet is None:
        yield Note("LSE-C and LSE-D are unavailable: they need SyncNet's weights (evaluate --syncnet FILE).")
    elif n_frames < MIN_FRAMES:
        yield Note(
            f"LSE-C and LSE-D are unavailable: {n_frames} held-out frames are too few for their search, "
            f"which needs {MIN_FRAMES}."
        )


def _image_figures(take: _Take) -> dict[str, float]:
    """Means over the frames that have a figure."""
    columns = zip(_ImageFigures._fields, np.array(take.images).T, strict=True)
    return {
        name: float(np.mean(values[np.isfinite(values)]))
        for name, values in columns
        if np.isfinite(values).any()
    }


def _lip_figures(found: np.ndarray, truth: np.ndarray, dataset: TalkingHeadDataset) -> dict[str, float]:
    opening, real = metrics.mouth_opening(found), metrics.mouth_opening(truth)
    lips = metrics.correlation_with_lag(opening, real)
    seen = np.isfinite(found).all((1, 2)) & np.isfinite(truth).all((1, 2))
    return {
        "mouth_r": lips.r0,
        "mouth_r_best": lips.r,
        "mouth_lag_frames": float(lips.lag),
        "mouth_variation": metrics.variation_ratio(opening, real),
        "lmd_px_at_512": metrics.lmd(found[seen], truth[seen], dataset.size) if seen.any() else float("nan"),
        "jitter_px": metrics.jitter(found[seen], dataset.size),
        "jitter_px_truth": metrics.jitter(truth[seen], dataset.size),
        "head_jitter_px": _head_jitter(found, dataset.size),
        "head_jitter_px_truth": _head_jitter(truth, dataset.size),
        "face_found": float(np.isfinite(found).all((1, 2)).mean()),
    }


def _head_jitter(landmarks: np.ndarray, size: int) -> float:
    """How the head itself trembles: ``metrics.jitter`` with the head's own motion left in."""
    return metrics.jitter(landmarks[np.isfinite(landmarks).all((1, 2))], size, head_motion=True)


def _series(
    take: _Take, found: np.ndarray, truth: np.ndarray, dataset: TalkingHeadDataset, controls: Controls
) -> FrameSeries:
    images = np.array(take.images)
    return FrameSeries(
        first_frame=dataset.n_train,
        psnr=images[:, 0],
        psnr_mouth=images[:, 1],
        mouth_truth=metrics.mouth_opening(truth),
        mouth=metrics.mouth_opening(found),
        mouth_swapped=controls.mouth_swapped,
        mouth_true_motion=controls.mouth_true_motion,
        eyes_truth=metrics.eye_opening(truth),
        eyes=metrics.eye_opening(found),
        jitter_truth=metrics.frame_jitter(truth, dataset.size),
        jitter=metrics.frame_jitter(found, dataset.size),
    )


def _write_frame(frame: np.ndarray, path: Path) -> None:
    from PIL import Image

    with atomic_path(path) as part:
        Image.fromarray(frame).save(part, format="PNG")
