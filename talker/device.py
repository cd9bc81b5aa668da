"""Where avatars are computed: ``TALKER_DEVICE`` is ``auto`` (the default), ``cpu`` or ``cuda``."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

from talker.errors import BackendError, ConfigError

log = logging.getLogger(__name__)

VARIABLE = "TALKER_DEVICE"


def chosen_device() -> torch.device:
    """The device of this process; ``auto`` is a CUDA device if there is one and gsplat can draw on it.

    Raises:
        ConfigError: The variable asks for something that is not there.
    """
    return _device(os.environ.get(VARIABLE, "").strip().lower() or "auto")


@cache
def _device(wanted: str) -> torch.device:
    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError("device.name", f"{VARIABLE} is {wanted!r}.", expected="One of auto, cpu, cuda.")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "device.cuda",
            f"{VARIABLE} is cuda, but PyTorch finds no CUDA device.",
            expected="An NVIDIA GPU with its driver, and a PyTorch built for CUDA.",
            todo=f"Set {VARIABLE}=cpu, or install what is missing.",
        )
    from talker.render.gsplat_backend import require_gsplat

    try:
        require_gsplat()
    except BackendError as error:
        if wanted == "cuda":
            raise
        log.warning("%s The CPU is used.", error)
        return torch.device("cpu")
    return torch.device("cuda")
