"""The two stages as data: which branch moves, which parameters learn, for how long, under which losses."""

from __future__ import annotations

from dataclasses import dataclass, field

from talker.errors import ConfigError
from talker.train.densify import DensityConfig


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of ``talker.losses``; zero leaves a term out and its cost too."""

    l1: float = 1.0
    dssim: float = 0.2
    mouth: float = 0.8
    """L1 inside the box around the lips."""
    eyes: float = 0.2
    """L1 inside the boxes around the eyes: blinks are 1-2 % of the frames and a hundredth of the pixels."""
    mask: float = 0.02
    """Alpha against the person mask: no Gaussian may paint the background."""
    offset: float = 1e-3
    """Size of the offsets: what need not move does not."""
    smooth: float = 0.0
    """Change of the offsets from a frame to the next."""
    lpips: float = 0.0
    """Learned perceptual distance inside the lip box; left out where its weights are not on the machine."""


@dataclass(frozen=True)
class LearningRates:
    """Adam step sizes; positions in head units."""

    means: float = 1.2e-3
    quats: float = 2e-3
    log_scales: float = 6e-3
    logit_opacities: float = 3e-2
    sh0: float = 2e-2
    rig_logit: float = 2e-2
    embedding: float = 3e-3
    encoder: float = 5e-3
    network: float = 1e-3
    pose: float = 3e-4
    code: float = 3e-3
    """Of the corrections of the motion code, in outer-eye distances; 0 leaves the codes as measured."""


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: ``static`` or ``deform``; appears in events, logs and checkpoints.
        steps: Optimizer steps.
        static: Leave the deformation out: every frame is drawn by the canonical Gaussians.
        geometry: Whether means, rotations, scales and the rig learn.
        decay: Learning rates fall exponentially to this share over the stage.
        rates: Factor on all learning rates.
        align: Align the poses of all training frames to the avatar as it is before the first step.
        heads: Opacity and colour are read off the field's encoder by heads, not free (``StaticHeads``).
    """

    name: str
    steps: int
    static: bool = False
    geometry: bool = True
    decay: float = 0.2
    rates: float = 1.0
    align: bool = False
    heads: bool = False
    signal_jitter: float = 0.0
    """Noise on the motion code, in standard deviations: near codes give near lips, and lips predicted from sound
    are only near the true ones."""
    measured_codes: float = 0.25
    """Share of the steps that see the motion code as it was measured, and the others as it was refined: where lips
    are measured, in new frames, the field must know such codes too. 1 leaves all codes as measured."""
    pose_jitter: float = 0.08
    """Noise, in standard deviations of the clip's head pose, on the pose the field sees. Head pose alone tells
    most frames of a clip apart; without noise the field learns frames by heart."""
    average: float = 0.0
    """Decay of the running average of the avatar's parameters with which the stage ends; 0 ends with the last
    step's. Averaging takes out what the last few frames drawn have left behind."""
    weights: LossWeights = field(default_factory=LossWeights)
    density: DensityConfig = field(default_factory=lambda: DensityConfig(kind="none"))

    def __post_init__(self) -> None:
        if not 0 <= self.average < 1 or (self.average and self.density.kind != "none"):
            raise ConfigError(
                "stage.average",
                f"Stage {self.name} averages with decay {self.average} and {self.density.kind} density control.",
                expected="A decay below 1, and Gaussians that stay the same ones.",
            )
        if self.heads and not self.static:
            raise ConfigError(
                "stage.heads",
                f"Stage {self.name} deforms, and would read the static head off its field.",
                expected="Heads in a static stage.",
            )
        if not 0 <= self.measured_codes <= 1:
            raise ConfigError(
                "stage.measured_codes",
                f"Stage {self.name} sees measured codes in a share of {self.measured_codes} of its steps.",
                expected="A share from 0 to 1.",
            )

    def rate_factor(self, step: int) -> float:
        """Factor on the learning rates at ``step``."""
        return self.rates * self.decay ** (step / max(self.steps, 1))
