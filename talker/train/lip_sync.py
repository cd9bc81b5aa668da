"""LSE-C and LSE-D (Prajwal et al. 2020): how surely, and how closely, SyncNet finds lips and sound together.

As published: windows of five frames, distances to the sound at every shift of up to 15 frames, averaged over the
take. LSE-D is the smallest average, LSE-C its distance from the median of all shifts. Two things differ: the face
is found by the face mesh instead of a detector, and crops are not compressed before they are judged. So the true
frames are always measured beside the rendered ones, in the same crops: compare with those first.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from talker.audio.mfcc import MFCC_RATE, mfcc
from talker.train.syncnet import SIDE, WINDOW_FRAMES, WINDOW_ROWS, SyncNet
from talker.types import FPS

REACH = 15
"""Frames by which the sound is shifted, at most, in each direction."""
MIN_FRAMES = 2 * REACH + 1 + WINDOW_FRAMES
"""With fewer frames most of the shifts would compare with padding instead of sound."""

_ROWS_PER_FRAME = MFCC_RATE // FPS
_BATCH = 32
_SMOOTHING = 13
"""Frames of the median that steadies the boxes."""
_WIDER = 0.4
"""Share of the face's size by which a crop goes beyond it: to both sides, and twice as much below."""
_OUTSIDE = 110
"""Grey where a crop leaves the picture."""


class LipSync(NamedTuple):
    """How lips and sound go together."""

    confidence: float
    """LSE-C, higher is better; about 0 where sound and lips have nothing to do with each other."""
    distance: float
    """LSE-D, lower is better."""
    offset: int
    """Frames by which the lips come late (negative: early)."""


class LipSyncMeter:
    """Judges a take and the truth beside it, frame by frame; keeps five frames of each.

    Args:
        network: SyncNet.
        landmarks: [T, 478, 3] of the true frames in pixels, NaN where no face was found, at least one found. The
            rendered head follows the true one, so both are cropped alike.
    """

    def __init__(self, network: SyncNet, landmarks: np.ndarray) -> None:
        self._network = network
        self._boxes = face_boxes(landmarks)
        self._truth, self._take = _LipStream(network), _LipStream(network)

    def add(self, index: int, truth: np.ndarray, frame: np.ndarray) -> None:
        """Take frame ``index`` as filmed and as rendered, [H, W, 3] uint8 each, in order."""
        self._truth.add(crop_face(truth, self._boxes[index]))
        self._take.add(crop_face(frame, self._boxes[index]))

    def figures(self, waveform: np.ndarray, other: np.ndarray | None = None) -> dict[str, float]:
        """LSE of the take and of the truth with their sound [S], and of the take with ``other`` sound [S]."""
        sound = sound_features(self._network, waveform)
        take = lip_sync(self._take.features(), sound)
        truth = lip_sync(self._truth.features(), sound)
        values = {
            "lse_c": take.confidence,
            "lse_d": take.distance,
            "lse_offset_frames": float(take.offset),
            "lse_c_truth": truth.confidence,
            "lse_d_truth": truth.distance,
            "lse_offset_frames_truth": float(truth.offset),
        }
        if other is not None:
            swapped = lip_sync(self._take.features(), sound_features(self._network, other))
            values |= {"lse_c_swapped": swapped.confidence, "lse_d_swapped": swapped.distance}
        return values


class _LipStream:
    """Face crops in, one row of features for every five neighbours."""

    def __init__(self, network: SyncNet) -> None:
        self._network = network
        self._crops: deque[np.ndarray] = deque(maxlen=WINDOW_FRAMES)
        self._rows: list[Tensor] = []

    def add(self, crop: np.ndarray) -> None:
        """The next crop [224, 224, 3] uint8, red first."""
        self._crops.append(crop)
        if len(self._crops) < WINDOW_FRAMES:
            return
        window = np.stack(self._crops)[..., ::-1].astype(np.float32)  # SyncNet was trained on blue first
        faces = torch.from_numpy(window).permute(3, 0, 1, 2)[None].to(self._network.device)
        with torch.inference_mode():
            self._rows.append(self._network.lips(faces).cpu())

    def features(self) -> Tensor:
        """[T - 4, 1024] of the T crops so far."""
        return torch.cat(self._rows)


def sound_features(network: SyncNet, waveform: np.ndarray) -> Tensor:
    """Features [W, 1024] of sound [S], one row a frame of video as long as a window holds sound to its end."""
    rows = torch.from_numpy(mfcc(waveform))
    windows = rows.unfold(0, WINDOW_ROWS, _ROWS_PER_FRAME)  # [W, 13, 20]
    with torch.inference_mode():
        parts = [network.sound(part.to(network.device)).cpu() for part in windows.split(_BATCH)]
    return torch.cat(parts)


def lip_sync(lips: Tensor, sound: Tensor, reach: int = REACH) -> LipSync:
    """Compare features of lips [W, D] with those of sound [V, D] at every shift of up to ``reach`` frames.

    Beyond its ends the sound counts as zeros, as in the published evaluation.
    """
    n = min(len(lips), len(sound))
    padded = torch.nn.functional.pad(sound[:n], (0, 0, reach, reach))
    shifts = range(2 * reach + 1)
    distance = torch.stack([(lips[:n] - padded[k : k + n]).norm(dim=1).mean() for k in shifts])
    best = int(distance.argmin())
    return LipSync(float(distance.median() - distance[best]), float(distance[best]), reach - best)


def face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Centre x, y and half the size of the face [T, 3] in pixels, steadied over time.

    Args:
        landmarks: [T, 478, 3] pixels; frames of NaN take the values between their neighbours.
    """
    from scipy.ndimage import median_filter

    seen = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
    assert len(seen), "no frame with a face"
    low, high = landmarks[seen, :, :2].min(1), landmarks[seen, :, :2].max(1)
    found = np.column_stack([(low + high) / 2, (high - low).max(1) / 2]).astype(np.float64)
    every = np.arange(len(landmarks))
    filled = np.stack([np.interp(every, seen, column) for column in found.T], 1)
    return median_filter(filled, size=(_SMOOTHING, 1), mode="nearest")


def crop_face(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The face with some room at its sides and below, [224, 224, 3] uint8, of a picture [H, W, 3] uint8.

    Args:
        frame: The picture.
        box: Centre x, y and half the size of the face in pixels, as from :func:`face_boxes`.
    """
    x, y, half = box
    wide = half * (1 + _WIDER)
    left, right, top, bottom = (int(np.floor(v)) for v in (x - wide, x + wide, y - half, y - half + 2 * wide))
    height, width = frame.shape[:2]
    beyond = max(0, -left, -top, right - width, bottom - height)
    padded = np.pad(frame, ((beyond, beyond), (beyond, beyond), (0, 0)), constant_values=_OUTSIDE)
    face = padded[top + beyond : bottom + beyond, left + beyond : right + beyond]
    return cv2.resize(face, (SIDE, SIDE))
