"""The visible mark: a small legible text in the top left corner, away from captions and player controls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LABEL = "AI-generated"
_SHARE = 0.036
"""Height of the letters' em square as a share of the frame's shorter side."""
_MIN_FONT_PX = 12
_BACKGROUND = 0.55
"""Opacity of the dark plate: white letters stay readable on white."""


@dataclass(frozen=True)
class _Patch:
    """Blending of one frame size in integers: (frame * keep + add) >> 8 inside the rectangle."""

    top: int
    left: int
    keep: np.ndarray  # [h, w, 1] uint16, 256 = transparent
    add: np.ndarray  # [h, w, 3] uint16
    letters: np.ndarray  # [h, w] float32 0..1, for recognition

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.keep.shape[0])

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.keep.shape[1])


def stamp_frames(frames: Iterable[np.ndarray], text: str = LABEL) -> Iterator[np.ndarray]:
    """Yield copies of ``frames`` (uint8 [H, W, 3], or [H, W, 4] with straight alpha) with the label on them."""
    for frame in frames:
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] in (3, 4), (
            "frames are uint8 [H, W, 3 or 4]"
        )
        patch = _patch(frame.shape[0], frame.shape[1], text)
        stamped = frame.copy()
        area = stamped[patch.rows, patch.columns]
        area[...] = (
            (area * patch.keep + patch.add) >> 8 if frame.shape[2] == 3 else _stamped_alpha(area, patch)
        )
        yield stamped


def _stamped_alpha(area: np.ndarray, patch: _Patch) -> np.ndarray:
    """The label over straight alpha: as opaque as it is on a picture, also where there is no picture."""
    keep = patch.keep / 256.0
    below = area[..., 3:] / 255.0 * keep
    alpha = 1 - keep + below
    colour = (patch.add / 256.0 + area[..., :3] * below) / np.maximum(alpha, 1e-6)
    return np.round(np.concatenate([colour, 255 * alpha], -1)).clip(0, 255).astype(np.uint8)


def label_visible(frame: np.ndarray, text: str = LABEL) -> bool:
    """Whether ``frame`` (uint8 [H, W, 3]), possibly compressed but not scaled or cropped, bears the label."""
    patch = _patch(frame.shape[0], frame.shape[1], text)
    area = frame[patch.rows, patch.columns].astype(np.float32).mean(-1)
    a, b = area - area.mean(), patch.letters - patch.letters.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return norm > 0 and float((a * b).sum()) / norm > 0.6


@lru_cache(maxsize=16)
def _patch(height: int, width: int, text: str) -> _Patch:
    from PIL import Image, ImageDraw, ImageFont

    size = max(_MIN_FONT_PX, round(_SHARE * min(height, width)))
    while True:
        font = ImageFont.load_default(size)  # the font inside Pillow: the same on every machine
        x0, y0, x1, y1 = font.getbbox(text)
        pad = max(2, size // 3)
        box_w, box_h = round(x1 - x0) + 2 * pad, round(y1 - y0) + 2 * pad
        if size <= 4 or (box_w <= width and box_h <= height):
            break
        size -= 1
    box_w, box_h = min(box_w, width), min(box_h, height)
    letters = Image.new("L", (box_w, box_h), 0)
    ImageDraw.Draw(letters).text((pad - x0, pad - y0), text, fill=255, font=font)
    plate = Image.new("L", (4 * box_w, 4 * box_h), 0)
    ImageDraw.Draw(plate).rounded_rectangle(
        (0, 0, 4 * box_w - 1, 4 * box_h - 1), radius=4 * pad, fill=round(255 * _BACKGROUND)
    )
    ink = np.asarray(letters, np.float32) / 255
    dark = np.asarray(plate.resize((box_w, box_h), Image.Resampling.BOX), np.float32) / 255
    keep = (1 - dark) * (1 - ink)
    top, left = min(size // 2, height - box_h), min(size // 2, width - box_w)
    return _Patch(
        top,
        left,
        np.round(keep * 256).astype(np.uint16)[..., None],
        np.repeat(np.round(ink * 255 * 256).astype(np.uint16)[..., None], 3, axis=2),
        ink,
    )
