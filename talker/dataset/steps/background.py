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

COMPARED = 4
"""Every so many pixels each way are enough to see whether two shots have one background."""

WINDOW = 75
"""Frames that share a local plate."""

LOCAL_SAMPLES = 15

ROWS = 32
"""Rows of the picture whose median is taken at once: all their samples fit the processor's cache."""


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
    members = [index[segment[index] == shot] for shot in shots[np.argsort(-counts)]]
    members = [own for own in members if len(own)]
    joined = members[:1]
    if len(members) > 1:
        few = slice(None, None, COMPARED)
        small = frames[:, few, few], masks[:, few, few]
        first, *others = (make_plate(*small, own) for own in members)
        joined += [own for own, plate in zip(members[1:], others, strict=True) if same_place(first, plate)]
    main = make_plate(frames, masks, np.sort(np.concatenate(joined)))
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
            local.append(_completed(rgb, known, main))
    return np.stack(local), of_frame


def _completed(rgb: np.ndarray, known: np.ndarray, main: Plate) -> np.ndarray:
    """A local plate with the main one where it is not known, in its own light: no edge between the two is left."""
    if not known.any():
        return main.rgb
    difference = rgb.astype(np.float32) - main.rgb
    whole = main.rgb + continue_smoothly(difference, known)
    return np.where(known[..., None], rgb, whole.clip(0, 255).round().astype(np.uint8))


def _seen(
    frames: np.ndarray, masks: np.ndarray, index: np.ndarray, samples: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Median colour [S, S, 3], where enough frames are free [S, S], and the usual deviation over time."""
    index = index[np.unique(np.linspace(0, len(index) - 1, min(len(index), samples)).round().astype(int))]
    reach = max(1, round(MARGIN * frames.shape[1]))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    free = np.stack([cv2.dilate(np.asarray(masks[i]), kernel) < FREE * 255 for i in index])
    taken = np.stack([frames[i] for i in index])
    rgb = _median(taken, free)
    known = np.asarray(free.sum(0) >= max(1, min(3, len(index) // 4), KNOWN_SHARE * len(index)))
    return rgb, known, _motion(taken, free, rgb, known)


def _median(frames: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Per-pixel lower median [S, S, 3] uint8 over the free samples; 0 without any.

    Bit by bit from the highest: sixteen times as fast as sorting.
    """
    median = np.zeros(frames.shape[1:], np.uint8)
    count = free.sum(0)[..., None]
    rank = np.maximum(count - 1, 0) // 2
    for rows in range(0, len(median), ROWS):
        part = slice(rows, rows + ROWS)
        # A covered sample is the largest number: it never counts as below.
        block = np.where(free[:, part, :, None], frames[:, part], np.uint8(255))
        for bit in np.array([128, 64, 32, 16, 8, 4, 2, 1], np.uint8):
            trial = median[part] | bit
            below = (block < trial).sum(0, dtype=np.uint16)
            median[part] = np.where(below <= rank[part], trial, median[part])
    return np.where(count > 0, median, np.uint8(0))


def _motion(frames: np.ndarray, free: np.ndarray, rgb: np.ndarray, known: np.ndarray) -> float:
    """Median over known pixels, every fourth each way, of the standard deviation over time."""
    grid = (slice(None, None, 4),) * 2
    known, free = known[grid], free[(slice(None), *grid)]
    if not known.any():
        return 0.0
    off = frames[(slice(None), *grid)].astype(np.float32) - rgb[grid]
    square = (off**2 * free[..., None]).sum(0) / np.maximum(free.sum(0), 1)[..., None]
    return float(np.median(np.sqrt(square).mean(-1)[known]))
