"""Fast tests first: whoever broke something small should know within a minute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from talker.dataset.reader import TalkingHeadDataset

LATE_MODULES = ("test_jobs", "test_worker", "test_train_space", "test_end_to_end", "test_app", "test_studio")


def _lateness(item: pytest.Item) -> int:
    """0 for quick tests, 1 for modules that start processes, 2 for slow tests, 3 for a browser."""
    if item.get_closest_marker("browser"):
        return 3
    if item.get_closest_marker("slow") or item.get_closest_marker("real"):
        return 2
    return int(item.path.name.startswith(LATE_MODULES))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_lateness)


@pytest.fixture(autouse=True)
def ordinary_scheduling() -> Iterator[None]:
    """A library that makes this process real-time starves every later test and its children, and says nothing."""
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail("this test left the process with real-time scheduling")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TalkingHeadDataset:
    """The tiny dataset whose every value is known; modules with footage of their own have their own."""
    from core_support import write_dataset

    from talker.dataset.reader import TalkingHeadDataset

    return TalkingHeadDataset(write_dataset(tmp_path_factory.mktemp("core") / "tiny.data"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; without one the test says so and is skipped."""
    from browser_support import FLAGS, chromium
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        instance = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield instance
        instance.close()
