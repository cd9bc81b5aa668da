"""Corners of the clothing followed by optical flow from a reference frame directly to every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from talker.dataset.steps import mesh
from talker.dataset.steps.similarity import IDENTITY, apply_map, compose_maps, invert_map

MAX_POINTS = 240
MIN_INLIERS = 12
GOOD_SHARE = 0.45
"""Share of the reference points that must agree; below, a nearer key frame is asked."""

MAX_KEYS = 24
BELOW_CHIN = 0.12
"""Head units below the chin where the torso may begin; the neck above it turns with the head."""


@dataclass(frozen=True)
class _Key:
    gray: np.ndarray
    points: np.ndarray  # [P, 2] in this frame
    map: np.ndarray  # [4] reference to this frame
    index: int


class FlowTracker:
    """Follows corners outwards from the reference frame, forwards and backwards."""

    def __init__(
        self,
        gray: Callable[[int], np.ndarray],
        masks: np.ndarray,
        landmarks: np.ndarray,
        T_cam_head: np.ndarray,
        K: np.ndarray,
        segment: np.ndarray,
        reference: int,
    ) -> None:
        """Find corners in the reference frame; ``landmarks`` and ``K`` in pixels of ``gray``'s pictures."""
        self.masks, self.landmarks, self.segment = masks, landmarks, segment
        self.gray = lambda t: gray(t).astype(np.uint8)
        self.size = self.gray(reference).shape[0]
        self.reference = reference
        self.head = K[0, 0] * T_cam_head[:, :2, 3] / T_cam_head[:, 2:3, 3] + K[:2, 2]
        self.unit = K[0, 0] / T_cam_head[:, 2, 3]
        self.lk = {
            "winSize": (max(15, round(self.size * 0.09) | 1),) * 2,
            "maxLevel": 3,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
        }
        self.tolerance = 1.2 * self.size / 256
        picture = self.gray(reference)
        self.keys = [_Key(picture, self.corners(reference, picture), IDENTITY, reference)]
        points = self.keys[0].points
        self.pivot = points.mean(0) if len(points) else np.array([self.size / 2, self.size * 0.9])

    def run(self) -> Iterator[tuple[int, tuple[np.ndarray, float, float]]]:
        """Yield (frame, (map, weight, residual)) of every frame that could be followed."""
        n = len(self.segment)
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

    def corners(self, t: int, gray: np.ndarray) -> np.ndarray:
        """Corners [P, 2] of the clothing, spread over collar and shoulders."""
        mask = cv2.resize(np.asarray(self.masks[t]), (self.size, self.size), interpolation=cv2.INTER_AREA)
        region = (mask > 150).astype(np.uint8)
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
        """Map from the reference by the corners of one key frame, its share of agreeing corners, residual."""
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
