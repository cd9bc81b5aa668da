"""A train Space on loopback: the real server in a process of its own, with the tiny trainer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
from browser_support import free_port
from fake_hub import FakeHub
from jobs_support import TESTS, environment, wait_for

ROOT = TESTS.parent
TOKEN, OTHER = "correct-horse", "battery-staple"
SCRIPT = f"""
import sys; sys.path[:0] = [{str(ROOT / "train_space")!r}]
from dataclasses import replace
import app
config = replace(app.SpaceConfig.from_environment(), free_gb=0.0, runner="tiny_trainer", look_s=1.0)
app.launch(config, server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
"""


class Space:
    """A running Space; ``folder`` is the disk of its machine.

    Args:
        hub: The Hub it talks to.
        folder: For its home, its log and Gradio's uploads.
        port: By default a free one.
        settings: More environment variables.
    """

    def __init__(self, hub: FakeHub, folder: Path, port: int | None = None, **settings: str) -> None:
        port = port or free_port()
        self.hub, self.folder, self.home, self.log = hub, folder, folder / "home", folder / "log"
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir(exist_ok=True)
        own = {"TALKER_SPACE_TOKENS": f"{TOKEN},{OTHER}", "TALKER_HOME": str(self.home)}
        own |= {"GRADIO_TEMP_DIR": str(folder / "gradio")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(port)],
                env=environment() | hub_environment(hub, folder) | own | settings,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        try:
            wait_for(lambda: self.process.poll() is not None or answers(self.url), 120)
        except AssertionError:
            self.process.kill()
            raise
        assert self.process.poll() is None, self.log.read_text()


def hub_environment(hub: FakeHub, folder: Path) -> dict[str, str]:
    """What makes a process take ``hub`` for the Hub, signed in as alice."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token("alice"),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }


def answers(url: str) -> bool:
    try:
        return httpx.get(url + "/config", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
