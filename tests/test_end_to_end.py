"""The whole product once, through its command line: a clip is made, learnt from, stopped, resumed, measured, driven."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from talker.card import read_card
from talker.checkpoint import load_avatar
from talker.cli import main
from talker.provenance import inspect, label_visible
from talker.video.decode import decode
from talker.video.probe import probe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SIZE = 128
CREATE = ("--size", str(SIZE), "--steps-scale", "0.04", "--consent", "The person shown does not exist.")
INSIDE_STAGE = re.compile(r"deform:\s+\d+%\D*[1-9]\d*/\d+")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    assert main(["sample", str(folder / "clip.mp4"), "--seconds", "6", "--size", "256"]) == 0
    return folder / "clip.mp4"


@pytest.fixture(scope="module")
def stopped(folder: Path, clip: Path) -> str:
    """What a run said that was stopped with Ctrl-C in the second stage."""
    command = [sys.executable, "-m", "talker", "create", str(clip), "--out", str(folder / "ada"), *CREATE]
    run = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=dict(os.environ)
    )
    assert run.stderr is not None
    said = b""
    while piece := run.stderr.read1(4096):  # type: ignore[attr-defined]
        said += piece
        if INSIDE_STAGE.search(said.decode(errors="replace")):
            break
    run.send_signal(signal.SIGINT)
    said += run.stderr.read()
    assert run.wait(120) == 130, said.decode(errors="replace")[-2000:]
    return said.decode(errors="replace")


@pytest.fixture(scope="module")
def avatar(folder: Path, clip: Path, stopped: str) -> Path:
    """The avatar of the resumed run."""
    assert main(["create", str(clip), "--out", str(folder / "ada"), "--resume", *CREATE]) == 0
    return folder / "ada"


def test_ctrl_c_saves_in_the_middle_of_a_stage(folder: Path, stopped: str) -> None:
    assert "--resume continues" in stopped and "Traceback" not in stopped
    assert not (folder / "ada").exists(), "nothing that looks like an avatar"
    newest = max(p.name for p in (folder / "ada.state").iterdir())
    stage, name, step = newest.split("_")
    assert (stage, name) == ("1", "deform") and int(step) > 0


def test_resumed_run_makes_a_whole_avatar(avatar: Path, clip: Path) -> None:
    files = {p.name for p in avatar.iterdir()}
    assert files >= {
        "README.md", "avatar.json", "model.safetensors", "motion.safetensors", "background.png",
        "poster.jpg", "preview.mp4", "neutral.ply", "training.json",
    }  # fmt: skip
    card = read_card(avatar)
    assert card.size == SIZE and card.consent["statement"] == CREATE[-1] and card.n_gaussians > 1000
    training = json.loads((avatar / "training.json").read_text())
    assert training["seconds"]["train"] > 0 and set(training["prepare_seconds"]) >= {
        "decode",
        "pose",
        "cloud",
    }
    assert clip.parent.as_posix() not in (avatar / "avatar.json").read_text() + json.dumps(training)
    assert load_avatar(avatar).n_gaussians == card.n_gaussians
    assert inspect(avatar / "preview.mp4")["c2pa"]["intact"]


def test_it_has_learnt_something(avatar: Path) -> None:
    """One in twenty-five of the usual steps, a quarter of the pixels: low bars, but a broken part falls below them."""
    metrics = read_card(avatar).metrics
    assert metrics["psnr"] > 25
    assert metrics["face_found"] == 1
    assert metrics["mouth_r_true_motion"] > 0.5, "lips follow their code"
    assert metrics["mouth_r"] > metrics["mouth_r_swapped"], "and the sound, not any sound"
    assert metrics["silence_variation"] < 0.1, "and rest in silence"


def test_evaluate_gives_the_figures_of_the_card_and_raw_frames(
    avatar: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--data", f"{avatar}.data", "--json", str(folder / "report.json")]
    assert main(["evaluate", str(avatar), *arguments, "--frames", str(folder / "frames")]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["protocol"] == "B"
    card = read_card(avatar).metrics
    assert report["metrics"]["psnr"] == pytest.approx(card["psnr"], abs=0.05), (
        "the saved avatar is the trained one"
    )
    frames = sorted((folder / "frames").iterdir())
    assert len(frames) == report["metrics"]["frames"] == 13
    assert "psnr" in capsys.readouterr().out


def spoken(path: Path, work: Path, *, size: int = SIZE, label: bool = True) -> int:
    """Check a finished video; its number of frames."""
    info = probe(path)
    assert (info.width, info.height) == (size, size) and info.fps == 25 and info.has_audio
    clip = decode(path, work / path.stem)
    assert clip.waveform is not None and np.abs(clip.waveform).max() > 0.02, "something is heard"
    assert abs(len(clip.waveform) / 640 - len(clip)) <= 3, "sound and pictures are as long"
    assert label_visible(np.asarray(clip.frames[len(clip) // 2])) == label
    moved = np.abs(np.asarray(clip.frames[1:], np.int16) - clip.frames[:-1]).mean()
    assert moved > 0.05, "it moves"
    marks = inspect(path)
    assert marks["c2pa"]["intact"] and marks["c2pa"]["source_type"].endswith("trainedAlgorithmicMedia")
    return len(clip)


def test_drive_with_text_and_captions(avatar: Path, folder: Path, tmp_path: Path) -> None:
    out, words = folder / "text.mp4", folder / "text.srt"
    text = "Good morning, and thank you for coming."
    assert main(["drive", str(avatar), "--text", text, "--out", str(out), "--captions", str(words)]) == 0
    assert 25 < spoken(out, tmp_path) < 150
    assert "morning" in words.read_text() and "-->" in words.read_text()


def test_drive_with_a_recording_at_another_size_without_label(
    avatar: Path, clip: Path, folder: Path, tmp_path: Path
) -> None:
    out = folder / "audio.mp4"
    arguments = ["--audio", str(clip), "--out", str(out), "--size", "96", "--no-label", "--seed", "4"]
    assert main(["drive", str(avatar), *arguments]) == 0
    assert spoken(out, tmp_path, size=96, label=False) == 150, "six seconds"


def test_drive_along_the_held_out_motion(avatar: Path, folder: Path, tmp_path: Path) -> None:
    out = folder / "follow.mp4"
    pose = f"{avatar}.data:held-out"
    assert main(["drive", str(avatar), "--text", "Hello there.", "--out", str(out), "--pose-from", pose]) == 0
    spoken(out, tmp_path)


def test_dubbing_changes_the_face_and_nothing_else(
    avatar: Path, clip: Path, folder: Path, tmp_path: Path
) -> None:
    out = folder / "dub.mp4"
    text = "This was never said in the clip."
    assert main(["drive", str(avatar), "--text", text, "--out", str(out), "--over", str(clip)]) == 0
    n = spoken(out, tmp_path)
    given = np.load(f"{avatar}.data/frames.npy", mmap_mode="r")
    made = decode(out, tmp_path / "again").frames
    n = min(n, len(given))
    change = np.abs(np.asarray(made[:n], np.int16) - given[:n]).mean((0, 3))
    corner, middle = change[-20:, :20].mean(), change[50:90, 50:78].mean()
    assert corner < 4, "H.264 alone"
    assert middle > corner


def test_export_is_a_3dgs_ply(avatar: Path, folder: Path) -> None:
    import plyfile

    assert main(["export", str(avatar), "--ply", str(folder / "neutral.ply")]) == 0
    vertex = plyfile.PlyData.read(str(folder / "neutral.ply"))["vertex"]
    assert vertex.count == read_card(avatar).n_gaussians
    assert {"x", "f_dc_0", "opacity", "scale_0", "rot_3"} <= set(vertex.data.dtype.names)


def test_a_finished_run_resumed_again_trains_nothing(
    avatar: Path, clip: Path, capfd: pytest.CaptureFixture
) -> None:
    before = (avatar / "model.safetensors").read_bytes()
    assert main(["create", str(clip), "--out", str(avatar), "--resume", *CREATE]) == 0
    assert (avatar / "model.safetensors").read_bytes() == before
    assert "Continuing after" in capfd.readouterr().err
