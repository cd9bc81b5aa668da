"""A minute of speech watched live in a real Chromium: time to the first frame, and every stall.

    python -m benchmarks.streaming --avatar AVATAR [--seconds 60] [--times 3] [--note WORDS]

One process of the app over a home that holds the avatar, one page. Each time a text of that length is spoken; a probe
in the page notes when the live picture first moves, every ``waiting`` event and every time the film falls behind the
clock by more than a quarter of a second at once. Also how much faster than real time the renderer was: below 1 a
stall is due.
Writes ``benchmarks/results/streaming.json``. Needs Chromium and tests/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.bench_start import FLAGS, ROOT, free_port, wait_for_answer
from talker.train.origin import commit, machine

OUT = Path(__file__).parent / "results" / "streaming.json"
LIMIT_MS = 600_000
STALL_MS = 250
SENTENCES = (
    "My name is Ada, and I was a short video a moment ago.",
    "Papa bought a big blue boat, and mama put a map in my bag.",
    "We were five when we went over the river to see the white house.",
    "She sells fresh fish on the shore, and he chose a cheap jacket.",
)
PROBE = """([stall, seconds]) => {
  const probe = window.tkProbe = {clicked: performance.now(), first: null, shown: 0, events: [], stalls: []};
  let at = 0, moved = 0, video = null;
  const now = () => Math.round(performance.now() - probe.clicked);
  const look = () => {
    const found = document.querySelector('#tk-live video');
    if (found && found !== video) {
      video = found;
      for (const name of ['waiting', 'stalled', 'ended', 'error'])
        video.addEventListener(name, () => probe.events.push([name, now(), video.currentTime]));
    }
    if (video && video.readyState >= 2 && video.currentTime > at) {
      if (probe.first === null) probe.first = now();
      else {
        const still = now() - moved - 1000 * (video.currentTime - at);
        if (still > stall && video.currentTime < seconds - 0.5) probe.stalls.push([at, Math.round(still)]);
      }
      at = probe.shown = video.currentTime; moved = now();
      const quality = video.getVideoPlaybackQuality();
      probe.frames = quality.totalVideoFrames; probe.dropped = quality.droppedVideoFrames;
    }
    if (window.tkProbe === probe) requestAnimationFrame(look);
  };
  look();
  document.querySelector('#tk-speak').click();
}"""
OVER = "() => document.querySelector('#tk-stage').classList.contains('tk-show-final')"
RENDERED = """() => document.querySelector('#tk-final video')
               && document.querySelector('#tk-halt')?.offsetParent == null"""


def text_of(seconds: float) -> tuple[str, float]:
    """A text that takes about so long, and how long."""
    from talker.audio.tts import speak

    words: list[str] = []
    while True:
        words.append(SENTENCES[len(words) % len(SENTENCES)])
        spoken = speak(" ".join(words)).duration_s
        if spoken >= seconds:
            return " ".join(words), spoken


def watch(page: Page, text: str, seconds: float) -> dict[str, Any]:
    """Speak once and report."""
    page.fill("#tk-text textarea", text)
    began = time.perf_counter()
    page.evaluate(PROBE, [STALL_MS, seconds])
    page.wait_for_function("() => window.tkProbe.first !== null", timeout=LIMIT_MS)
    page.wait_for_function(RENDERED, timeout=LIMIT_MS, polling=100)
    rendered = time.perf_counter() - began
    page.wait_for_function(OVER, timeout=LIMIT_MS, polling=100)
    probe = page.evaluate("() => { const p = window.tkProbe; window.tkProbe = null; return p; }")
    waiting = [event for event in probe["events"] if event[0] == "waiting" and 0 < event[2] < seconds - 0.5]
    return {
        "first_frame_s": round(probe["first"] / 1000, 2),
        "stalls": len(probe["stalls"]),
        "stalled_s": round(sum(length for _, length in probe["stalls"]) / 1000, 2),
        "stalls_at_s_and_ms": [[round(at, 2), length] for at, length in probe["stalls"]],
        "waiting_events": len(waiting),
        "shown_s": round(probe["shown"], 2),
        "frames": probe["frames"],
        "dropped": probe["dropped"],
        "rendered_s": round(rendered, 1),
        "faster_than_real_time": round(seconds / rendered, 2),
    }


def measure(avatar: Path, text: str, seconds: float, times: int) -> list[dict[str, Any]]:
    port, runs = free_port(), []
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        home = Path(folder) / "home"
        shutil.copytree(avatar, home / "avatars" / "speaker")
        command = [
            sys.executable,
            str(ROOT / "app.py"),
            "--port",
            str(port),
            "--home",
            str(home),
            "--no-worker",
        ]
        app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for_answer(address)
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            for _ in range(times):
                page.goto(f"{address}talk?avatar=speaker")
                page.wait_for_selector("#tk-who-speaks .tk-tile", timeout=LIMIT_MS)
                # As somebody who types a minute of text; the app gets ready meanwhile.
                page.wait_for_timeout(10_000)
                load = machine()["load"]
                runs.append({**watch(page, text, seconds), "load_before": load})
                print(runs[-1], file=sys.stderr, flush=True)
            browser.close()
        finally:
            app.terminate()
            app.wait()
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--avatar", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--note", default="", help="what else the machine did")
    a = parser.parse_args()
    text, seconds = text_of(a.seconds)
    runs = measure(a.avatar, text, seconds, a.times)
    names = ("first_frame_s", "stalls", "stalled_s", "waiting_events", "faster_than_real_time")
    record = {
        "command": f"python -m benchmarks.streaming --avatar {a.avatar.name} --seconds {a.seconds:g} --times {a.times}",
        "commit": commit(),
        "machine": machine(),
        "note": a.note,
        "speech_s": round(seconds, 1),
        "median": {name: statistics.median(run[name] for run in runs) for name in names},
        "runs": runs,
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["median"]))


if __name__ == "__main__":
    main()
