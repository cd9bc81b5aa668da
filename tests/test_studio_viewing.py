"""The copy for the browser's viewer is the same cloud, turned and shrunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plyfile
import pytest
from scipy.spatial.transform import Rotation

from talker.errors import CheckpointError
from talker.studio.viewing import write_splat, write_view

NAMES = [
    "x",
    "y",
    "z",
    *(f"f_dc_{i}" for i in range(3)),
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
]


def write(path: Path, n: int = 500) -> np.ndarray:
    rng = np.random.default_rng(0)
    table = np.empty(n, dtype=[(name, "<f4") for name in NAMES])
    for name in NAMES:
        table[name] = rng.normal(size=n)
    plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")], byte_order="<").write(str(path))
    return table


def columns(table: np.ndarray, *names: str) -> np.ndarray:
    return np.stack([table[name] for name in names], axis=1).astype(np.float64)


def test_one_rigid_turn_and_one_scale_for_places_and_shapes(tmp_path: Path) -> None:
    before = write(tmp_path / "a.ply")
    write_view(tmp_path / "a.ply", tmp_path / "b.ply")
    after = plyfile.PlyData.read(str(tmp_path / "b.ply"))["vertex"].data
    a, b = columns(before, "x", "y", "z"), columns(after, "x", "y", "z")
    factor = np.exp(np.median(after["scale_0"] - before["scale_0"]))
    centred = a - np.median(a, axis=0)
    turn, residual = Rotation.align_vectors(b, factor * centred)
    assert residual < 1e-3
    assert np.percentile(np.abs(b).max(axis=1), 98) < 2.5

    def rotations(table: np.ndarray) -> Rotation:
        return Rotation.from_quat(columns(table, "rot_1", "rot_2", "rot_3", "rot_0"))

    error = (rotations(after) * (turn * rotations(before)).inv()).magnitude()
    assert error.max() < 1e-3
    for name in ("opacity", "f_dc_0", "f_dc_1", "f_dc_2"):
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("content", [b"", b"ply\nformat ascii 1.0\nend_header\n", b"\x00" * 5000])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(CheckpointError):
        write_view(tmp_path / "a.ply", tmp_path / "b.ply")
    assert not (tmp_path / "b.ply").exists()


def test_cut_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.ply")
    whole = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(whole[:-7])
    with pytest.raises(CheckpointError):
        write_view(tmp_path / "a.ply", tmp_path / "b.ply")


def test_a_splat_says_the_same_in_32_bytes_a_gaussian(tmp_path: Path) -> None:
    table = write(tmp_path / "a.ply")
    write_splat(tmp_path / "a.ply", tmp_path / "a.splat")
    data = (tmp_path / "a.splat").read_bytes()
    assert len(data) == 32 * len(table)
    # Read byte by byte, as a viewer does, independent of the writer's record type.
    rows = [data[i : i + 32] for i in range(0, len(data), 32)]
    place = np.array([np.frombuffer(r[0:12], "<f4") for r in rows])
    size = np.array([np.frombuffer(r[12:24], "<f4") for r in rows])
    rgba = np.array([list(r[24:28]) for r in rows])
    turn = (np.array([list(r[28:32]) for r in rows]) - 128) / 128
    alpha = 1 / (1 + np.exp(-table["opacity"].astype(np.float64)))
    weight = np.exp(table["scale_0"] + table["scale_1"] + table["scale_2"]) * alpha
    order = np.argsort(-weight, kind="stable")
    np.testing.assert_array_equal(place, columns(table, "x", "y", "z")[order].astype(np.float32))
    np.testing.assert_allclose(
        size, np.exp(columns(table, "scale_0", "scale_1", "scale_2"))[order], rtol=1e-6
    )
    colour = 0.5 + 0.28209479 * columns(table, "f_dc_0", "f_dc_1", "f_dc_2")[order]
    np.testing.assert_allclose(rgba[:, :3], 255 * colour.clip(0, 1), atol=0.51)
    np.testing.assert_allclose(rgba[:, 3], 255 * alpha[order], atol=0.51)
    quats = columns(table, "rot_0", "rot_1", "rot_2", "rot_3")[order]
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    np.testing.assert_allclose(turn, quats, atol=0.0079)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_numbers_that_are_no_head_are_refused(tmp_path: Path, value: float) -> None:
    write(tmp_path / "a.ply")
    table = plyfile.PlyData.read(str(tmp_path / "a.ply"), mmap=False)
    table["vertex"].data["scale_1"][7] = value
    table.write(str(tmp_path / "a.ply"))
    for copy in (write_view, write_splat):
        with pytest.raises(CheckpointError):
            copy(tmp_path / "a.ply", tmp_path / "b")
