"""The trainer's presets in the words of the app."""

from __future__ import annotations

from dataclasses import dataclass

PREPARE_SHARE = 1.0
"""Seconds of preparation for each second of clip, on two CPU cores."""


@dataclass(frozen=True)
class PresetInfo:
    """One choice of quality."""

    name: str
    title: str
    description: str
    minutes: float
    """Estimate for this clip, size and the operator's limit."""


def preset_infos(seconds: float, size: int, max_minutes: float | None) -> list[PresetInfo]:
    """All presets, cheapest first as the trainer lists them."""
    from talker.train.presets import PRESETS

    infos = []
    for preset in PRESETS.values():
        minutes = preset.minutes_estimate(seconds, size)
        if max_minutes is not None:  # the limit is on training; looking at the clip comes before it
            minutes = min(minutes, max_minutes + PREPARE_SHARE * seconds / 60 + 0.5)
        infos.append(PresetInfo(preset.name, preset.title, preset.description, minutes))
    return infos
