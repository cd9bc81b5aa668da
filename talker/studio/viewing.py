"""Copies of an avatar's 3D file for others: turned for the viewer of the browser, and as a ``.splat``.

The viewer (gsplat.js behind ``gr.Model3D``) always starts at the same place of its orbit, 5 units away, half a
radian to the side and half a radian up. The copy is shrunk and turned so that this place is in front of the face.

A ``.splat`` is a list of 32 bytes a Gaussian, without a header: place and size as three float32 each, colour and
opacity as four bytes, rotation as four bytes (wxyz, 128 is zero). The most visible come first, so that a viewer
that loads only the start shows the whole head.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from talker.atomic import write_atomic
from talker.errors import CheckpointError

ORBIT_ALPHA = ORBIT_BETA = 0.5
"""Where the viewer starts, radians."""
HALF_EXTENT = 0.95
"""Size of the turned cloud: what fits into the viewer's field of view."""
MAX_HEADER = 4096
LARGEST = 80.0
"""Places, logits and logarithms beyond it are no head; exp(80) is still a number in float32."""
COLUMNS = (
    *"xyz",
    *(f"f_dc_{i}" for i in range(3)),
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
)
SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic: colour is half plus this times its coefficient."""
SPLAT = np.dtype([("place", "<f4", 3), ("size", "<f4", 3), ("colour", "u1", 4), ("rotation", "u1", 4)])


def write_view(source: Path, target: Path) -> None:
    """Write the turned and shrunk copy of a 3DGS PLY.

    Raises:
        CheckpointError: ``ply.unreadable`` if the file is not one of ours.
    """
    header, vertices, column = _read(source)
    turn = _turn()
    means = vertices[:, [column[c] for c in "xyz"]]
    middle = np.median(means, axis=0)
    factor = HALF_EXTENT / np.percentile(np.abs(means - middle).max(axis=1), 98)
    vertices[:, [column[c] for c in "xyz"]] = factor * (means - middle) @ turn.T
    vertices[:, [column[f"scale_{i}"] for i in range(3)]] += np.log(factor)
    quats = [column[f"rot_{i}"] for i in range(4)]
    vertices[:, quats] = _times(_quaternion(turn), vertices[:, quats])
    target.write_bytes(header + vertices.tobytes())


def write_splat(source: Path, target: Path) -> None:
    """Write a 3DGS PLY as a ``.splat``; its axes stay as they are.

    Args:
        source: ``neutral.ply`` of an avatar.
        target: The file to write; it appears complete, or not at all.

    Raises:
        CheckpointError: ``ply.unreadable`` if the file is not one of ours; ``checkpoint.no_space``.
    """
    _, vertices, column = _read(source)

    def of(*names: str) -> np.ndarray:
        return vertices[:, [column[name] for name in names]].astype(np.float64)

    scales = np.exp(of("scale_0", "scale_1", "scale_2"))
    opacity = 1 / (1 + np.exp(-of("opacity")))
    quats = of("rot_0", "rot_1", "rot_2", "rot_3")
    lengths = np.linalg.norm(quats, axis=1, keepdims=True)
    quats = np.where(lengths > 0, quats / np.maximum(lengths, 1e-12), [1.0, 0.0, 0.0, 0.0])
    records = np.empty(len(vertices), SPLAT)
    records["place"] = of("x", "y", "z")
    records["size"] = scales
    records["colour"][:, :3] = _byte(255 * (0.5 + SH_C0 * of("f_dc_0", "f_dc_1", "f_dc_2")))
    records["colour"][:, 3:] = _byte(255 * opacity)
    records["rotation"] = _byte(128 * quats + 128)
    order = np.argsort(-scales.prod(axis=1) * opacity[:, 0], kind="stable")
    write_atomic(target, records[order].tobytes())


def _byte(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _read(source: Path) -> tuple[bytes, np.ndarray, dict[str, int]]:
    """Header, numbers [N, C] and columns of a 3DGS PLY as this product writes it; a stranger's is read with care."""
    data = source.read_bytes()
    end = data.find(b"end_header\n", 0, MAX_HEADER) + len(b"end_header\n")
    lines = data[:end].decode("ascii", errors="replace").splitlines()
    names = [line.split()[2] for line in lines if re.fullmatch(r"property float \w+", line, re.ASCII)]
    sizes = [
        int(line.split()[2]) for line in lines if re.fullmatch(r"element vertex [0-9]{1,9}", line, re.ASCII)
    ]
    n = sizes[0] if sizes else 0
    if (
        "format binary_little_endian 1.0" not in lines
        or not set(COLUMNS) <= set(names)
        or n == 0
        or len(data) - end != 4 * n * len(names)
    ):
        raise _unreadable()
    vertices = np.frombuffer(data, "<f4", offset=end).reshape(n, len(names)).copy()
    column = {name: i for i, name in enumerate(names)}
    wanted = vertices[:, [column[name] for name in COLUMNS]]
    # The exponential of a size and the place itself must stay ordinary numbers.
    if not np.isfinite(wanted).all() or np.abs(wanted).max() > LARGEST:
        raise _unreadable()
    return data[:end], vertices, column


def _unreadable() -> CheckpointError:
    return CheckpointError(
        "ply.unreadable",
        "The 3D file of this avatar cannot be read.",
        expected="The file that was written with the avatar.",
        todo="Fetch or create the avatar again.",
    )


def _turn() -> np.ndarray:
    """From the file's axes (x right, y up, z to the viewer) to the viewer's, seen from where it starts, [3, 3]."""
    sa, ca, sb, cb = np.sin(ORBIT_ALPHA), np.cos(ORBIT_ALPHA), np.sin(ORBIT_BETA), np.cos(ORBIT_BETA)
    forward = np.array([-sa * cb, sb, ca * cb])
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    return np.stack([-right, -np.cross(forward, right), forward], axis=1).astype(np.float32)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Of a rotation, wxyz [4]; from the largest of the four so that it also holds near half a turn."""
    m = rotation.astype(np.float64)
    t = np.array([np.trace(m), m[0, 0], m[1, 1], m[2, 2]])
    k = int(t.argmax())
    outer = np.array(
        [
            [1 + t[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], 1 + 2 * m[0, 0] - t[0], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], 1 + 2 * m[1, 1] - t[0], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 + 2 * m[2, 2] - t[0]],
        ]
    )  # 4 q qT: any of its rows is the quaternion times one of its own parts
    return (outer[k] / np.linalg.norm(outer[k])).astype(np.float32)


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of ``a`` [4] with each row of ``b`` [N, 4], wxyz."""
    w, x, y, z = a
    matrix = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], np.float32)
    return b @ matrix.T
