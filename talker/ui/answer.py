"""The right side of the Talk page: the picture, what to do with a finished clip, and the clips made before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from talker.studio.clips import Clip
from talker.ui import html, stage
from talker.ui.context import PICK, QUIET, Context, expose, markup, new_shown_folder, spoken_errors
from talker.ui.live import finished_video, live_video
from talker.ui.pictures import thumbnail
from talker.ui.tiles import clip_tiles
from talker.ui.words import fixed, in_script, say

SURE = f"() => (window.tkSure = confirm({in_script('Delete all your clips for good?')})) ? 'yes' : ''"
WIPED = f"() => {{ if (window.tkSure) ({stage.SHOW_IDLE})(); }}"
CLIPS = 24
"""Clips shown at first, and more at each wish for older ones."""

Updates = dict[Any, Any]


class Answer:
    """Builds the components, wires what concerns finished clips, and says how to show them.

    Args:
        context: See :class:`talker.ui.context.Context`.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.studio = context, context.studio
        self.clip_id = gr.State("")
        self.shown = gr.State(CLIPS)
        self.sure = gr.Textbox(visible="hidden")
        self._stage()
        self._history()
        self._wire()

    def _stage(self) -> None:
        shown: dict[str, Any] = {"show_label": False, "buttons": [], "elem_classes": "tk-screen"}
        with gr.Column(elem_classes="tk-card tk-idle", elem_id="tk-stage"):
            self.idle = markup(elem_id="tk-idle-picture")
            self.live = live_video(label=fixed("Live"), elem_id="tk-live", **shown)
            self.final = finished_video(label=fixed("Finished clip"), elem_id="tk-final", **shown)
            self.status = markup(elem_id="tk-talk-status")
            self.captions = gr.Checkbox(
                True,
                label=fixed("Show captions"),
                visible=False,
                elem_id="tk-captions",
                elem_classes="tk-flat",
            )
            with gr.Row(visible=False) as self.results:
                self.download = gr.DownloadButton(
                    fixed("Download"), variant="primary", min_width=140, elem_id="tk-download"
                )
                self.srt = gr.DownloadButton("SRT", min_width=70, elem_id="tk-srt")
                self.vtt = gr.DownloadButton("VTT", min_width=70, elem_id="tk-vtt")
                self.remove = gr.Button(fixed("Delete"), min_width=90, elem_id="tk-delete-clip")
            self.zip = gr.Button(fixed("Download all as zip"), visible=False, elem_id="tk-zip")
            self.zip_file = gr.DownloadButton("Zip", visible="hidden", elem_id="tk-zip-file")

    def _history(self) -> None:
        self.shelf_head = markup(visible=False)
        self.shelf = markup(js_on_load=PICK, elem_classes="tk-tiles-small", elem_id="tk-clips")
        with gr.Row(visible=False) as self.shelf_tools:
            self.older = gr.Button(fixed("Show older clips"), size="sm", min_width=130, elem_id="tk-older")
            self.wipe = gr.Button(fixed("Delete all my clips"), size="sm", min_width=130, elem_id="tk-wipe")

    @property
    def outputs(self) -> list[Any]:
        """Everything but the idle and the live picture."""
        return [
            self.final, self.status, self.captions, self.results, self.download, self.srt, self.vtt, self.zip,
            self.clip_id, *self.shelf_outputs,
        ]  # fmt: skip

    @property
    def shelf_outputs(self) -> list[Any]:
        """The history."""
        return [self.shelf_head, self.shelf, self.shelf_tools, self.older, self.shown]

    def _wire(self) -> None:
        self.captions.change(None, self.captions, None, js=stage.CAPTIONS, **QUIET)
        self.shelf.pick(self.on_clip, None, self.outputs, **QUIET).success(
            None, None, None, js=stage.SHOW_FINAL_NOW, **QUIET
        ).then(None, self.captions, None, js=stage.CAPTIONS, **QUIET)
        self.remove.click(self.on_remove, self.clip_id, self.outputs, **QUIET).success(
            None, None, None, js=stage.SHOW_IDLE, **QUIET
        )
        self.older.click(self.on_older, [self.shown, self.clip_id], self.shelf_outputs, **QUIET)
        # The question is asked in the browser; the answer comes as the value of a hidden field.
        self.wipe.click(self.on_wipe, self.sure, self.outputs, js=SURE, **QUIET).success(
            None, None, None, js=WIPED, **QUIET
        )
        self.zip.click(self.on_zip, self.clip_id, self.zip_file, **QUIET).success(
            None, None, None, js=stage.CLICK_ZIP, **QUIET
        )

    def on_clip(self, request: gr.Request, event: gr.EventData) -> Updates:
        """An earlier clip was chosen."""
        with spoken_errors():
            owner = self.context.owner(request)
            clip = self.studio.clip(str(event.id), owner)
            return {**self.finished(clip), **self.clips(owner, clip.id)}

    def on_remove(self, chosen: str, request: gr.Request) -> Updates:
        """Delete the shown clip."""
        with spoken_errors():
            owner = self.context.owner(request)
            self.studio.delete_clip(chosen, owner)
            return {**self.no_clip("Deleted."), **self.clips(owner)}

    def on_wipe(self, sure: str, request: gr.Request) -> Updates:
        """Delete every clip of this visitor."""
        with spoken_errors():
            if sure != "yes":
                return {self.clip_id: gr.skip()}
            owner = self.context.owner(request)
            count = self.studio.delete_clips(owner)
            return {**self.no_clip(say("{count} clips deleted.", count=count)), **self.clips(owner)}

    def on_older(self, shown: int, chosen: str, request: gr.Request) -> Updates:
        """More of the history."""
        return self.clips(self.context.owner(request), chosen, shown + CLIPS)

    def on_zip(self, chosen: str, request: gr.Request) -> str:
        """All clips that were made together with the shown one, as one file."""
        with spoken_errors():
            owner = self.context.owner(request)
            target = new_shown_folder() / "clips.zip"
            return str(self.studio.bundle(self.studio.clip(chosen, owner).batch, owner, target))

    def waiting(self, chosen: str, owner: str) -> str:
        """The picture of an avatar that has nothing to say yet."""
        uri = thumbnail(self.studio.avatar(chosen, owner).poster, 640)
        if not uri:
            return ""
        return f'<div class="tk-idle-box"><img src="{uri}" alt="{say("The avatar, waiting")}"></div>'

    def clips(self, owner: str, chosen: str = "", shown: int = CLIPS) -> Updates:
        """The history, long enough to contain the chosen clip."""
        clips = self.studio.clips(owner)
        place = next((i for i, clip in enumerate(clips) if clip.id == chosen), 0)
        shown = max(shown, -(-(place + 1) // CLIPS) * CLIPS)
        return {
            self.shelf_head: gr.update(value=html.section("", "Your clips"), visible=bool(clips)),
            self.shelf: clip_tiles(clips[:shown], chosen) if clips else "",
            self.shelf_tools: gr.update(visible=bool(clips)),
            self.older: gr.update(visible=len(clips) > shown),
            self.shown: shown,
        }

    def no_clip(self, words: str) -> Updates:
        """Nothing is shown, and why."""
        return {
            self.final: None,
            self.status: stage.status(words),
            self.captions: gr.update(visible=False),
            self.results: gr.update(visible=False),
            self.zip: gr.update(visible=False),
            self.clip_id: "",
        }

    def finished(self, clip: Clip) -> Updates:
        """Player, status, buttons and id for a finished clip."""
        together = len(self.studio.shelf.of_batch(clip.batch, clip.owner))
        return {
            self.final: gr.Video(value=expose(clip.video), subtitles=expose(clip.vtt) if clip.vtt else None),
            self.status: stage.finished(clip),
            self.captions: gr.update(visible=clip.vtt is not None),
            self.results: gr.update(visible=True),
            self.download: gr.update(value=expose(clip.download), label=_download_label(clip)),
            self.srt: _optional(clip.srt),
            self.vtt: _optional(clip.vtt),
            self.zip: gr.update(visible=together > 1, value=say("Download all {n} as zip", n=together)),
            self.clip_id: clip.id,
        }


def _download_label(clip: Clip) -> str:
    return say("Download") if clip.download == clip.video else say("Download .mov")


def _optional(path: Path | None) -> Any:
    return gr.update(value=expose(path) if path else None, visible=path is not None)
