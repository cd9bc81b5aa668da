"""Fused CPU kernels: how they are compiled, kept and shared out among threads.

Sums written with tensors spend their time moving temporaries of tens of megabytes; a kernel keeps them in registers.
Shares of the work are fixed, whatever the number of threads, so results do not depend on it. Anything but float32 on
a CPU goes through the tensor definition beside each kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numba
import torch
from torch import Tensor

from talker import threads

SHARES = 8
# Sums may be reordered (that is what vectorises them); NaN and infinity keep their meaning.
FASTMATH = {"contract", "reassoc", "nsz"}


def applies(*tensors: Tensor) -> bool:
    """Whether the kernels can take these tensors."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def kernel(function: Callable) -> Callable:
    """Compile at the first call and keep the result on disk, where the user lets us."""
    folder = os.environ.get("TALKER_CACHE") or str(Path.home() / ".cache" / "talker")
    config = getattr(numba, "config")  # noqa: B009 (not in numba's list of exports)
    before, config.CACHE_DIR = config.CACHE_DIR, str(Path(folder) / "kernels")
    try:
        return numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder it can write to: compile in every process
        return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before


def share_out(task: Callable[[int, int, int], None], n_items: int) -> None:
    """Run ``task(share, start, stop)`` over a fixed partition of ``n_items``, on as many threads as there are."""
    borders = [n_items * i // SHARES for i in range(SHARES + 1)]
    n_threads = min(threads.n_threads(), SHARES)

    def several(thread: int) -> None:
        for i in range(thread, SHARES, n_threads):
            task(i, borders[i], borders[i + 1])

    threads.run(several, n_threads)
