"""A real app in a process of its own, and a real Chromium looking at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong

ROOT = Path(__file__).parents[1]
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
]
START_S = 120


def chromium() -> str:
    """Path of the browser; skips the test, saying why, where there is none."""
    found = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class App:
    """``python app.py`` over a home of its own; can be stopped and started again."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home, self.port = home, free_port()
        self.address = f"http://127.0.0.1:{self.port}/"
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.log = home.with_suffix(".log")

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(self.port), "--home", str(self.home)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(self.address, timeout=5):
                    return
            except OSError:
                time.sleep(0.3)
        raise AssertionError(f"the app did not answer within {START_S} s:\n{self.log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None


@contextmanager
def running(home: Path, **environment: str) -> Iterator[App]:
    app = App(home, **environment)
    app.start()
    try:
        yield app
    finally:
        app.stop()
