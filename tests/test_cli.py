"""The command line says one clear sentence and the right exit code, whatever goes wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from core_support import write_dataset

from talker.cli import main
from talker.cli.interrupt import polite_stop
from talker.cli.parser import build_parser


@pytest.mark.parametrize(
    "command",
    [
        "create missing.mp4 --consent yes",
        "create clip.mp4 --preset best --consent yes",
        "create clip.mp4 --consent yes",
        "create clip.mp4 --consent yes --init-from missing",
        "create clip.mp4 --consent yes --init-from clip.mp4",
        "train tiny.data --out avatar --consent yes --init-from missing",
        "check missing.mp4",
        "prepare clip.mp4 --out data",
        "train missing.data --out avatar --consent yes",
        "evaluate missing --data missing.data",
        "evaluate missing --data missing.data --video side.gif",
        "drive missing --text hello --out out.mp4",
        "drive missing --audio missing.wav --out out.mp4",
        "drive missing --text hello --out out.mp4 --background transparent",
        "drive missing --text hello --out out.mp4 --background green",
        "drive missing --text hello --out out.mp4 --background #00ff00 --over clip.mp4",
        "drive missing --text hello --out out.mp4 --intensity 3",
        "drive missing --text hello --out out.mp4 --head-motion -1",
        "export missing --ply out.ply",
        "export missing --splat out.splat",
        "export missing",
        "bench render",
        "bench drive --avatar missing",
        "ablate missing.data --out results",
        "ablate tiny.data --experiment colour --out results",
        "ablate tiny.data --seeds 0 --out results",
        "jobs show --home home",
        "jobs show nobody --home home",
    ],
)
def test_user_errors_are_one_message_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"this is no video at all" * 9)
    if "tiny.data" in command:
        write_dataset(tmp_path / "tiny.data")
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert "error: " in said and "Traceback" not in said
    message = said[said.index("error: ") :].strip()
    assert "\n" not in message and len(message) > 30
    assert str(tmp_path) not in message


@pytest.mark.parametrize("command", ["", "dance", "create", "drive avatar --out a.mp4", "bench everything"])
def test_wrong_usage_is_exit_code_2(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_every_command_explains_itself(capsys: pytest.CaptureFixture) -> None:
    commands = next(a for a in build_parser()._actions if a.dest == "command").choices
    assert commands is not None
    for name in commands:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert len(capsys.readouterr().out) > 100


def test_first_interrupt_asks_and_second_stops(capsys: pytest.CaptureFixture) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), polite_stop() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert should_stop()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("7.5", 7.5), ("0:07.5", 7.5), ("1:07", 67.0), ("1:00:01", 3601.0)]
)
def test_moments_are_written_as_people_do(text: str, seconds: float) -> None:
    for command in ("create clip.mp4", "prepare clip.mp4 --out data"):
        chosen = build_parser().parse_args([*command.split(), "--start", text, "--end", text])
        assert (chosen.start, chosen.end) == (seconds, seconds)


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", ""])
def test_other_moments_are_wrong_usage(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "clip.mp4", "--out", "data", f"--start={text}"])
    assert caught.value.code == 2
    assert "--start" in capsys.readouterr().err


def test_an_empty_part_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"any")
    command = ["create", str(tmp_path / "clip.mp4"), "--consent", "yes", "--out", str(tmp_path / "ada")]
    assert main([*command, "--start", "9", "--end", "4"]) == 1
    assert "from 9 s to 4 s" in capsys.readouterr().err
    assert not (tmp_path / "ada.data").exists()
