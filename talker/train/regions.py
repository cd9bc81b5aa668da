"""Where the lips and the eyes are in each frame: boxes for the losses and the fixed mouth box of the metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIPS = (61, 291, 0, 17, 37, 267, 84, 314, 40, 270, 91, 321, 13, 14)
LEFT_EYE = (33, 133, 159, 145, 160, 144, 158, 153)
RIGHT_EYE = (362, 263, 386, 374, 385, 380, 387, 373)


@dataclass(frozen=True)
class Box:
    """Rows ``top:bottom``, columns ``left:right`` of an image."""

    top: int
    bottom: int
    left: int
    right: int

    def crop(self, image):
        """The part of ``image`` [H, W, ...] inside the box."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class FaceBoxes:
    """Lips and both eyes of one frame."""

    mouth: Box
    eyes: tuple[Box, Box]


def face_boxes(landmarks: np.ndarray, size: int) -> FaceBoxes:
    """Boxes of one frame's landmarks [478, 3] (pixels) in a square image of ``size`` pixels."""
    return FaceBoxes(
        _around(landmarks[list(LIPS), :2], size, 0.35),
        (
            _around(landmarks[list(LEFT_EYE), :2], size, 0.5),
            _around(landmarks[list(RIGHT_EYE), :2], size, 0.5),
        ),
    )


def _around(points: np.ndarray, size: int, margin: float) -> Box:
    low, high = points.min(0), points.max(0)
    pad = margin * (high - low).max() / 2 + 2
    left, top = np.floor(np.clip(low - pad, 0, size - 4)).astype(int)
    right, bottom = np.ceil(np.clip(high + pad, [left + 3, top + 3], size)).astype(int)
    return Box(int(top), int(bottom), int(left), int(right))


def mouth_box(landmarks: np.ndarray, size: int) -> Box:
    """The fixed box of the mouth figures: of the clip's median mesh box, rows 62-92 %, columns 25-75 %.

    Args:
        landmarks: [T, 478, 3] pixels; NaN where no face was found.
        size: Edge of the image.
    """
    median = np.nanmedian(landmarks[..., :2], axis=0)
    (left, top), (right, bottom) = median.min(0), median.max(0)
    height, width = bottom - top, right - left
    rows = np.clip([top + 0.62 * height, top + 0.92 * height], 0, size).astype(int)
    columns = np.clip([left + 0.25 * width, left + 0.75 * width], 0, size).astype(int)
    return Box(int(rows[0]), int(rows[1]), int(columns[0]), int(columns[1]))
