"""Safetensors files a stranger may have written: read against a schema, written atomically.

Caps are checked on the declared sizes before the bytes are looked at, tensors against an allow-list, numbers for
finiteness.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from talker.atomic import write_atomic
from talker.errors import CheckpointError
from talker.safe_files import DAMAGED_ADVICE, damaged, parse_json, read_capped

MAX_HEADER_BYTES = 1 << 20
"""Largest accepted safetensors header; the format itself would allow 100 MB of it."""

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
    blob = read_capped(path, max_bytes)
    _check_header(path.name, len(blob), _header(path.name, blob), schema)
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError, RuntimeError, OverflowError, KeyError, TypeError) as error:
        raise damaged(path.name, "its tensors do not match its header") from error
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


def _header(name: str, blob: bytes) -> dict:
    length = int.from_bytes(blob[:8], "little")
    if len(blob) < 10 or length > len(blob) - 8:
        raise damaged(name, "its header is cut off")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            "checkpoint.too_large",
            f"{name} declares a header of {length:,} bytes.",
            expected=f"At most {MAX_HEADER_BYTES:,} are accepted.",
            todo=DAMAGED_ADVICE,
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
        raise damaged(name, "its header is not that of a safetensors file")
    shape, dtype = entry["shape"], entry["dtype"]
    if not isinstance(dtype, str) or _DTYPES.get(dtype) is not rule.dtype:
        _schema_error(name, f"has {key} of type {_short(dtype)} instead of {rule.dtype}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise damaged(name, "its header declares an impossible shape")
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
        raise damaged(name, "its header declares more than the file holds")
    return shape


def _check_values(name: str, key: str, tensor: Tensor, rule: TensorRule) -> None:
    if tensor.numel() == 0:
        return
    if rule.finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            "checkpoint.values", f"{name} holds numbers in {key} that are not finite.", todo=DAMAGED_ADVICE
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
            todo=DAMAGED_ADVICE,
        )


def _short(text: object) -> str:
    """A stranger's word, safe to print: ASCII, at most 40 characters, in quotes."""
    return ascii(str(text)[:40])


def _schema_error(name: str, what: str) -> NoReturn:
    raise CheckpointError(
        "checkpoint.schema",
        f"{name} {what}.",
        expected="It must hold exactly what this version of talker writes.",
        todo="Fetch or create it again, or use the version of talker that made it.",
    )
