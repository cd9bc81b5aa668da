"""Avatars and clips as tiles."""

from __future__ import annotations

from collections.abc import Sequence

from talker.studio.clips import Clip
from talker.studio.gallery import AvatarInfo
from talker.ui import html
from talker.ui.pictures import thumbnail
from talker.ui.words import say


def _tile(identity: str, picture: str, name: str, sub: str, chosen: bool) -> str:
    image = (
        f'<img src="{picture}" alt="">' if picture else f'<span class="tk-noimg">{html.icon("face")}</span>'
    )
    return (
        f'<button type="button" class="tk-tile" data-id="{html.esc(identity)}" '
        f'aria-pressed="{"true" if chosen else "false"}">{image}'
        f'<span class="tk-name">{html.esc(name)}</span><span class="tk-sub">{html.esc(sub)}</span></button>'
    )


def avatar_tiles(avatars: Sequence[AvatarInfo], chosen: str, side: int = 320) -> str:
    """One tile an avatar."""
    tiles = "".join(
        _tile(
            a.slug,
            thumbnail(a.poster, side),
            a.card.name,
            f"{a.card.preset} · {a.card.size} px",
            a.slug == chosen,
        )
        for a in avatars
    )
    return f'<div class="tk-grid" role="group" aria-label="{say("Avatars")}">{tiles}</div>'


def clip_tiles(clips: Sequence[Clip], chosen: str = "") -> str:
    """One tile a finished clip."""
    tiles = "".join(
        _tile(
            c.id,
            thumbnail(c.poster, 240),
            c.title,
            f"{html.duration(c.seconds)} · {html.ago(c.created)}",
            c.id == chosen,
        )
        for c in clips
    )
    return f'<div class="tk-grid" role="group" aria-label="{say("Your clips")}">{tiles}</div>'
