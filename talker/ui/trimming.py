"""The part of a clip a person chose."""

from __future__ import annotations

from talker.errors import VideoError
from talker.studio.preflight import Report
from talker.ui.words import say

Part = tuple[float, float]


def chosen_part(only: bool, start: float | None, end: float | None) -> Part | None:
    """What the controls say; ``None`` is the whole clip."""
    return (float(start or 0.0), float(end or 0.0)) if only else None


def kept_seconds(found: Report, part: Part | None) -> float:
    """Length of what is used of the clip."""
    return found.seconds if part is None else max(0.0, min(part[1], found.seconds) - part[0])


def required_part(found: Report | None, part: Part | None) -> Part | None:
    """``part``, if an avatar can be made of it.

    Raises:
        VideoError: ``video.part``: something in it forbids that.
    """
    if found is None or found.allows(part):
        return part
    start, end = found.part or (0.0, 0.0)
    raise VideoError(
        "video.part",
        "This part of the clip cannot be used." if part else "The whole clip cannot be used.",
        expected=say(
            "A part inside the good one from {start:.1f} to {end:.1f} seconds.", start=start, end=end
        )
        if found.part
        else "",
        todo="Move start and end, or use another clip.",
    )
