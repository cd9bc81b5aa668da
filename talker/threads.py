"""Shares work out to threads that sleep while they wait: one item among all, or many items side by side.

Kernels release the GIL, so plain Python threads run them in parallel. Compared with numba's own parallel loops
this compiles several times faster, may be called from any number of threads at once, and never spins: OpenMP's
default waiting costs a factor of two to four as soon as another process wants a core.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_here = threading.local()
_MAX_WORKERS = max(1, (os.cpu_count() or 1))
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def _workers() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one pool for the process, made when first needed
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MAX_WORKERS, thread_name_prefix="talker")
        return _pool


def _forget_pool() -> None:
    """Threads do not survive a fork; the child makes its own."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def n_threads() -> int:
    """Threads one item of work may use here: PyTorch's number, or one where many items run side by side."""
    if getattr(_here, "alone", False):
        return 1
    torch = sys.modules.get("torch")  # seconds to import, and what comes before training does without it
    return torch.get_num_threads() if torch is not None else _MAX_WORKERS


@contextmanager
def alone() -> Iterator[None]:
    """Inside the block this thread does its work by itself."""
    before, _here.alone = getattr(_here, "alone", False), True
    try:
        yield
    finally:
        _here.alone = before


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map(function, items)`` in order, each call on a thread of its own, at most two a core under way.

    Whole items side by side keep every core busy, also in what cannot be shared out (sorting, Python itself) and
    while the consumer is busy with the last result. The results do not depend on it. Closing the iterator waits
    for the calls under way, and an error of a call is raised at its place.
    """
    workers = n_threads()

    def call(item: Item) -> Result:
        with alone():
            return function(item)

    with ThreadPoolExecutor(workers, thread_name_prefix="talker-ahead") as pool:
        under_way: deque[Future[Result]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(call, item))
                if len(under_way) >= 2 * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


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
