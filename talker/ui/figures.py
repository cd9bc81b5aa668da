"""Measured figures in words a visitor understands; the rest keep their technical names."""

from __future__ import annotations

from collections.abc import Mapping

from talker.ui.words import say

FIGURES = (
    ("psnr", "Picture, PSNR", "{:.1f} dB"),
    ("psnr_mouth", "Mouth, PSNR", "{:.1f} dB"),
    ("ssim", "Picture, SSIM", "{:.3f}"),
    ("lpips", "Picture, LPIPS", "{:.3f}"),
    ("mouth_r", "Lips follow the sound, r", "{:.2f}"),
)
HEADING = "Measured on the unseen end of the clip"
"""Protocol B: the whole frame, from the avatar and the sound alone."""


def known(metrics: Mapping[str, object]) -> list[tuple[str, str]]:
    """The figures a visitor is shown first."""
    return [
        (say(words), form.format(metrics[name]))
        for name, words, form in FIGURES
        if _is_number(metrics.get(name))
    ]


def others(metrics: Mapping[str, object]) -> list[tuple[str, str]]:
    """The remaining ones."""
    shown = {name for name, _, _ in FIGURES}
    return [
        (name, f"{value:.3f}") for name, value in metrics.items() if name not in shown and _is_number(value)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
