"""The torso's own motion: a similarity of the collar and shoulder region to a reference frame.

Speakers move the head over a torso that moves on its own; the collar is where a model that ignores this is
most wrong. Corners of the clothing are followed from a reference frame directly to each frame, so nothing
drifts; where too few survive, another key frame with known motion steps in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talker.dataset.steps import mesh
from talker.dataset.steps.align import TemplateAligner, pictures
from talker.dataset.steps.similarity import (
    IDENTITY,
    SimilarityWarp,
    about_pivot,
    apply_map,
    from_pivot,
    relative_to,
)
from talker.dataset.steps.smoothing import smooth_track
from talker.dataset.steps.torso_flow import FlowTracker

TORSO_DEPTH = 0.3
"""Distance of collar and shoulders behind the head-frame origin in head units, towards the back."""

BELOW_CHIN = 0.12
"""Head units below the chin where the torso begins; the neck above it turns with the head."""

BLURS = (2.5, 1.0)
"""Rounds of template and alignment, coarse first: the second template is sharper."""

NOISE = np.array([0.001, 0.001, 0.1, 0.1])
"""Standard deviation of an aligned map about its pivot: scale, roll, pixels of the aligned pictures."""

FLOW_NOISE = 20 * NOISE
"""The same of the flow's answer. A dozen corners that agree by chance, on hair before the shoulders, must not lead
the alignment to a torso that jumps."""

MAX_CHANGE = 0.05
"""Share of the side by which the alignment may move away from the flow's answer."""

SOFTNESS = 3.0
"""Usual second difference of the torso's motion, in standard deviations of its measurement."""


@dataclass(frozen=True)
class TorsoTrack:
    """Motion of the torso."""

    T_cam_torso: np.ndarray  # [T, 4, 4]; equals T_cam_head at the reference frame
    tracked: np.ndarray  # [T] bool
    residual: float
    """Median over frames of the alignment's median residual, in deviations of the template's pixels."""


def track_torso(
    frames: np.ndarray,
    masks: np.ndarray,
    landmarks: np.ndarray,
    K: np.ndarray,
    T_cam_head: np.ndarray,
    segment: np.ndarray,
    reference: int,
) -> TorsoTrack:
    """Follow collar and shoulders through the clip.

    Args:
        frames: [T, S, S, 3] uint8.
        masks: [T, S, S] uint8 person probability.
        landmarks: [T, 478, 3] pixels.
        K: [3, 3].
        T_cam_head: [T, 4, 4].
        segment: [T].
        reference: The frame the torso is described in.
    """
    gray = pictures(frames)
    side = gray(reference).shape[0]
    factor = side / frames.shape[1]
    K = K.astype(np.float64) * np.array([[factor], [factor], [1.0]])
    flow = FlowTracker(gray, masks, landmarks * np.float32(factor), T_cam_head, K, segment, reference)
    maps = np.tile(IDENTITY, (len(frames), 1))
    weight = np.zeros(len(frames))
    for t, (found, share, _) in flow.run():
        maps[t], weight[t] = found, share
    _follow_head_where_lost(maps, weight > 0, T_cam_head, K, segment, reference)
    maps = steady_maps(maps, np.maximum(weight, 0.02), segment, flow.pivot, FLOW_NOISE)
    region = torso_region(
        masks[reference], landmarks[reference], factor, K[0, 0] / T_cam_head[reference, 2, 3]
    )
    tracked, error = weight > 0, np.full(len(frames), np.nan)
    for blur in BLURS if tracked.any() and region.any() else ():
        pivot = np.argwhere(region).mean(0)[::-1]
        aligner = TemplateAligner(gray, SimilarityWarp(pivot), maps, np.flatnonzero(tracked), region, blur)
        if not aligner.usable:
            break
        trust = np.full(len(frames), 1e-3)
        for t, answer in aligner.align_all(np.arange(len(frames)), maps.copy()):
            if np.isfinite(answer.error) and _near(answer.state, maps[t], pivot, side):
                maps[t], error[t] = answer.state, answer.error
                shift = np.trace(np.linalg.pinv(answer.information)[2:, 2:]) / 2
                trust[t] = 1.0 / (1.0 + shift / NOISE[2] ** 2 + max(0.0, answer.error - 2.0) ** 2)
        tracked = trust > 0.05
        maps = steady_maps(maps, trust, segment, pivot, NOISE)
    T = rigid_from_similarity(relative_to(maps, reference), K, T_cam_head[reference])
    middle = float(np.nanmedian(error)) if np.isfinite(error).any() else float("nan")
    return TorsoTrack(T.astype(np.float32), tracked, middle)


def torso_region(mask: np.ndarray, landmarks: np.ndarray, factor: float, unit: float) -> np.ndarray:
    """Pixels [S, S] of the person below the chin, the outline of the shoulders included.

    Args:
        mask: [S, S] uint8 person probability.
        landmarks: [478, 3] pixels of the same frame.
        factor: Pixels of the answer per pixel of the frame.
        unit: Pixels of the answer per head unit.
    """
    small = cv2.resize(np.asarray(mask), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    region = small > 100
    region[: max(0, int(landmarks[mesh.CHIN, 1] * factor + BELOW_CHIN * unit))] = False
    return region


def _near(found: np.ndarray, guess: np.ndarray, pivot: np.ndarray, size: int) -> bool:
    """The alignment did not run away from the guess."""
    change = about_pivot(found, pivot) - about_pivot(guess, pivot)
    return bool(np.abs(change[2:]).max() < MAX_CHANGE * size and np.abs(change[:2]).max() < 0.1)


def steady_maps(
    maps: np.ndarray, weight: np.ndarray, segment: np.ndarray, pivot: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Pixel maps [T, 4] of a torso that is too heavy to jump.

    Args:
        maps: [T, 4] as measured.
        weight: [T] trust in each.
        segment: [T] shots.
        pivot: [2] middle of the torso in pixels.
        noise: [4] of the measurement: ``NOISE`` or ``FLOW_NOISE``.
    """
    local = smooth_track(about_pivot(maps, pivot), weight, segment, noise=noise, accel=SOFTNESS * NOISE)
    return from_pivot(local, pivot)


def rigid_from_similarity(maps: np.ndarray, K: np.ndarray, T_reference: np.ndarray) -> np.ndarray:
    """Rigid motion [T, 4, 4] of the plane at the torso's depth that looks like the pixel maps [T, 4].

    Roll becomes a turn about the viewing axis, scale a change of depth, translation a shift.
    """
    focal, centre = float(K[0, 0]), K[:2, 2].astype(np.float64)
    depth = T_reference[2, 3] + TORSO_DEPTH
    scale = np.hypot(maps[:, 0], maps[:, 1])
    motion = np.tile(np.eye(4), (len(maps), 1, 1))
    motion[:, 0, 0] = motion[:, 1, 1] = maps[:, 0] / scale
    motion[:, 1, 0] = maps[:, 1] / scale
    motion[:, 0, 1] = -maps[:, 1] / scale
    # Maps live on pixel indices; the first pixel's centre is 0.5 in camera coordinates.
    index = centre - 0.5
    shift = apply_map(maps, index[None])[:, 0] - index
    motion[:, :2, 3] = shift * (depth / scale / focal)[:, None]
    motion[:, 2, 3] = depth / scale - depth
    return motion @ T_reference.astype(np.float64)


def _follow_head_where_lost(
    maps: np.ndarray,
    tracked: np.ndarray,
    T_cam_head: np.ndarray,
    K: np.ndarray,
    segment: np.ndarray,
    reference: int,
) -> None:
    """Fill lost frames in place: interpolate inside a shot; a shot without any takes the head's translation."""
    for shot in np.unique(segment):
        member = np.flatnonzero(segment == shot)
        known = member[tracked[member]]
        if len(known):
            for column in range(4):
                maps[member, column] = np.interp(member, known, maps[known, column])
            continue
        head = K[0, 0] * T_cam_head[:, :2, 3] / T_cam_head[:, 2:3, 3]
        maps[member] = np.concatenate([[1.0, 0.0], np.median(head[member], 0) - head[reference]])
