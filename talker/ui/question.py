"""The left side of the Talk page: who says what, how it moves, and what is behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import VideoError
from talker.studio import Manner
from talker.studio.dubbing import DECLARATION
from talker.ui import html
from talker.ui.context import PICK, markup
from talker.ui.words import fixed, language, say

SENTENCE = "Hello! I was a short video a moment ago. Now I say whatever you type."
BASIC = "The built-in voices are plain machine voices. They need no download, and no network."
DUBBING = (
    "The face of the video says the new words; everything around it stays. The video is looked at first, and "
    "prepared when you press Speak: that takes about as long as it lasts. It is deleted with other uploads after a day."
)
COLOUR = "colour"
GREEN = "#00b140"


@dataclass(frozen=True)
class Asked:
    """The values of :attr:`Question.inputs`, in that order."""

    avatar: str
    source: str
    text: str
    sound: str | None
    spoken: str | None
    texts: str
    sounds: list[str] | None
    language: str
    voice: str | None
    rate: float
    intensity: float
    head_motion: float
    backdrop: str
    colour: str
    film_file: str | None
    film: str
    agreed: bool

    def options(self) -> dict[str, Any]:
        """Arguments of ``Studio.talk`` beside what is said.

        Raises:
            VideoError: That video was not accepted, or is still looked at.
        """
        if self.film_file and not self.film:
            raise VideoError(
                "dub.waiting",
                "The video to speak into is not ready, or cannot be used.",
                todo="Wait until it was looked at, or remove it.",
            )
        background = hex_colour(self.colour) if self.backdrop == COLOUR else self.backdrop
        return {
            "voice": self.voice,
            "language": self.language or language(),
            "rate": self.rate,
            "manner": Manner(self.intensity, self.head_motion, background),
            "over": self.film or None,
            "agreed": self.agreed,
        }

    def said(self) -> dict[str, Any]:
        """What is said, for one clip."""
        if self.source == "text":
            return {"text": self.text}
        path = self.sound if self.source == "file" else self.spoken
        title = Path(path).name if path and self.source == "file" else None
        return {"audio": Path(path) if path else None, "title": title}


def hex_colour(value: str) -> str:
    """The browser's ``rgba(0, 177, 64, 1)`` or ``#00B140`` as ``#00b140``; others as they are, to be refused."""
    found = re.match(r"rgba?\(\s*([\d.]+)[,\s]+([\d.]+)[,\s]+([\d.]+)", value or "")
    if found is None:
        return (value or "").strip().lower()
    return "#" + "".join(f"{min(255, round(float(part))):02x}" for part in found.groups())


class Question:
    """Builds the components."""

    def __init__(self) -> None:
        self.slug = gr.Textbox(visible="hidden", elem_id="tk-chosen-avatar")
        self.source = gr.Textbox("text", visible="hidden", elem_id="tk-chosen-source")
        self.film = gr.State("")
        with gr.Column(elem_classes="tk-card"):
            markup(lambda: html.section("", "Who speaks"))
            self.tiles = markup(js_on_load=PICK, elem_classes="tk-tiles-small", elem_id="tk-who-speaks")
        with gr.Column(elem_classes="tk-card"):
            markup(lambda: html.section("", "What is said"))
            self._sources()
            self._voice()
            self._manner()
            self._background()
            self._film()
            with gr.Row():
                self.speak = gr.Button(
                    fixed("Speak"), variant="primary", size="lg", scale=3, elem_id="tk-speak"
                )
                self.halt = gr.Button(
                    fixed("Stop"), size="lg", scale=1, min_width=80, visible=False, elem_id="tk-halt"
                )

    @property
    def inputs(self) -> list[Any]:
        """Components in the order of :class:`Asked`."""
        return [
            self.slug, self.source, self.text, self.sound, self.spoken, self.texts, self.sounds,
            self.language, self.voice, self.rate, self.intensity, self.head_motion, self.backdrop, self.colour,
            self.film_file, self.film, self.agreed,
        ]  # fmt: skip

    def _sources(self) -> None:
        # Any other format would run a plain decoder on the raw upload before our own, limited one.
        raw: dict[str, Any] = {"show_label": False, "type": "filepath", "format": None, "buttons": []}
        with gr.Tabs(elem_id="tk-source"):
            with gr.Tab(fixed("Text"), id="text") as text:
                self.text = gr.Textbox(
                    label=fixed("Text"),
                    show_label=False,
                    lines=4,
                    max_lines=10,
                    placeholder=fixed("Type what the avatar should say"),
                    elem_id="tk-text",
                )
            with gr.Tab(fixed("File"), id="file") as file:
                self.sound = gr.Audio(
                    label=fixed("Sound file"), sources=["upload"], elem_id="tk-sound", **raw
                )
            with gr.Tab(fixed("Record"), id="mic") as mic:
                self.spoken = gr.Audio(
                    label=fixed("Recording"), sources=["microphone"], elem_id="tk-mic", **raw
                )
            with gr.Tab(fixed("Several"), id="several") as several:
                self.texts = gr.Textbox(
                    label=fixed("Texts"),
                    info=fixed(
                        "Each line becomes a clip of its own; with empty lines between, each paragraph."
                    ),
                    lines=5,
                    max_lines=12,
                    elem_id="tk-texts",
                )
                self.sounds = gr.File(
                    label=fixed("And sound files"),
                    file_count="multiple",
                    type="filepath",
                    height=140,
                    elem_id="tk-sounds",
                )
        self.tabs = {"text": text, "file": file, "mic": mic, "several": several}

    def _voice(self) -> None:
        with gr.Row(elem_classes="tk-flat") as self.voices:
            self.language = gr.Dropdown(
                label=fixed("Language"), choices=[], scale=2, min_width=130, elem_id="tk-language"
            )
            self.voice = gr.Dropdown(
                label=fixed("Voice"), choices=[], scale=3, min_width=150, elem_id="tk-voice"
            )
            self.rate = gr.Slider(
                0.6,
                1.6,
                1.0,
                step=0.05,
                label=fixed("Speed"),
                info=fixed(BASIC),
                buttons=[],
                elem_id="tk-rate",
            )

    def _manner(self) -> None:
        with gr.Accordion(fixed("How it moves"), open=False, elem_id="tk-manner", elem_classes="tk-fold"):
            self.intensity = gr.Slider(
                0,
                2,
                1.0,
                step=0.05,
                label=fixed("Expression"),
                info=fixed("How far the lips move: 1 is as learnt, 0 keeps them at rest."),
                buttons=["reset"],
                elem_id="tk-intensity",
            )
            self.head_motion = gr.Slider(
                0,
                1.5,
                1.0,
                step=0.05,
                label=fixed("Head motion"),
                info=fixed("1 moves as in the clip, 0 holds still."),
                buttons=["reset"],
                elem_id="tk-head-motion",
            )

    def _background(self) -> None:
        with gr.Accordion(fixed("Background"), open=False, elem_id="tk-background", elem_classes="tk-fold"):
            choices = [
                (fixed("As in the clip"), "clip"),
                (fixed("A colour"), COLOUR),
                (fixed("Transparent"), "transparent"),
            ]
            self.backdrop = gr.Radio(
                choices,
                value="clip",
                label=fixed("Background"),
                show_label=False,
                info=fixed(
                    "A transparent clip is downloaded as a .mov (ProRes 4444) that editors lay over anything."
                ),
                elem_id="tk-backdrop",
            )
            self.colour = gr.ColorPicker(GREEN, label=fixed("Colour"), visible=False, elem_id="tk-colour")

    def _film(self) -> None:
        title = fixed("Speak into a video of this person")
        with gr.Accordion(title, open=False, elem_id="tk-dub", elem_classes="tk-fold"):
            markup(lambda: f'<p class="tk-hint">{html.esc(say(DUBBING))}</p>')
            self.film_file = gr.File(
                label=fixed("Video"), file_types=["video"], type="filepath", height=120, elem_id="tk-film"
            )
            self.film_status = markup(elem_id="tk-film-status")
            self.agreed = gr.Checkbox(label=fixed(DECLARATION), visible=False, elem_id="tk-film-agreed")
