"""Finding model weights that are already on this machine, without importing anything heavy."""

from __future__ import annotations

import os
from pathlib import Path


def cached_snapshot(repository: str) -> Path | None:
    """The newest snapshot of a Hub repository in the local cache that has a config and safetensors weights."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    snapshots = cache / f"models--{repository.replace('/', '--')}" / "snapshots"
    complete = [folder for folder in snapshots.glob("*") if has_weights(folder)]
    return max(complete, key=lambda folder: folder.stat().st_mtime, default=None)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model that can be loaded safely."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
