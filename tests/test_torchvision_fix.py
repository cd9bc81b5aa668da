"""transformers and torchvision import beside any torch, and the package itself stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("first", ["import torchvision.transforms", "from transformers import HubertModel"])
def test_imports_work_after_the_fix(first: str) -> None:
    code = f"from talker.torchvision_fix import ensure_torchvision as e; assert e() and e(); {first}; print('ok')"
    assert python(code) == "ok"


def test_media_modules_load_nothing_heavy() -> None:
    code = (
        "import sys, talker.video.decode, talker.video.encode, talker.video.edit, talker.audio.tts;"
        "import talker.audio.features, talker.audio.waveform, talker.audio.windows;"
        "print([m for m in ('torchvision', 'transformers', 'av', 'moviepy', 'pocketsphinx') if m in sys.modules])"
    )
    assert python(code) == "[]"
    child = "import sys, talker.video.reading, talker.audio.espeak; print('torch' in sys.modules)"
    assert python(child) == "False", "the limited child must not load torch"
