"""The trainer's presets in the words of the app, with what each costs: time, memory, and money elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from talker.errors import ConfigError

PREPARE_SHARE = 1.0
"""Seconds of preparation for each second of clip, on two CPU cores."""

PEAK_GB = {256: 1.7, 512: 2.4}
"""Memory a training was measured to take, by picture size: preview and standard, a clip of 50 seconds (README)."""

PURPOSES: Mapping[str, tuple[str, str]] = {
    "preview": ("Preview", "For trying things out, and for showing a friend."),
    "standard": ("Standard", "For keeping: sharper face, hair and teeth."),
    "egstalker": ("Research: EGSTalker", "For comparing with a published method."),
    "pgstalker": (
        "Research: PGSTalker",
        "For comparing with another published method.",
    ),
}
"""Preset -> title, and what it is for."""

PRICE_VARIABLE = "TALKER_SPACE_PRICE"
"""Dollars an hour of the machine behind ``TALKER_SPACE_URL``; 0 if it costs nothing."""


@dataclass(frozen=True)
class PresetInfo:
    """One choice of quality."""

    name: str
    title: str
    description: str
    """What it is for."""
    minutes: float
    """Estimate for this clip, size and the operator's limit, on this machine."""
    memory_gb: float
    """Memory a training takes, as measured at this picture size."""


def preset_infos(seconds: float, size: int, max_minutes: float | None) -> list[PresetInfo]:
    """All presets, cheapest first as the trainer lists them."""
    from talker.train.presets import PRESETS

    infos = []
    for preset in PRESETS.values():
        minutes = preset.minutes_estimate(seconds, size)
        if max_minutes is not None:  # the limit is on training; looking at the clip comes before it
            minutes = min(minutes, max_minutes + PREPARE_SHARE * seconds / 60 + 0.5)
        title, purpose = PURPOSES.get(preset.name, (preset.title, preset.description))
        infos.append(PresetInfo(preset.name, title, purpose, minutes, memory_gb(size)))
    return infos


def memory_gb(size: int) -> float:
    """Memory at a picture size: the next larger one that was measured."""
    return next((gb for measured, gb in sorted(PEAK_GB.items()) if measured >= size), max(PEAK_GB.values()))


def hourly_price() -> float | None:
    """Dollars an hour of the train Space as its operator states them; ``None`` if nothing is stated.

    Raises:
        ConfigError: ``config.price``: the setting is no amount.
    """
    stated = os.environ.get(PRICE_VARIABLE, "").strip()
    if not stated:
        return None
    try:
        price = float(stated)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1000:
        raise ConfigError(
            "config.price",
            f"{PRICE_VARIABLE} is not an amount.",
            expected="Dollars an hour, such as 0.80, or 0.",
            todo="Correct it and start the app again.",
        )
    return price


def dollars_at_most(minutes: float, price: float) -> float:
    """Price of a training that is no faster than on this machine, rounded up to cents: the machine bills by minute."""
    started = -(-minutes // 1)
    return -(-started * price / 60 * 100 // 1) / 100
