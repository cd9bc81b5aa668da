"""Talk: an avatar, something to say, and the video while it is being made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talker.errors import TalkerError
from talker.studio import TalkChunk, TalkDone
from talker.studio.clips import Clip
from talker.ui import html
from talker.ui.context import PICK, QUIET, RENDERING, Context, expose, markup, spoken_errors
from talker.ui.live import finished_video, live_video
from talker.ui.pictures import thumbnail
from talker.ui.tiles import avatar_tiles, clip_tiles

REMEMBER = "(slug) => { if (slug) history.replaceState(null, '', './talk?avatar=' + slug); }"
SHOW_LIVE = """() => {
  const stage = document.querySelector('#tk-stage');
  stage.classList.remove('tk-show-final', 'tk-idle'); stage.classList.add('tk-live');
  if (window.innerWidth < 900) stage.scrollIntoView({behavior: 'smooth'});
}"""
# The live picture may still be playing when the last frame is done: let it end before the finished clip takes over.
SHOW_FINAL = """() => {
  const stage = document.querySelector('#tk-stage');
  const live = document.querySelector('#tk-live video');
  const swap = () => {
    if (!stage.classList.contains('tk-live')) return;
    stage.classList.remove('tk-live');
    stage.classList.add(document.querySelector('#tk-final video') ? 'tk-show-final' : 'tk-idle');
  };
  if (!live || live.ended || live.error || live.readyState < 2) { swap(); return; }
  live.addEventListener('ended', swap, {once: true});
  live.addEventListener('error', swap, {once: true});
}"""
SHOW_FINAL_NOW = """() => {
  const stage = document.querySelector('#tk-stage');
  document.querySelector('#tk-live video')?.pause();
  stage.classList.remove('tk-live', 'tk-idle'); stage.classList.add('tk-show-final');
}"""
SHOW_IDLE = """() => {
  const stage = document.querySelector('#tk-stage');
  document.querySelectorAll('#tk-live video, #tk-final video').forEach((v) => v.pause());
  stage.classList.remove('tk-live', 'tk-show-final'); stage.classList.add('tk-idle');
}"""
SENTENCE = "Hello! I was a short video a moment ago. Now I say whatever you type."
FACE = 200
ENGLISH = ("en", "en-us", "en-gb")
BASIC = "The built-in voices are plain machine voices. They need no download, and no network."

Render = Callable[..., Iterator[TalkChunk | TalkDone]]


def make_render(context: Context) -> Render:
    """The one function that renders, wrapped for a borrowed GPU where the host lends one."""

    def render(
        avatar: str, owner: str, text: str | None, audio: str | None, voice: str | None, rate: float
    ) -> Iterator[TalkChunk | TalkDone]:
        path = Path(audio) if audio else None
        yield from context.studio.talk(avatar, owner, text=text, audio=path, voice=voice, rate=rate)

    try:
        import spaces
    except ImportError:
        return render
    return spaces.GPU(duration=120)(render)


class TalkPage:
    """Lays the page out and wires it.

    Args:
        context: See :class:`talker.ui.context.Context`.
        demo: The app; the page is the one being built.
        render: From :func:`make_render`.
    """

    def __init__(self, context: Context, demo: gr.Blocks, render: Render) -> None:
        self.context, self.studio, self.render = context, context.studio, render
        markup(html.header("Talk"))
        markup(
            html.title(
                "Talk", "Choose an avatar, give it something to say, and watch while it is being rendered."
            )
        )
        self.nobody = markup(html.loading())
        self.slug = gr.Textbox(visible="hidden", elem_id="tk-chosen-avatar")
        self.clip_id = gr.State("")
        self.source = gr.State("text")
        with gr.Row(equal_height=False, visible=False) as self.page:
            with gr.Column(scale=5, min_width=300):
                self._question()
            with gr.Column(scale=7, min_width=320):
                self._answer()
        markup(html.footer(self.studio.config.report_url))
        self._wire(demo)

    def _question(self) -> None:
        with gr.Column(elem_classes="tk-card"):
            markup(html.section("", "Who speaks"))
            self.tiles = markup(js_on_load=PICK, elem_classes="tk-tiles-small", elem_id="tk-who-speaks")
        with gr.Column(elem_classes="tk-card"):
            markup(html.section("", "What is said"))
            with gr.Tabs(elem_id="tk-source"):
                with gr.Tab("Text", id="text") as text_tab:
                    self.text = gr.Textbox(
                        label="Text",
                        show_label=False,
                        lines=4,
                        max_lines=10,
                        max_length=2000,
                        value=SENTENCE,
                        placeholder="Type what the avatar should say",
                        elem_id="tk-text",
                    )
                    self.voice = gr.Dropdown(label="Voice", choices=[], info=BASIC, elem_id="tk-voice")
                    self.rate = gr.Slider(
                        0.6, 1.6, 1.0, step=0.05, label="Speed", buttons=[], elem_id="tk-rate"
                    )
                # Any other format would run a plain decoder on the raw upload before our own, limited one.
                raw: dict[str, Any] = {"show_label": False, "type": "filepath", "format": None, "buttons": []}
                with gr.Tab("Sound file", id="file") as file_tab:
                    self.sound = gr.Audio(label="Sound file", sources=["upload"], elem_id="tk-sound", **raw)
                with gr.Tab("Microphone", id="mic") as mic_tab:
                    self.spoken = gr.Audio(label="Recording", sources=["microphone"], elem_id="tk-mic", **raw)
            self.tabs = {"text": text_tab, "file": file_tab, "mic": mic_tab}
            with gr.Row():
                self.speak = gr.Button("Speak", variant="primary", size="lg", scale=3, elem_id="tk-speak")
                self.halt = gr.Button(
                    "Stop", size="lg", scale=1, min_width=80, visible=False, elem_id="tk-halt"
                )

    def _answer(self) -> None:
        shown: dict[str, Any] = {
            "show_label": False,
            "buttons": [],
            "elem_classes": "tk-player",
            "height": 420,
        }
        with gr.Column(elem_classes="tk-card tk-idle", elem_id="tk-stage"):
            self.idle = markup(elem_id="tk-idle-picture")
            self.live = live_video(label="Live", elem_id="tk-live", **shown)
            self.final = finished_video(label="Finished clip", elem_id="tk-final", **shown)
            self.status = markup(elem_id="tk-talk-status")
            with gr.Row(visible=False) as self.results:
                self.download = gr.DownloadButton(
                    "Download", variant="primary", min_width=140, elem_id="tk-download"
                )
                self.captions = gr.DownloadButton("Captions", min_width=100, elem_id="tk-srt")
                self.remove = gr.Button("Delete", min_width=90, elem_id="tk-delete-clip")
        self.shelf_head = markup(visible=False)
        self.shelf = markup(js_on_load=PICK, elem_classes="tk-tiles-small", elem_id="tk-clips")

    def _wire(self, demo: gr.Blocks) -> None:
        load = demo.load(
            self.on_load,
            None,
            [
                self.nobody,
                self.page,
                self.slug,
                self.tiles,
                self.voice,
                self.idle,
                self.shelf_head,
                self.shelf,
            ],
            **QUIET,
        )
        load.failure(html.failed, None, self.nobody, **QUIET)
        for kind, tab in self.tabs.items():
            tab.select(lambda k=kind: k, None, self.source, queue=False, **QUIET)
        picked = self.tiles.pick(self.on_pick, None, [self.slug, self.tiles, self.idle], queue=False, **QUIET)
        picked.success(None, self.slug, None, js=REMEMBER, **QUIET).success(
            None, None, None, js=SHOW_IDLE, **QUIET
        )
        clip = [
            self.final,
            self.status,
            self.results,
            self.download,
            self.captions,
            self.clip_id,
            self.shelf_head,
            self.shelf,
        ]
        self.speak.click(None, None, None, js=SHOW_LIVE, **QUIET)
        run = self.speak.click(
            self.on_speak,
            [self.slug, self.source, self.text, self.sound, self.spoken, self.voice, self.rate],
            [self.live, *clip, self.speak, self.halt],
            concurrency_limit=1,
            concurrency_id=RENDERING,
            **QUIET,
        )
        run.success(None, None, None, js=SHOW_FINAL, **QUIET)
        over = [self.status, self.speak, self.halt]
        run.failure(
            lambda: [html.message("error", "Something went wrong. Try again."), *_ready()],
            None,
            over,
            queue=False,
            **QUIET,
        ).then(None, None, None, js=SHOW_IDLE, **QUIET)
        self.halt.click(
            lambda: [_status("Stopped."), *_ready()], None, over, cancels=[run], queue=False, **QUIET
        ).then(None, None, None, js=SHOW_IDLE, **QUIET)
        self.shelf.pick(self.on_clip, None, clip, **QUIET).success(
            None, None, None, js=SHOW_FINAL_NOW, **QUIET
        )
        self.remove.click(self.on_remove, self.clip_id, clip, **QUIET).success(
            None, None, None, js=SHOW_IDLE, **QUIET
        )

    def on_load(self, request: gr.Request) -> list[Any]:
        """Fill the page; the address may name an avatar."""
        with spoken_errors():
            owner = self.context.owner(request)
            avatars = self.studio.avatars(owner)
            if not avatars:
                words = (
                    "Make one from a short video, or load one from the Hub. Then it says what you type here."
                )
                empty = html.empty("people", "No avatar yet", words, ("Create an avatar", ""))
                return [gr.update(value=empty, visible=True), *[gr.skip()] * 7]
            asked = dict(request.query_params or {}).get("avatar", "")
            chosen = asked if asked in {a.slug for a in avatars} else avatars[0].slug
            return [
                gr.update(visible=False),
                gr.update(visible=True),
                chosen,
                avatar_tiles(avatars, chosen, FACE),
                self._voices(),
                self._waiting(chosen, owner),
                *self._clips(owner),
            ]

    def on_pick(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """Another avatar was chosen."""
        with spoken_errors():
            owner = self.context.owner(request)
            chosen = self.studio.avatar(str(event.id), owner).slug
            return [
                chosen,
                avatar_tiles(self.studio.avatars(owner), chosen, FACE),
                self._waiting(chosen, owner),
            ]

    def on_speak(
        self,
        avatar: str,
        kind: str,
        words: str,
        file: str | None,
        recording: str | None,
        voice: str | None,
        speed: float,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Render; every piece goes to the player at once, the finished clip at the end."""
        busy = [gr.update(interactive=False), gr.update(visible=True)]
        rest = [gr.skip()] * 5
        yield [gr.skip(), None, _status("Getting ready"), gr.update(visible=False), *rest, *busy]
        try:
            owner = self.context.owner(request)
            text = words if kind == "text" else None
            audio = {"file": file, "mic": recording}.get(kind)
            for made in self.render(avatar, owner, text, audio, voice, speed):
                if isinstance(made, TalkChunk):
                    yield [made, gr.skip(), _progress(made), gr.skip(), *rest, *busy]
                else:
                    yield [
                        gr.skip(),
                        *self._finished(made.clip),
                        *self._clips(owner, made.clip.id),
                        *_ready(),
                    ]
        except TalkerError as error:
            # Beside the picture, where it stays, rather than in a box that fades.
            yield [
                gr.skip(),
                None,
                html.message("error", str(error)),
                gr.update(visible=False),
                *rest,
                *_ready(),
            ]

    def on_clip(self, request: gr.Request, event: gr.EventData) -> list[Any]:
        """An earlier clip was chosen."""
        with spoken_errors():
            owner = self.context.owner(request)
            clip = self.studio.clip(str(event.id), owner)
            return [*self._finished(clip), *self._clips(owner, clip.id)]

    def on_remove(self, chosen: str, request: gr.Request) -> list[Any]:
        """Delete the shown clip."""
        with spoken_errors():
            owner = self.context.owner(request)
            self.studio.delete_clip(chosen, owner)
            return [None, _status("Deleted."), gr.update(visible=False), None, None, "", *self._clips(owner)]

    def _voices(self) -> Any:
        voices = [
            (v.name.replace(" (basic voice)", ""), v.id, v.language.lower()) for v in self.studio.voices()
        ]
        liked = min(
            voices, key=lambda v: (v[2] not in ENGLISH, not v[2].startswith("en")), default=("", None, "")
        )
        return gr.update(choices=[v[:2] for v in voices], value=liked[1])

    def _waiting(self, chosen: str, owner: str) -> str:
        uri = thumbnail(self.studio.avatar(chosen, owner).poster, 640)
        return f'<div class="tk-idle-box"><img src="{uri}" alt="The avatar, waiting"></div>' if uri else ""

    def _clips(self, owner: str, chosen: str = "") -> list[Any]:
        clips = self.studio.clips(owner)
        head = gr.update(value=html.section("", "Your clips"), visible=bool(clips))
        return [head, clip_tiles(clips, chosen) if clips else ""]

    @staticmethod
    def _finished(clip: Clip) -> list[Any]:
        """Player, status, buttons and id for a finished clip."""
        film = gr.Video(value=expose(clip.video), subtitles=expose(clip.vtt) if clip.vtt else None)
        captions = gr.update(value=expose(clip.srt) if clip.srt else None, visible=clip.srt is not None)
        words = f"{html.duration(clip.seconds)}. Labelled and signed as AI-generated."
        return [film, _status(words), gr.update(visible=True), expose(clip.video), captions, clip.id]


def _ready() -> list[Any]:
    return [gr.update(interactive=True), gr.update(visible=False)]


def _status(text: str) -> str:
    return f'<div class="tk-status" role="status">{html.esc(text)}</div>'


def _progress(chunk: TalkChunk) -> str:
    percent = min(100, round(100 * chunk.done_s / max(chunk.total_s, 0.04)))
    return (
        '<div class="tk-progress"><div class="tk-bar-label"><b>Rendering</b>'
        f"<span>{chunk.done_s:.0f} of {chunk.total_s:.0f} s</span></div>{html.bar(percent)}</div>"
    )
