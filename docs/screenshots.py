"""Pictures of every page of a running app, at desktop and phone width, light and dark.

python app.py --home HOME &  python docs/screenshots.py --out docs/shots
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
PAGES = {"create": "", "talk": "talk", "avatars": "avatars", "jobs": "jobs"}
WIDTHS = {"desktop": (1280, 860), "phone": (390, 844)}


log = logging.getLogger(__name__)


def shoot(page: Page, address: str, target: Path) -> None:
    """Open a page, wait until it has settled, and save all of it."""
    page.goto(address)
    page.wait_for_selector(".tk-footer", state="attached")
    page.wait_for_selector(".tk-skeleton", state="hidden")
    page.wait_for_timeout(1500)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if overflow > 0:
        log.warning("%s: %d px wider than the screen", target.name, overflow)
    page.screenshot(path=target, full_page=True)


def main() -> None:
    """Take them all."""
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:7860/")
    parser.add_argument("--out", type=Path, default=Path("docs/shots"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--pages", nargs="*", default=list(PAGES))
    parser.add_argument("--schemes", nargs="*", default=["light", "dark"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=arguments.chromium, args=FLAGS)
        for width, (w, h) in WIDTHS.items():
            for scheme in arguments.schemes:
                page = browser.new_page(viewport={"width": w, "height": h}, color_scheme=scheme)
                page.on("console", lambda m: m.type == "error" and log.warning("console: %s", m.text))
                page.on("pageerror", lambda e: log.warning("page error: %s", e))
                for name in arguments.pages:
                    shoot(page, arguments.url + PAGES[name], arguments.out / f"{name}-{width}-{scheme}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
