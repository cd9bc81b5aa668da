"""The values stages exchange. Frozen, shaped, without behaviour beyond moving between devices.

Frames: the camera frame has OpenCV axes (x right, y down, z away from the camera). The head frame has the
same axes when the head faces the camera; its unit is the distance between the person's outer eye corners.
``T_a_b`` maps coordinates of b into a. Pixels: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:  # a process that only looks after others starts without the two seconds PyTorch takes
    import torch
    from torch import Tensor

BLINK_LEFT, BLINK_RIGHT, BROW_LEFT, BROW_RIGHT = range(4)
EXPRESSION_DIM = 4
"""Expression vector: blink left, blink right (0 open, 1 closed), brow left, right (0 rest, about -1 to 1)."""

SAMPLE_RATE = 16_000
"""Hertz; every waveform inside the library is mono float32 at this rate."""

FPS = 25
"""Frames per second; every clip is resampled to this rate."""


@dataclass(frozen=True)
class Camera:
    """Pinhole camera at the origin of the camera frame."""

    K: Tensor  # [3, 3] pixels
    width: int
    height: int

    def scaled(self, factor: float) -> Camera:
        """The same view with ``factor`` times the pixels in each direction."""
        K = self.K.clone()
        K[:2] *= factor
        return Camera(K, round(self.width * factor), round(self.height * factor))

    def to(self, device: torch.device | str) -> Camera:
        """A copy on ``device``."""
        return Camera(self.K.to(device), self.width, self.height)


@dataclass(frozen=True)
class Gaussians:
    """N activated Gaussians, ready to be rendered."""

    means: Tensor  # [N, 3] camera frame (or head frame while canonical)
    quats: Tensor  # [N, 4] wxyz, unit length
    scales: Tensor  # [N, 3] standard deviations, > 0
    opacities: Tensor  # [N] 0..1
    colors: Tensor  # [N, 3] RGB 0..1, already seen from the camera

    def __len__(self) -> int:
        return self.means.shape[0]

    def select(self, index: Tensor) -> Gaussians:
        """The Gaussians at ``index`` (bool [N] or int [M])."""
        return Gaussians(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def map(self, function) -> Gaussians:
        """Apply ``function`` to every tensor."""
        return Gaussians(**{f.name: function(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class RenderOutput:
    """What a renderer returns. Colour is over black, so ``rgb + (1 - alpha) * background`` composites."""

    rgb: Tensor  # [H, W, 3]
    alpha: Tensor  # [H, W, 1]
    means2d: Tensor  # [N, 2] pixels; its .grad holds dL/dmeans2d after backward
    radii: Tensor  # [N] pixels, 0 where culled
    pixel_count: Tensor | None = None  # [N] pixels each Gaussian was blended into (Pixel-GS m_ik)


@dataclass(frozen=True)
class Driving:
    """One frame's control of the avatar."""

    audio: Tensor  # [A] motion code, or [W, A] window of audio features
    expression: Tensor  # [E] see EXPRESSION_DIM
    T_cam_head: Tensor  # [4, 4]
    T_cam_torso: Tensor  # [4, 4]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The values in the order of the fields."""
        return self.audio, self.expression, self.T_cam_head, self.T_cam_torso

    def to(self, device: torch.device) -> Driving:
        """The same control on ``device``, not waited for."""
        return Driving(*(value.to(device, non_blocking=True) for value in self.tensors()))


@dataclass(frozen=True)
class MotionTrack:
    """Head, torso and face motion of a clip, frame by frame at FPS."""

    T_cam_head: np.ndarray  # [T, 4, 4] float32
    T_cam_torso: np.ndarray  # [T, 4, 4] float32
    expression: np.ndarray  # [T, E] float32
    valid: np.ndarray  # [T] bool: the face was tracked
    segment: np.ndarray  # [T] int32: number of the uncut shot the frame belongs to

    def __len__(self) -> int:
        return len(self.T_cam_head)

    def __getitem__(self, index: slice) -> MotionTrack:
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Word:
    """One spoken word and when, for captions."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """Sound to drive an avatar with."""

    waveform: np.ndarray  # [S] float32 in -1..1, mono, SAMPLE_RATE
    words: tuple[Word, ...] = ()
    label: str = ""
    """Where it came from, for a person: a file name, a voice."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / SAMPLE_RATE

    @property
    def n_frames(self) -> int:
        """Number of video frames that cover the sound."""
        return max(1, round(self.duration_s * FPS))


@dataclass(frozen=True)
class Consent:
    """Who declared that the person shown agrees. ``create`` refuses to start without it."""

    statement: str
    who: str
    when: str
    """ISO 8601, UTC."""
    version: str = "1"

    @classmethod
    def from_dict(cls, value: dict[str, str]) -> Self:
        """Inverse of ``dataclasses.asdict``."""
        return cls(**{f.name: str(value[f.name]) for f in fields(cls) if f.name in value})
