"""A copy of an avatar's 3D file that the browser's viewer opens face to face.

The viewer (gsplat.js behind ``gr.Model3D``) always starts at the same place of its orbit, 5 units away, half a
radian to the side and half a radian up. The copy is shrunk and turned so that this place is in front of the face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from talker.errors import CheckpointError

ORBIT_ALPHA = ORBIT_BETA = 0.5
"""Where the viewer starts, radians."""
HALF_EXTENT = 0.95
"""Size of the turned cloud: what fits into the viewer's field of view."""
MAX_HEADER = 4096


def write_view(source: Path, target: Path) -> None:
    """Write the turned and shrunk copy of a 3DGS PLY.

    Raises:
        CheckpointError: ``ply.unreadable`` if the file is not one of ours.
    """
    data = source.read_bytes()
    end = data.find(b"end_header\n", 0, MAX_HEADER) + len(b"end_header\n")
    lines = data[:end].decode("ascii", errors="replace").splitlines()
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    n = next((int(line.split()[2]) for line in lines if line.startswith("element vertex ")), 0)
    wanted = {"x", "y", "z", "rot_0", "scale_0"}
    if (
        "format binary_little_endian 1.0" not in lines
        or not wanted <= set(names)
        or len(data) - end != 4 * n * len(names)
    ):
        raise CheckpointError("ply.unreadable", "The 3D file of this avatar cannot be read.")
    vertices = np.frombuffer(data, "<f4", offset=end).reshape(n, len(names)).copy()
    column = {name: i for i, name in enumerate(names)}
    turn = _turn()
    means = vertices[:, [column[c] for c in "xyz"]]
    middle = np.median(means, axis=0)
    factor = HALF_EXTENT / np.percentile(np.abs(means - middle).max(axis=1), 98)
    vertices[:, [column[c] for c in "xyz"]] = factor * (means - middle) @ turn.T
    vertices[:, [column[f"scale_{i}"] for i in range(3)]] += np.log(factor)
    quats = [column[f"rot_{i}"] for i in range(4)]
    vertices[:, quats] = _times(_quaternion(turn), vertices[:, quats])
    target.write_bytes(data[:end] + vertices.tobytes())


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
