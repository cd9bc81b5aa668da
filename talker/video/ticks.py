"""Time in a clip, counted in ticks of the constant frame rate: which picture each shows, and which are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame


class ConstantRate:
    """Chooses which decoded frame is shown at each tick k / fps, by time stamps; the nearest one wins."""

    def __init__(self, fps: int) -> None:
        self._fps = fps
        self._previous: tuple[VideoFrame, float] | None = None
        self._start_s = 0.0
        self._last_step_s = 1.0 / fps
        self._ticks = 0

    def push(self, frame: VideoFrame, time_s: float) -> Iterator[tuple[VideoFrame, int]]:
        """Take the next frame; yields (frame, number of ticks it is shown for)."""
        if self._previous is None:
            self._previous, self._start_s = (frame, 0.0), time_s
            return
        shown, shown_s = self._previous
        now_s = time_s - self._start_s
        if now_s <= shown_s:  # repeated or backward time stamp
            return
        self._last_step_s = now_s - shown_s
        yield from self._until(shown, (shown_s + now_s) / 2)
        self._previous = (frame, now_s)

    def finish(self) -> Iterator[tuple[VideoFrame, int]]:
        """Show the last frame for as long as the one before it, at least one tick in all."""
        if self._previous is not None:
            shown, shown_s = self._previous
            end_s = shown_s + min(self._last_step_s, 1.0) / 2
            yield from self._until(shown, max(end_s, 0.5 / self._fps if not self._ticks else 0.0))

    def _until(self, shown: VideoFrame, end_s: float) -> Iterator[tuple[VideoFrame, int]]:
        # Ticks strictly before end_s; the epsilon keeps exact 25 fps exact in floating point.
        ticks = max(0, int(np.ceil(end_s * self._fps - 1e-6))) - self._ticks
        if ticks > 0:
            self._ticks += ticks
            yield shown, ticks


class Window:
    """The part of a clip that is kept, counted in ticks of the constant rate.

    Args:
        first: First tick kept.
        last: First tick not kept any more; None keeps to the end.
    """

    def __init__(self, first: int = 0, last: int | None = None) -> None:
        self.first, self.last = first, last
        self.ticks = 0
        """Ticks seen so far."""

    @classmethod
    def of(cls, request: dict) -> Window:
        """From ``start_s`` and ``end_s`` of a request."""
        fps, end_s = request["fps"], request["end_s"]
        return cls(round(request["start_s"] * fps), None if end_s is None else round(end_s * fps))

    @property
    def whole(self) -> bool:
        """Nothing is left out."""
        return self.first == 0 and self.last is None

    @property
    def passed(self) -> bool:
        """Nothing that comes now is kept."""
        return self.last is not None and self.ticks >= self.last

    def kept(self, ticks: int) -> int:
        """How many of the next ``ticks`` are kept."""
        begin = self.ticks
        self.ticks += ticks
        end = self.ticks if self.last is None else min(self.ticks, self.last)
        return max(0, end - max(begin, self.first))
