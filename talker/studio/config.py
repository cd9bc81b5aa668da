"""Where the studio keeps things and what it allows; read once from the environment by the app."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

LOCAL = "local"
"""Owner of everything while the app answers only to the person at this machine."""


def default_home() -> Path:
    """``TALKER_HOME``, or ``home`` beside the package."""
    chosen = os.environ.get("TALKER_HOME")
    return Path(chosen).expanduser() if chosen else Path(__file__).parents[2] / "home"


@dataclass(frozen=True)
class StudioConfig:
    """What the operator allows."""

    sizes: tuple[int, ...] = (256, 512)
    """Picture sizes offered, pixels."""
    max_minutes: float | None = None
    """Longest training of one job; none means the preset decides."""
    max_upload_mb: int = 512
    keep_uploads_h: float = 24.0
    """An uploaded clip that never became a job is deleted after this time."""
    keep_inputs: bool = False
    """Keep the clip and the training data after the avatar is made."""
    report_url: str = ""
    """Where people report misuse; shown on every page."""
    loaded_avatars: int = 2
    """Avatars kept in memory for talking."""

    @classmethod
    def from_environment(cls) -> StudioConfig:
        """``TALKER_SIZES`` (``256,512``), ``TALKER_MAX_MINUTES`` and ``TALKER_REPORT_URL`` override the defaults."""
        sizes = tuple(int(s) for s in os.environ.get("TALKER_SIZES", "").split(",") if s.strip())
        minutes = os.environ.get("TALKER_MAX_MINUTES", "")
        space = os.environ.get("SPACE_ID", "")
        report = f"https://huggingface.co/spaces/{space}/discussions" if space else ""
        return cls(
            sizes=sizes or cls.sizes,
            max_minutes=float(minutes) if minutes else None,
            report_url=os.environ.get("TALKER_REPORT_URL", report),
        )
