"""Shares work out to threads that sleep while they wait.

Kernels release the GIL, so plain Python threads run them in parallel. Compared with numba's own parallel loops
this compiles several times faster, may be called from any number of threads at once, and never spins: OpenMP's
default waiting costs a factor of two to four as soon as another process wants a core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

_MAX_WORKERS = max(1, (os.cpu_count() or 1))
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def _workers() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one pool for the process, made when first needed
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MAX_WORKERS, thread_name_prefix="talker-render")
        return _pool


def _forget_pool() -> None:
    """Threads do not survive a fork; the child makes its own."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def run(share: Callable[[int], None], n_shares: int) -> None:
    """Call ``share(0)`` .. ``share(n_shares - 1)`` at the same time; the first one in this thread.

    Returns when all are done, also if one raised; then raises what it raised.
    """
    futures = [_workers().submit(share, i) for i in range(1, n_shares)]
    try:
        share(0)
    finally:
        wait(futures)
    for future in futures:
        future.result()


def split(n_items: int, n_shares: int, step: int = 1) -> list[tuple[int, int]]:
    """Contiguous ranges that cover ``n_items``, their borders multiples of ``step``."""
    per_share = -(-n_items // (n_shares * step)) * step
    return [(min(n_items, i * per_share), min(n_items, (i + 1) * per_share)) for i in range(n_shares)]
