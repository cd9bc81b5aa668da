"""What is accepted into the queue of one machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from talker.errors import JobError


@dataclass(frozen=True)
class Limits:
    """What the store accepts."""

    free_bytes: int = 2 << 30
    """New jobs are refused when the disk has less room than this beside the clip."""
    max_waiting: int = 20
    """Queued jobs one owner may have."""
    max_clip_bytes: int = 1 << 30


def check_limits(limits: Limits, clip: Path, root: Path, waiting: int) -> None:
    """Refuse what would hurt everybody: a full disk, an endless queue.

    Args:
        limits: What is accepted.
        clip: File to copy.
        root: Folder on the disk it is copied to.
        waiting: Jobs the owner has in the queue already.

    Raises:
        JobError: ``job.clip``, ``job.disk`` or ``job.waiting``.
    """
    if not clip.is_file():
        raise JobError("job.clip", "The clip is no longer there.", todo="Upload it again.")
    size = clip.stat().st_size
    if size > limits.max_clip_bytes:
        raise JobError(
            "job.clip",
            f"The clip has {size / (1 << 20):.0f} MB.",
            expected=f"At most {limits.max_clip_bytes >> 20} MB are accepted.",
            todo="Shorten it or lower its quality.",
        )
    if shutil.disk_usage(root).free < limits.free_bytes + size:
        raise JobError(
            "job.disk",
            "The server is short of disk space, so new jobs are not accepted.",
            todo="Delete old jobs or avatars, then try again. Running jobs are safe.",
        )
    if waiting >= limits.max_waiting:
        raise JobError(
            "job.waiting",
            f"You already have {waiting} waiting jobs.",
            todo="Wait for one of them, or cancel it.",
        )
