"""Small ways to write and read that survive kills, and the errors of a job that cannot be found."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from talker.errors import JobError


@contextlib.contextmanager
def flocked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on ``path``; the kernel frees it when the process dies."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def missing() -> JobError:
    """The same answer for a job that never was, is deleted, or belongs to somebody else."""
    return JobError(
        "job.missing", "There is no such job.", todo="It may have been deleted; reload the list of jobs."
    )


def damaged() -> JobError:
    """A folder whose files cannot be read."""
    return JobError(
        "job.damaged", "The record of this job is damaged.", todo="Delete the job and create it again."
    )


def to_json(value: Any) -> bytes:
    """Indented JSON; numbers that JSON does not know (NaN, infinity) become null."""
    return json.dumps(finite(value), indent=1, default=str).encode()


def finite(value: Any) -> Any:
    """``value`` with every NaN and infinity replaced by None."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def append_event(folder: Path, kind: str, values: dict[str, Any]) -> None:
    """One line in one write, so that lines of app, worker and trainer never mix."""
    line = json.dumps(finite({"t": round(time.time(), 3), "type": kind, **values}), default=str)
    handle = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode() + b"\n")
    finally:
        os.close(handle)


def copy_durably(source: Path, target: Path) -> str:
    """Copy durably; returns the sha256 of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as written:
        while block := read.read(1 << 20):
            digest.update(block)
            written.write(block)
        written.flush()
        os.fsync(written.fileno())
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing to do if it is not there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
