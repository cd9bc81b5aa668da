"""Controls of the held-out figures: what other sound, true motion, silence and blinks do to the same avatar."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from talker import metrics
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps.landmarks import find_landmarks
from talker.drive import drive, follow, take_frames
from talker.model.avatar import Avatar
from talker.model.motion import LipCode
from talker.types import BLINK_LEFT, BLINK_RIGHT, FPS, SAMPLE_RATE, MotionTrack, Speech

SILENCE_S = 5.0
BLINK_MARGIN = 8
"""Frames rendered before and after every blink of the clip."""


@dataclass(frozen=True)
class Controls:
    """Figures, and the mouth openings [T] some of them were read from."""

    values: dict[str, float] = field(default_factory=dict)
    mouth_swapped: np.ndarray | None = None
    mouth_true_motion: np.ndarray | None = None


def measure_controls(
    avatar: Avatar,
    dataset: TalkingHeadDataset,
    track: MotionTrack,
    truth: np.ndarray,
    found: np.ndarray,
    other: Speech,
) -> Controls:
    """Drive the avatar along the held-out frames by everything but their sound.

    Args:
        avatar: The avatar.
        dataset: The prepared clip it was trained on.
        track: Motion of the held-out frames, as the measured take followed it.
        truth: Landmarks [T, 478, 3] of the true held-out frames.
        found: Landmarks [T, 478, 3] of the frames driven by their sound.
        other: As much of another sound.
    """
    start = dataset.n_train
    real = metrics.mouth_opening(truth)
    swapped = metrics.mouth_opening(_follow(avatar, other, track))
    values = {"mouth_r_swapped": metrics.correlation_with_lag(swapped, real).r0}
    opening = None
    if avatar.lip_code is not None and avatar.motion is not None and dataset.valid[start:].all():
        codes = _true_codes(avatar.lip_code, avatar, dataset, track)
        opening = metrics.mouth_opening(_follow(avatar, other, track, torch.from_numpy(codes)))
        values["mouth_r_true_motion"] = metrics.correlation_with_lag(opening, real).r0
        values["mouth_variation_true_motion"] = metrics.variation_ratio(opening, real)
    values |= _silence(avatar, track, metrics.mouth_opening(found))
    return Controls(values | _blinks(avatar, dataset), swapped, opening)


def other_words(dataset: TalkingHeadDataset) -> np.ndarray:
    """Sound [S] from half the training part away: other words, same voice and room."""
    n = dataset.n_frames - dataset.n_train
    offset = (dataset.n_train // 2) * SAMPLE_RATE // FPS
    return dataset.waveform[offset : offset + n * SAMPLE_RATE // FPS]


def exact_sound(waveform: np.ndarray, n_frames: int) -> Speech:
    """Exactly ``n_frames`` of the sound [S], padded with silence if need be."""
    wanted = n_frames * SAMPLE_RATE // FPS
    cut = waveform[:wanted]
    return Speech(np.pad(cut, (0, wanted - len(cut))).astype(np.float32))


def _follow(
    avatar: Avatar, speech: Speech, track: MotionTrack, signals: torch.Tensor | None = None
) -> np.ndarray:
    """Landmarks [T, 478, 3] of a take that follows ``track``."""
    frames = drive(avatar, speech, track=track, signals=signals)
    n = speech.n_frames if signals is None else len(signals)
    return np.stack(list(find_landmarks(frames, np.zeros(n, np.int32))))


def _true_codes(
    lip_code: LipCode, avatar: Avatar, dataset: TalkingHeadDataset, track: MotionTrack
) -> np.ndarray:
    """Codes of the true lips. By heads as tracked, if the code goes by those: what trembles there is in the code."""
    start = dataset.n_train
    heads = track.T_cam_head if lip_code.view is None else np.asarray(dataset.T_cam_head[start:], np.float32)
    pose = avatar.pose_statistics(torch.from_numpy(heads)).numpy()
    return lip_code.encode(np.asarray(dataset.landmarks[start:], np.float32), pose, heads)


def _silence(avatar: Avatar, track: MotionTrack, speaking: np.ndarray) -> dict[str, float]:
    """Movement of the lips in digital silence, as a share of that while speaking, under the same head motion."""
    n = round(SILENCE_S * FPS)
    landmarks = _follow(avatar, exact_sound(np.zeros(1, np.float32), n), follow(track, n))
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
    rendered = _follow(avatar, exact_sound(np.zeros(1, np.float32), len(chosen)), track, signals)
    real = np.asarray(dataset.landmarks, np.float32)[chosen]
    recall = metrics.blink_recall(metrics.eye_opening(rendered), metrics.eye_opening(real))
    return {"blink_recall": recall.recall, "blinks": float(recall.n_blinks)}
