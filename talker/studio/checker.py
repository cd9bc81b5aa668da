"""The child's side of :mod:`talker.studio.preflight`: ``python -m talker.studio.checker CLIP OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker.atomic import write_atomic
from talker.errors import TalkerError
from talker.studio.preflight import REPORT

if TYPE_CHECKING:
    import numpy as np

    from talker.dataset.check import CheckReport

PICTURE_SIDE = 320


def main(clip: Path, out: Path) -> None:
    """Check ``clip``; ``report.json`` appears last, with the report or with what is wrong."""
    from talker.dataset.check import check

    try:
        value = _plain(check(clip), out)
    except TalkerError as error:
        value = {"error": [type(error).__name__, error.code, error.found, error.expected, error.todo]}
    write_atomic(out / REPORT, json.dumps(value).encode())


def _plain(report: CheckReport, out: Path) -> dict[str, Any]:
    """The report as JSON; its pictures become files."""
    pictures = []
    for index, picture in enumerate(report.pictures):
        name = f"frame-{index}.jpg"
        _save(picture.rgb, out / name)
        pictures.append({"name": name, "seconds": picture.seconds, "code": picture.code})
    return {
        "ok": report.ok,
        "summary": report.summary().splitlines()[0],
        "seconds": report.duration_s,
        "findings": [
            {
                "code": f.code,
                "severity": f.severity,
                "message": f.message,
                "todo": f.todo,
                "when": list(f.timecodes),
                "spans": [list(span) for span in f.spans],
            }
            for f in report.findings
        ],
        "pictures": pictures,
        "facts": report.facts,
        "part": report.part,
        "part_ok": report.part_ok,
    }


def _save(picture: np.ndarray, path: Path) -> None:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    image.save(path, quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
