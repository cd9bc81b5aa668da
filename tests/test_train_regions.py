"""Boxes around lips and eyes: they hold what they should, and stay inside any picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core_support import SIZE, mesh_points, project_mesh

from talker.train.regions import LEFT_EYE, LIPS, RIGHT_EYE, Box, face_boxes, mouth_box

K = np.array([[2.2 * SIZE, 0, SIZE / 2], [0, 2.2 * SIZE, SIZE / 2], [0, 0, 1]], np.float32)


def face(x: float = 0.0, y: float = 0.0, z: float = 12.0, opening: float = 0.1) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return project_mesh(mesh_points(opening, 0.0), K, T)


def holds(box: Box, points: np.ndarray) -> bool:
    x, y = points[:, 0], points[:, 1]
    return bool(((x >= box.left) & (x <= box.right) & (y >= box.top) & (y <= box.bottom)).all())


@pytest.mark.parametrize("opening", [0.0, 0.3])
def test_boxes_hold_lips_and_eyes_and_not_each_other(opening: float) -> None:
    landmarks = face(opening=opening)
    boxes = face_boxes(landmarks, SIZE)
    assert holds(boxes.mouth, landmarks[list(LIPS)])
    assert holds(boxes.eyes[0], landmarks[list(LEFT_EYE)]) and holds(
        boxes.eyes[1], landmarks[list(RIGHT_EYE)]
    )
    assert boxes.mouth.top > max(eye.bottom for eye in boxes.eyes)
    area = (boxes.mouth.bottom - boxes.mouth.top) * (boxes.mouth.right - boxes.mouth.left)
    assert area < 0.1 * SIZE**2, "a part of the picture"


@pytest.mark.parametrize(("x", "y"), [(-9, 0), (9, 0), (0, -9), (0, 9), (50, 50), (-2.7, 2.2)])
def test_boxes_of_a_face_at_or_beyond_the_border_are_never_empty(x: float, y: float) -> None:
    boxes = face_boxes(face(x, y), SIZE)
    image = torch.zeros(SIZE, SIZE, 3)
    for box in (boxes.mouth, *boxes.eyes):
        assert 0 <= box.top < box.bottom <= SIZE and 0 <= box.left < box.right <= SIZE
        assert box.crop(image).numel() > 0


def test_crop_is_rows_then_columns() -> None:
    image = np.arange(100).reshape(10, 10)
    assert np.array_equal(Box(2, 4, 5, 8).crop(image), [[25, 26, 27], [35, 36, 37]])


def test_mouth_box_of_a_clip_is_fixed_and_blind_to_lost_frames() -> None:
    clip = np.stack([face(0.1 * np.sin(t), opening=0.2) for t in range(9)])
    box = mouth_box(clip, SIZE)
    assert holds(box, np.median(clip, 0)[[61, 291, 13, 14]])
    lost = np.concatenate([clip, np.full((3, 478, 3), np.nan)])
    assert mouth_box(lost, SIZE) == box
    assert mouth_box(clip * 2, 2 * SIZE).left == pytest.approx(2 * box.left, abs=2)
