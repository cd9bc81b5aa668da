"""Freed blocks are kept where the C library is glibc, and nothing happens where it is not."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import pytest

from talker import memory

PROGRAM = """
import resource, sys, numpy as np
from talker.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(3):
    np.ones(4 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(4 << 20)  # 32 MB: 8192 pages
sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
"""


def faults(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted on Linux")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_asked_for_again_costs_no_page_faults() -> None:
    page = resource.getpagesize()
    usual, kept = faults("usual"), faults("keep")
    # Transparent huge pages may make the usual case cheap, too; then there is nothing to save.
    assert kept <= usual
    assert kept < (32 << 20) // page, "less than a single block's pages over twenty blocks"


def test_elsewhere_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed_memory() is False
