"""Several clips with their captions in one zip file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from talker.studio.clips import Clip

_MAX_NAME = 40


def write_zip(clips: Sequence[Clip], target: Path) -> Path:
    """Write videos and captions of ``clips``, numbered in that order, to ``target``."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # videos do not get smaller
        for number, clip in enumerate(clips, 1):
            stem = f"{number:02d}-{_file_name(clip.title)}"
            for path in (clip.download, clip.srt, clip.vtt):
                if path is not None:
                    archive.write(path, f"{stem}{path.suffix}")
    return target


def _file_name(title: str) -> str:
    """A title as part of a file name that every system takes."""
    name = re.sub(r"[^\w-]+", "-", title.rsplit(".", 1)[0] if title.count(".") == 1 else title)
    return name.strip("-_")[:_MAX_NAME].strip("-_") or "clip"
