"""Face-mesh landmarks and person masks, from the models inside the mediapipe wheel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from talker.dataset.steps.mesh import N_LANDMARKS

MIN_SIDE = 64
"""Pixels; smaller pictures crash the native graph."""


def warm() -> None:
    """Load the library, which takes seconds."""
    import mediapipe.python.solutions.face_mesh  # noqa: F401


def find_landmarks(frames: Iterable[np.ndarray], segment: np.ndarray) -> Iterator[np.ndarray]:
    """Follow one face through a clip.

    Args:
        frames: RGB uint8 pictures [H, W, 3] of at least 64 pixels a side, in order.
        segment: [T] number of the shot of each frame; the tracker starts anew at each cut.

    Yields:
        float32 [478, 3] a frame: x, y in pixels of its picture, z in the same unit (smaller is nearer);
        NaN where no face was found.
    """
    from mediapipe.python.solutions.face_mesh import FaceMesh

    with FaceMesh(refine_landmarks=True, max_num_faces=1, min_tracking_confidence=0.5) as mesh:
        before = None
        for frame, shot in zip(frames, segment, strict=True):
            if before is not None and shot != before:
                mesh.reset()
            before = shot
            yield mesh_landmarks(mesh, frame)


def mesh_landmarks(mesh, frame: np.ndarray) -> np.ndarray:
    """Landmarks [478, 3] in pixels of one picture by an open ``FaceMesh``; NaN if there is no face."""
    height, width = frame.shape[:2]
    assert min(height, width) >= MIN_SIDE
    found = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
    if not found:
        return np.full((N_LANDMARKS, 3), np.nan, np.float32)
    points = np.array([(p.x, p.y, p.z) for p in found[0].landmark], np.float32)
    # z comes in units of the picture's width, like x.
    return points * np.array([width, height, width], np.float32)


def find_masks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Probability [H, W] float32 of each pixel to be the person, for RGB uint8 pictures [H, W, 3]."""
    from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

    with SelfieSegmentation(model_selection=0) as segmenter:
        for frame in frames:
            result: Any = segmenter.process(np.ascontiguousarray(frame))
            yield result.segmentation_mask
