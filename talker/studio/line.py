"""One rendering at a time, first come first served; who waits is told how many are before them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

POLL_S = 0.3
"""How often somebody who waits is heard of: a caller can only stop at these moments."""
_WEIGHT = 0.3
"""Share of the newest turn in what a turn usually takes."""


@dataclass(frozen=True)
class TalkWaiting:
    """Others are rendering."""

    before: int
    """Turns that come first, with the one under way."""
    about_s: float | None
    """Time until it is this one's turn; None while nothing is known yet."""


class Line:
    """The queue before the renderer. It belongs to one process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[object] = []
        self._began = 0.0
        self._usual: float | None = None

    def in_turn(self, work: Callable[[], Iterator[Item]]) -> Iterator[Item | TalkWaiting]:
        """What ``work`` yields, as soon as everybody before has finished; until then ``TalkWaiting`` again and again.

        Closing the iterator leaves the line, or ends the work and lets the next one begin.
        """
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
        try:
            while (waiting := self._wait(ticket)) is not None:
                yield waiting
            yield from work()
            self._learn(time.monotonic() - self._began)
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def _wait(self, ticket: object) -> TalkWaiting | None:
        """None when it is this ticket's turn."""
        with self._changed:
            if self._changed.wait_for(lambda: self._tickets[0] is ticket, timeout=POLL_S):
                self._began = time.monotonic()
                return None
            before = self._tickets.index(ticket)
            if self._usual is None:
                return TalkWaiting(before, None)
            left = max(0.0, self._usual - (time.monotonic() - self._began))
            return TalkWaiting(before, left + (before - 1) * self._usual)

    def _learn(self, seconds: float) -> None:
        with self._changed:
            known = self._usual
            self._usual = seconds if known is None else (1 - _WEIGHT) * known + _WEIGHT * seconds
