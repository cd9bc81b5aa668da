"""What an avatar takes, in words: time, memory, money."""

from __future__ import annotations

from talker.studio.presets import PresetInfo, dollars_at_most
from talker.ui import html

LOCAL = "local"
PLACES = {
    LOCAL: "This machine",
    "space": "The train Space: the clip is sent there",
    "jobs": "A rented machine of the Hub: the clip is sent there, you pay by the minute",
}


def place_name(launcher: str) -> str:
    """Where a job is trained, as a choice."""
    return PLACES.get(launcher, launcher.replace("_", " ").capitalize())


def preset_card(info: PresetInfo, launcher: str, price: float | None) -> str:
    """A preset as lines of a card; the first is its title."""
    lines = [info.title, info.description, f"{about(info.minutes)} on this machine", _memory(info)]
    if launcher != LOCAL:
        lines[2:] = [f"At most {html.duration(_seconds(info))} elsewhere", price_words(info, price)]
    return "\n".join(lines)


def total(info: PresetInfo, size: int, seconds: float, launcher: str, price: float | None) -> str:
    """What is about to be started, and what it takes, as one sentence."""
    what = f"{info.title}, {size} × {size}, from {html.duration(seconds)} of video"
    if launcher == LOCAL:
        memory = f"{info.memory_gb:g} GB of memory"
        takes = f"{about(info.minutes).lower()} and {memory} on this machine. It costs nothing."
    else:
        takes = f"at most {html.duration(_seconds(info))} elsewhere. {price_words(info, price)}."
    return f'<p class="tk-total"><b>{html.esc(what)}:</b> {html.esc(takes)} You can close the page meanwhile.</p>'


def about(minutes: float) -> str:
    """An estimate of time."""
    return f"About {html.duration(60 * max(1, round(minutes)))}"


def price_words(info: PresetInfo, price: float | None) -> str:
    """What a training elsewhere costs, as far as its operator says."""
    if price is None:
        return "Its owner pays for the machine; the price is not stated"
    if price == 0:
        return "It costs nothing"
    return f"At most ${dollars_at_most(info.minutes, price):.2f}, at ${price:.2f} an hour"


def _memory(info: PresetInfo) -> str:
    return f"About {info.memory_gb:g} GB of memory"


def _seconds(info: PresetInfo) -> float:
    """On a machine that is no faster than this one."""
    return 60 * max(1, round(info.minutes))
