"""docs/API.md is true: every example on the page runs as it stands against the running app."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from talker.studio import Studio
from tests.studio_support import speaking_avatar_folder
from tests.ui_support import served

PAGE = Path(__file__).parents[1] / "docs" / "API.md"
PRINTED = "http://127.0.0.1:7860"
EXPECTED = {
    ("python", 0): ("'avatar': 'ada'", ".mp4"),
    ("python", 1): ("No mark of origin",),
    ("python", 2): ("talk", "list_avatars", "check_clip", "was_made_here", "http"),
    ("bash", 0): ("event: complete", "ada"),
    ("bash", 1): ("event: complete", ".mp4"),
    ("bash", 2): ("event: complete", "No mark of origin"),
}


def examples() -> list[tuple[str, int, str]]:
    """(language, number among its like, code) of every block that runs."""
    found: list[tuple[str, int, str]] = []
    for language, code in re.findall(
        r"^```(python|bash)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    ):
        found.append((language, sum(kind == language for kind, _, _ in found), code))
    return found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("api") / "home"
    speaking_avatar_folder(home / "avatars" / "ada", name="Ada")
    with served(Studio(home)) as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from media_support import tone, write_clip

    folder = tmp_path_factory.mktemp("programs")
    write_clip(folder / "speaker.mp4", n=30, sound=tone(1.2, 48_000))
    return folder


def test_every_example_is_checked() -> None:
    assert {(language, number) for language, number, _ in examples()} == set(EXPECTED)


@pytest.mark.parametrize(("language", "number", "code"), examples(), ids=lambda v: str(v)[:6].strip())
def test_example_runs(address: str, folder: Path, language: str, number: int, code: str) -> None:
    assert PRINTED in code
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*command, code.replace(PRINTED, address)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for word in EXPECTED[language, number]:
        assert word in done.stdout, done.stdout[-2000:]


def test_an_agent_cannot_name_files_or_addresses_of_the_server(address: str) -> None:
    """What an agent names is fetched for it: neither this machine's files nor its own network."""

    async def ask(clip: str) -> str:
        async with (
            streamablehttp_client(f"{address}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            answer = await session.call_tool("was_made_here", {"clip": clip})
            assert answer.isError, answer
            return str(answer.content[0])

    for clip in ("/etc/passwd", "file:///etc/passwd", f"{address}/theme.css", "http://127.0.0.1:9/x.mp4"):
        words = asyncio.run(ask(clip))
        assert "root:" not in words and "Traceback" not in words
