"""Repeated measurements: medians with their spread, wall time beside processor time."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from talker.device import chosen_device
from talker.errors import ConfigError
from talker.types import SAMPLE_RATE, Speech

Results = dict[str, float | int | str]

MIN_SAMPLES = 5
WARM_UP = 3
"""First calls compile, load and fill caches."""


class Samples:
    """Wall and processor milliseconds of repeated calls."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, function: Callable):
        """Call once; the result of the call."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        finish()
        self.wall.append(1e3 * (time.perf_counter() - wall))
        self.cpu.append(1e3 * (time.process_time() - cpu))
        return result

    def summary(self, name: str) -> Results:
        """``<name>_ms`` (median) and its spread."""
        low, median, high = (round(float(v), 3) for v in np.percentile(self.wall, [10, 50, 90]))
        return {
            f"{name}_ms": median,
            f"{name}_ms_p10": low,
            f"{name}_ms_p90": high,
            f"{name}_cpu_ms": round(float(np.median(self.cpu)), 3),
            f"{name}_samples": len(self.wall),
        }


def finish() -> None:
    """Wait for what a GPU was given to do; on a CPU everything is done already."""
    if chosen_device().type == "cuda":
        torch.cuda.synchronize()


def sampled(
    name: str,
    function: Callable[[], object],
    seconds: float,
    *,
    warm_up: int = WARM_UP,
    least: int = MIN_SAMPLES,
) -> Results:
    """Call ``function`` for about ``seconds``, after a few calls that do not count."""
    for _ in range(warm_up):
        function()
    finish()
    samples = Samples()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples.wall) < least:
        samples.time(function)
    return samples.summary(name)


def sizes(n_gaussians: int, size: int) -> Results:
    """What every figure depends on."""
    return {
        "gaussians": n_gaussians,
        "size": size,
        "threads": torch.get_num_threads(),
        "device": device_name(),
    }


def device_name() -> str:
    """``cpu``, or the GPU's own name."""
    return "cpu" if chosen_device().type == "cpu" else torch.cuda.get_device_name()


def voice(seconds: float) -> Speech:
    """Noise in syllables: features and lips cost the same whatever is said."""
    n = max(1, round(seconds * SAMPLE_RATE))
    loudness = 0.1 * np.abs(np.sin(2 * np.pi * 2.5 * np.arange(n) / SAMPLE_RATE))
    return Speech((loudness * np.random.default_rng(0).standard_normal(n)).astype(np.float32))


def needed(a: Namespace, option: str) -> Path:
    """The path given with ``--option``.

    Raises:
        ConfigError: It was not.
    """
    value = getattr(a, option)
    if value is None:
        raise ConfigError(
            f"bench.{option}", f"'bench {a.what}' measures a given one.", expected=f"--{option} PATH."
        )
    return value
