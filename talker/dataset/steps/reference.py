"""The reference frame: where the torso and the initial cloud are described, and colours come from."""

from __future__ import annotations

import cv2
import numpy as np

from talker.dataset.steps.se3 import matrix_to_rotvec


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
    turn = matrix_to_rotvec(T_cam_head[:, :3, :3])
    position = T_cam_head[:, :3, 3]
    usual = np.median(turn[usable], 0)
    place = np.median(position[usable], 0)
    cost = np.linalg.norm(turn - usual, axis=1) / np.radians(5) + 0.5 * np.linalg.norm(
        turn[:, 1:], axis=1
    ) / np.radians(8)
    cost += np.linalg.norm(position - place, axis=1) / 0.15
    low, high = np.percentile(mouth_open[usable], [5, 95])
    cost += 4.0 * np.clip((mouth_open - low) / max(high - low, 1e-3), 0, 2) + 4.0 * blink
    cost += np.clip(1 - sharp / np.median(sharp[usable]), 0, 1) * 2
    return int(np.argmin(np.where(usable, cost, np.inf)))


def sharpness(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Deviation of the Laplacian in the face's box of every frame, [T]; zero without a face.

    Args:
        frames: [T, S, S, 3] uint8.
        landmarks: [T, 478, 3] pixels.
    """
    sharp = np.zeros(len(frames))
    size = frames.shape[1]
    for t, frame in enumerate(frames):
        if not np.isfinite(landmarks[t, 0, 0]):
            continue
        low = np.clip(landmarks[t, :, :2].min(0), 0, size - 1).astype(int)
        high = np.clip(landmarks[t, :, :2].max(0), 0, size - 1).astype(int)
        if (high - low).min() > 8:
            part = np.ascontiguousarray(frame[low[1] : high[1], low[0] : high[0]])
            sharp[t] = cv2.Laplacian(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()
    return sharp
