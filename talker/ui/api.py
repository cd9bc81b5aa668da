"""The documented endpoints, for programs: ``talk`` and ``check_clip``; ``agents`` has the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talker.studio import LOCAL, TalkDone
from talker.ui.context import RENDERING, Context, expose, spoken_errors
from talker.ui.live import finished_video


def add_api(context: Context, render: Callable[..., Iterator[Any]]) -> None:
    """Add the endpoints to the present page; they have no visible part."""
    studio = context.studio

    def talk(avatar: str, text: str, voice: str, speed: float, request: gr.Request) -> str:
        """Let an avatar say a sentence; returns an mp4 with sound, labelled and signed as AI-generated.

        Args:
            avatar: Name of the avatar's folder, as in the address of its page.
            text: What it says, up to 2,000 characters.
            voice: Id of a voice; empty for the default one.
            speed: Speaking rate, 1 is normal.
            request: Filled in by the server.
        """
        with spoken_errors():
            owner = _caller(context, request)
            for made in render(avatar, owner, text, None, voice or None, float(speed)):
                if isinstance(made, TalkDone):
                    return expose(made.clip.video)
        raise AssertionError("a run without error ends with a clip")

    def check_clip(clip: str, request: gr.Request) -> dict[str, Any]:
        """Look at a video before making an avatar of it: what is good, what is not, what to do.

        Args:
            clip: The video file.
            request: Filled in by the server.
        """
        with spoken_errors():
            owner = _caller(context, request)
            upload = studio.take(Path(clip), owner)
            try:
                report = studio.check(upload.id, owner)
            finally:
                studio.inbox.discard(upload.id, owner)
        findings = [
            {
                "code": f.code,
                "severity": f.severity,
                "message": f.message,
                "todo": f.todo,
                "when": list(f.when),
            }
            for f in report.findings
        ]
        return {"ok": report.ok, "summary": report.summary, "seconds": report.seconds, "findings": findings}

    with gr.Row(visible=False):
        avatar = gr.Textbox(label="avatar")
        text = gr.Textbox(label="text")
        voice = gr.Textbox(label="voice")
        speed = gr.Number(1.0, label="speed")
        video = finished_video(label="video")
        clip = gr.File(label="clip", type="filepath")
        report = gr.JSON(label="report")
        run_talk, run_check = gr.Button(), gr.Button()
    run_talk.click(
        talk,
        [avatar, text, voice, speed],
        video,
        api_name="talk",
        concurrency_limit=1,
        concurrency_id=RENDERING,
    )
    run_check.click(
        check_clip, clip, report, api_name="check_clip", concurrency_limit=2, concurrency_id="check"
    )


def _caller(context: Context, request: gr.Request) -> str:
    return context.owner(request) if context.shared else LOCAL
