"""Writing that a crash cannot tear: temporary name in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from talker.errors import CheckpointError

_TEMPORARY = ".tmp-"
_OLD = "=old="
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: after a crash at any moment the old or the new content is there, whole.

    Raises:
        CheckpointError: ``checkpoint.no_space`` or ``checkpoint.unwritable``.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder (same suffix) that becomes ``path`` when the block ends well.

    The block must leave a closed file there. If it raises, the temporary file is removed and ``path`` is as
    it was.

    Raises:
        CheckpointError: ``checkpoint.no_space`` or ``checkpoint.unwritable``.
    """
    path = Path(path)
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path.name, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new empty folder beside ``path`` that becomes ``path`` when the block ends well.

    An older folder at ``path`` is replaced; for a moment between two renames neither is there, never a mix.

    Raises:
        CheckpointError: ``checkpoint.no_space`` or ``checkpoint.unwritable``.
    """
    path = Path(path)
    token = secrets.token_hex(6)
    temporary = path.with_name(f"{_TEMPORARY}{token}-{path.name}")
    old = path.with_name(f"{_TEMPORARY}{token}{_OLD}{path.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _fsync(file)
        fsync_folder(temporary)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        if old.exists() and not path.exists():
            old.replace(path)
        raise _unwritable(path.name, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def sweep_temporaries(folder: Path, *, older_than_s: float = 0.0) -> int:
    """Remove what interrupted writers left in ``folder``; the number of entries removed.

    A folder that was moved aside and never replaced is put back instead. Call it only while nobody writes
    there, or give an age that no living writer reaches.
    """
    removed = 0
    for entry in Path(folder).glob(f"{_TEMPORARY}*"):
        try:
            if time.time() - entry.lstat().st_mtime < older_than_s:
                continue
            name = entry.name.partition(_OLD)[2]
            if name and not entry.with_name(name).exists():
                entry.replace(entry.with_name(name))  # killed between the two renames of atomic_folder
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except OSError:
            continue  # gone meanwhile, or not ours to remove: litter is no reason to fail
        removed += 1
    return removed


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable; nothing to do where folders cannot be opened (Windows)."""
    if os.name != "nt":
        _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(name: str, error: OSError) -> CheckpointError:
    if error.errno in _NO_SPACE:
        return CheckpointError(
            "checkpoint.no_space",
            f"The disk is full: {name} could not be written.",
            todo="Free some space and try again; what was saved before is intact.",
        )
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return CheckpointError(
        "checkpoint.unwritable",
        f"{name} could not be written: {reason}.",
        todo="Check the permissions of the folder.",
    )
