"""What a long run reports. Preparing, training and driving yield these; front ends only read them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class StageStarted:
    """A stage begins: ``check``, ``prepare/pose``, ``static``, ``deform``, ``evaluate``, ..."""

    stage: str
    total: int
    """Number of steps (frames, iterations) the stage has; 0 if unknown."""


@dataclass(frozen=True)
class Progress:
    """One report inside a stage. ``values`` holds figures such as ``loss``, ``psnr``, ``gaussians``."""

    stage: str
    step: int
    total: int
    eta_s: float | None = None
    """Estimated seconds until the whole run ends, where known."""
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """A picture for a person to look at."""

    stage: str
    step: int
    rgb: np.ndarray  # [H, W, 3] uint8


@dataclass(frozen=True)
class PreviewClip:
    """A few moving pictures for a person to look at; they form a loop."""

    stage: str
    step: int
    rgb: np.ndarray  # [T, H, W, 3] uint8
    rate: int
    """Pictures a second."""


@dataclass(frozen=True)
class Note:
    """A sentence for the user; ``level`` is ``info`` or ``warning``."""

    message: str
    level: str = "info"


@dataclass(frozen=True)
class CheckpointSaved:
    """Everything up to ``step`` of ``stage`` survives a kill from here on."""

    stage: str
    step: int
    path: Path


@dataclass(frozen=True)
class FrameSeries:
    """What was measured on every held-out frame, in order: arrays [T], NaN where a frame has no figure."""

    first_frame: int
    """Number of the first held-out frame in the clip."""
    psnr: np.ndarray
    """Decibels, the whole frame; NaN where the clip has no tracked face, like the next."""
    psnr_mouth: np.ndarray
    """Decibels, the fixed box of the mouth."""
    mouth_truth: np.ndarray
    """Gap of the inner lips as a share of the distance of the outer eye corners, like the next three."""
    mouth: np.ndarray
    """Of the avatar, driven by the held-out sound."""
    mouth_swapped: np.ndarray | None
    """Of the avatar, driven by other sound; None if this was not measured, like the next."""
    mouth_true_motion: np.ndarray | None
    """Of the avatar, driven by the lips of the clip themselves."""
    eyes_truth: np.ndarray
    """Gap of the lids as a share of the distance of the outer eye corners."""
    eyes: np.ndarray
    jitter_truth: np.ndarray
    """Trembling of the forehead in pixels at 512."""
    jitter: np.ndarray

    def __len__(self) -> int:
        return len(self.psnr)

    def to_dict(self) -> dict[str, object]:
        """Plain lists for JSON: four decimals, None for NaN, only what was measured."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: _plain(value) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
            if value is not None
        }


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in values]


@dataclass(frozen=True)
class Evaluated:
    """Figures on held-out frames, with the protocol they were measured under."""

    protocol: str
    metrics: dict[str, float]
    series: FrameSeries | None = None
    """The same frame by frame; None where only the figures have come through (a job elsewhere)."""


@dataclass(frozen=True)
class Finished:
    """The run ended well; ``path`` is what it made."""

    path: Path
    summary: dict[str, object] = field(default_factory=dict)


Event = StageStarted | Progress | Preview | PreviewClip | Note | CheckpointSaved | Evaluated | Finished
