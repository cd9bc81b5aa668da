"""Names, shapes and version of what a dataset folder holds. Nobody else spells a file name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from talker.atomic import atomic_path, write_atomic
from talker.errors import DatasetError

VERSION = 1

HEADER = "dataset.json"
FRAMES = "frames.npy"  # [T, S, S, 3] uint8
MASKS = "masks.npy"  # [T, S, S] uint8, probability of being the person * 255
LANDMARKS = "landmarks.npy"  # [T, 478, 3] float32, pixels; NaN where no face was found
SHOTS = "shots.npz"  # segment [T] int32, crop [4] x, y, width, height in decoded pixels
POSE = "pose.npz"  # K, T_cam_head, shape, valid, segment, reference, error [T] reprojection in pixels
TORSO = "torso.npz"  # T_cam_torso [T, 4, 4], tracked [T]
EXPRESSION = "expression.npz"  # expression [T, E], mouth_open [T]
PLATE = "background.png"  # [S, S, 3]
PLATES = "plates.npz"  # local [P, S, S, 3] plates of a few seconds each, of_frame [T] which is whose
CLOUD = "cloud.npz"
AUDIO = "audio.wav"
WORK = "work"
"""Folder of decoded frames; removed when every step is done."""

HELD_OUT_SHARE = 11
"""The last 1/11 of a clip is never trained on."""

REGION_FACE, REGION_HAIR, REGION_TORSO, REGION_MOUTH = range(4)


def n_train_frames(n_frames: int) -> int:
    """First frame of the held-out tail."""
    return n_frames - n_frames // HELD_OUT_SHARE


def read_header(root: Path) -> dict[str, Any]:
    """The folder's ``dataset.json``.

    Raises:
        DatasetError: Missing, unreadable, or of another version.
    """
    path = root / HEADER
    if not path.is_file():
        raise DatasetError(
            "dataset.missing",
            f"{root.name} holds no prepared clip ({HEADER} is missing).",
            todo="Prepare the clip first.",
        )
    try:
        header = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(
            "dataset.damaged", f"{HEADER} in {root.name} cannot be read.", todo="Prepare the clip again."
        ) from error
    if header.get("version") != VERSION:
        raise DatasetError(
            "dataset.version",
            f"{root.name} was prepared by another version (format {header.get('version')}).",
            expected=f"This version reads format {VERSION}.",
            todo="Prepare the clip again.",
        )
    return header


def write_header(root: Path, header: dict[str, Any]) -> None:
    """Replace ``dataset.json`` in one step."""
    write_atomic(root / HEADER, json.dumps(header, indent=1).encode())


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an ``.npz`` in one step."""
    with atomic_path(path) as part:
        np.savez(part, **arrays)  # type: ignore[arg-type]


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an ``.npy`` in one step."""
    with atomic_path(path) as part:
        np.save(part, array)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a whole ``.npz``."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def remove_work(root: Path) -> None:
    """Delete the decoded frames, which are many times the size of the rest."""
    shutil.rmtree(root / WORK, ignore_errors=True)
