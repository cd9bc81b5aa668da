"""The background plate: what is behind the person, per pixel over time.

An avatar carries one still plate. Frames of the clip are better explained by the plate of their own few
seconds: cameras drift, screens play, and a wrong background ends up in the hair.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from talker.dataset.steps.fill import continue_smoothly

SAMPLES = 96
"""Frames a plate is made of; more change nothing but memory."""

FREE = 0.05
"""Mask probability below which a pixel is background."""

MARGIN = 0.02
"""The mask is grown by this share of the side: its edge is soft and hair is finer than it."""

KNOWN_SHARE = 0.12
"""Share of the frames in which a pixel must be free: what shows more seldom is often hair the mask missed."""

SAME_PLACE = 8.0
"""Root mean square difference in grey values up to which two shots have one background."""

WINDOW = 75
"""Frames that share a local plate."""

LOCAL_SAMPLES = 15


@dataclass(frozen=True)
class Plate:
    """A plate and how far to trust it."""

    rgb: np.ndarray  # [S, S, 3] uint8
    known: np.ndarray  # [S, S] bool: seen in enough frames, not invented
    motion: float
    """Median over known pixels of the standard deviation over time, 0..255."""


@dataclass(frozen=True)
class Plates:
    """The avatar's plate, and one for every few seconds of the clip."""

    main: Plate
    local: np.ndarray  # [P, S, S, 3] uint8
    of_frame: np.ndarray  # [T] int32 index into local


def make_plates(frames: np.ndarray, masks: np.ndarray, index: np.ndarray, segment: np.ndarray) -> Plates:
    """The plate of the clip's largest shot, joined with other shots before the same background; local plates.

    Args:
        frames: [T, S, S, 3] uint8.
        masks: [T, S, S] uint8 person probability.
        index: Frames to use.
        segment: [T] number of the shot of each frame.
    """
    shots, counts = np.unique(segment, return_counts=True)
    members = {shot: index[segment[index] == shot] for shot in shots[np.argsort(-counts)]}
    members = {shot: own for shot, own in members.items() if len(own)}
    plates = {shot: make_plate(frames, masks, own) for shot, own in members.items()}
    first = next(iter(plates))
    joined = [own for shot, own in members.items() if same_place(plates[first], plates[shot])]
    main = plates[first] if len(joined) == 1 else make_plate(frames, masks, np.sort(np.concatenate(joined)))
    return Plates(main, *_local(frames, masks, index, segment, main))


def make_plate(frames: np.ndarray, masks: np.ndarray, index: np.ndarray, samples: int = SAMPLES) -> Plate:
    """Temporal median of the uncovered pixels of ``frames[index]``; never seen ones are continued inwards.

    Args:
        frames: [T, S, S, 3] uint8.
        masks: [T, S, S] uint8 person probability.
        index: Frames to use.
        samples: So many of them at most, evenly.
    """
    rgb, known, motion = _seen(frames, masks, index, samples)
    if known.any():
        rgb = continue_smoothly(rgb, known).round().astype(np.uint8)
    return Plate(rgb, known, motion)


def same_place(one: Plate, other: Plate) -> bool:
    """Two plates show one background."""
    both = one.known & other.known
    if not both.any():
        return False
    return bool(np.sqrt(np.mean((one.rgb[both].astype(float) - other.rgb[both]) ** 2)) < SAME_PLACE)


def _local(
    frames: np.ndarray, masks: np.ndarray, index: np.ndarray, segment: np.ndarray, main: Plate
) -> tuple[np.ndarray, np.ndarray]:
    """Local plates and the one of each frame; what a window does not show comes from the main plate."""
    of_frame = np.zeros(len(frames), np.int32)
    local = []
    for shot in np.unique(segment):
        whole = np.flatnonzero(segment == shot)
        for window in np.array_split(whole, max(1, round(len(whole) / WINDOW))):
            of_frame[window] = len(local)
            own = index[np.isin(index, window)]
            if not len(own):  # only held-out frames: nothing of them may be used
                local.append(main.rgb)
                continue
            rgb, known, _ = _seen(frames, masks, own, LOCAL_SAMPLES)
            rgb = np.where(known[..., None], rgb, main.rgb)
            either = known | main.known
            local.append(continue_smoothly(rgb, either).round().astype(np.uint8) if either.any() else rgb)
    return np.stack(local), of_frame


def _seen(
    frames: np.ndarray, masks: np.ndarray, index: np.ndarray, samples: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Median colour [S, S, 3], where enough frames are free [S, S], and the usual deviation over time."""
    index = index[np.unique(np.linspace(0, len(index) - 1, min(len(index), samples)).round().astype(int))]
    reach = max(1, round(MARGIN * frames.shape[1]))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    free = np.stack([cv2.dilate(np.asarray(masks[i]), kernel) < FREE * 255 for i in index])
    rgb, spread = _median(np.stack([frames[i] for i in index]), free)
    known = np.asarray(free.sum(0) >= max(1, min(3, len(index) // 4), KNOWN_SHARE * len(index)))
    return rgb, known, float(np.median(spread[known])) if known.any() else 0.0


def _median(frames: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-pixel median over free samples [S, S, 3] (0 without any) and the deviation over time [S, S]."""
    size = frames.shape[1]
    rgb = np.zeros(frames.shape[1:], np.uint8)
    spread = np.zeros((size, size), np.float32)
    rows = max(1, 2**24 // (len(frames) * size * 3 * 4))
    for y in range(0, size, rows):
        block = frames[:, y : y + rows].astype(np.float32)
        block[~free[:, y : y + rows]] = np.inf
        block.sort(axis=0)
        count = free[:, y : y + rows].sum(0)
        middle = np.maximum(count - 1, 0)[None, ..., None] // 2
        value = np.take_along_axis(block, np.broadcast_to(middle, (1, *block.shape[1:])), 0)[0]
        value = np.where(np.isfinite(value), value, 0)
        rgb[y : y + rows] = value.astype(np.uint8)
        filled = np.where(np.isfinite(block), block, value)
        deviation = np.sqrt(((filled - value) ** 2).sum(0) / np.maximum(count, 1)[..., None])
        spread[y : y + rows] = deviation.mean(-1)
    return rgb, spread
