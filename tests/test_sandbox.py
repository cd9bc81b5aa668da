"""The limited child: results and typed errors come back, all else is a failure, nothing survives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from talker.errors import TalkerError, VideoError
from talker.sandbox import Limits, SandboxError, run

SMALL = Limits(wall_s=20, memory_mb=512, file_mb=2, open_files=32)


# --- what the child does in these tests


def echo(request: dict, progress) -> dict:
    for k in range(request.get("steps", 0)):
        progress(k)
    os.write(1, b"noise on standard output\n")
    return {"got": request, "environment": sorted(os.environ), "pid": os.getpid()}


def refuse(request: dict, progress) -> dict:
    raise VideoError("video.empty", "nothing in it", expected="something", todo="try again")


def misbehave(request: dict, progress) -> dict:
    match request["how"]:
        case "raise":
            raise RuntimeError("a bug")
        case "abort":
            os.abort()
        case "exit":
            os._exit(0)
        case "memory":
            return {"n": len(bytearray(2 << 30))}
        case "disk":
            Path(request["path"]).write_bytes(bytes(5 << 20))
        case "files":
            return {"n": len([os.open(os.devnull, os.O_RDONLY) for _ in range(100)])}
        case "sleep":
            time.sleep(60)
        case "fork":
            subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(60) # {request['mark']}"])
            time.sleep(60)
    return {}


def call(function: str, request: dict, limits: Limits = SMALL, **options) -> dict:
    return run(f"test_sandbox:{function}", request, limits, **options)


# --- tests


def test_results_and_progress_come_back() -> None:
    seen: list[int] = []
    answer = call("echo", {"steps": 4, "text": "ä\n"}, on_progress=seen.append)
    assert answer["got"] == {"steps": 4, "text": "ä\n"}
    assert seen == [0, 1, 2, 3]


def test_secrets_of_the_parent_do_not_reach_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    assert "HF_TOKEN" not in call("echo", {})["environment"]


def test_typed_errors_cross_the_border() -> None:
    with pytest.raises(VideoError) as info:
        call("refuse", {})
    error = info.value
    assert (error.code, error.found, error.expected, error.todo) == (
        "video.empty",
        "nothing in it",
        "something",
        "try again",
    )


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "crash"),
        ("abort", "crash"),
        ("exit", "crash"),
        ("memory", "memory"),
        ("disk", "disk"),
        ("files", "crash"),
    ],
)
def test_every_other_end_is_a_failure(tmp_path: Path, how: str, reason: str) -> None:
    with pytest.raises(SandboxError) as info:
        call("misbehave", {"how": how, "path": str(tmp_path / "big")})
    assert info.value.reason == reason
    assert not isinstance(info.value, TalkerError)


def test_wall_clock_kills_the_whole_group(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    start = time.monotonic()
    with pytest.raises(SandboxError) as info:
        call("misbehave", {"how": "fork", "mark": mark}, Limits(wall_s=1.5))
    assert info.value.reason == "timeout"
    assert time.monotonic() - start < 30
    assert not any(mark in command for command in commands())


def commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text())
        except OSError:  # it ended meanwhile
            continue
    return found


def test_no_child_outlives_its_call() -> None:
    pid = call("echo", {})["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("seed", range(24))
def test_damaged_clips_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    """Random damage to a real file: either it still decodes, or one of our errors says why not."""
    from media_support import tone, write_clip

    from talker.video.decode import DecodeLimits, decode

    rng = np.random.default_rng(seed)
    container = ("mp4", "matroska", "avi")[seed % 3]
    codec = "mpeg4" if container == "avi" else "libx264"
    sound = tone(0.5, 48_000)
    data = bytearray(
        write_clip(tmp_path / "whole", n=12, container=container, codec=codec, sound=sound).read_bytes()
    )
    for _ in range(int(rng.integers(1, 40))):
        at = int(rng.integers(len(data)))
        data[at : at + int(rng.integers(1, 9))] = rng.integers(
            0, 256, int(rng.integers(0, 9)), np.uint8
        ).tobytes()
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    try:
        clip = decode(path, tmp_path / "out", limits=DecodeLimits(max_seconds=20, wall_s=60))
    except TalkerError as e:
        assert e.code.startswith(("video.", "audio."))
        assert not list((tmp_path / "out").glob("*"))
    else:
        assert len(clip) > 0
