"""No page has a serious or critical violation of axe-core. benchmarks/accessibility.py looks closer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from benchmarks.accessibility import AXE, PAGES, STILL, every_form, is_grave, kept_axe, settle
from benchmarks.populated import put_jobs
from tests.browser_support import running
from tests.studio_support import speaking_avatar_folder

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def axe() -> str:
    path = Path(os.environ.get("TALKER_AXE") or kept_axe())
    if not path.is_file():
        pytest.skip(f"no {AXE}: set TALKER_AXE to an axe.min.js, or run benchmarks/accessibility.py once")
    return path.read_text(encoding="utf-8")


def test_no_page_has_a_grave_violation(browser: Browser, tmp_path: Path) -> None:
    source, home = axe(), tmp_path / "home"
    speaking_avatar_folder(home / "avatars" / "zoe", name="Zoe")
    put_jobs(home)
    with running(home) as app:
        page = browser.new_page()
        for path in PAGES:
            settle(page, app.address + path)
            page.add_style_tag(content=STILL)
            assert [v for v in every_form(page, source) if is_grave(v)] == [], f"/{path}"
