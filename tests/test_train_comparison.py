"""The video of truth beside avatar: which half is which, marked like every generated video, never half done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_support import number_of, numbered, tone

from talker.errors import ProvenanceError
from talker.provenance import inspect, label_visible
from talker.train import comparison as module
from talker.train.comparison import comparison
from talker.types import Speech
from talker.video.decode import decode
from talker.video.probe import probe

N = 15


def write(path: Path, *, size: int = 128, protocol: str = "B", n: int = N) -> Path:
    """Frame t of the truth bears the number t, that of the avatar 600 + t."""
    speech = Speech(tone(n / 25))
    with comparison(path, size, speech, protocol=protocol, avatar_name="Zoë") as add:
        for t in range(n):
            add(t, numbered(t, size, size), numbered(600 + t, size, size))
    return path


def frames(path: Path, work: Path) -> np.ndarray:
    return np.asarray(decode(path, work).frames)


def test_truth_is_left_and_avatar_right(tmp_path: Path) -> None:
    shown = frames(write(tmp_path / "new" / "side.mp4"), tmp_path / "raw")
    assert [number_of(frame[:128, :128]) for frame in shown] == list(range(N))
    assert [number_of(frame[:128, 128:]) for frame in shown] == list(range(600, 600 + N))


def test_it_is_marked_and_heard(tmp_path: Path) -> None:
    path = write(tmp_path / "side.mp4")
    info = probe(path)
    assert info.fps == 25 and info.has_audio and info.width == 256 and info.height % 2 == 0
    clip = decode(path, tmp_path / "raw")
    assert clip.waveform is not None and np.abs(clip.waveform).max() > 0.3
    assert abs(len(clip.waveform) / 16_000 - N / 25) < 0.1
    marks = inspect(path)
    assert marks["c2pa"]["intact"] and marks["xmp"] and marks["comment"].startswith("AI-generated")
    for frame in np.asarray(clip.frames):
        assert label_visible(frame[:128, 128:]), "on the half that is generated"
        assert not label_visible(frame[:128, :128]), "and not on the recording"


@pytest.mark.parametrize("size", [96, 128, 255, 512])
def test_captions_stand_under_the_halves_and_fit(size: int) -> None:
    for text in module.PROTOCOLS.values():
        band = module._captions(size, text).astype(int)
        assert band.shape[1:] == (2 * size, 3) and (size + len(band)) % 2 == 0
        ink = band.sum(-1) > 300
        assert ink[:, :2].sum() == 0 == ink[:, -2:].sum(), "nothing is cut off"
        line = len(band) // 2
        for half in (ink[:line, :size], ink[:line, size:]):
            middle = np.flatnonzero(half.any(0)).mean() / size
            assert 0.4 < middle < 0.6
    assert (
        module._captions(256, module.PROTOCOLS["A"]) != module._captions(256, module.PROTOCOLS["B"])
    ).any()


def test_frames_are_written_as_they_come(tmp_path: Path) -> None:
    """Nothing waits in memory: the file grows while frames arrive."""
    rng = np.random.default_rng(0)
    sizes = []
    with comparison(tmp_path / "side.mp4", 128, Speech(tone(4.0)), protocol="B", avatar_name="Zoë") as add:
        for t in range(100):
            noise = rng.integers(0, 255, (2, 128, 128, 3), dtype=np.uint8)
            add(t, noise[0], noise[1])
            sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
    assert sizes[60] > 100_000 and sizes[-1] > 1.3 * sizes[60]


def test_an_abandoned_one_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        comparison(tmp_path / "side.mp4", 128, Speech(tone(1.0)), protocol="B", avatar_name="Zoë") as add,
    ):
        add(0, numbered(0, 128, 128), numbered(1, 128, 128))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_one_that_cannot_be_marked_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from talker.provenance import marks

    def broken(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(marks, "_verify", broken)
    with pytest.raises(ProvenanceError):
        write(tmp_path / "side.mp4")
    assert not list(tmp_path.iterdir())
