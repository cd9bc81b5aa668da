"""How the kernels are compiled, and where the compiled code is kept."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

log = logging.getLogger(__name__)

CACHE_VARIABLE = "TALKER_CACHE"


def cache_root() -> Path:
    """Folder for everything that can be made again: ``$TALKER_CACHE``, else ``~/.cache/talker``.

    Falls back to the temporary folder where that cannot be written (a read-only home in a container).
    """
    wanted = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "talker")
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:
        log.warning("the cache folder cannot be written, using a temporary one")
        return _temporary_cache()


def _temporary_cache() -> Path:
    """A folder of this user alone: compiled code from a folder of somebody else's would be run."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"talker-cache-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.stat(follow_symlinks=False)
    ours = stat.S_ISDIR(state.st_mode) and (not hasattr(os, "getuid") or state.st_uid == user)
    return folder if ours else Path(tempfile.mkdtemp(prefix="talker-cache-"))


def _fingerprint() -> str:
    """Changes with any source file of kernels: numba itself only looks at the file of the outermost function."""
    digest = hashlib.sha256(numba.__version__.encode())
    package = Path(__file__).parents[1]
    for pattern in SOURCES:
        for path in sorted(package.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


SOURCES = (
    "jit/*.py",
    "render/*.py",
    "render/cpu/*.py",
    "model/*.py",
    "ssim.py",
    "losses.py",
    "dataset/steps/*.py",
)
"""Where kernels and the constants they are compiled with are written."""

_KERNELS = str(cache_root() / "kernels" / _fingerprint())
OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "boundscheck": False}
# No flag beyond contraction: -ffast-math silently folds the rounding trick in simd.py and breaks NaN handling.
SUMS: dict[str, Any] = OPTIONS | {"fastmath": {"contract", "reassoc", "nsz"}}
# Sums may be reordered (that is what lets numba vectorise them); NaN and infinity keep their meaning.


def kernel(function: Callable) -> Callable:
    """Compile on first call, keep on disk, and release the GIL while running."""
    return _kept(function, OPTIONS)


def sum_kernel(function: Callable) -> Callable:
    """``kernel`` that may add in another order than written, without the SIMD layer."""
    return _kept(function, SUMS)


def inlined(function: Callable) -> Callable:
    """A piece of a kernel; becomes part of its caller."""
    return numba.njit(forceinline=True, **OPTIONS)(function)


def inlined_sum(function: Callable) -> Callable:
    """A piece of a ``sum_kernel``."""
    return numba.njit(forceinline=True, **SUMS)(function)


def _kept(function: Callable, options: dict[str, Any]) -> Callable:
    config: Any = numba_config  # its attributes are made at run time
    before, config.CACHE_DIR = config.CACHE_DIR, _KERNELS
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    finally:
        config.CACHE_DIR = before
