"""The torso's own motion: a similarity of the collar and shoulder region to a reference frame.

Speakers move the head over a torso that moves on its own; the collar is where a model that ignores this is
most wrong. Corners of the clothing are followed from a reference frame directly to each frame, so nothing
drifts; where too few survive, another key frame with known motion steps in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from talker.dataset.steps import mesh
from talker.dataset.steps.smoothing import smooth_track

TORSO_DEPTH = 0.3
"""Distance of collar and shoulders behind the head-frame origin in head units, towards the back."""

MAX_POINTS = 240
MIN_INLIERS = 12
GOOD_SHARE = 0.45
"""Share of the reference points that must agree; below, a nearer key frame is asked."""

MAX_KEYS = 24
BELOW_CHIN = 0.12
"""Head units below the chin where the torso may begin; the neck above it turns with the head."""


@dataclass(frozen=True)
class TorsoTrack:
    """Motion of the torso."""

    T_cam_torso: np.ndarray  # [T, 4, 4]; equals T_cam_head at the reference frame
    similarity: np.ndarray  # [T, 4] smoothed a, b, x, y of the pixel map p -> [[a, -b], [b, a]] p + [x, y]
    tracked: np.ndarray  # [T] bool
    residual_px: float
    """Median over tracked frames of the median distance of inliers from the unsmoothed similarity."""


@dataclass(frozen=True)
class _Key:
    gray: np.ndarray
    points: np.ndarray  # [P, 2] in this frame
    map: np.ndarray  # [4] reference to this frame
    index: int


def choose_reference(
    T_cam_head: np.ndarray, mouth_open: np.ndarray, blink: np.ndarray, sharp: np.ndarray, usable: np.ndarray
) -> int:
    """The frame that shows the person best: frontal, near the usual pose, lips closed, eyes open, sharp.

    Args:
        T_cam_head: [T, 4, 4].
        mouth_open: [T].
        blink: [T] 0..1.
        sharp: [T] any measure, larger is sharper.
        usable: [T] bool: tracked, and not held out.
    """
    from talker.dataset.steps.pose import matrix_to_rotvec

    turn = matrix_to_rotvec(T_cam_head[:, :3, :3])
    position = T_cam_head[:, :3, 3]
    usual = np.median(turn[usable], 0)
    place = np.median(position[usable], 0)
    cost = np.linalg.norm(turn - usual, axis=1) / np.radians(5) + 0.5 * np.linalg.norm(
        turn[:, 1:], axis=1
    ) / np.radians(8)
    cost += np.linalg.norm(position - place, axis=1) / 0.15
    low, high = np.percentile(mouth_open[usable], [5, 95])
    cost += 2.0 * np.clip((mouth_open - low) / max(high - low, 1e-3), 0, 2) + 4.0 * blink
    cost += np.clip(1 - sharp / np.median(sharp[usable]), 0, 1) * 2
    return int(np.argmin(np.where(usable, cost, np.inf)))


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
    tracker = _Tracker(frames, masks, landmarks, T_cam_head, K, segment, reference)
    maps = np.tile(np.array([1.0, 0.0, 0.0, 0.0]), (len(frames), 1))
    weight = np.zeros(len(frames))
    residual = np.full(len(frames), np.nan)
    for t, found in tracker.run():
        maps[t], weight[t], residual[t] = found
    tracked = weight > 0
    _follow_head_where_lost(maps, tracked, T_cam_head, K, segment, reference)
    # Work around the middle of the torso: there scale and roll do not leak into the translation.
    pivot = tracker.pivot
    local = maps.copy()
    local[:, 2:] = apply_map(maps, pivot[None])[:, 0] - pivot
    pixel = frames.shape[1] / 256
    noise = np.array([0.001, 0.001, 0.1 * pixel, 0.1 * pixel])
    local = smooth_track(local, np.where(tracked, weight, 0.02), segment, noise=noise, accel=2 * noise)
    moved = pivot + local[:, 2:]
    smooth = local.copy()
    smooth[:, 2] = moved[:, 0] - (local[:, 0] * pivot[0] - local[:, 1] * pivot[1])
    smooth[:, 3] = moved[:, 1] - (local[:, 1] * pivot[0] + local[:, 0] * pivot[1])
    smooth = relative_to(smooth, reference)
    T = rigid_from_similarity(smooth, K, T_cam_head[reference])
    middle = float(np.nanmedian(residual)) if tracked.any() else float("nan")
    return TorsoTrack(T.astype(np.float32), smooth.astype(np.float32), tracked, middle)


def apply_map(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Similarities [..., 4] applied to points [P, 2]: [..., P, 2]."""
    a, b = maps[..., None, 0], maps[..., None, 1]
    return np.stack(
        [
            a * points[:, 0] - b * points[:, 1] + maps[..., None, 2],
            b * points[:, 0] + a * points[:, 1] + maps[..., None, 3],
        ],
        -1,
    )


def compose_maps(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Similarity [..., 4] that first applies ``inner``, then ``outer``."""
    a = outer[..., 0] * inner[..., 0] - outer[..., 1] * inner[..., 1]
    b = outer[..., 1] * inner[..., 0] + outer[..., 0] * inner[..., 1]
    x = outer[..., 0] * inner[..., 2] - outer[..., 1] * inner[..., 3] + outer[..., 2]
    y = outer[..., 1] * inner[..., 2] + outer[..., 0] * inner[..., 3] + outer[..., 3]
    return np.stack(np.broadcast_arrays(a, b, x, y), -1)


def invert_map(maps: np.ndarray) -> np.ndarray:
    """Inverse of similarities [..., 4]."""
    square = maps[..., 0] ** 2 + maps[..., 1] ** 2
    a, b = maps[..., 0] / square, -maps[..., 1] / square
    x = -(a * maps[..., 2] - b * maps[..., 3])
    y = -(b * maps[..., 2] + a * maps[..., 3])
    return np.stack([a, b, x, y], -1)


def relative_to(maps: np.ndarray, reference: int) -> np.ndarray:
    """The same motion with exactly nothing at the reference frame."""
    return compose_maps(maps, invert_map(maps[reference]))


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
    shift = apply_map(maps, centre[None])[:, 0] - centre
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


class _Tracker:
    """Follows corners outwards from the reference frame, forwards and backwards."""

    def __init__(self, frames, masks, landmarks, T_cam_head, K, segment, reference: int) -> None:
        self.frames, self.masks, self.landmarks, self.segment = frames, masks, landmarks, segment
        self.size = frames.shape[1]
        self.reference = reference
        self.head = K[0, 0] * T_cam_head[:, :2, 3] / T_cam_head[:, 2:3, 3] + K[:2, 2]
        self.unit = K[0, 0] / T_cam_head[:, 2, 3]
        self.lk = {
            "winSize": (max(15, round(self.size * 0.09) | 1),) * 2,
            "maxLevel": 3,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
        }
        self.tolerance = 1.2 * self.size / 256
        identity = np.array([1.0, 0.0, 0.0, 0.0])
        gray = self.gray(reference)
        self.keys = [_Key(gray, self.corners(reference, gray), identity, reference)]
        points = self.keys[0].points
        self.pivot = points.mean(0) if len(points) else np.array([self.size / 2, self.size * 0.9])

    def run(self) -> Iterator[tuple[int, tuple[np.ndarray, float, float]]]:
        """Yield (frame, (map, weight, residual)) of every frame that could be followed."""
        n = len(self.frames)
        if len(self.keys[0].points) < MIN_INLIERS:
            return
        for order in (range(self.reference, n), range(self.reference - 1, -1, -1)):
            last, before = self.keys[0].map, self.reference
            for t in order:
                if self.segment[t] != self.segment[before]:
                    last = self.guess_after_cut(t)
                found = self.follow(t, last)
                before = t
                if found is not None:
                    last = found[0]
                    yield t, found

    def gray(self, t: int) -> np.ndarray:
        return cv2.cvtColor(np.ascontiguousarray(self.frames[t]), cv2.COLOR_RGB2GRAY)

    def corners(self, t: int, gray: np.ndarray) -> np.ndarray:
        """Corners [P, 2] of the clothing, spread over collar and shoulders."""
        region = (np.asarray(self.masks[t]) > 150).astype(np.uint8)
        region = cv2.erode(region, np.ones((3, 3), np.uint8), iterations=max(1, self.size // 128))
        face = self.landmarks[t]
        if np.isfinite(face[0, 0]):
            top = face[mesh.CHIN, 1] + BELOW_CHIN * self.unit[t]
        else:
            top = self.head[t, 1] + (1.35 + BELOW_CHIN) * self.unit[t]
        region[: max(0, int(top))] = 0
        border = max(2, self.size // 64)
        region[-border:] = 0
        region[:, :border] = region[:, -border:] = 0
        distance = max(3, self.size // 64)
        found = cv2.goodFeaturesToTrack(gray, MAX_POINTS, 0.004, distance, mask=region * 255, blockSize=5)
        return np.zeros((0, 2)) if found is None else found[:, 0].astype(np.float64)

    def guess_after_cut(self, t: int) -> np.ndarray:
        """The torso probably sits below the head as before."""
        return np.concatenate([[1.0, 0.0], self.head[t] - self.head[self.reference]])

    def follow(self, t: int, guess: np.ndarray) -> tuple[np.ndarray, float, float] | None:
        """Map of frame ``t``, its weight (share of agreeing corners) and residual; None if lost."""
        gray = self.gray(t)
        best = self.match(self.keys[0], gray, guess)
        if best is None or best[1] < GOOD_SHARE:
            near = sorted(self.keys[1:], key=lambda k: np.abs(k.map - guess)[2:].sum())[:3]
            for key in near:
                other = self.match(key, gray, guess)
                if other is not None and (best is None or other[1] > best[1]):
                    best = other
            if best is not None and best[1] >= 0.3 and len(self.keys) < MAX_KEYS and self.lonely(best[0]):
                points = self.corners(t, gray)
                if len(points) >= 2 * MIN_INLIERS:
                    self.keys.append(_Key(gray, points, best[0], t))
        return best

    def lonely(self, found: np.ndarray) -> bool:
        """No key frame shows the torso near this position."""
        return all(np.linalg.norm((k.map - found)[2:]) > 0.01 * self.size for k in self.keys)

    def match(self, key: _Key, gray: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, float, float] | None:
        relative = compose_maps(guess, invert_map(key.map))
        start = key.points.astype(np.float32)[:, None]
        aim = apply_map(relative, key.points).astype(np.float32)[:, None]
        moved, ok, _ = cv2.calcOpticalFlowPyrLK(
            key.gray, gray, start, aim.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **self.lk
        )
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(
            gray, key.gray, moved, start.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **self.lk
        )
        near = np.linalg.norm((back - start)[:, 0], axis=1) < 0.5 * self.tolerance
        good = (ok[:, 0] == 1) & (ok_back[:, 0] == 1) & near
        if good.sum() < MIN_INLIERS:
            return None
        affine, inliers = cv2.estimateAffinePartial2D(
            start[good, 0], moved[good, 0], method=cv2.RANSAC, ransacReprojThreshold=self.tolerance,
            maxIters=500, refineIters=10,
        )  # fmt: skip
        if affine is None or inliers.sum() < MIN_INLIERS:
            return None
        own = np.array([affine[0, 0], affine[1, 0], affine[0, 2], affine[1, 2]])
        agree = inliers[:, 0] == 1
        off = np.linalg.norm(apply_map(own, start[good, 0][agree]) - moved[good, 0][agree], axis=1)
        if not 0.6 < np.hypot(own[0], own[1]) < 1.6:
            return None
        return compose_maps(own, key.map), float(agree.sum() / len(start)), float(np.median(off))
