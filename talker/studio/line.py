"""One rendering at a time, first come first served; who waits is told how many are before them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from talker.errors import BusyError

Item = TypeVar("Item")

POLL_S = 0.3
"""How often somebody who waits is heard of: a caller can only stop at these moments."""
PLACES = 16
"""Turns at a time, with the one under way; who comes then is sent away with a time to come back."""
FIRST_GUESS_S = 20.0
"""What a turn takes while none has been measured."""
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
    """The queue before the renderer. It belongs to one process.

    Args:
        places: Turns at a time, with the one under way.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._changed = threading.Condition()
        self._tickets: list[object] = []
        self._began = time.monotonic()
        self._usual: float | None = None

    def in_turn(
        self, work: Callable[[], Iterator[Item]], *, again: bool = False
    ) -> Iterator[Item | TalkWaiting]:
        """What ``work`` yields, as soon as everybody before has finished; until then ``TalkWaiting`` again and again.

        Closing the iterator leaves the line, or ends the work and lets the next one begin.

        Args:
            work: What is to be done.
            again: The next part of something that was let in: it is not sent away half done.

        Raises:
            BusyError: Every place is taken.
        """
        ticket = object()
        with self._changed:
            if len(self._tickets) >= self._places and not again:
                raise self._busy()
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
            return TalkWaiting(before, None if self._usual is None else self._until(before, self._usual))

    def _until(self, before: int, usual: float) -> float:
        """Seconds until so many turns are over."""
        return max(0.0, usual - (time.monotonic() - self._began)) + (before - 1) * usual

    def _busy(self) -> BusyError:
        known = self._usual or max(FIRST_GUESS_S, time.monotonic() - self._began)
        minutes = max(1, round(self._until(len(self._tickets), known) / 60))
        return BusyError(
            "talk.busy",
            f"The renderer is busy, about {minutes} min.",
            todo="Try again then.",
        )

    def _learn(self, seconds: float) -> None:
        with self._changed:
            known = self._usual
            self._usual = seconds if known is None else (1 - _WEIGHT) * known + _WEIGHT * seconds
