"""Blinks, brows and mouth opening, read off the mesh in the head frame and calibrated per person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter, minimum_filter1d, percentile_filter

from talker.dataset.steps import mesh
from talker.types import BLINK_LEFT, BLINK_RIGHT, BROW_LEFT, BROW_RIGHT, EXPRESSION_DIM, FPS

DEFAULT_CLOSED = 0.35
"""Lid distance of a closed eye as a share of the open one, for a person who never blinks."""

MIN_DIP = 0.3
"""A dip of the lid distance by this share is a blink."""


@dataclass(frozen=True)
class ExpressionTrack:
    """Signals of every frame; untracked frames hold interpolated values."""

    expression: np.ndarray  # [T, E] see talker.types
    mouth_open: np.ndarray  # [T] inner-lip gap / distance of the outer eye corners
    n_blinks: int


def track_expression(landmarks: np.ndarray, K: np.ndarray, T_cam_head: np.ndarray) -> ExpressionTrack:
    """Expression of every frame.

    Args:
        landmarks: [T, 478, 3] pixels, NaN where there is no face.
        K: [3, 3].
        T_cam_head: [T, 4, 4].
    """
    heads = to_head_frame(landmarks, K, T_cam_head)
    seen = np.isfinite(heads[:, 0, 0])
    expression = np.zeros((len(heads), EXPRESSION_DIM), np.float32)
    blinks = []
    for column, pairs in ((BLINK_LEFT, mesh.LID_PAIRS_LEFT), (BLINK_RIGHT, mesh.LID_PAIRS_RIGHT)):
        gap = (heads[:, pairs[:, 1], 1] - heads[:, pairs[:, 0], 1]).mean(1)
        expression[:, column], count = _blink(_filled(gap, seen), seen)
        blinks.append(count)
    for column, brow, eye in (
        (BROW_LEFT, mesh.BROW_LEFT, mesh.EYE_LEFT),
        (BROW_RIGHT, mesh.BROW_RIGHT, mesh.EYE_RIGHT),
    ):
        corners = (eye[0], eye[8])
        height = heads[:, corners, 1].mean(1) - heads[:, brow, 1].mean(1)
        expression[:, column] = _brow(_filled(height, seen), seen)
    lips = heads[:, [mesh.LIP_INNER_TOP, mesh.LIP_INNER_BOTTOM]]
    gap = np.linalg.norm((lips[:, 1] - lips[:, 0])[:, :2], axis=-1)
    return ExpressionTrack(expression, _filled(gap, seen).astype(np.float32), max(blinks))


def to_head_frame(landmarks: np.ndarray, K: np.ndarray, T_cam_head: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 3] in pixels to the head frame, with their own z scaled like x and y."""
    focal, depth = K[0, 0], T_cam_head[:, 2, 3]
    zoom = focal / depth
    own = landmarks[..., 2] - landmarks[:, mesh.RIGID, 2].mean(1, keepdims=True)
    z = depth[:, None] + own / zoom[:, None]
    camera = np.concatenate([(landmarks[..., :2] - K[:2, 2]) * (z / focal)[..., None], z[..., None]], -1)
    return np.einsum("tji,tkj->tki", T_cam_head[:, :3, :3], camera - T_cam_head[:, None, :3, 3])


def _blink(gap: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, int]:
    """0 (open) to 1 (closed) from the lid distance [T], and the number of blinks.

    Blinks are 1-2 % of the frames, so percentiles of all frames miss them: the closed level is the median
    over the blinks' own lowest points, the open level follows slow changes (looking down, squinting).
    """
    window = min(len(gap), 8 * FPS + 1)
    opened = gaussian_filter1d(percentile_filter(gap, 70, size=window, mode="nearest"), FPS)
    opened = np.maximum(opened, 0.5 * np.percentile(gap[seen], 70))
    ratio = gap / np.maximum(opened, 1e-6)
    lowest = (ratio <= minimum_filter1d(ratio, 7, mode="nearest")) & (ratio < 1 - MIN_DIP) & seen
    events = np.flatnonzero(lowest)
    events = events[np.diff(events, prepend=-100) > 3]
    closed = float(np.median(ratio[events])) if len(events) else DEFAULT_CLOSED
    # Half-closed eyes must not count as the closed level of somebody who never shuts them fully.
    closed = min(closed, 0.6)
    # The open eye's own noise (a tenth) is no blink.
    return np.clip((0.92 - ratio) / (0.92 - closed), 0.0, 1.0), len(events)


def _brow(height: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """About -1..1 around the person's rest position."""
    smooth = gaussian_filter1d(median_filter(height, 5, mode="nearest"), 1.0)
    low, rest, high = np.percentile(smooth[seen], [3, 50, 97])
    # A still brow must not be blown up to full range.
    spread = max((high - low) / 2, 0.02)
    return np.clip((smooth - rest) / spread, -1.5, 1.5)


def _filled(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Linear over untracked frames."""
    frame = np.arange(len(values))
    return np.interp(frame, frame[seen], values[seen])
