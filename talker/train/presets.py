"""What a user chooses from: both papers as described, and our own by cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from talker.errors import ConfigError
from talker.model.avatar import ModelConfig
from talker.model.deformation import FieldConfig
from talker.model.motion import MotionConfig
from talker.train.densify import DensityConfig
from talker.train.schedule import LossWeights, Stage
from talker.types import FPS

ALIGN_S = 0.03
"""Aligning one frame at 256 px, two cores."""


@dataclass(frozen=True)
class Preset:
    """A model, its two stages and what to tell a person before starting.

    Attributes:
        name: As on the command line.
        title: For a person.
        description: One or two sentences without jargon.
        model: The switches.
        stages: In order.
        n_gaussians: Points of the initial cloud.
        step_ms: Measured cost of a step at 256 and 512 px on two CPU cores, for estimates.
    """

    name: str
    title: str
    description: str
    model: ModelConfig
    stages: tuple[Stage, ...]
    n_gaussians: int = 20_000
    step_ms: tuple[float, float] = (40.0, 110.0)

    def minutes_estimate(self, clip_seconds: float, size: int) -> float:
        """Minutes ``create`` takes on two CPU cores for a clip of ``clip_seconds`` at ``size`` pixels."""
        low, high = self.step_ms
        step_ms = low + (high - low) * (size**2 - 256**2) / (512**2 - 256**2)
        training = sum(stage.steps for stage in self.stages) * max(step_ms, low / 3) / 1000
        align_s = ALIGN_S * (size / 256) * sum(stage.align for stage in self.stages)
        return (training + (0.8 + align_s * FPS) * clip_seconds + 20) / 60


def _paper_stages(kind: Literal["pixel_aware", "standard"], *, heads: bool = False) -> tuple[Stage, ...]:
    """Both papers train alike; they differ in where Gaussians are added and in what the static head is read off."""
    density = DensityConfig(kind=kind, start=500, stop=2800, max_gaussians=50_000)
    return (
        Stage("static", 3000, static=True, decay=0.5, density=density, heads=heads),
        Stage("deform", 10_000, align=True, decay=0.1, average=0.998),
    )


_OURS = FieldConfig(deform=("mu", "alpha", "shade"))
_SOUND_WINDOW = MotionConfig(window=16)
"""What an audio network sees of the sound, as in the papers."""
_PREVIEW = Preset(
    name="preview",
    title="Preview",
    description="A first look in minutes on any laptop. Good enough to share with a friend.",
    model=ModelConfig(face=_OURS),
    stages=(
        Stage("static", 600, static=True, decay=0.5),
        Stage("deform", 4600, align=True, decay=0.1, signal_jitter=0.25, average=0.998),
    ),
)
_LIPS_FIRST = LossWeights(mouth=1.6)
"""With the steps of ``standard`` the rest of the picture is good before the lips are."""
_STANDARD = replace(
    _PREVIEW,
    name="standard",
    title="Standard",
    description="Sharper face, hair and teeth. About twice the time of a preview.",
    stages=(
        Stage(
            "static",
            1500,
            static=True,
            decay=0.5,
            weights=_LIPS_FIRST,
            density=DensityConfig(kind="pixel_aware", start=400, stop=1400, max_gaussians=30_000),
        ),
        Stage("deform", 3000, align=True, decay=0.5, signal_jitter=0.12, weights=_LIPS_FIRST),
        Stage(
            "refine",
            6000,
            align=True,
            rates=0.5,
            decay=0.2,
            signal_jitter=0.12,
            average=0.998,
            weights=_LIPS_FIRST,
        ),
    ),
)
_EGSTALKER = Preset(
    name="egstalker",
    title="EGSTalker",
    description="The first paper as its authors describe it, driven end to end by sound. For comparison.",
    model=ModelConfig(
        face=FieldConfig(
            encoder="triplane_hash",
            decoder="kan",
            fusion="esaa",
            deform=("mu", "r", "s", "rgb", "alpha"),
            signal="audio",
            agents=0.01,
            ppe="add",
        ),
        motion=_SOUND_WINDOW,
    ),
    stages=_paper_stages("standard", heads=True),
    step_ms=(160.0, 260.0),
)
_PGSTALKER = Preset(
    name="pgstalker",
    title="PGSTalker",
    description="The second paper: separate face and mouth, density where the pixels are. For comparison.",
    model=ModelConfig(
        face=FieldConfig(
            encoder="triplane_hash", decoder="mlp", fusion="mgf", deform=("mu", "r", "s"), signal="audio"
        ),
        mouth=FieldConfig(
            encoder="triplane_hash",
            decoder="mlp",
            fusion="mgf",
            deform=("mu",),
            signal="audio",
            width=32,
            hidden=32,
            follows_lips=True,
        ),
        motion=_SOUND_WINDOW,
    ),
    stages=_paper_stages("pixel_aware"),
    step_ms=(60.0, 150.0),
)

PRESETS: dict[str, Preset] = {p.name: p for p in (_PREVIEW, _STANDARD, _EGSTALKER, _PGSTALKER)}


def get_preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        ConfigError: There is none.
    """
    if name not in PRESETS:
        raise ConfigError(
            "preset.unknown", f"There is no preset called {name!r}.", expected=f"One of {', '.join(PRESETS)}."
        )
    return PRESETS[name]


def scaled(preset: Preset, factor: float) -> Preset:
    """``preset`` with ``factor`` times as many steps, and as many changes of density among them."""

    def steps(count: int, least: int = 0) -> int:
        return max(least, round(count * factor))

    def shortened(stage: Stage) -> Stage:
        old = stage.density
        density = replace(old, start=steps(old.start), stop=steps(old.stop), every=steps(old.every, 1))
        return replace(stage, steps=steps(stage.steps, 2), density=density)

    if factor == 1.0:
        return preset
    return replace(preset, stages=tuple(shortened(stage) for stage in preset.stages))


__all__ = ["PRESETS", "LossWeights", "MotionConfig", "Preset", "get_preset", "scaled"]
