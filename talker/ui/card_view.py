"""An avatar on the Hub, shown before it is loaded. Its name, figures and text are a stranger's."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from talker.ui import html
from talker.ui.figures import known
from talker.ui.pictures import inline
from talker.ui.words import say

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

    from talker.hub import HubAvatar
    from talker.hub.look import HubLook

MAX_TEXT = 20_000
# No HTML, no address that could be followed or fetched: what is left cannot do anything.
INERT = ["link", "image", "autolink", "html_inline", "html_block", "reference"]


def card_text(text: str) -> str:
    """Markdown of a stranger as HTML without links, pictures, markup or template characters of their own."""
    lines = [line for line in text[:MAX_TEXT].splitlines() if line.strip() not in ("<Gallery />",)]
    lines = [line for line in lines if not line.startswith("<!--")]
    clean = "\n".join("".join(c for c in line if c.isprintable() or c == "\t") for line in lines)
    rendered = _parser().render(clean)
    for char in "{}$`\\":  # gr.HTML would read them as a template
        rendered = rendered.replace(char, f"&#{ord(char)};")
    return "".join(c for c in rendered if not html.is_bidi(c))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(INERT)


def look_view(look: HubLook) -> str:
    """Poster, facts, figures and card of one avatar."""
    picture = inline(look.poster, 480)
    image = (
        f'<img src="{picture}" alt="">' if picture else f'<span class="tk-noimg">{html.icon("face")}</span>'
    )
    card = look.card
    name = card.name if card else look.repo_id
    rows = [("Repository", look.repo_id)]
    if card:
        rows += [("Picture", f"{card.size} × {card.size}"), ("Gaussians", f"{card.n_gaussians:,}")]
        rows += [("Consent by", card.consent.get("who", "")), *known(card.metrics)]
    note = (
        ""
        if card
        else html.message("warning", "It cannot be loaded.", "This is not an avatar of this version")
    )
    cells = "".join(f"<tr><td>{html.esc(say(k))}</td><td>{html.esc(v)}</td></tr>" for k, v in rows if v)
    text = card_text(look.text)
    more = f'<details class="tk-more"><summary>{say("Its card")}</summary><div class="tk-readme">{text}</div></details>'
    return (
        f'<div class="tk-look"><div class="tk-look-picture">{image}</div><div>'
        f'<div class="tk-detail-head"><h2>{html.esc(name)}</h2>{_pills(look.private, look.gated)}</div>{note}'
        f'<table class="tk-metrics">{cells}</table>{more if text.strip() else ""}</div></div>'
    )


def found_tiles(found: list[HubAvatar], looks: dict[str, HubLook]) -> str:
    """Search results as tiles."""
    tiles = []
    for item in found:
        look = looks.get(item.repo_id)
        picture = inline(look.poster, 320) if look else ""
        image = (
            f'<img src="{picture}" alt="">'
            if picture
            else f'<span class="tk-noimg">{html.icon("face")}</span>'
        )
        card = look.card if look else None
        figures = " · ".join(value for _, value in known(card.metrics)[:1]) if card else ""
        who, _, short = item.repo_id.partition("/")
        words = " · ".join(filter(None, (who, _access(item.private, item.gated), figures)))
        tiles.append(
            f'<button type="button" class="tk-tile" data-id="{html.esc(item.repo_id)}">{image}'
            f'<span class="tk-name">{html.esc(card.name if card else short)}</span>'
            f'<span class="tk-sub">{html.esc(words)}</span></button>'
        )
    return (
        f'<div class="tk-grid" role="group" aria-label="{say("Avatars on the Hub")}">{"".join(tiles)}</div>'
    )


def _access(private: bool, gated: bool) -> str:
    return say("private") if private else say("on request") if gated else ""


def _pills(private: bool, gated: bool) -> str:
    words = _access(private, gated)
    return f'<span class="tk-pill">{words}</span>' if words else ""
