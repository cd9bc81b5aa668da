"""From a clip to a dataset folder, step by step; what is finished is never done twice."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from talker.dataset import schema
from talker.dataset.pipeline import STEPS, Folder, PrepareConfig, Step
from talker.errors import ConfigError, DatasetError
from talker.events import Event, Finished, Note, StageStarted

__all__ = ["PrepareConfig", "prepare"]

log = logging.getLogger(__name__)

SIZES = (64, 1024)


def prepare(
    clip: Path, out: Path, config: PrepareConfig | None = None, *, name: str | None = None
) -> Iterator[Event]:
    """Make the dataset folder ``out`` from ``clip``; resumes where an interrupted run stopped.

    A step counts as done when it ran with the same settings on the results of the same earlier steps.

    Args:
        clip: The video.
        out: Folder, new or from an earlier run.
        config: Size and settings.
        name: What to call the clip in messages; its own name by default.

    Yields:
        ``StageStarted``, ``Progress``, ``Note``, ``Preview`` of stages ``prepare/<step>``; ``Finished`` last.

    Raises:
        VideoError: The clip cannot be read, or has no sound.
        TrackingError: Nobody can be followed in it.
        ConfigError: The size is out of range.
    """
    clip, out, config = Path(clip), Path(out), config or PrepareConfig()
    if not SIZES[0] <= config.size <= SIZES[1]:
        raise ConfigError(
            "config.size",
            f"A size of {config.size} is not possible.",
            expected=f"{SIZES[0]} to {SIZES[1]} pixels.",
        )
    out.mkdir(parents=True, exist_ok=True)
    folder = Folder(out, clip, name or clip.name, config, _header(out))
    key = _digest(clip)
    for number, step in enumerate(STEPS):
        key = _chain(key, step, config)
        if _done(folder, step, key):
            continue
        if step.needs_raw and not folder.raw.is_file():
            yield from _run(folder, STEPS[0], folder.header["steps"]["decode"]["key"])
        for later in STEPS[number:]:
            folder.header["steps"].pop(later.name, None)
        yield from _run(folder, step, key)
    if (out / schema.WORK).exists():
        schema.remove_work(out)
    yield Finished(out, {"seconds": _seconds(folder), **folder.header["report"]})


def _run(folder: Folder, step: Step, key: str) -> Iterator[Event]:
    started = time.perf_counter()
    stage = f"prepare/{step.name}"
    yield StageStarted(stage, int(folder.header.get("n_frames", 0)))
    notes = []
    for event in step.run(folder):
        if isinstance(event, Note):
            notes.append({"level": event.level, "message": event.message})
        yield event
    seconds = round(time.perf_counter() - started, 3)
    settings = step.settings(folder.config)
    folder.header["steps"][step.name] = {
        "key": key,
        "version": step.version,
        "settings": settings,
        "seconds": seconds,
        "notes": notes,
    }
    schema.write_header(folder.root, folder.header)
    log.info("%s took %.2f s", stage, seconds)


def _header(out: Path) -> dict[str, Any]:
    """The header of an earlier run, or a new one if there is none that can be used."""
    try:
        return schema.read_header(out)
    except DatasetError:
        return {"version": schema.VERSION, "steps": {}, "report": {}}


def _digest(clip: Path) -> str:
    """Identity of the clip: its content."""
    if not clip.is_file():
        return ""  # probing tells the user
    with clip.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chain(key: str, step: Step, config: PrepareConfig) -> str:
    own = json.dumps([key, step.name, step.version, step.settings(config)], sort_keys=True)
    return hashlib.sha256(own.encode()).hexdigest()


def _done(folder: Folder, step: Step, key: str) -> bool:
    record = folder.header["steps"].get(step.name)
    return record is not None and record["key"] == key and all(folder.path(f).is_file() for f in step.files)


def _seconds(folder: Folder) -> dict[str, float]:
    return {name: record["seconds"] for name, record in folder.header["steps"].items()}
