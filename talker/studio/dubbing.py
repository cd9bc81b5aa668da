"""A video of the avatar's person made ready to be spoken into, in a process of its own.

Trackers are large C++ programs, and the app must outlive them; a process can also be ended at any moment. This module
is both sides: ``python -m talker.studio.dubbing CLIP OUT SIZE`` is the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from talker import errors
from talker.studio import preflight
from talker.studio.inbox import Upload
from talker.studio.notes import TICK_S, TalkNote

DECLARATION = "The person in this video is the one the avatar shows, and agrees to this clip."
"""What whoever speaks into a video declares; it is kept with the clip."""

_PREPARED = "dub-{size}.data"
_WORDS = {
    "decode": "Reading the video",
    "frames": "Finding the face",
    "landmarks": "Following the face",
    "masks": "Telling person from background",
    "pose": "Following the head",
    "expression": "Reading the expression",
    "torso": "Following the shoulders",
}
_LAST_WORDS = "Finishing the video"
_STAGES = 9


def require_agreed(agreed: bool) -> None:
    """Accept the declaration.

    Raises:
        ConsentError: It was not made.
    """
    if not agreed:
        raise errors.ConsentError(
            "dub.consent",
            "The declaration for the video to speak into is missing.",
            todo="Read it and tick the box, or remove the video.",
        )


def require_fit(upload: Upload) -> None:
    """Let through what the pre-flight check lets through.

    Raises:
        VideoError: ``dub.unfit``, or what is wrong with a clip that cannot be read at all.
    """
    folder = upload.path.parent
    known = (folder / preflight.REPORT).is_file()
    report = preflight.load(folder) if known else preflight.run(upload.path, folder)
    if not report.ok:
        worst = next((f for f in report.findings if f.severity == "error"), None)
        raise errors.VideoError(
            "dub.unfit",
            worst.message if worst else report.summary,
            todo=(worst and worst.todo) or "Choose another video.",
        )


def prepare(upload: Upload, size: int) -> Iterator[TalkNote]:
    """Prepare ``upload`` beside itself, so that it goes with it; what was prepared before is not done again.

    Closing the iterator ends the child at once.

    Raises:
        TalkerError: As the preparation raised it.
        VideoError: ``dub.crashed`` if the process died.
    """
    command = [sys.executable, "-m", "talker.studio.dubbing", str(upload.path)]
    command += [str(prepared(upload, size)), str(size)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    child = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield from _progress(child)
    finally:
        _end(child)


def prepared(upload: Upload, size: int) -> Path:
    """Where :func:`prepare` puts its result."""
    return upload.path.parent / _PREPARED.format(size=size)


def _progress(child: subprocess.Popen[bytes]) -> Iterator[TalkNote]:
    assert child.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_pump, args=(child.stdout, lines), daemon=True).start()
    note, finished = TalkNote(_WORDS["decode"], 0.0), False
    while True:
        try:
            line = lines.get(timeout=TICK_S)
        except queue.Empty:
            yield note
            continue
        if line is None:
            break
        said = json.loads(line)
        if "error" in said:
            kind, *rest = said["error"]
            raise getattr(errors, kind)(rest[0], rest[1], expected=rest[2], todo=rest[3])
        finished = finished or said["finished"]
        note = TalkNote(said["message"], said["share"])
        yield note
    if not finished:
        raise errors.VideoError(
            "dub.crashed",
            "This video could not be prepared.",
            todo="Save it again as MP4 (H.264) and upload that.",
        )


def _pump(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(child: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended by itself
            os.killpg(child.pid, signal.SIGKILL)
    elif child.poll() is None:
        child.kill()
    child.wait()


def main(clip: Path, out: Path, size: int) -> None:
    """The child: prepare and say on standard output how far it is, one JSON object a line."""
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print too

    def say(**message: Any) -> None:
        protocol.write(json.dumps(message) + "\n")

    from talker.dataset.prepare import PrepareConfig
    from talker.dataset.prepare import prepare as run
    from talker.events import Finished, Progress, StageStarted

    number, message, said = 0, _WORDS["decode"], 0.0
    try:
        for event in run(clip, out, PrepareConfig(size=size)):
            if isinstance(event, StageStarted):
                message = _WORDS.get(event.stage.rsplit("/", 1)[-1], _LAST_WORDS)
                number += 1
                say(message=message, share=(number - 1) / _STAGES, finished=False)
            elif isinstance(event, Progress) and time.monotonic() - said > TICK_S:
                said = time.monotonic()
                part = event.step / max(1, event.total)
                say(message=message, share=min(1.0, (max(1, number) - 1 + part) / _STAGES), finished=False)
            elif isinstance(event, Finished):
                say(message=_LAST_WORDS, share=1.0, finished=True)
    except errors.TalkerError as error:
        say(error=[type(error).__name__, error.code, error.found, error.expected, error.todo])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
