"""The Avatars page and the Hub: private first, looked at safely, and a token that leaves no trace."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fake_hub import FakeHub
from hub_support import *  # noqa: F403 - fixtures
from hub_support import ID

from talker.errors import HubError
from talker.hub import Hub, repo_id_of
from talker.studio import LOCAL, Studio
from talker.ui import build_app, signin
from talker.ui.card_view import card_text, look_view
from talker.ui.context import Context
from talker.ui.sharing import LoadPanel, PublishPanel

CANARY, WRONG, OPERATOR = "hf_canary7d1f03b2", "hf_canary_wrong55", "hf_operators_own"
REQUEST: Any = SimpleNamespace(cookies={"talker_id": "a" * 32}, query_params={})


@pytest.fixture
def studio(fake: FakeHub, full_avatar: Path, tmp_path: Path) -> Studio:
    made = Studio(tmp_path / "home", hub=Hub(fake.endpoint, False))
    made.gallery.adopt(Path(shutil.copytree(full_avatar, tmp_path / "made")), "Zoë", LOCAL, "job:1")
    return made


def panels(studio: Studio, *, shared: bool = False) -> tuple[PublishPanel, LoadPanel]:
    with gr.Blocks():
        context = Context(studio, shared)
        return PublishPanel(context), LoadPanel(context)


def refusal(call, *arguments: object) -> str:
    with pytest.raises(gr.Error) as caught:
        call(*arguments)
    return str(caught.value)


def test_private_first_public_in_one_step_and_back(fake: FakeHub, studio: Studio) -> None:
    panel, _ = panels(studio)
    token = fake.token("alice")
    said = panel.on_publish("zoe", ID, token, REQUEST)[0]
    assert "for you alone" in said and fake.repos[ID].private
    assert studio.avatar("zoe").note.published == ID
    panel.on_public("zoe", "", token, REQUEST)
    assert not fake.repos[ID].private
    panel.on_private("zoe", "", token, REQUEST)
    assert fake.repos[ID].private
    panel.on_unpublish("zoe", "", token, REQUEST)
    assert ID not in fake.repos
    assert studio.avatar("zoe").note.published == "" and studio.avatar("zoe").folder.is_dir()
    assert "not published" in refusal(panel.on_public, "zoe", "", token, REQUEST)


def test_no_answer_to_the_browsers_question_does_nothing(fake: FakeHub, studio: Studio) -> None:
    panel, _ = panels(studio)
    panel.on_publish("zoe", ID, fake.token("alice"), REQUEST)
    before = len(fake.requests)
    panel.on_unpublish("", "", "", REQUEST)
    assert len(fake.requests) == before and ID in fake.repos


def test_a_token_leaves_no_trace(
    fake: FakeHub,
    studio: Studio,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    """The right one, a wrong one and one without rights, through every action of the page and every refusal."""
    caplog.set_level(logging.DEBUG)
    fake._users[CANARY] = "alice"
    publish, load = panels(studio)
    shown: list[object] = [
        publish.on_publish("zoe", ID, CANARY, REQUEST),
        publish.on_public("zoe", "", CANARY, REQUEST),
    ]
    shown += [load.on_browse("", CANARY, REQUEST), load.on_look(ID, CANARY, REQUEST)]
    slug = studio.sharing.pull(f"https://huggingface.co/{ID}", LOCAL, token=CANARY)
    for call, *arguments in (
        (publish.on_publish, "zoe", ID, WRONG, REQUEST),
        (publish.on_publish, "zoe", "bob/zoe", CANARY, REQUEST),
        (publish.on_public, "zoe", "", WRONG, REQUEST),
        (load.on_look, "alice/nothing", WRONG, REQUEST),
    ):
        shown.append(refusal(call, *arguments))
    for method in ("GET", "POST"):
        fake.fail(method, ".", 500, times=10_000)
    with pytest.raises(gr.Error) as caught:
        load.on_browse("", CANARY, REQUEST)
    shown.append(str(caught.value))
    fake.faults.clear()
    shown.append(publish.on_unpublish("zoe", "", CANARY, REQUEST))
    (tmp_path / "clip.mp4").write_bytes(b"film")
    upload = studio.take(tmp_path / "clip.mp4", LOCAL)
    studio.submit(upload.id, LOCAL, name="Ada", preset="preview", size=256, who="Ada", agreed=True)
    studio.delete_avatar(slug, LOCAL)

    assert any(r.token == CANARY for r in fake.requests), "the token was used"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix in (".sqlite", ".db") or b"SQLite" in path.read_bytes()[:16] for path in files)
    out, err = capfd.readouterr()
    said = "\n".join([str(shown), repr(studio.sharing), out, err, caplog.text, *map(str, caplog.records)])
    for secret in (CANARY, WRONG):
        assert secret not in said
        assert [path for path in files if secret.encode() in path.read_bytes() or secret in path.name] == []


def test_visitors_never_act_with_the_operators_login(
    fake: FakeHub, studio: Studio, monkeypatch: pytest.MonkeyPatch, seeded: str
) -> None:
    fake._users[OPERATOR] = "operator"
    monkeypatch.setenv("HF_TOKEN", OPERATOR)
    monkeypatch.setattr(studio.sharing, "_hub", Hub(fake.endpoint))
    publish, load = panels(studio, shared=True)
    assert "not signed in" in refusal(publish.on_publish, "zoe", "operator/zoe", "", REQUEST)
    load.on_browse("", "", REQUEST)
    load.on_look(ID, "", REQUEST)
    assert OPERATOR not in {r.token for r in fake.requests}
    private, _ = panels(studio)
    private.on_publish("zoe", "operator/zoe", "", REQUEST)
    assert fake.repos["operator/zoe"].private, "the person at the machine uses its login"


def test_sign_in_is_offered_on_a_space_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    heard: list[object] = []
    handler = signin.lent(lambda value, token, request: heard.append((value, token)))
    assert "login" not in inspect.signature(handler).parameters
    monkeypatch.setenv("SPACE_ID", "operator/talker")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "id")
    signin.lent(lambda value, token, request: heard.append((value, token)))("x", REQUEST, None)
    login = gr.OAuthToken(token=CANARY, scope="contribute-repos", expires_at=0)
    signin.lent_for_avatar(lambda a, r, token, request: heard.append(token))("a", "r", "", REQUEST, login)
    signin.lent_for_avatar(lambda a, r, token, request: heard.append(token))(
        "a", "r", " own ", REQUEST, login
    )
    assert heard == [("x", ""), CANARY, "own"]


def test_a_space_can_be_duplicated(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # building the app changes the working folder; this puts it back

    def buttons() -> list[str]:
        page = build_app(studio, shared=True)
        return [str(b.value) for b in page.blocks.values() if isinstance(b, gr.DuplicateButton)]

    assert buttons() == []
    monkeypatch.setenv("SPACE_ID", "operator/talker")
    assert len(buttons()) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alice/zoe", "alice/zoe"),
        (" alice/zoe ", "alice/zoe"),
        ("https://huggingface.co/alice/zoe", "alice/zoe"),
        ("https://huggingface.co/alice/zoe/tree/main?a=1#x", "alice/zoe"),
        ("huggingface.co/alice/zoe", "alice/zoe"),
        ("hf.co/alice/zoe/", "alice/zoe"),
    ],
)
def test_links_are_names(text: str, found: str) -> None:
    assert repo_id_of(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co.evil.org/alice/zoe",
        "https://huggingface.co@evil.org/alice/zoe",
        "http://127.0.0.1/alice/zoe",
        "file:///etc/passwd",
        "https://huggingface.co/datasets",
        "https://[::1/alice/zoe",
        "ftp://huggingface.co/alice/zoe",
    ],
)
def test_other_addresses_are_no_names(text: str) -> None:
    with pytest.raises(HubError) as caught:
        repo_id_of(text)
    assert caught.value.code == "hub.repo_id"


EVIL = (
    "# <img src=x onerror=alert(1)>\n[click](javascript:alert(1)) ![i](https://evil.org/x.png) <https://evil.org>\n"
    "<script>alert(1)</script>\n\n${alert(1)} {{alert(1)}} `a`\n\n<!-- x -->\n[r]: javascript:alert(1)\n\n"
    '```js" onload="alert(1)\n</code><b>\n```\n\n| a | <i>b</i> |\n|--|--|\n| \u202eabc | 2 |\n'
)


def test_a_strangers_card_is_only_words() -> None:
    import re

    shown = card_text(EVIL)
    tags = re.findall(r"<(/?[^>]*)>", shown)
    assert {tag.split()[0].strip("/") for tag in tags} <= {
        "h1", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "br", "em", "strong",
    }  # fmt: skip
    assert not any(re.search(r"\b(href|src|on\w+)\s*=", tag) for tag in tags)
    assert not any(char in shown for char in "{}$`\\\u202e")
    assert "<table>" in shown and "evil.org" in shown, "shown as words, not swallowed"


def test_a_look_before_loading(fake: FakeHub, studio: Studio, seeded: str) -> None:
    fake.seed(ID, {"README.md": b"---\ntags: [talker-avatar]\n---\n" + EVIL.encode()})
    _, load = panels(studio)
    shown = load.on_look(f"https://huggingface.co/{ID}", "", REQUEST)
    assert "Zo" in shown and "28.2 dB" in shown and "Doe" in shown and "data:image/jpeg;base64," in shown
    assert "<script" not in shown and "<img src=x" not in shown
    assert not (studio.home / "pulled").exists()
    tiles = load.on_browse("", "", REQUEST)
    assert f'data-id="{ID}"' in tiles and "data:image/jpeg" in tiles
    fetched = {path.rsplit("/", 1)[-1] for path in fake.paths() if "/resolve/" in path}
    assert fetched == {"avatar.json", "poster.jpg", "README.md"}, "nothing large for a look"


def test_a_look_at_what_is_no_avatar(fake: FakeHub, studio: Studio) -> None:
    fake.seed("eve/page", {"README.md": b"hello", "poster.jpg": b"<html>", "avatar.json": b"{}"})
    shown = look_view(studio.sharing.look("eve/page", token=""))
    assert "not an avatar" in shown and "eve/page" in shown and "data:image" not in shown


def test_private_and_gated_are_said_in_words(fake: FakeHub, studio: Studio, seeded: str) -> None:
    fake.repos[ID].private = True
    _, load = panels(studio)
    words = refusal(load.on_look, ID, "", REQUEST)
    assert "private or gated" in words and "sign in" in words
    assert words == refusal(load.on_look, "alice/other", "", REQUEST)
    fake.repos[ID].private, fake.repos[ID].gated = False, True
    assert "on request" in load.on_browse("", "", REQUEST)


def test_offline_local_avatars_still_work(studio: Studio, fake: FakeHub, waits: list[float]) -> None:
    studio.sharing._hub = Hub("http://127.0.0.1:9", False)
    _, load = panels(studio)
    assert "cannot be reached" in refusal(load.on_browse, "", "", REQUEST)
    assert [info.slug for info in studio.avatars()] == ["zoe"]


def test_a_private_avatar_stays_with_who_loaded_it(fake: FakeHub, studio: Studio, seeded: str) -> None:
    fake.repos[ID].private = True
    alice, bob = "a" * 32, "b" * 32
    slug = studio.sharing.pull(ID, alice, token=fake.token("alice"))
    assert [info.slug for info in studio.avatars(alice)] == [slug]
    assert studio.avatars(bob) == []
    for token in ("", fake.token("bob")):
        with pytest.raises(HubError) as caught:
            studio.sharing.pull(ID, bob, token=token)
        assert caught.value.code == "hub.not_found"
    assert studio.avatars(bob) == [] and not any((studio.home / "pulled").iterdir())
