"""An avatar named on the command line is a folder of this machine, or comes from the Hub into the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import FakeHub
from hub_support import *  # noqa: F403 - fixtures
from hub_support import ID

from talker.card import read_card, update_card
from talker.cli.source import source_avatar
from talker.errors import HubError
from talker.hub import Hub


@pytest.fixture
def hub(fake: FakeHub, alice: Hub, avatar: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A Hub on which alice has published her avatar; the command line signs in as she does."""
    alice.publish(avatar, ID)
    fake.requests.clear()
    monkeypatch.setattr("talker.hub.Hub", lambda: alice)
    return fake


def test_no_name_is_no_avatar() -> None:
    assert source_avatar(None, keep=False) is None


def test_folders_come_first_and_ask_nobody(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(ID).mkdir(parents=True)
    assert source_avatar(ID, keep=False) == Path(ID)
    for name in ("missing", "./missing/too", "/missing/too", "a/b/c"):
        assert source_avatar(name, keep=False) == Path(name), "whoever reads it says that it is not there"
    assert not hub.requests


def test_a_repository_is_fetched_into_the_cache(hub: FakeHub, tmp_path: Path) -> None:
    folder = source_avatar(ID, keep=False)
    assert folder == tmp_path / "cache" / "avatars" / "alice--zoe"
    assert read_card(folder).name == "Zoë"


def test_an_interrupted_run_goes_on_from_the_same_avatar(hub: FakeHub, alice: Hub, avatar: Path) -> None:
    folder = source_avatar(ID, keep=True)
    assert folder is not None and hub.requests, "nothing was fetched before"
    update_card(avatar, name="Changed")
    alice.publish(avatar, ID)
    hub.requests.clear()
    assert source_avatar(ID, keep=True) == folder
    assert not hub.requests and read_card(folder).name == "Zoë"
    assert source_avatar(ID, keep=False) == folder
    assert read_card(folder).name == "Changed", "a new run starts from the newest"


def test_what_is_not_on_the_hub_is_said(hub: FakeHub) -> None:
    with pytest.raises(HubError) as caught:
        source_avatar("alice/nobody", keep=False)
    assert caught.value.code == "hub.not_found"
