"""Fused CPU kernels: when they apply and how they are shared out among threads.

Sums written with tensors spend their time moving temporaries of tens of megabytes; a kernel keeps them in registers.
Shares of the work are fixed, whatever the number of threads, so results do not depend on it. Anything but float32 on
a CPU goes through the tensor definition beside each kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from talker import threads

SHARES = 8


def applies(*tensors: Tensor) -> bool:
    """Whether the kernels can take these tensors."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def share_out(task: Callable[[int, int, int], None], n_items: int) -> None:
    """Run ``task(share, start, stop)`` over a fixed partition of ``n_items``, on as many threads as there are."""
    borders = [n_items * i // SHARES for i in range(SHARES + 1)]
    n_threads = min(threads.n_threads(), SHARES)

    def several(thread: int) -> None:
        for i in range(thread, SHARES, n_threads):
            task(i, borders[i], borders[i + 1])

    threads.run(several, n_threads)
