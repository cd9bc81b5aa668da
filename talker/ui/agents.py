"""More endpoints for programs and agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import ConfigError
from talker.ui.context import Context, spoken_errors


def add_agents(context: Context) -> None:
    """Add the endpoints to the present page; they have no visible part."""
    studio = context.studio

    def list_avatars(request: gr.Request) -> list[dict[str, Any]]:
        """List the avatars that can talk here: pass the value of "avatar" to talk.

        Args:
            request: Filled in by the server.
        """
        with spoken_errors():
            return [
                {
                    "avatar": info.slug,
                    "name": info.card.name,
                    "preset": info.card.preset,
                    "size": info.card.size,
                    "gaussians": info.card.n_gaussians,
                    "created": info.card.created,
                    "metrics": dict(info.card.metrics),
                }
                for info in studio.avatars(context.owner(request))
            ]

    def was_made_here(clip: str, request: gr.Request) -> dict[str, Any]:
        """Read the marks of origin of an MP4: is it AI-generated, was it made with talker, was it changed since?

        Args:
            clip: The MP4 file.
            request: Filled in by the server.
        """
        if not clip:
            with spoken_errors():
                raise ConfigError("clip.missing", "There is no video.", todo="Send an MP4 file.")
        path = Path(clip)
        try:
            with spoken_errors():
                context.owner(request)
                return studio.origin_of(path)
        finally:
            path.unlink(missing_ok=True)

    with gr.Row(visible=False):
        avatars = gr.JSON(label="avatars")
        clip = gr.File(label="clip", type="filepath")
        origin = gr.JSON(label="origin")
        run_list, run_origin = gr.Button(), gr.Button()
    run_list.click(list_avatars, None, avatars, api_name="list_avatars")
    run_origin.click(
        was_made_here, clip, origin, api_name="was_made_here", concurrency_limit=2, concurrency_id="check"
    )
