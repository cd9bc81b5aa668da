"""``gr.Video`` for films that must not be touched: neither needs an ffmpeg or ffprobe program.

The methods are replaced on the instance: a subclass of a component makes Gradio write a stub file beside it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from talker.studio import TalkChunk


def live_video(**options: Any) -> gr.Video:
    """Shows :class:`talker.studio.TalkChunk` values, pieces of one encoding, as one stream."""
    video = gr.Video(streaming=True, autoplay=True, interactive=False, **options)

    async def stream_output(value: TalkChunk | None, output_id: str, first_chunk: bool) -> tuple[Any, Any]:
        """Add one piece to the playlist."""
        described = {
            "path": output_id,
            "is_stream": True,
            "orig_name": "live.ts",
            "meta": {"_type": "gradio.FileData"},
        }
        if not isinstance(value, TalkChunk):
            return None, described
        return {"data": value.path.read_bytes(), "duration": value.duration_s, "extension": ".ts"}, described

    async def flush_stream_output(output_id: str) -> None:
        """Nothing is held back."""

    async def combine_stream(
        stream: list[bytes], desired_output_format: str | None = None, only_file: bool = False
    ) -> FileData:
        """The pieces one after the other are a video already."""
        with tempfile.NamedTemporaryFile(delete=False, suffix=".ts", dir=video.GRADIO_CACHE) as file:
            file.writelines(stream)
        return FileData(path=file.name, orig_name="live.ts")

    return _replace(
        video,
        stream_output=stream_output,
        flush_stream_output=flush_stream_output,
        combine_stream=combine_stream,
    )


def finished_video(**options: Any) -> gr.Video:
    """Shows a finished mp4 as it is: encoding it anew would strip its signature."""

    def keep(video: str | Path | None) -> FileData | None:
        return None if video is None else FileData(path=str(video), orig_name=Path(video).name)

    return _replace(gr.Video(interactive=False, **options), _format_video=keep)


def _replace(video: gr.Video, **methods: Any) -> gr.Video:
    for name, method in methods.items():
        assert hasattr(video, name), f"this version of Gradio has no Video.{name}"
        setattr(video, name, method)
    return video
