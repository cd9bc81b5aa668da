"""Real folders for tests of the studio and of the pages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from talker.checkpoint import FORMAT, AvatarCard

CONSENT = {"statement": "I agree.", "who": "Ada", "when": "2026-01-01T00:00:00+00:00", "version": "1"}


def put_avatar(folder: Path, name: str = "Ada", created: str = "2026-01-01T00:00:00+00:00") -> Path:
    """An avatar folder as lists see it: a card that reads, and a poster. It cannot be driven."""
    from PIL import Image

    folder.mkdir(parents=True)
    card = AvatarCard(name, created, "preview", 256, 20_000, "mel+phones", CONSENT, {"psnr": 28.5})
    header = {"format": FORMAT, "card": dataclasses.asdict(card), "model": {}, "branches": {}, "camera": {}}
    (folder / "avatar.json").write_text(json.dumps(header))
    Image.new("RGB", (64, 64), (200, 120, 90)).save(folder / "poster.jpg")
    return folder
