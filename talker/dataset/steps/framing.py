"""Where the person is in the clip, where the camera cuts, and the square that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from talker.errors import TrackingError
from talker.types import FPS

PROBE_SIDE = 640
"""Longest side of the pictures the face detector sees."""

WHOLE_FACE = 0.28
"""A nearly square clip whose face takes at least this share of its height is kept whole."""

SIDE_PER_FACE = 2.9
"""Side of the square per height of the detector's face box (brows to chin): hair and shoulders included."""

FACE_ROW = 0.46
"""Share of the square above the middle of the face box."""


@dataclass(frozen=True)
class Face:
    """One detected face."""

    box: np.ndarray  # [4] x0, y0, x1, y1 in pixels of the decoded frame
    score: float

    @property
    def height(self) -> float:
        """Pixels from the brows to the chin."""
        return float(self.box[3] - self.box[1])

    @property
    def centre(self) -> np.ndarray:
        """Middle [2]."""
        return (self.box[:2] + self.box[2:]) / 2


def detect_faces(frames: np.ndarray, index: np.ndarray, *, min_score: float = 0.5) -> Iterator[list[Face]]:
    """All faces in each of ``frames[index]`` [T, H, W, 3], the best first; near and far detector together."""
    from mediapipe.python.solutions.face_detection import FaceDetection

    with (
        FaceDetection(min_detection_confidence=min_score, model_selection=0) as near,
        FaceDetection(min_detection_confidence=min_score, model_selection=1) as far,
    ):
        for i in index:
            frame = frames[i]
            height, width = frame.shape[:2]
            factor = min(1.0, PROBE_SIDE / max(height, width))
            small = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            faces: list[Face] = []
            for detector in (near, far):
                result: Any = detector.process(small)
                for found in result.detections or []:
                    b = found.location_data.relative_bounding_box
                    box = np.array([b.xmin, b.ymin, b.xmin + b.width, b.ymin + b.height])
                    faces.append(Face(box * [width, height, width, height], float(found.score[0])))
            yield _distinct(faces)


def _distinct(faces: list[Face]) -> list[Face]:
    """Drop boxes that overlap a better one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(_overlap(face.box, other.box) < 0.3 for other in kept):
            kept.append(face)
    return kept


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over the smaller box."""
    side = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    area = max(0.0, side[0]) * max(0.0, side[1])
    return area / max(1e-9, min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])))


def main_speaker(found: list[list[Face]]) -> list[Face | None]:
    """The same person in every probed frame: the face of most area over the clip, followed by nearness."""
    if not any(found):
        raise TrackingError(
            "track.no_face",
            "No face was found in the clip.",
            expected="One person facing the camera, the face at least a tenth of the picture high.",
            todo="Use a clip in which the face is well lit and large enough.",
        )
    at = max(
        (i for i, faces in enumerate(found) if faces),
        key=lambda i: max(f.height * f.score for f in found[i]),
    )
    track: list[Face | None] = [None] * len(found)
    track[at] = max(found[at], key=lambda f: f.height * f.score)
    for order in (range(at + 1, len(found)), range(at - 1, -1, -1)):
        last = track[at]
        assert last is not None
        for i in order:
            near = [f for f in found[i] if np.linalg.norm(f.centre - last.centre) < 1.5 * last.height]
            track[i] = max(near, key=lambda f: f.height, default=None)
            # After a cut the person may sit elsewhere: the largest face is then the best guess.
            if track[i] is None and found[i]:
                biggest = max(found[i], key=lambda f: f.height)
                track[i] = biggest if biggest.height > 0.6 * last.height else None
            last = track[i] or last
    return track


def plan_crop(track: list[Face | None], height: int, width: int) -> tuple[int, int, int]:
    """The square (x, y, side) of the decoded frame that holds head and shoulders over the whole clip.

    A nearly square clip in which the face is large enough already is kept whole.
    """
    faces = [f for f in track if f is not None]
    tall = float(np.median([f.height for f in faces]))
    whole = min(height, width)
    nearly_square = max(height, width) <= 1.05 * whole
    side = whole if nearly_square and tall >= WHOLE_FACE * whole else min(whole, SIDE_PER_FACE * tall)
    centres = np.array([f.centre for f in faces])
    low, high = np.percentile(centres, 2, axis=0), np.percentile(centres, 98, axis=0)
    # The head's wanderings must fit, too.
    side = round(min(whole, side + max(high - low)))
    x, y = (low + high) / 2 - side * np.array([0.5, FACE_ROW])
    return round(np.clip(x, 0, width - side)), round(np.clip(y, 0, height - side)), side


def crop_frames(frames: np.ndarray, crop: tuple[int, int, int], side: int) -> Iterator[np.ndarray]:
    """The square ``crop`` of every frame [T, H, W, 3], resized to [side, side, 3]."""
    x, y, extent = crop
    for frame in frames:
        part = frame[y : y + extent, x : x + extent]
        if extent == side:
            yield np.ascontiguousarray(part)
        else:
            yield cv2.resize(
                part, (side, side), interpolation=cv2.INTER_AREA if extent > side else cv2.INTER_CUBIC
            )


class ShotCounter:
    """Finds cuts frame by frame: colours or the whole picture change far more than around them."""

    SIDE = 32

    def __init__(self) -> None:
        self._tiny: list[np.ndarray] = []
        self._hist: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> None:
        """See the next frame [H, W, 3]."""
        tiny = cv2.resize(frame, (self.SIDE, self.SIDE), interpolation=cv2.INTER_AREA)
        hist = cv2.calcHist([frame[::4, ::4].copy()], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
        self._tiny.append(tiny.astype(np.float32))
        self._hist.append(hist / hist.sum())

    def segments(self) -> np.ndarray:
        """Number of the shot of each frame, [T] int32."""
        if len(self._tiny) < 2:
            return np.zeros(len(self._tiny), np.int32)
        change = np.abs(np.diff(np.stack(self._tiny), axis=0)).mean((1, 2, 3))
        colour = 0.5 * np.abs(np.diff(np.stack(self._hist), axis=0)).sum(1)
        usual = _local_median(change, FPS)
        cut = (change > 6 * usual + 2.5) & ((change > 12) | (colour > 0.25))
        return np.concatenate([[0], np.cumsum(cut)]).astype(np.int32)


def split_on_jumps(segment: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Also cut where the face jumps, as it does between two takes before one background.

    Args:
        segment: [T] shots found in the pictures.
        landmarks: [T, 478, 3] pixels.

    Returns:
        [T] int32.
    """
    points = landmarks[:, ::7, :2]
    unit = np.linalg.norm(landmarks[:, 33, :2] - landmarks[:, 263, :2], axis=-1)
    step = np.linalg.norm(np.diff(points, axis=0), axis=-1).mean(1) / np.nanmedian(unit)
    step = np.nan_to_num(step)
    before = np.concatenate([[0.0], step[:-1]])
    after = np.concatenate([step[1:], [0.0]])
    # One frame: a quick nod moves as fast before and after.
    jump = (step > 0.12) & (step > 4 * np.maximum(before, after) + 0.03)
    cut = (np.diff(segment) != 0) | jump
    return np.concatenate([[0], np.cumsum(cut)]).astype(np.int32)


def _local_median(values: np.ndarray, width: int) -> np.ndarray:
    from scipy.ndimage import median_filter

    return median_filter(values, size=min(len(values), 2 * width + 1), mode="nearest")
