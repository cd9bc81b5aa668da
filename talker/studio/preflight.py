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


@dataclass(frozen=True)
class Finding:
    """One observation about the clip."""

    code: str
    severity: str
    """``info``, ``warning`` or ``error``."""
    message: str
    todo: str
    when: tuple[str, ...] = ()
    """Timecodes."""


@dataclass(frozen=True)
class Report:
    """What the check found, as plain values and small pictures."""

    ok: bool
    summary: str
    seconds: float
    findings: tuple[Finding, ...]
    pictures: tuple[Path, ...] = ()
    """Annotated example frames, JPEG."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures such as width, height, share of frames with a face."""


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


def load(out: Path) -> Report:
    """The report in ``out``.

    Raises:
        TalkerError: As the check raised it.
    """
    value = json.loads((out / REPORT).read_text())
    if "error" in value:
        kind, *rest = value["error"]
        raise getattr(errors, kind)(rest[0], rest[1], expected=rest[2], todo=rest[3])
    findings = tuple(Finding(**{**f, "when": tuple(f["when"])}) for f in value["findings"])
    pictures = tuple(out / name for name in value["pictures"])
    return Report(value["ok"], value["summary"], value["seconds"], findings, pictures, value["facts"])
