"""Small pictures for lists, inlined so that no private frame gets an address of its own."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def inline(data: bytes, side: int) -> str:
    """Like :func:`thumbnail` of a picture in memory, which may be a stranger's: JPEG alone, decoded and made anew."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return _data_uri(image, side)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return ""


MAX_MOVING = 4 << 20
"""Bytes of a moving picture that is put into a page."""


def thumbnail(path: Path | None, side: int) -> str:
    """A picture as a small JPEG data URI; empty if it cannot be read (it may be deleted at any moment)."""
    if path is None:
        return ""
    try:
        return _encode(path, path.stat().st_mtime_ns, side)
    except OSError:
        return ""


def moving(path: Path | None) -> str:
    """A short WebP of our own as a data URI; empty if there is none."""
    try:
        if path is None or path.stat().st_size > MAX_MOVING:
            return ""
        return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError:
        return ""


@lru_cache(maxsize=256)
def _encode(path: Path, _changed: int, side: int) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return _data_uri(image, side)


def _data_uri(image: Image, side: int) -> str:
    image.thumbnail((side, side))
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=84)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
