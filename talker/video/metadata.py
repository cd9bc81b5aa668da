"""Text tags of a finished MP4 or MOV: read them, or rewrite the container with new ones around the same streams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def container_of(path: Path) -> str:
    """The container a file's name stands for: ``mov`` or ``mp4``."""
    return "mov" if path.suffix.lower() == ".mov" else "mp4"


def read_tags(path: Path) -> dict[str, str]:
    """Container tags such as ``title`` and ``comment``.

    Raises:
        OSError, ValueError: ``path`` is no MP4 or MOV (the errors of PyAV are subclasses of these).
    """
    import av

    with av.open(str(path), format="mp4") as container:  # one demuxer reads both
        return dict(container.metadata)


def rewrite_tags(path: Path, out: Path, tags: Mapping[str, str]) -> None:
    """Copy ``path`` to ``out`` with ``tags`` added to (or replacing) its own; packets stay as they are.

    Raises:
        OSError, ValueError: As :func:`read_tags`, or ``out`` cannot be written.
    """
    import av

    with (
        av.open(str(path), format="mp4") as source,
        av.open(str(out), "w", format=container_of(out), options={"movflags": "+faststart"}) as target,
    ):
        target.metadata.update({**source.metadata, **tags})
        streams = {
            s.index: target.add_stream_from_template(s)
            for s in source.streams
            if s.type in ("video", "audio")
        }
        for packet in source.demux():
            stream = streams.get(packet.stream.index)
            if stream is None or packet.dts is None:  # the demuxer's closing packet has no time
                continue
            packet.stream = stream
            target.mux(packet)
