"""Fifty programs let one app talk at the same moment: one rendering at a time, a clip or a clear word for each."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from talker.studio.line import PLACES
from talker.ui.app import SESSIONS
from tests.browser_support import App, running
from tests.studio_support import speaking_avatar_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

log = logging.getLogger(__name__)

CALLERS = 50
ROOM_MB = 15
"""What a burst may add once the app remembers as many visitors as it ever does; forgetting none added 20 to 50 MB."""
BUSY = re.compile(r"busy, about \d+ min")
SAYING = ["zoe", "Hi.", "", 1.6, 1.0, 1.0, "clip", "en", None]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    home = tmp_path_factory.mktemp("load") / "home"
    speaking_avatar_folder(home / "avatars" / "zoe")
    with running(home) as instance:
        yield instance


def post(app: App, path: str, body: dict) -> dict:
    request = urllib.request.Request(
        app.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def talk(app: App) -> str:
    """One call of the documented endpoint: ``clip``, or the words of the refusal."""
    event = post(app, "gradio_api/call/talk", {"data": SAYING})["event_id"]
    with urllib.request.urlopen(f"{app.address}gradio_api/call/talk/{event}", timeout=300) as stream:
        told = stream.read().decode().strip().split("\n\n")[-1]
    kind, data = (line.split(": ", 1)[1] for line in told.splitlines())
    return "clip" if kind == "complete" and json.loads(data) else data


def burst(app: App) -> list[str]:
    with ThreadPoolExecutor(CALLERS) as pool:
        return list(pool.map(lambda _: talk(app), range(CALLERS)))


def resident_mb(app: App) -> float:
    assert app._process is not None and app._process.poll() is None, app.log.read_text()
    status = Path(f"/proc/{app._process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@contextmanager
def most_at_once(app: App) -> Iterator[list[int]]:
    """How many clips were being written at the same time, as the folder of the app shows it."""
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            folders = app.home.glob("clips/*")
            peak[0] = max(peak[0], sum(not (folder / "clip.json").exists() for folder in folders))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def test_fifty_at_once(app: App) -> None:
    for _ in range(3):
        assert talk(app) == "clip"
    resident = [resident_mb(app)]
    began = time.monotonic()
    with most_at_once(app) as peak:
        for _ in range(SESSIONS // CALLERS + 2):
            answers = burst(app)
            resident.append(resident_mb(app))
            clips = [answer for answer in answers if answer == "clip"]
            assert len(answers) == CALLERS and len(clips) >= PLACES
            refusals = [answer for answer in answers if answer != "clip"]
            assert refusals and all(BUSY.search(words) for words in refusals), refusals[:3]
    assert peak == [1], "one rendering at a time"
    assert talk(app) == "clip", "and it works again"
    log.info("%.0f s, resident %s MB", time.monotonic() - began, [round(mb) for mb in resident])
    assert resident[-1] - resident[-2] < ROOM_MB


@pytest.mark.parametrize("path", ["run", "api"])
def test_nothing_goes_round_the_line(app: App, path: str) -> None:
    """Neither by the name of the endpoint nor by the number of any handler of the pages."""
    config = json.load(urllib.request.urlopen(f"{app.address}config", timeout=60))
    queued = [handler["id"] for handler in config["dependencies"] if handler["queue"]]
    assert len(queued) > 5
    bodies = [("talk", {"data": SAYING}), *(("predict", {"data": [], "fn_index": n}) for n in queued)]
    for name, body in bodies:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(app, f"gradio_api/{path}/{name}", body)
        assert caught.value.code == 404
