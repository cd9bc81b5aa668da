"""The first page needs nothing heavy; what is heavy is imported once, whoever asks first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from talker.studio import LOCAL, Studio
from tests.studio_support import speaking_avatar_folder

LISTS = """
import sys
from pathlib import Path
from talker.studio import LOCAL, Studio
studio = Studio(Path(sys.argv[1]))
assert [a.slug for a in studio.avatars()] == ["zoe"]
studio.clips(LOCAL), studio.jobs(LOCAL), studio.voices()
heavy = {"torch", "numba", "scipy", "mediapipe", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""

TOGETHER = """
import sys, threading
from pathlib import Path
from talker.studio import LOCAL, Studio, TalkDone
studio = Studio(Path(sys.argv[1]))
done = []
def ask(what):
    what()
    done.append(what)
asked = [
    studio.warm_up,
    lambda: studio.presets(30, 256),
    lambda: studio.avatars(),
    lambda: next(made for made in studio.talk("zoe", LOCAL, text="Good day.") if isinstance(made, TalkDone)),
]
threads = [threading.Thread(target=ask, args=(what,)) for what in asked]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(done) == len(asked), "one of them failed"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    speaking_avatar_folder(tmp_path / "avatars" / "zoe")
    return tmp_path


@pytest.mark.parametrize("script", [LISTS, TOGETHER], ids=["lists need no PyTorch", "all at once"])
def test_in_a_new_process(home: Path, script: str) -> None:
    subprocess.run([sys.executable, "-c", script, str(home)], check=True, timeout=240)


def test_a_rehearsal_leaves_nothing_behind(home: Path) -> None:
    studio = Studio(home)
    studio.warm_up()
    assert studio.clips(LOCAL) == []


def test_without_avatars_or_with_a_damaged_one_there_is_no_rehearsal(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "avatars" / "zoe" / "model.safetensors").write_bytes(b"nothing")
    Studio(home).warm_up()
    assert "no rehearsal" in caplog.text
    Studio(home / "empty").warm_up()
