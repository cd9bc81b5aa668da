"""Pictures of every page of a running app, at desktop and phone width, small enough for the repository.

    python app.py --home HOME &
    python docs/screenshots.py --clip CLIP --out docs/screenshots

Everything in HOME is shown: use one with synthetic people alone (the example speaker of the Create page).
"""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
WIDTHS = {"1280": (1280, 860), "390": (390, 844)}
LIMIT_MS = 180_000
MAX_BYTES = 150_000

log = logging.getLogger(__name__)


def checked(page: Page, clip: Path | None) -> None:
    """A clip was chosen on the Create page, and looked at."""
    if clip is None:
        page.click("#tk-example")
    else:
        page.set_input_files("#tk-upload input[type=file]", clip)
    page.locator("#tk-report .tk-strip img").first.wait_for(timeout=LIMIT_MS)


def spoken(page: Page, clip: Path | None) -> None:
    """The newest clip is on the stage of the Talk page, if there is one."""
    if page.locator("#tk-clips .tk-tile").count():
        page.locator("#tk-clips .tk-tile").first.click()
        page.wait_for_function("() => document.querySelector('#tk-final video')?.readyState >= 2")


def as_it_is(page: Page, clip: Path | None) -> None:
    """Nothing more is done."""


PAGES: dict[str, tuple[str, Callable[[Page, Path | None], None]]] = {
    "create": ("", as_it_is),
    "create-checked": ("", checked),
    "talk": ("talk", spoken),
    "avatars": ("avatars", as_it_is),
    "jobs": ("jobs", as_it_is),
    "origin": ("origin", as_it_is),
}


def shoot(page: Page, address: str, prepare: Callable[[Page, Path | None], None], clip: Path | None) -> bytes:
    """Open a page, bring it into the wanted state, wait until it has settled; a picture of all of it."""
    page.goto(address)
    page.wait_for_selector(".tk-footer", state="attached", timeout=LIMIT_MS)
    page.wait_for_selector(".tk-skeleton", state="hidden", timeout=LIMIT_MS)
    page.wait_for_timeout(1500)
    prepare(page, clip)
    page.wait_for_timeout(1500)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if overflow > 0:
        log.warning("%s: %d px wider than the screen", address, overflow)
    return page.screenshot(full_page=True)


def save(picture: bytes, target: Path) -> None:
    """As a PNG of few colours, the most that fit."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64, 32):
        image.quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size < MAX_BYTES:
            return
    log.warning("%s: %d bytes", target.name, target.stat().st_size)


def main() -> None:
    """Take them all."""
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:7860/")
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"))
    parser.add_argument("--clip", type=Path, help="for the Create page (default: the example speaker)")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--pages", nargs="*", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--schemes", nargs="*", default=["light"])
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
                    path, prepare = PAGES[name]
                    dark = "" if scheme == "light" else f"-{scheme}"
                    picture = shoot(page, arguments.url + path, prepare, arguments.clip)
                    save(picture, arguments.out / f"{name}-{width}{dark}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
