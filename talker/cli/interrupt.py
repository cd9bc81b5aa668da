"""Ctrl-C: the first asks a run to save and stop, the second stops it at once."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def polite_stop() -> Iterator[Callable[[], bool]]:
    """Inside the block the first Ctrl-C only makes the yielded function return true."""
    asked = False

    def handler(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        sys.stderr.write("\nStopping at the next step; Ctrl-C again stops at once.\n")

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
