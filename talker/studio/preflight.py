"""The pre-flight check in a process of its own: trackers are large C++ programs, and the app must outlive them.

The child's side is ``talker.studio.checker``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from talker import errors

REPORT = "report.json"
TIMEOUT_S = 600
SLACK_S = 0.5
"""The check looks at the clip a few times a second only."""
SHORTEST_S = 3.0
"""Shorter than this no part of a clip can be used."""


@dataclass(frozen=True)
class Finding:
    """One observation about the clip."""

    code: str
    severity: str
    """``info``, ``warning`` or ``error``."""
    message: str
    todo: str
    when: tuple[str, ...] = ()
    """Timecodes of the first few moments."""
    spans: tuple[tuple[float, float], ...] = ()
    """First and last second of all of them."""


@dataclass(frozen=True)
class Shot:
    """A frame of the clip with the kept square and the faces drawn in."""

    path: Path
    """JPEG."""
    seconds: float
    code: str = ""
    """The finding it shows; empty for an example."""


@dataclass(frozen=True)
class Report:
    """What the check found, as plain values and small pictures."""

    ok: bool
    summary: str
    seconds: float
    findings: tuple[Finding, ...]
    pictures: tuple[Shot, ...] = ()
    """Examples, and frames the findings are about."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures such as width, height, share of frames with a face."""
    part: tuple[float, float] | None = None
    """The longest good part, seconds."""
    part_ok: bool = False
    """An avatar can be made of that part, whatever is wrong with the rest."""

    @property
    def usable(self) -> bool:
        """An avatar can be made of the clip, or of its longest good part."""
        return self.ok or self.part_ok

    def allows(self, part: tuple[float, float] | None) -> bool:
        """Whether an avatar can be made of a part of the clip, or of all of it (``None``)."""
        if self.ok or part is None or self.part is None:
            return self.ok
        return self.part_ok and part[0] >= self.part[0] - SLACK_S and part[1] <= self.part[1] + SLACK_S


def run(clip: Path, out: Path) -> Report:
    """Check ``clip`` in a child process; ``out`` receives the files.

    Raises:
        TalkerError: What is wrong with a clip that cannot be read at all.
        VideoError: ``check.crashed`` if the process died, ``check.timeout`` if it hung.
    """
    command = [sys.executable, "-m", "talker.studio.checker", str(clip), str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise _failed("check.timeout", "takes too long to check") from None
    if not (out / REPORT).is_file():
        import logging

        logging.getLogger(__name__).error("preflight ended with %s: %s", done.returncode, done.stderr[-2000:])
        raise _failed("check.crashed", "makes the checker stop")
    return load(out)


def _failed(code: str, what: str) -> errors.VideoError:
    return errors.VideoError(code, f"This clip {what}.", todo="Save it again as MP4 (H.264) and upload that.")


def checked_part(start: float, end: float) -> tuple[float, float]:
    """A part of a clip as a person chose it, if an avatar can be made of so little.

    Raises:
        VideoError: ``video.part``.
    """
    if not 0 <= start < end < float("inf") or end - start < SHORTEST_S:
        raise errors.VideoError(
            "video.part",
            f"The part from {start:g} s to {end:g} s is too short.",
            expected=f"At least {SHORTEST_S:g} seconds; 20 or more look much better.",
            todo="Move its start or its end.",
        )
    return round(float(start), 2), round(float(end), 2)


def load(out: Path) -> Report:
    """The report in ``out``.

    Raises:
        TalkerError: As the check raised it.
    """
    value = json.loads((out / REPORT).read_text())
    if "error" in value:
        kind, *rest = value["error"]
        raise getattr(errors, kind)(rest[0], rest[1], expected=rest[2], todo=rest[3])
    findings = tuple(
        Finding(**{**f, "when": tuple(f["when"]), "spans": tuple((a, b) for a, b in f["spans"])})
        for f in value["findings"]
    )
    shots = tuple(Shot(out / p["name"], p["seconds"], p["code"]) for p in value["pictures"])
    part = None if value["part"] is None else (value["part"][0], value["part"][1])
    return Report(
        value["ok"],
        value["summary"],
        value["seconds"],
        findings,
        shots,
        value["facts"],
        part,
        value["part_ok"],
    )
