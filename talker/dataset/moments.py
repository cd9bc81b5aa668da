"""When something is so in a clip: spans of time, their names, the longest part without it, pictures of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from talker.dataset.steps.framing import Face
from talker.types import FPS

Span = tuple[float, float]
"""First and last second of a stretch; both the same for a moment."""

SPEAKER, STRANGER, KEPT = (80, 220, 120), (235, 70, 60), (255, 255, 255)
MAX_NAMED = 6
MAX_EVIDENCE = 3
"""Pictures of one finding."""
GAP_SAMPLES = 3
"""Fewer bad samples in a row do not end a good part: their frames are skipped."""


@dataclass(frozen=True)
class Picture:
    """A frame of the clip with the kept square and the faces drawn in."""

    seconds: float
    rgb: np.ndarray = field(repr=False)  # [H, W, 3] uint8
    code: str = ""
    """The finding it shows; empty for an example of the clip as it is."""


@dataclass(frozen=True)
class Samples:
    """What was seen at some frames of a clip, in order."""

    frames: np.ndarray = field(repr=False)  # [T, H, W, 3] uint8, all of the clip
    index: np.ndarray  # [N] frames looked at
    found: list[list[Face]]
    speaker: list[Face | None]
    crop: tuple[int, int, int] | None

    def picture(self, i: int, code: str = "") -> Picture:
        """Sample ``i`` with what was found in it."""
        rgb = np.array(self.frames[self.index[i]])
        if self.crop is not None:
            x, y, side = self.crop
            cv2.rectangle(rgb, (x, y), (x + side - 1, y + side - 1), KEPT, 2)
        for face in self.found[i]:
            colour = SPEAKER if face is self.speaker[i] else STRANGER
            (x0, y0), (x1, y1) = face.box[:2].astype(int), face.box[2:].astype(int)
            cv2.rectangle(rgb, (int(x0), int(y0)), (int(x1), int(y1)), colour, 2)
        return Picture(float(self.index[i]) / FPS, rgb, code)

    def examples(self, count: int = 4) -> tuple[Picture, ...]:
        """Pictures over the whole clip."""
        chosen = np.unique(np.linspace(0, len(self.index) - 1, count).round().astype(int))
        return tuple(self.picture(i) for i in chosen)

    def evidence(self, code: str, when: Sequence[Span]) -> tuple[Picture, ...]:
        """Pictures of the longest of some spans, in order of time; of the middle of the clip without any."""
        longest = sorted(when, key=lambda span: span[0] - span[1])[:MAX_EVIDENCE]
        middles = [(a + b) / 2 * FPS for a, b in sorted(longest)] or [float(self.index[-1]) / 2]
        nearest = {int(np.abs(self.index - frame).argmin()) for frame in middles}
        return tuple(self.picture(i, code) for i in sorted(nearest))


def timecode(seconds: float) -> str:
    """``0:04.2``."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def spans(index: np.ndarray, chosen: Sequence[bool] | np.ndarray) -> tuple[Span, ...]:
    """Stretches of the chosen samples; neighbours are joined."""
    step = index[1] - index[0] if len(index) > 1 else 1
    runs: list[list[int]] = []
    for i, frame in enumerate(index[np.asarray(chosen, bool)]):
        if i and frame - runs[-1][1] <= 1.5 * step:
            runs[-1][1] = int(frame)
        else:
            runs.append([int(frame), int(frame)])
    return tuple((a / FPS, b / FPS) for a, b in runs)


def names(when: Sequence[Span], limit: int = MAX_NAMED) -> tuple[str, ...]:
    """Time codes of spans for a person, at most ``limit`` of them."""
    said = [timecode(a) if a == b else f"{timecode(a)}-{timecode(b)}" for a, b in when[:limit]]
    return (*said, "...") if len(when) > limit else tuple(said)


def longest_part(index: np.ndarray, gaps: np.ndarray, breaks: np.ndarray, seconds: float) -> Span | None:
    """The longest stretch without a break and without a long gap, or ``None`` if nothing is good.

    Args:
        index: [N] frames looked at.
        gaps: [N] samples that do no harm if they are few in a row: their frames are skipped.
        breaks: [N] samples that may not be part of it at all.
        seconds: Length of the clip.
    """
    bad = np.array(gaps, bool)
    for a, b in _runs(bad):
        bad[a:b] = b - a >= GAP_SAMPLES
    good = _runs(~(bad | breaks))
    if not good:
        return None
    a, b = max(good, key=lambda run: run[1] - run[0])
    # A bad sample may have begun right after the sample before it.
    start = 0.0 if a == 0 else index[a] / FPS
    end = seconds if b == len(index) else index[b - 1] / FPS
    return float(start), float(end)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and one after the last of every stretch of true values."""
    edges = np.flatnonzero(np.diff(np.r_[0, np.asarray(flags, np.int8), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
