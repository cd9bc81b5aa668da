"""What an avatar takes, in words: time, memory, money."""

from __future__ import annotations

from talker.studio.presets import PresetInfo, dollars_at_most
from talker.ui import html
from talker.ui.words import say

LOCAL = "local"
HERE = "about {time} and {memory} of memory on this machine. It costs nothing."
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
    lines = [say(info.title), say(info.description)]
    if launcher == LOCAL:
        lines += [say("About {time} on this machine", time=_about(info)), _memory(info)]
    else:
        lines += [say("At most {time} elsewhere", time=_about(info)), price_words(info, price)]
    return "\n".join(lines)


def total(info: PresetInfo, size: int, seconds: float, launcher: str, price: float | None) -> str:
    """What is about to be started, and what it takes, as one sentence."""
    clip = html.duration(seconds)
    what = say("{title}, {size} × {size}, from {clip} of video", title=say(info.title), size=size, clip=clip)
    if launcher == LOCAL:
        takes = say(HERE, time=_about(info), memory=f"{info.memory_gb:g} GB")
    else:
        takes = say("at most {time} elsewhere. {price}.", time=_about(info), price=price_words(info, price))
    close = say("You can close the page meanwhile.")
    return f'<p class="tk-total"><b>{html.esc(what)}:</b> {html.esc(takes)} {close}</p>'


def _about(info: PresetInfo) -> str:
    """An estimate of time, on this machine or one that is no faster."""
    return html.duration(60 * max(1, round(info.minutes)))


def price_words(info: PresetInfo, price: float | None) -> str:
    """What a training elsewhere costs, as far as its operator says."""
    if price is None:
        return say("Its owner pays for the machine; the price is not stated")
    if price == 0:
        return say("It costs nothing")
    most = f"${dollars_at_most(info.minutes, price):.2f}"
    return say("At most {most}, at {price} an hour", most=most, price=f"${price:.2f}")


def _memory(info: PresetInfo) -> str:
    return say("About {memory} of memory", memory=f"{info.memory_gb:g} GB")
