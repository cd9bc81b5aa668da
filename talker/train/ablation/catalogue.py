"""What each experiment asks, and which figures its plot shows. Nothing heavy: the command line reads the names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "psnr_mouth": "mouth dB",
    "mouth_r": "lips r",
    "mouth_r_swapped": "r, other sound",
    "mouth_r_true_motion": "r, true motion",
    "mouth_variation": "lip variation",
    "lmd_px_at_512": "LMD px",
    "jitter_px": "jitter px",
    "silence_variation": "silence",
    "blink_recall": "blinks",
    "probe_r": "r with the probe",
    "probe_r_swapped": "r with the probe, swapped sound",
    "own_lips_r": "r with the speaker's lips",
    "probe_own_lips_r": "probe's r with them",
    "lips_share": "at lips %",
    "eyes_share": "at eyes %",
    "train_s": "training s",
    "train_cpu_s": "training CPU s",
    "fps": "frames/s",
    "frame_cpu_ms": "CPU ms/frame",
    "peak_memory_mb": "peak MB",
    "gaussians": "Gaussians",
    "parameters": "parameters",
}
"""Figures of the table, in this order; those no variant has are left out."""


@dataclass(frozen=True)
class Plot:
    """``scatter`` and ``dots`` show the seeds and their mean; ``curves`` how PSNR rises while training.

    Attributes:
        kind: ``scatter``: two figures against each other; ``dots``: a panel for each figure, a row for each
            variant; ``curves``: one line a variant.
        figures: Keys of ``COLUMNS``.
    """

    kind: Literal["scatter", "dots", "curves"]
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A question and the plot that answers it."""

    question: str
    plot: Plot


EXPERIMENTS: dict[str, Experiment] = {
    "agents": Experiment(
        "How many agents does ESAA need, as a share of the Gaussians, against ordinary cross attention?",
        Plot("scatter", ("fps", "mouth_r")),
    ),
    "decoder": Experiment("KAN or MLP, at equal width and at an equal number of parameters?", Plot("curves")),
    "mgf": Experiment(
        "What is the gate worth against adding sound and place?", Plot("dots", ("psnr_mouth", "mouth_r"))
    ),
    "density": Experiment(
        "Where should Gaussians be added, at an equal number of them?", Plot("dots", ("psnr", "psnr_mouth"))
    ),
    "stage1": Experiment(
        "A static head first, or all steps with the deformation?",
        Plot("dots", ("lips_share", "eyes_share", "psnr_mouth")),
    ),
    "deform": Experiment("Which attributes should move?", Plot("dots", ("psnr_mouth", "mouth_r"))),
    "encoder": Experiment(
        "What should the field know about a place?", Plot("dots", ("psnr", "psnr_mouth", "mouth_r"))
    ),
    "fusion": Experiment("How should sound and place come together?", Plot("scatter", ("fps", "mouth_r"))),
    "ppe": Experiment(
        "Does a periodic position code of the tokens do anything?", Plot("dots", ("psnr_mouth", "mouth_r"))
    ),
    "mouth": Experiment(
        "One field, another one inside the mouth, or one that follows the lips?",
        Plot("dots", ("psnr_mouth", "mouth_r")),
    ),
    "codes": Experiment(
        "Should motion codes be learnt with the images, and should the field still see those measured?",
        Plot("dots", ("psnr_mouth", "mouth_r", "mouth_r_true_motion")),
    ),
    "speakers": Experiment(
        "Do the lips follow people the avatar has never heard?", Plot("dots", ("probe_r", "probe_r_swapped"))
    ),
    "identities": Experiment(
        "Can two speakers share one field, each with Gaussians of their own?",
        Plot("dots", ("psnr_mouth", "mouth_r")),
    ),
    "cost": Experiment(
        "What does each preset cost at equal steps?", Plot("scatter", ("train_s", "peak_memory_mb"))
    ),
}
"""In the order ``ALL`` runs them."""

ALL, SPEAKERS, IDENTITIES = "all", "speakers", "identities"
