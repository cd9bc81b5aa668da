"""Figures on held-out frames: raw renders before any encoding, protocol named, a control beside every claim.

Protocol A draws the head over the true torso and background, B the whole frame from the avatar alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from talker import metrics
from talker.atomic import atomic_path
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps.landmarks import find_landmarks
from talker.drive import drive, follow, speech_signals, take_frames
from talker.errors import DatasetError
from talker.events import Evaluated, Event, Note, Progress, StageStarted
from talker.model.avatar import Avatar
from talker.render import rasterize
from talker.render.compose import to_uint8
from talker.train.regions import mouth_box
from talker.types import BLINK_LEFT, BLINK_RIGHT, FPS, SAMPLE_RATE, Driving, MotionTrack, Speech

SILENCE_S = 5.0
HEAD_SHARE = 0.5
"""Protocol A draws Gaussians that follow the head at least so far."""
BLINK_MARGIN = 8
"""Frames rendered before and after every blink of the clip."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured."""

    protocol: str = "B"
    frames_dir: Path | None = None
    """Where the raw audio-driven frames are written as PNG."""
    controls: bool = True
    """Also: true motion, swapped sound, silence, blinks."""


@dataclass
class _Take:
    """Landmarks and image figures of one rendered take."""

    landmarks: list[np.ndarray] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    mouth_psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    lpips: list[float] = field(default_factory=list)


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
    """
    _check(avatar, dataset)
    start, n = dataset.n_train, dataset.n_frames - dataset.n_train
    truth = _truth(dataset)
    track = dataset.track[start:]
    speech = _sound(dataset.waveform[start * SAMPLE_RATE // FPS :], n)
    yield StageStarted("evaluate", n)
    take = _Take()
    frames = _rendered(avatar, dataset, speech, track, config.protocol)
    for index, frame in enumerate(_measured(frames, take, dataset, config)):
        _write_frame(frame, index, config.frames_dir)
        yield Progress("evaluate", index + 1, n)
    found = _landmarks(take)
    values = _image_figures(take, dataset) | _lip_figures(found, truth, dataset)
    values["frames"] = float(n)
    if metrics.losses.lpips_available() is False:
        yield Note("LPIPS is unavailable: the AlexNet weights are not on this machine.")
    if config.controls:
        yield Note("Controls: true motion, swapped sound, silence, blinks.")
        values |= _controls(avatar, dataset, truth, found, control)
    yield Evaluated(
        config.protocol, {name: round(float(v), 4) for name, v in values.items() if np.isfinite(v)}
    )


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


def _truth(dataset: TalkingHeadDataset) -> np.ndarray:
    """Landmarks [T, 478, 3] of the true held-out frames, found as those of the rendered ones are."""
    frames = (np.asarray(dataset.frames[i]) for i in range(dataset.n_train, dataset.n_frames))
    n = dataset.n_frames - dataset.n_train
    return np.stack(list(find_landmarks(frames, np.zeros(n, np.int32))))


def _sound(waveform: np.ndarray, n_frames: int) -> Speech:
    """Exactly ``n_frames`` of sound."""
    wanted = n_frames * SAMPLE_RATE // FPS
    cut = waveform[:wanted]
    return Speech(np.pad(cut, (0, wanted - len(cut))).astype(np.float32))


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
            for name in reversed(list(avatar.branches)):  # the mouth lies behind the face
                gaussians, _ = avatar.gaussians(name, driving, prepared=prepared[name])
                head = avatar.branch(name).canonical.rig() >= HEAD_SHARE
                out = rasterize(gaussians.select(head), avatar.camera)
                rgb = out.rgb + (1 - out.alpha) * rgb
            yield to_uint8(rgb).cpu().numpy()


def _measured(
    frames: Iterator[np.ndarray], take: _Take, dataset: TalkingHeadDataset, config: EvaluateConfig
) -> Iterator[np.ndarray]:
    """Pass frames on, collecting figures and landmarks; frames without a tracked face count for neither."""
    box = mouth_box(dataset.landmarks, dataset.size)

    def compared() -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames, start=dataset.n_train):
            if dataset.valid[index]:
                real = np.asarray(dataset.frames[index])
                take.psnr.append(metrics.psnr(frame, real))
                take.mouth_psnr.append(metrics.psnr(box.crop(frame), box.crop(real)))
                take.ssim.append(metrics.ssim(frame, real))
                distance = metrics.lpips(frame, real)
                if distance is not None:
                    take.lpips.append(distance)
            shown.append(frame)
            yield frame

    shown: list[np.ndarray] = []
    n = dataset.n_frames - dataset.n_train
    for landmarks in find_landmarks(compared(), np.zeros(n, np.int32)):
        take.landmarks.append(landmarks)
        yield shown.pop(0)


def _landmarks(take: _Take) -> np.ndarray:
    return np.stack(take.landmarks)


def _image_figures(take: _Take, dataset: TalkingHeadDataset) -> dict[str, float]:
    values = {
        "psnr": float(np.mean(take.psnr)),
        "psnr_mouth": float(np.mean(take.mouth_psnr)),
        "ssim": float(np.mean(take.ssim)),
    }
    return values | ({"lpips": float(np.mean(take.lpips))} if take.lpips else {})


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
        "face_found": float(np.isfinite(found).all((1, 2)).mean()),
    }


def _controls(
    avatar: Avatar,
    dataset: TalkingHeadDataset,
    truth: np.ndarray,
    found: np.ndarray,
    control: np.ndarray | None,
) -> dict[str, float]:
    start, n = dataset.n_train, dataset.n_frames - dataset.n_train
    track = dataset.track[start:]
    real = metrics.mouth_opening(truth)
    if control is None:
        # Half the training part away: other words, same voice and room.
        offset = (start // 2) * SAMPLE_RATE // FPS
        control = dataset.waveform[offset : offset + n * SAMPLE_RATE // FPS]
    swapped = metrics.mouth_opening(_follow(avatar, _sound(control, n), track))
    values = {"mouth_r_swapped": metrics.correlation_with_lag(swapped, real).r0}
    if avatar.lip_code is not None and avatar.motion is not None and dataset.valid[start:].all():
        pose = avatar.pose_statistics(torch.from_numpy(dataset.T_cam_head[start:])).numpy()
        codes = avatar.lip_code.encode(np.asarray(dataset.landmarks[start:], np.float32), pose)
        driven = _follow(avatar, _sound(control, n), track, torch.from_numpy(codes))
        opening = metrics.mouth_opening(driven)
        values["mouth_r_true_motion"] = metrics.correlation_with_lag(opening, real).r0
        values["mouth_variation_true_motion"] = metrics.variation_ratio(opening, real)
    values |= _silence(avatar, track, metrics.mouth_opening(found))
    return values | _blinks(avatar, dataset)


def _follow(
    avatar: Avatar, speech: Speech, track: MotionTrack, signals: torch.Tensor | None = None
) -> np.ndarray:
    """Landmarks [T, 478, 3] of a take that follows ``track``."""
    frames = drive(avatar, speech, track=track, signals=signals)
    n = speech.n_frames if signals is None else len(signals)
    return np.stack(list(find_landmarks(frames, np.zeros(n, np.int32))))


def _silence(avatar: Avatar, track: MotionTrack, speaking: np.ndarray) -> dict[str, float]:
    """Movement of the lips in digital silence, as a share of that while speaking, under the same head motion."""
    n = round(SILENCE_S * FPS)
    landmarks = _follow(avatar, _sound(np.zeros(1, np.float32), n), follow(track, n))
    opening = metrics.mouth_opening(landmarks)
    return {"silence_variation": metrics.variation_ratio(opening, np.resize(speaking, n))}


def _blinks(avatar: Avatar, dataset: TalkingHeadDataset) -> dict[str, float]:
    """Share of the clip's blinks during which the eyes of the avatar close under its expression track."""
    blink = np.asarray(dataset.expression)[:, [BLINK_LEFT, BLINK_RIGHT]].mean(1)
    wanted = np.convolve(blink > 0.5, np.ones(2 * BLINK_MARGIN + 1), mode="same") > 0
    chosen = np.flatnonzero(wanted & dataset.valid)
    if len(chosen) == 0:
        return {}
    track = take_frames(dataset.track, chosen)
    rest = avatar.motion.rest if avatar.motion is not None else None
    signals = None if rest is None else rest.repeat(len(chosen), 1)
    rendered = _follow(avatar, _sound(np.zeros(1, np.float32), len(chosen)), track, signals)
    real = np.asarray(dataset.landmarks, np.float32)[chosen]
    recall = metrics.blink_recall(metrics.eye_opening(rendered), metrics.eye_opening(real))
    return {"blink_recall": recall.recall, "blinks": float(recall.n_blinks)}


def _write_frame(frame: np.ndarray, index: int, folder: Path | None) -> None:
    if folder is None:
        return
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / f"{index:05d}.png") as part:
        Image.fromarray(frame).save(part, format="PNG")
