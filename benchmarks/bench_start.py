"""From starting the app to the first moving picture, in a real Chromium.

    python -m benchmarks.bench_start --avatar AVATAR [--times 5]

Every time a new process of the app, over a home that holds the avatar: seconds until it answers, until the Talk page
shows the avatar and takes a text, and from the click on Speak right then to the first picture that plays. Kernels and
byte code come from their caches, as from the second start on a machine; the first compiles them. Writes
``benchmarks/results/start.json``. Needs Chromium and tests/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from talker.train.origin import commit, machine

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "results" / "start.json"
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--autoplay-policy=no-user-gesture-required"]
PLAYING = """() => { const v = document.querySelector('#tk-live video');
                     return v && v.readyState >= 2 && v.currentTime > 0; }"""
LIMIT_MS = 60_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_answer(address: str) -> None:
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)


def measure(browser: Browser, home: Path, avatar: str) -> dict[str, float]:
    """Seconds of one start."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--home", str(home)]
    app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_answer(address)
        answers = time.perf_counter()
        page.goto(f"{address}talk?avatar={avatar}")
        page.wait_for_selector("#tk-who-speaks .tk-tile", timeout=LIMIT_MS)
        page.fill("#tk-text textarea", "Hello, I am glad to meet you at last.")
        usable = time.perf_counter()
        page.click("#tk-speak")
        page.wait_for_function(PLAYING, timeout=LIMIT_MS)
        plays = time.perf_counter()
    finally:
        page.close()
        app.terminate()
        app.wait()
    return {"answers_s": answers - start, "usable_s": usable - start, "first_talk_s": plays - usable}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--avatar", type=Path, required=True)
    parser.add_argument("--times", type=int, default=5)
    a = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        home = Path(folder) / "home"
        shutil.copytree(a.avatar, home / "avatars" / "speaker")
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for _ in range(a.times):
            runs.append({name: round(v, 2) for name, v in measure(browser, home, "speaker").items()})
            print(runs[-1], file=sys.stderr, flush=True)
        browser.close()
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    record = {"command": f"python -m benchmarks.bench_start --avatar {a.avatar.name} --times {a.times}"}
    record |= {"commit": commit(), "machine": machine(), "median": median, "runs": runs}
    OUT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(median))


if __name__ == "__main__":
    main()
