"""Truth and avatar side by side as a video: what the figures of the held-out tail look and sound like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from talker.provenance import sign, stamp_frames
from talker.types import SAMPLE_RATE, Speech
from talker.video.encode import Mp4Writer

PROTOCOLS = {
    "A": "held-out frames, protocol A: the avatar's head over the true frame",
    "B": "held-out frames, protocol B: the whole frame from the avatar",
}
_PAPER, _INK = (24, 24, 28), (235, 235, 235)


@contextmanager
def comparison(
    path: Path, size: int, speech: Speech, *, protocol: str, avatar_name: str
) -> Iterator[Callable[[int, np.ndarray, np.ndarray], None]]:
    """A marked MP4 that takes pairs of frames one by one, and is there, complete, when the block ends well.

    The visible label is on the avatar's half: the other half is a recording.

    Args:
        path: The file to make.
        size: Edge of the frames in pixels.
        speech: The sound of the whole video.
        protocol: ``A`` or ``B``; it is named in the picture.
        avatar_name: For the title of the file.

    Yields:
        A function of the frame's number, the true and the rendered frame, [size, size, 3] uint8 each.

    Raises:
        ProvenanceError: The marks cannot be written; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = _captions(size, PROTOCOLS[protocol])
    with Mp4Writer(path, 2 * size, size + len(captions), sample_rate=SAMPLE_RATE) as writer:
        writer.write_audio(speech.waveform)

        def write(_: int, truth: np.ndarray, frame: np.ndarray) -> None:
            (marked,) = stamp_frames([frame])
            writer.write(np.concatenate([np.concatenate([truth, marked], 1), captions]))

        yield write
    sign(path, avatar_name=avatar_name)


def _captions(size: int, protocol: str) -> np.ndarray:
    """Band [h, 2 size, 3] uint8 for under the pictures; it makes the height of the whole even."""
    from PIL import Image, ImageDraw

    line = max(14, size // 14)
    height = 2 * line + (size % 2)
    band = Image.new("RGB", (2 * size, height), _PAPER)
    draw = ImageDraw.Draw(band)
    for text, centre, row in (("truth", size / 2, 0), ("avatar", 3 * size / 2, 0), (protocol, size, 1)):
        font = _fitting(text, round((0.8, 0.66)[row] * line), 2 * size)
        draw.text((centre, (row + 0.5) * line), text, fill=_INK, font=font, anchor="mm")
    return np.asarray(band)


def _fitting(text: str, size: int, width: int):
    """The font inside Pillow, at ``size`` pixels or as much less as ``text`` needs to fit."""
    from PIL import ImageFont

    while size > 1 and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    return ImageFont.load_default(size)
