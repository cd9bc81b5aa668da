"""The card says what is true, names the protocol, and shows a stranger's words as plain text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from avatar_support import tiny_avatar_folder
from hypothesis import given
from hypothesis import strategies as st

from talker.card import update_card
from talker.errors import CheckpointError
from talker.model_card import TAG, keeps_own_card, plain, write_card


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_avatar_folder(tmp_path_factory.mktemp("card") / "zoe")


def front(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n", 2)[1])


def test_card_of_a_complete_avatar(template: Path) -> None:
    text = write_card(template, repo_id="alice/zoe").read_text()
    data = front(text)
    assert data["library_name"] == "talker" and TAG in data["tags"]
    assert data["license"] == "other" and data["license_name"]
    assert data["widget"] == [{"text": "Preview", "output": {"url": "preview.mp4"}}]
    for part in (
        "# Zoë",
        "Protocol B",
        "28.25",
        "dB",
        "Zoë Doe",
        "python -m talker pull alice/zoe",
        "40 Gaussians",
    ):
        assert part in text, part
    assert "<Gallery />" in text
    assert not keeps_own_card(template), "our own text is renewed at every publication"


def test_card_without_figures_and_pictures(tmp_path: Path) -> None:
    folder = tiny_avatar_folder(tmp_path / "a", extras=False)
    update_card(folder, metrics={})
    text = write_card(folder).read_text()
    assert "Not measured" in text and "Gallery" not in text and "widget" not in front(text)
    assert "owner/name" in text


def test_unknown_protocol_is_called_unknown(tmp_path: Path) -> None:
    folder = tiny_avatar_folder(tmp_path / "a")
    (folder / "training.json").write_text('{"protocol": "Z<script>"}')
    text = write_card(folder).read_text()
    assert "Protocol unknown" in text and "<script>" not in text


def test_no_avatar_no_card(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        write_card(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "[click](javascript:alert(1))",
        "![x](http://evil/x.png)",
        "a | b\n---\ntags: [evil]\n---",
        "`code` **bold** {{7*7}} $x$",
        "# heading\u202e\x00\u2028",
        "x" * 10_000,
    ],
)
def test_hostile_names_are_shown_as_text(tmp_path: Path, name: str) -> None:
    folder = tiny_avatar_folder(tmp_path / "a", extras=False)
    header = json.loads((folder / "avatar.json").read_text())
    header["card"] |= {"name": name, "preset": name, "audio_encoder": name, "created": name}
    header["card"]["consent"] |= {"who": name, "statement": name}
    (folder / "avatar.json").write_text(json.dumps(header))
    text = write_card(folder).read_text()
    assert front(text)["tags"][0] == TAG and "evil" not in str(front(text))
    body = text.split("---\n", 2)[2].replace(
        "<!-- Written by talker; remove this line to keep your own text. -->", ""
    )
    assert "<" not in body, "HTML got through"
    for line in body.splitlines():
        assert not line.startswith(("![", "[")) and "](" not in line
    assert len(text) < 20_000


@given(st.text())
def test_plain_is_one_line_without_markup(text: str) -> None:
    line = plain(text)
    assert "\n" not in line and not set(line) & set("<>|`*_[]()!\\~\"'{}$")
    assert line.isprintable() and line == line.strip()


def test_a_persons_own_card(tmp_path: Path) -> None:
    folder = tiny_avatar_folder(tmp_path / "a", extras=False)
    good = f"---\nlibrary_name: talker\ntags:\n- {TAG}\n---\nMine.\n"
    for text, kept in (
        (good, True),
        (good.replace("talker-avatar", "other"), False),
        (good.replace("library_name: talker", "library_name: x"), False),
        ("no front matter", False),
        ("---\n[: bad yaml\n---\n", False),
        ("---\n- a list\n---\n", False),
        ("---\ntags: talker-avatar\nlibrary_name: talker\n---\n", False),
    ):
        (folder / "README.md").write_text(text)
        assert keeps_own_card(folder) is kept, text
    (folder / "README.md").write_bytes(b"---\n\xff\n---\n")
    assert not keeps_own_card(folder)
    (folder / "README.md").unlink()
    assert not keeps_own_card(folder)
