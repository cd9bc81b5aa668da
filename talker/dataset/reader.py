"""A prepared clip, memory-mapped: five minutes of video take little of the machine's memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from talker.dataset import schema
from talker.errors import DatasetError
from talker.types import Camera, MotionTrack


@dataclass(frozen=True)
class InitialCloud:
    """Points the first Gaussians are made of, in the head frame."""

    means: np.ndarray  # [N, 3]
    colors: np.ndarray  # [N, 3] 0..1
    scales: np.ndarray  # [N] head units
    normals: np.ndarray  # [N, 3] unit
    region: np.ndarray  # [N] uint8: schema.REGION_FACE, _HAIR, _TORSO, _MOUTH
    rig: np.ndarray  # [N] 0..1, prior share of the head's motion


class TalkingHeadDataset:
    """A dataset folder.

    Attributes:
        root: The folder.
        header: Content of ``dataset.json``.
        fps: Frames per second.
        size: Side S of the frames.
        n_frames: T.
        n_train: Frames from here on are held out.
        frames: [T, S, S, 3] uint8.
        masks: [T, S, S] uint8, person probability * 255.
        landmarks: [T, 478, 3] float32 pixels, NaN where no face was found.
        K: [3, 3] pixels.
        shape: [478, 3] mean landmarks of the person in the head frame.
        T_cam_head: [T, 4, 4].
        T_cam_torso: [T, 4, 4].
        expression: [T, E], see ``talker.types``.
        mouth_open: [T] inner-lip gap over the distance of the outer eye corners.
        valid: [T] bool.
        segment: [T] int32.
        reference: Frame in which the torso and the initial cloud are described.
    """

    def __init__(self, root: Path) -> None:
        """Open a folder.

        Raises:
            DatasetError: Missing, incomplete or of another version.
        """
        self.root = Path(root)
        self.header = schema.read_header(self.root)
        needed = (
            schema.FRAMES, schema.MASKS, schema.LANDMARKS, schema.POSE, schema.TORSO, schema.EXPRESSION,
            schema.PLATE, schema.PLATES, schema.CLOUD, schema.AUDIO,
        )  # fmt: skip
        missing = [name for name in needed if not (self.root / name).is_file()]
        if missing or "cloud" not in self.header["steps"]:
            raise DatasetError(
                "dataset.incomplete",
                f"{self.root.name} is not complete ({', '.join(missing) or 'its last step is missing'}).",
                todo="Prepare the clip again; finished steps are kept.",
            )
        self.fps: int = self.header["fps"]
        self.size: int = self.header["size"]
        self.n_frames: int = self.header["n_frames"]
        self.n_train: int = self.header["n_train"]
        self.frames = np.load(self.root / schema.FRAMES, mmap_mode="r")
        self.masks = np.load(self.root / schema.MASKS, mmap_mode="r")
        self.landmarks = np.load(self.root / schema.LANDMARKS, mmap_mode="r")
        poses = schema.load_arrays(self.root / schema.POSE)
        self.K: Tensor = torch.from_numpy(poses["K"])
        self.shape, self.T_cam_head = poses["shape"], poses["T_cam_head"]
        self.valid, self.segment = poses["valid"], poses["segment"]
        torso = schema.load_arrays(self.root / schema.TORSO)
        self.T_cam_torso = torso["T_cam_torso"]
        self.reference = int(poses["reference"])
        signals = schema.load_arrays(self.root / schema.EXPRESSION)
        self.expression, self.mouth_open = signals["expression"], signals["mouth_open"]
        self._check_lengths()

    def _check_lengths(self) -> None:
        lengths = {
            name: len(getattr(self, name))
            for name in ("frames", "masks", "landmarks", "T_cam_head", "T_cam_torso", "expression", "valid")
        }
        wrong = {name: n for name, n in lengths.items() if n != self.n_frames}
        if wrong:
            raise DatasetError(
                "dataset.damaged",
                f"{self.root.name} does not fit together: {wrong} instead of {self.n_frames} frames.",
                todo="Prepare the clip again.",
            )

    def __len__(self) -> int:
        return self.n_frames

    def train_indices(self) -> np.ndarray:
        """Valid frames of the first 10/11, int64."""
        return np.flatnonzero(self.valid[: self.n_train])

    def held_out_indices(self) -> np.ndarray:
        """Valid frames of the last 1/11, int64; contiguous but for untracked ones."""
        return self.n_train + np.flatnonzero(self.valid[self.n_train :])

    @cached_property
    def plate(self) -> np.ndarray:
        """Background [S, S, 3] uint8 of the avatar."""
        image = cv2.imread(str(self.root / schema.PLATE))
        if image is None:
            raise DatasetError("dataset.damaged", f"The background of {self.root.name} cannot be read.")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def plate_at(self, index: int) -> np.ndarray:
        """Background [S, S, 3] uint8 as it was around one frame: what to put behind it while training."""
        return self._plates["local"][self._plates["of_frame"][index]]

    @cached_property
    def _plates(self) -> dict[str, np.ndarray]:
        return schema.load_arrays(self.root / schema.PLATES)

    @cached_property
    def waveform(self) -> np.ndarray:
        """Sound [S] float32, mono, ``SAMPLE_RATE``."""
        from talker.audio.waveform import load

        return load(self.root / schema.AUDIO)

    @cached_property
    def cloud(self) -> InitialCloud:
        """Initial points."""
        return InitialCloud(**schema.load_arrays(self.root / schema.CLOUD))

    @property
    def track(self) -> MotionTrack:
        """Head, torso and face motion of the whole clip."""
        return MotionTrack(self.T_cam_head, self.T_cam_torso, self.expression, self.valid, self.segment)

    @property
    def camera(self) -> Camera:
        """The clip's camera."""
        return Camera(self.K, self.size, self.size)
