"""The documented endpoints, for programs: ``talk`` and ``check_clip``; ``agents`` has the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talker.studio import LOCAL, Manner, TalkDone
from talker.ui.context import MAX_WAITING, RENDERING, Context, expose, spoken_errors
from talker.ui.live import finished_video


def add_api(context: Context, render: Callable[..., Iterator[Any]]) -> None:
    """Add the endpoints to the present page; they have no visible part."""
    studio = context.studio

    def talk(  # noqa: PLR0913, PLR0917 - the fields of the endpoint
        avatar: str,
        text: str,
        voice: str,
        speed: float,
        intensity: float,
        head_motion: float,
        background: str,
        language: str,
        audio: str | None = None,
        request: gr.Request | None = None,
    ) -> str:
        """Let an avatar say a sentence; returns a video with sound, labelled and signed as AI-generated.

        Args:
            avatar: Name of the avatar's folder, as in the address of its page.
            text: What it says, up to 2,000 characters; empty if a recording is given.
            voice: Id of a voice; empty for the default one of the language.
            speed: Speaking rate, 0.5 to 2; 1 is normal.
            intensity: How far the lips move, 0 to 2; 1 is as learnt, 0 keeps them at rest.
            head_motion: How much the head moves, 0 to 1.5; 1 is as in the clip, 0 holds still.
            background: "clip" for the one of the clip, a colour like "#00b140", or "transparent". The video is
                an mp4, or a mov (ProRes 4444 with alpha) if transparent.
            language: Of the text, such as "en" or "de", if no voice is given.
            audio: A recording to speak instead of the text, up to 10 minutes; none by default.
            request: Filled in by the server.
        """
        assert request is not None, "the server fills it in"
        with spoken_errors():
            owner, clip = _caller(context, request), None
            for made in render(
                avatar,
                owner,
                text=text or None,
                audio=Path(audio) if audio else None,
                voice=voice or None,
                language=language or "en",
                rate=float(speed),
                manner=Manner(float(intensity), float(head_motion), background or "clip"),
            ):
                if isinstance(made, TalkDone):
                    clip = (
                        made.clip
                    )  # no return here: only a run that ends by itself teaches the line its usual time
        assert clip is not None, "a run without error ends with a clip"
        return expose(clip.download)

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
        # What has a value here may be left out by a program.
        avatar = gr.Textbox(label="avatar")
        text = gr.Textbox("", label="text")
        voice = gr.Textbox("", label="voice")
        speed = gr.Number(1.0, label="speed")
        intensity = gr.Number(1.0, label="intensity")
        head_motion = gr.Number(1.0, label="head_motion")
        background = gr.Textbox("clip", label="background")
        language = gr.Textbox("en", label="language")
        audio = gr.File(label="audio", type="filepath")
        video = finished_video(label="video")
        clip = gr.File(label="clip", type="filepath")
        report = gr.JSON(label="report")
        run_talk, run_check = gr.Button(), gr.Button()
    run_talk.click(
        talk,
        [avatar, text, voice, speed, intensity, head_motion, background, language, audio],
        video,
        api_name="talk",
        concurrency_limit=MAX_WAITING,
        concurrency_id=RENDERING,
    )
    run_check.click(
        check_clip, clip, report, api_name="check_clip", concurrency_limit=2, concurrency_id="check"
    )


def _caller(context: Context, request: gr.Request) -> str:
    return context.owner(request) if context.shared else LOCAL
