"""Fused CPU kernels: how they are compiled, kept and shared out among threads.

Sums written with tensors spend their time moving temporaries of tens of megabytes; a kernel keeps them in registers.
Shares of the work are fixed, whatever the number of threads, so results do not depend on it. Anything but float32 on
a CPU goes through the tensor definition beside each kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numba
import torch
from torch import Tensor

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


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # per process: threads do not survive a fork
    return ThreadPoolExecutor(threads, thread_name_prefix=f"talker-model-{process}")


def share_out(task: Callable[[int, int, int], None], n_items: int) -> None:
    """Run ``task(share, start, stop)`` over a fixed partition of ``n_items``, on torch's number of threads."""
    borders = [n_items * i // SHARES for i in range(SHARES + 1)]
    shares = [(i, borders[i], borders[i + 1]) for i in range(SHARES)]
    threads = torch.get_num_threads()
    if threads == 1:
        for share in shares:
            task(*share)
        return
    for done in [_pool(os.getpid(), threads).submit(task, *share) for share in shares]:
        done.result()
