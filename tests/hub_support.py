"""Fixtures for tests with the real huggingface_hub client: no Xet, no real cache, no sign-in of this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from avatar_support import tiny_avatar_folder
from fake_hub import FakeHub

from talker.hub import Hub

ID = "alice/zoe"
FILES = {
    "README.md",
    "avatar.json",
    "model.safetensors",
    "motion.safetensors",
    "background.png",
    "poster.jpg",
    "preview.mp4",
    "neutral.ply",
    "training.json",
}
"""What a published avatar consists of."""


@pytest.fixture
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Isolates the client; collects its pauses instead of waiting."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    home = tmp_path / "hf"
    for name, value in {
        "HF_HUB_DISABLE_XET": True,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TALKER_CACHE", str(tmp_path / "cache"))
    paused: list[float] = []
    quick = SimpleNamespace(sleep=paused.append, time=time.time)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", quick)
    monkeypatch.setattr("talker.hub.publish._PAUSE_S", 0.0)
    return paused


@pytest.fixture
def fake(tmp_path: Path, waits: list[float]) -> Iterator[FakeHub]:
    """A running server; at the end, no request to another host may have carried a token."""
    with FakeHub(tmp_path / "server") as hub:
        yield hub
        host = hub.endpoint.removeprefix("http://")
        assert [r.path for r in hub.requests if r.token and r.host != host] == []


@pytest.fixture(scope="session")
def avatar_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny avatar; copy it before changing it."""
    return tiny_avatar_folder(tmp_path_factory.mktemp("avatar") / "zoe")


@pytest.fixture
def full_avatar(avatar_template: Path, tmp_path: Path) -> Path:
    """With its preview, whose marks are looked at in a child process, which takes a while."""
    return Path(shutil.copytree(avatar_template, tmp_path / "zoe"))


@pytest.fixture
def avatar(full_avatar: Path) -> Path:
    """Without the preview."""
    (full_avatar / "preview.mp4").unlink()
    return full_avatar


@pytest.fixture
def alice(fake: FakeHub) -> Hub:
    return Hub(fake.endpoint, fake.token("alice"))


@pytest.fixture
def bob(fake: FakeHub) -> Hub:
    return Hub(fake.endpoint, fake.token("bob"))


@pytest.fixture
def anybody(fake: FakeHub) -> Hub:
    return Hub(fake.endpoint, False)


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of the files in a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pulled" / "avatar"


@pytest.fixture
def seeded(fake: FakeHub, avatar_template: Path) -> str:
    """A public avatar on the server; its commit."""
    return fake.seed(ID, contents(avatar_template) | {"README.md": b"---\ntags: [talker-avatar]\n---\n"})


__all__ = ["alice", "anybody", "avatar", "avatar_template", "bob", "contents", "fake", "full_avatar"]
__all__ += ["out", "seeded", "waits"]
