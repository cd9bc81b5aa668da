"""What a long run reports. Preparing, training and driving yield these; front ends only read them."""

from __future__ import annotations

from dataclasses import dataclass, field
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
class Evaluated:
    """Figures on held-out frames, with the protocol they were measured under."""

    protocol: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """The run ended well; ``path`` is what it made."""

    path: Path
    summary: dict[str, object] = field(default_factory=dict)


Event = StageStarted | Progress | Preview | Note | CheckpointSaved | Evaluated | Finished
