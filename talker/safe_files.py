"""Readers for files a stranger may have written, and writers that survive a crash (from ``atomic``).

Reading never trusts size, type or value: caps are checked before the bytes are read. Nothing here executes what it
reads. Messages carry file names only. ``tensor_files`` does the same for tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import NoReturn

from talker.atomic import atomic_folder, atomic_path, fsync_folder, sweep_temporaries, write_atomic
from talker.errors import CheckpointError

__all__ = [
    "DAMAGED_ADVICE",
    "atomic_folder",
    "atomic_path",
    "damaged",
    "fsync_folder",
    "parse_json",
    "read_capped",
    "read_json",
    "sha256_file",
    "sweep_temporaries",
    "write_atomic",
    "write_json",
]

MAX_JSON_DEPTH = 32
MAX_JSON_INT = 1 << 63
DAMAGED_ADVICE = "Fetch or create it again."


def read_json(path: Path, *, max_bytes: int) -> dict:
    """The object in a JSON file: no duplicate keys, no NaN or infinity, at most 32 levels, valid UTF-8.

    Raises:
        CheckpointError: ``checkpoint.missing``, ``.too_large`` or ``.damaged``.
    """
    path = Path(path)
    return parse_json(read_capped(path, max_bytes), path.name)


def parse_json(blob: bytes, name: str) -> dict:
    """``read_json`` of bytes in memory; ``name`` is used in messages."""
    try:
        value = json.loads(
            blob.decode("utf-8"),
            object_pairs_hook=_unique_pairs,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
        if not isinstance(value, dict):
            raise ValueError("it does not hold an object")
        _check_tree(value)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else _reason(error)
        raise damaged(name, reason) from error
    return value


def write_json(path: Path, value: dict) -> None:
    """Write an object as readable JSON atomically; NaN and infinity are bugs of the caller."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content.

    Raises:
        CheckpointError: ``checkpoint.missing``.
    """
    path = Path(path)
    with _open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_regular(path: Path):
    """Open a regular file for reading; a pipe or device named like one would hang or never end."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "checkpoint.missing",
            f"{path.name} is missing or cannot be read.",
            todo="Check that the folder is complete.",
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CheckpointError(
            "checkpoint.missing", f"{path.name} is not a regular file.", todo=DAMAGED_ADVICE
        )
    return os.fdopen(handle, "rb")


def read_capped(path: Path, max_bytes: int) -> bytes:
    """Content of a regular file of at most ``max_bytes``.

    Raises:
        CheckpointError: ``checkpoint.missing`` or ``.too_large``.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise CheckpointError(
                "checkpoint.too_large",
                f"{path.name} has {size:,} bytes.",
                expected=f"At most {max_bytes:,} are accepted.",
                todo="Use a smaller avatar, or one from another source.",
            )
        # The file may grow while it is read: never more than its size at the check.
        return file.read(size)


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("it has a key twice")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds a number that is too large")
    return value


def _check_tree(root: object) -> None:
    level = [root]
    for _ in range(MAX_JSON_DEPTH + 1):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                value.encode()  # a lone surrogate would fail much later, at the next write
            elif isinstance(value, int) and not -MAX_JSON_INT <= value < MAX_JSON_INT:
                raise ValueError("it holds a number that is too large")
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {MAX_JSON_DEPTH} levels deep")


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeError):
        return "it is not valid UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON (line {error.lineno})"
    text = str(error)
    return text if text.startswith("it ") else "it is not JSON"


def damaged(name: str, reason: str) -> CheckpointError:
    """The error of a file that is not what it should be."""
    return CheckpointError("checkpoint.damaged", f"{name} is damaged: {reason}.", todo=DAMAGED_ADVICE)
