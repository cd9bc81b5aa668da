"""Fragments of HTML as plain strings. Everything that came from a person passes through :func:`esc`.

What is built here says its own words, and the headings and labels it is given, in the language of the moment.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from talker.ui.words import say, say_all

LOGO = (
    '<svg class="tk-logo" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="10"/>'
    '<g><rect x="7" y="13" width="3.4" height="6" rx="1.7"/><rect x="12.2" y="9" width="3.4" height="14" rx="1.7"/>'
    '<rect x="17.4" y="11" width="3.4" height="10" rx="1.7"/><rect x="22.6" y="14" width="3.4" height="4" rx="1.7"/>'
    "</g></svg>"
)
LABELLED = "Every clip made here is labelled as AI-generated and carries a signed record of its origin."
PAGES = (("Create", ""), ("Talk", "talk"), ("Avatars", "avatars"), ("Jobs", "jobs"))
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"
ICONS = {
    "check": '<path d="M4 10.5l4 4 8-9"/>',
    "warning": '<path d="M10 3l8 14H2z"/><path d="M10 8v4M10 14.6v.2"/>',
    "error": '<circle cx="10" cy="10" r="7.5"/><path d="M7.3 7.3l5.4 5.4M12.7 7.3l-5.4 5.4"/>',
    "info": '<circle cx="10" cy="10" r="7.5"/><path d="M10 9.2v4.6M10 6.2v.2"/>',
    "face": '<circle cx="10" cy="7.5" r="4"/><path d="M3.5 17.5c1-3.6 3.6-5 6.5-5s5.5 1.4 6.5 5"/>',
    "sun": '<circle cx="10" cy="10" r="3.4"/><path d="M10 2v2M10 16v2M2 10h2M16 10h2M4.5 4.5l1.4 1.4'
    'M14.1 14.1l1.4 1.4M15.5 4.5l-1.4 1.4M5.9 14.1l-1.4 1.4"/>',
    "clock": '<circle cx="10" cy="10" r="7.5"/><path d="M10 5.5V10l3 2"/>',
    "mic": '<rect x="7.5" y="2.5" width="5" height="9" rx="2.5"/>'
    '<path d="M4.5 9.5a5.5 5.5 0 0 0 11 0M10 15v2.5"/>',
    "lock": '<rect x="4.5" y="9" width="11" height="8" rx="2"/><path d="M7 9V6.5a3 3 0 0 1 6 0V9"/>',
    "film": '<rect x="2.5" y="4.5" width="15" height="11" rx="2"/><path d="M8.3 7.8v4.4l4-2.2z"/>',
    "people": '<circle cx="7" cy="7.5" r="3"/><path d="M2 16c.6-3 2.6-4.2 5-4.2s4.4 1.2 5 4.2"/>'
    '<path d="M13 5a3 3 0 0 1 0 5.3M15 12.2c1.6.6 2.6 1.8 3 3.8"/>',
}


def esc(value: object) -> str:
    """Text made safe for HTML, and for the template language of ``gr.HTML`` (braces, dollars, backticks)."""
    text = html.escape(plain(value), quote=True)
    for char in "{}$`\\":
        text = text.replace(char, f"&#{ord(char)};")
    return text


def plain(value: object) -> str:
    """Text without control characters, for places that take no markup."""
    return "".join(c for c in str(value) if c in "\n\t" or (c.isprintable() and not is_bidi(c)))


def is_bidi(char: str) -> bool:
    """Controls that reverse the writing direction of what follows."""
    return "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"


def icon(name: str) -> str:
    """A line icon, 20 units square."""
    return f'<svg class="tk-icon" viewBox="0 0 20 20" aria-hidden="true">{ICONS[name]}</svg>'


def header(active: str) -> str:
    """Brand and navigation; relative links so that the app also works below a path."""
    links = "".join(
        f'<a href="./{path}"{" aria-current=page" if label == active else ""}>{say(label)}</a>'
        for label, path in PAGES
    )
    return (
        f'<header class="tk-header"><a class="tk-brand" href="./" aria-label="talker">{LOGO}<span>talker</span></a>'
        f'<nav aria-label="{say("Pages")}">{links}</nav>'
        f'<button class="tk-mode" type="button" data-mode aria-label="{say("Switch between light and dark")}">'
        f"{icon('sun')}</button></header>"
    )


def footer(report_url: str = "") -> str:
    """What every page says about responsible use, and where misuse is reported."""
    misuse = say("Report misuse")
    link = f' <a href="{esc(report_url)}" rel="noopener">{misuse}</a>' if report_url else ""
    origin = f'<a href="./origin">{say("Was this made here?")}</a>'
    agreed = say("Only make avatars of people who agreed.")
    return f'<footer class="tk-footer">{say(LABELLED)} {origin} {agreed}{link}</footer>'


def title(heading: str, text: str) -> str:
    """Heading of a page."""
    return f'<div class="tk-title"><h1>{esc(say(heading))}</h1><p>{esc(say(text))}</p></div>'


def section(number: str, heading: str, text: str = "") -> str:
    """Heading of a step."""
    more = f"<p>{esc(say(text))}</p>" if text else ""
    badge = f'<span class="tk-step">{esc(number)}</span>' if number else ""
    return f'<div class="tk-section">{badge}<div><h2>{esc(say(heading))}</h2>{more}</div></div>'


def empty(icon_name: str, heading: str, text: str, link: tuple[str, str] | None = None) -> str:
    """An empty state that says what will be here and how to get it."""
    action = f'<a class="tk-button" href="./{link[1]}">{esc(say(link[0]))}</a>' if link else ""
    words = f"<h2>{esc(say(heading))}</h2><p>{esc(say(text))}</p>"
    return f'<div class="tk-empty">{icon(icon_name)}{words}{action}</div>'


def loading() -> str:
    """Grey shapes where the content will be."""
    return f'<div class="tk-skeleton" role="status" aria-label="{say("Loading")}"><i></i><i></i><i></i></div>'


def failed() -> str:
    """When a page could not be filled."""
    return message(
        "error", "Reload the page. Nothing that runs or is saved is affected.", "This page did not load"
    )


def message(level: str, text: str, heading: str = "") -> str:
    """A banner; ``level`` is ``info``, ``warning``, ``error`` or ``check``."""
    head = f"<strong>{esc(say(heading))}</strong>" if heading else ""
    role = "alert" if level == "error" else "status"
    words = f"<div>{head}<p>{esc(say_all(text))}</p></div>"
    return f'<div class="tk-banner tk-{level}" role="{role}">{icon(level)}{words}</div>'


def facts(items: Iterable[tuple[str, str]]) -> str:
    """Label and value pairs in a row."""
    cells = "".join(f"<div><dt>{esc(say(label))}</dt><dd>{esc(value)}</dd></div>" for label, value in items)
    return f'<dl class="tk-facts">{cells}</dl>'


def bar(percent: float | None) -> str:
    """A progress bar; None while the end is unknown."""
    named = f'role="progressbar" aria-label="{say("Progress")}"'
    if percent is None:
        return f'<div class="tk-bar tk-unknown" {named}><i></i></div>'
    value = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent:.0f}"'
    return f'<div class="tk-bar" {named} {value}><i style="width:{percent:.0f}%"></i></div>'


def duration(seconds: float | None) -> str:
    """``75`` -> ``1 min 15 s``; an empty string if unknown."""
    if seconds is None or seconds < 0:
        return ""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds < 300 and seconds % 60 else "")
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def ago(when: str | float) -> str:
    """A moment (ISO 8601 or seconds since 1970) as a person says it."""
    try:
        moment = when if isinstance(when, (int, float)) else datetime.fromisoformat(when).timestamp()
    except ValueError:
        return ""
    passed = time.time() - moment
    if passed < 60:
        return say("just now")
    if passed < 3600:
        return say("{n} min ago", n=int(passed // 60))
    if passed < 86400:
        return say("{n} h ago", n=int(passed // 3600))
    return date(datetime.fromtimestamp(moment, UTC))


def date(moment: datetime) -> str:
    """``05 Mar 2026``."""
    return f"{moment:%d} {say(MONTHS).split()[moment.month - 1]} {moment:%Y}"


def size_of(n_bytes: int) -> str:
    """Bytes for people."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{max(1, round(n_bytes / 1e3))} kB"
