"""Saying that work goes on, while nothing can be shown yet."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")

TICK_S = 0.3
"""Longest silence: only at a note can the caller stop what goes on."""


@dataclass(frozen=True)
class TalkNote:
    """Something goes on that is no picture yet."""

    message: str
    share: float | None = None
    """How much of it is done, 0..1, if known."""


def with_notes(work: Callable[[], Result], message: str) -> Generator[TalkNote, None, Result]:
    """Do short ``work`` on a thread and say so meanwhile; returns its result.

    Closing the generator does not wait for the work, whose result is dropped.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="talker-note")
    try:
        future = pool.submit(work)
        while not wait([future], timeout=TICK_S).done:
            yield TalkNote(message)
        return future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
