"""Weights of SyncNet's shapes that mean nothing: the public ones are not part of the project."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from talker.train.syncnet import SyncNet


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of the right names and shapes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SyncNet().state_dict()


def save_weights(path: Path) -> Path:
    """``random_weights`` in a file."""
    torch.save(random_weights(), path)
    return path
