"""Every page of the app under axe-core in a real Chromium, and what its first visit transfers.

    python -m benchmarks.accessibility --avatar AVATAR [--axe axe.min.js] [--language es-ES]

The app runs over a home with the avatar and a job in every state. Each page, with its folds open, behind each of its
tabs, and Create also with the example clip checked, is looked at in light and dark, 1280 and 390 pixels wide. Then each
is opened once in a fresh browser, counting bytes and requests. Without ``--axe``, axe-core is fetched with ``npm pack``
and kept in the cache folder; it is no part of talker (MPL-2.0).

Writes ``benchmarks/results/accessibility.json``; ends with 1 if a violation is serious or critical and not explained in
``EXPLAINED``. Needs Chromium and tests/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.bench_start import FLAGS, LIMIT_MS, ROOT, free_port, wait_for_answer
from benchmarks.populated import put_jobs
from talker.train.origin import commit, machine

OUT = Path(__file__).parent / "results" / "accessibility.json"
AXE = "axe-core@4.14.1"
PAGES = ("", "talk", "avatars", "jobs", "origin")
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
CHECK_MS = 300_000
GRAVE = ("serious", "critical")
EXPLAINED: dict[str, str] = {}
"""Rule and place -> why it stays: markup of Gradio that a page cannot reach."""
OPEN_FOLDS = """() => document.querySelectorAll('button.label-wrap:not(.open), details:not([open]) > summary')
  .forEach((fold) => fold.click())"""
STILL = "*, ::before, ::after { transition: none !important; animation: none !important; }"
"""Colours on their way from one to another are nobody's."""
SETTLED = "() => ![...document.querySelectorAll('.tk-skeleton')].some((e) => e.offsetParent)"


def kept_axe() -> Path:
    """Where axe-core is kept once it was fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "talker-benchmarks"
    return cache / f"{AXE}.min.js"


def axe_source(given: Path | None) -> str:
    """The text of axe-core: the given file, or the one of npm, fetched once."""
    if given is not None:
        return given.read_text(encoding="utf-8")
    kept = kept_axe()
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["npm", "pack", "--silent", AXE], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )
            archive = next(Path(folder).glob("*.tgz"))
            with tarfile.open(archive) as packed:
                member = packed.extractfile("package/axe.min.js")
                assert member is not None
                kept.write_bytes(member.read())
    return kept.read_text(encoding="utf-8")


@contextmanager
def app(home: Path) -> Iterator[str]:
    """The app without a worker, so that the jobs stay as they are; its address."""
    port = free_port()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--home", str(home), "--no-worker"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def settle(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector(".tk-footer", timeout=LIMIT_MS)
    page.wait_for_function(SETTLED, timeout=LIMIT_MS)
    page.wait_for_timeout(1000)


def violations(page: Page, axe: str) -> list[dict[str, Any]]:
    """What axe finds on the page as it is."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        {
            "rule": rule["id"],
            "impact": rule["impact"],
            "help": rule["help"],
            "places": [" ".join(map(str, node["target"])) for node in rule["nodes"]],
        }
        for rule in found["violations"]
    ]


def every_form(page: Page, axe: str) -> Iterator[dict[str, Any]]:
    """Violations of the page as it is, wide and narrow, light and dark."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", scheme == "dark")
            page.wait_for_timeout(500)
            for violation in violations(page, axe):
                yield {"scheme": scheme, "width": width, **violation}


def states(page: Page, path: str) -> Iterator[str]:
    """Brings a page into one state after the other; their names."""
    page.evaluate(OPEN_FOLDS)
    yield path or "create"
    for number in range(1, page.locator("[role=tab]:visible").count()):
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.locator("[role=tab]:visible").nth(number).click()
        yield f"{path}, tab {number + 1}"
    if not path:
        page.click("#tk-example")
        page.wait_for_selector("#tk-go", timeout=CHECK_MS)
        page.check("#tk-only-part input")
        yield "create, with a clip"


def look(browser: Browser, address: str, axe: str, language: str) -> list[dict[str, Any]]:
    """Violations of all pages in all forms."""
    seen = []
    page = browser.new_context(viewport={"width": WIDTHS[0], "height": 900}, locale=language).new_page()
    for path in PAGES:
        settle(page, address + path)
        page.add_style_tag(content=STILL)
        for name in states(page, path):
            found = [{"page": name, **violation} for violation in every_form(page, axe)]
            print(name, sorted({f["rule"] for f in found}), file=sys.stderr, flush=True)
            seen += found
    page.context.close()
    return seen


def weigh(browser: Browser, address: str) -> dict[str, dict[str, int]]:
    """Bytes and requests of a first visit, for each page; nothing comes from a cache."""
    weights = {}
    for path in PAGES:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        received: list[int] = []
        devtools = context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.on("Network.loadingFinished", lambda event, r=received: r.append(event["encodedDataLength"]))
        settle(page, address + path)
        weights[path or "create"] = {"requests": len(received), "kilobytes": round(sum(received) / 1000)}
        context.close()
    return weights


def is_grave(violation: dict[str, Any]) -> bool:
    return violation["impact"] in GRAVE and violation["rule"] not in EXPLAINED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--avatar", type=Path, required=True)
    parser.add_argument("--axe", type=Path, help="axe.min.js; fetched with npm if not given")
    parser.add_argument("--language", default="en-US", help="of the browser")
    parser.add_argument("--out", type=Path, default=OUT)
    a = parser.parse_args()
    axe = axe_source(a.axe)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        home = Path(folder) / "home"
        shutil.copytree(a.avatar, home / "avatars" / "speaker")
        put_jobs(home)
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with app(home) as address:
            found = look(browser, address, axe, a.language)
            weights = weigh(browser, address)
        browser.close()
    grave = [violation for violation in found if is_grave(violation)]
    record = {
        "command": f"python -m benchmarks.accessibility --avatar {a.avatar.name} --language {a.language}"
    }
    record |= {"commit": commit(), "machine": machine(), "axe": AXE, "explained": EXPLAINED}
    record |= {"serious_or_critical": len(grave), "violations": found, "first_visit": weights}
    a.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"serious_or_critical": len(grave), "first_visit": weights}))
    sys.exit(1 if grave else 0)


if __name__ == "__main__":
    main()
