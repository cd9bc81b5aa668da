"""Was this made here? A video is read for its marks of origin, told in words, and deleted again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from talker.ui import html
from talker.ui.context import Context, markup, spoken_errors
from talker.ui.words import fixed, say

WORDS = (
    "Every clip made here says so in its plain tags and in a signed record. Choose a video: it is read on this "
    "server, shown to nobody and deleted at once."
)
PROVES_NOTHING = (
    "Marks can be removed by somebody determined, and other programs leave none: no mark proves nothing."
)


class OriginPage:
    """Lays the page out and wires it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        markup(lambda: html.header(""))
        markup(lambda: html.title("Was this made here?", "What a video says about its own origin."))
        with gr.Column(elem_classes="tk-card"):
            markup(lambda: f'<p class="tk-status">{html.esc(say(WORDS))}</p>')
            clip = gr.File(
                label=fixed("A video (MP4)"),
                type="filepath",
                file_types=[".mp4"],
                height=150,
                elem_id="tk-origin-clip",
            )
            said = markup(elem_id="tk-origin")
            again = gr.Button(fixed("Check another one"), visible=False, elem_id="tk-origin-again")
        markup(lambda: html.footer(context.studio.config.report_url))
        clip.upload(self.on_clip, clip, [said, clip, again], api_visibility="private")
        again.click(self.on_again, None, [said, clip, again], api_visibility="private")

    def on_clip(self, clip: str) -> tuple[str, Any, Any]:
        """Read the marks; the upload is deleted whatever they say."""
        path = Path(clip)
        try:
            with spoken_errors():
                found = self.context.studio.origin_of(path)
        finally:
            path.unlink(missing_ok=True)
        return origin_view(found), gr.update(value=None, visible=False), gr.update(visible=True)

    def on_again(self) -> tuple[str, Any, Any]:
        """Back to the upload."""
        return "", gr.update(value=None, visible=True), gr.update(visible=False)


def origin_view(found: dict[str, Any]) -> str:
    """The marks of a video in words; :func:`talker.provenance.inspect` found them."""
    manifest = found["c2pa"]
    changed = manifest is not None and not manifest["intact"]
    level = "warning" if changed else "check" if found["made_by_talker"] else "info"
    if changed:
        heading = "Marked, but changed since"
    elif found["made_by_talker"]:
        heading = "Made with talker"
    elif found["ai_generated"]:
        heading = "AI-generated, with another program"
    else:
        heading = "No mark of talker"
    state = "none" if manifest is None else "intact" if manifest["intact"] else "broken"
    rows = [
        ("Signed record (C2PA)", say(state)),
        ("Says it was made by", manifest["software"] if manifest else ""),
        ("Signed by", manifest["signer"] if manifest else ""),
        ("Plain tag", found["comment"][:200]),
        ("Picture metadata (XMP)", say("AI-generated" if found["xmp"] else "none")),
    ]
    cells = "".join(f"<tr><td>{html.esc(say(k))}</td><td>{html.esc(v)}</td></tr>" for k, v in rows if v)
    note = f'<p class="tk-status">{html.esc(say(PROVES_NOTHING))}</p>'
    return f'{html.message(level, found["summary"], heading)}<table class="tk-metrics">{cells}</table>{note}'
