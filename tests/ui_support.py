"""The app over a studio, served for as long as a test needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from talker.studio import Studio
from talker.ui import build_app, launch


@contextmanager
def served(studio: Studio, *, shared: bool = False) -> Iterator[str]:
    """The address of a running app over ``studio``."""
    before = Path.cwd()
    demo = build_app(studio, shared=shared)  # which changes the working folder
    _, address, _ = launch(demo, studio, port=0, shared=shared, block=False)
    try:
        yield address.rstrip("/")
    finally:
        demo.close()
        os.chdir(before)
