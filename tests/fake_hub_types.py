"""What the local Hub server keeps and is told: its log, its faults, its repositories."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

LFS_SUFFIXES = (".safetensors", ".png", ".jpg", ".mp4", ".ply")
EXPIRED = "hf_expired"


@dataclass
class Request:
    """One line of the log."""

    method: str
    path: str
    host: str
    token: str | None
    status: int = 0
    sent: int = 0
    """Bytes of body that were sent back."""


@dataclass
class Fault:
    """What happens instead of the next ``times`` requests that match."""

    method: str
    path: str  # regular expression, searched in the path
    status: int = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    """Answer properly, but hang up after so many bytes of the body."""
    hang_up: bool = False
    """Close the connection without an answer."""
    after: bool = False
    """Do the work first, then lose the answer."""
    dribble_s: float = 0.0
    """Pause between the bytes of the answer."""


@dataclass
class Repo:
    """One model repository: a line of commits, each a full listing of name -> (blob, is_lfs)."""

    private: bool
    gated: bool = False
    commits: list[tuple[str, dict[str, tuple[str, bool]]]] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)
