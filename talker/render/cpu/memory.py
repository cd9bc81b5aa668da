"""Keeps the memory of one picture for the next."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_LARGEST_KEPT_BLOCK = 32 << 20  # the most glibc accepts
_KEPT = 256 << 20


def keep_freed_memory() -> bool:
    """Ask the C library to hold on to up to 256 MB of freed memory; true if it agreed.

    A picture of 512 x 512 needs about 10 MB for a few milliseconds. By default glibc gives that back to the system
    each time, and getting it again, page by page and zeroed, takes a third of the time of drawing. The setting is
    the process's: PyTorch's own temporaries on the CPU gain from it too. Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
