"""Readers for files a stranger may have written, and writers that survive a crash (from ``atomic``).

Reading never trusts size, shape, type or value: caps are checked on the declared sizes before the bytes,
tensors against an allow-list, numbers for finiteness. Nothing here executes what it reads. Messages carry
file names only.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from talker.atomic import atomic_folder, atomic_path, fsync_folder, sweep_temporaries, write_atomic
from talker.errors import CheckpointError

__all__ = [
    "TensorRule",
    "atomic_folder",
    "atomic_path",
    "fsync_folder",
    "parse_json",
    "read_json",
    "read_tensors",
    "sha256_file",
    "sweep_temporaries",
    "write_atomic",
    "write_json",
    "write_tensors",
]

MAX_HEADER_BYTES = 1 << 20
"""Largest accepted safetensors header; the format itself would allow 100 MB of it."""

MAX_JSON_DEPTH = 32
MAX_JSON_INT = 1 << 63
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DAMAGED_TODO = "Fetch or create it again."


@dataclass(frozen=True)
class TensorRule:
    """What one tensor of a file must look like.

    Attributes:
        dtype: Exact element type.
        ndim: Exact number of dimensions.
        max_shape: Upper bound of every dimension, [ndim]; None bounds by the size of the file alone.
        shape: Exact size of every dimension, [ndim]; None entries are free.
        optional: The file may do without it.
        same_first_dim: Tensors with the same group name must agree in their first dimension.
        finite: Refuse NaN and infinities.
        low: Smallest allowed value.
        high: Largest allowed value.
        allow_empty: Accept a tensor without elements.
    """

    dtype: torch.dtype
    ndim: int
    max_shape: tuple[int, ...] | None = None
    shape: tuple[int | None, ...] | None = None
    optional: bool = False
    same_first_dim: str | None = None
    finite: bool = True
    low: float | None = None
    high: float | None = None
    allow_empty: bool = False

    @classmethod
    def like(cls, tensor: Tensor, *, finite: bool = True) -> TensorRule:
        """The rule that accepts exactly this tensor's type and shape."""
        return cls(
            tensor.dtype,
            tensor.ndim,
            shape=tuple(tensor.shape),
            finite=finite,
            allow_empty=tensor.numel() == 0,
        )


def read_tensors(path: Path, *, schema: dict[str, TensorRule], max_bytes: int) -> dict[str, Tensor]:
    """Tensors of a safetensors file, checked against ``schema`` before and after loading.

    The declared header is checked first; the safetensors library then parses the very same bytes.

    Args:
        path: The file.
        schema: Every allowed tensor name and its rule; any other name is refused.
        max_bytes: Largest accepted file.

    Returns:
        CPU tensors that own their memory, by name.

    Raises:
        CheckpointError: ``checkpoint.missing``, ``.too_large``, ``.damaged``, ``.schema`` or ``.values``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    blob = _read_capped(path, max_bytes)
    _check_header(path.name, len(blob), _header(path.name, blob), schema)
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError, RuntimeError, OverflowError, KeyError, TypeError) as error:
        raise _damaged(path.name, "its tensors do not match its header") from error
    del blob
    for name, tensor in tensors.items():
        _check_values(path.name, name, tensor, schema[name])
    return tensors


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    Raises:
        CheckpointError: ``checkpoint.no_space`` or ``checkpoint.unwritable``.
    """
    from safetensors.torch import save

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(ready, metadata))


def read_json(path: Path, *, max_bytes: int) -> dict:
    """The object in a JSON file: no duplicate keys, no NaN or infinity, at most 32 levels, valid UTF-8.

    Raises:
        CheckpointError: ``checkpoint.missing``, ``.too_large`` or ``.damaged``.
    """
    path = Path(path)
    return parse_json(_read_capped(path, max_bytes), path.name)


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
        raise _damaged(name, reason) from error
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
        raise CheckpointError("checkpoint.missing", f"{path.name} is not a regular file.", todo=_DAMAGED_TODO)
    return os.fdopen(handle, "rb")


def _read_capped(path: Path, max_bytes: int) -> bytes:
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


def _header(name: str, blob: bytes) -> dict:
    length = int.from_bytes(blob[:8], "little")
    if len(blob) < 10 or length > len(blob) - 8:
        raise _damaged(name, "its header is cut off")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            "checkpoint.too_large",
            f"{name} declares a header of {length:,} bytes.",
            expected=f"At most {MAX_HEADER_BYTES:,} are accepted.",
            todo=_DAMAGED_TODO,
        )
    header = parse_json(blob[8 : 8 + length], name)
    header.pop("__metadata__", None)
    return header


def _check_header(name: str, n_bytes: int, header: dict, schema: dict[str, TensorRule]) -> None:
    groups: dict[str, tuple[str, int]] = {}
    for key, entry in header.items():
        rule = schema.get(key)
        if rule is None:
            _schema_error(name, f"holds an unknown tensor {_short(key)}")
        shape = _check_entry(name, n_bytes, key, entry, rule)
        if rule.same_first_dim is not None:
            other, size = groups.setdefault(rule.same_first_dim, (key, shape[0]))
            if size != shape[0]:
                _schema_error(name, f"has {size:,} rows in {other} but {shape[0]:,} in {key}")
    for key, rule in schema.items():
        if key not in header and not rule.optional:
            _schema_error(name, f"lacks the tensor {key}")


def _check_entry(name: str, n_bytes: int, key: str, entry: object, rule: TensorRule) -> list[int]:
    """The declared shape [ndim] of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(name, "its header is not that of a safetensors file")
    shape, dtype = entry["shape"], entry["dtype"]
    if not isinstance(dtype, str) or _DTYPES.get(dtype) is not rule.dtype:
        _schema_error(name, f"has {key} of type {_short(dtype)} instead of {rule.dtype}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise _damaged(name, "its header declares an impossible shape")
    if len(shape) != rule.ndim:
        _schema_error(name, f"has {key} with {len(shape)} dimensions instead of {rule.ndim}")
    for axis, size in enumerate(shape):
        if rule.max_shape is not None and size > rule.max_shape[axis]:
            limit = rule.max_shape[axis]
            _schema_error(name, f"declares {size:,} along axis {axis} of {key}; the limit is {limit:,}")
        exact = None if rule.shape is None else rule.shape[axis]
        if exact is not None and size != exact:
            _schema_error(name, f"declares {size:,} along axis {axis} of {key} instead of {exact:,}")
        if size == 0 and not rule.allow_empty:
            _schema_error(name, f"has nothing in {key}")
    if any(n > n_bytes for n in shape):
        raise _damaged(name, "its header declares more than the file holds")
    return shape


def _check_values(name: str, key: str, tensor: Tensor, rule: TensorRule) -> None:
    if tensor.numel() == 0:
        return
    if rule.finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            "checkpoint.values", f"{name} holds numbers in {key} that are not finite.", todo=_DAMAGED_TODO
        )
    if rule.low is None and rule.high is None:
        return
    low, high = (float(v) for v in tensor.aminmax())
    # Written so that NaN, allowed by finite=False, passes: a range says nothing about it.
    if (rule.low is not None and low < rule.low) or (rule.high is not None and high > rule.high):
        raise CheckpointError(
            "checkpoint.values",
            f"{name} holds values from {low:g} to {high:g} in {key}.",
            expected=f"They must lie between {rule.low} and {rule.high}.",
            todo=_DAMAGED_TODO,
        )


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


def _short(text: object) -> str:
    """A stranger's word, safe to print: ASCII, at most 40 characters, in quotes."""
    return ascii(str(text)[:40])


def _damaged(name: str, reason: str) -> CheckpointError:
    return CheckpointError("checkpoint.damaged", f"{name} is damaged: {reason}.", todo=_DAMAGED_TODO)


def _schema_error(name: str, what: str) -> NoReturn:
    raise CheckpointError(
        "checkpoint.schema",
        f"{name} {what}.",
        expected="It must hold exactly what this version of talker writes.",
        todo="Fetch or create it again, or use the version of talker that made it.",
    )
