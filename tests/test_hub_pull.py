"""Pulling from strangers with the real client: only what we name, only what it said, whole or not at all."""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fake_hub import EXPIRED, FakeHub
from hub_support import *  # noqa: F403 - fixtures
from hub_support import FILES, ID, contents

from talker.card import read_card
from talker.checkpoint import load_avatar
from talker.errors import HubError, TalkerError
from talker.hub import Hub
from talker.hub.names import check_repo_id, check_revision


def refuse(code: str, hub: Hub, out: Path, repo_id: str = ID, **options: object) -> TalkerError:
    """Pulling fails with ``code`` and leaves nothing behind."""
    there = list(out.parent.iterdir()) if out.parent.exists() else []
    with pytest.raises(TalkerError) as caught:
        hub.pull(repo_id, out, **options)
    error = caught.value
    assert error.code == code, f"{error.code}: {error}"
    assert "127.0.0.1" not in str(error) and str(out.parent) not in str(error)
    assert (list(out.parent.iterdir()) if out.parent.exists() else []) == there
    return error


def downloads(fake: FakeHub) -> list[str]:
    return [p for p in fake.paths() if "/resolve/" in p or "/_cdn/" in p]


# --- the good way


def test_what_was_published_comes_back(fake: FakeHub, alice: Hub, full_avatar: Path, out: Path) -> None:
    alice.publish(full_avatar, ID)
    seen: list[tuple[int, int]] = []
    assert alice.pull(ID, out, on_progress=lambda *n: seen.append(n)) == out
    assert contents(out) == contents(full_avatar) and set(contents(out)) == FILES
    assert [p.name for p in out.parent.iterdir()] == ["avatar"], "something was left beside it"
    total = sum(len(content) for content in contents(out).values())
    assert seen == sorted(seen) and seen[-1] == (total, total)
    a, b = load_avatar(full_avatar).state_dict(), load_avatar(out).state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_only_our_names_at_one_commit_are_asked_for(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path
) -> None:
    junk = {"evil.pkl": b"cos\nsystem\n", "handler.py": b"import os", "model.safetensors.index.json": b"{}"}
    junk |= {"../../x.safetensors": b"", "sub/model.safetensors": b"", ".env": b"KEY=1", "config.json": b"{}"}
    head = fake.seed(ID, junk | {f"f{i}.bin": b"" for i in range(2000)})
    fake.requests.clear()
    anybody.pull(ID, out)
    assert set(contents(out)) == FILES
    assert not [p for p in out.rglob("*") if p.is_dir()], "the client's own notes were left in it"
    names = {match[1] for p in downloads(fake) if (match := re.search(rf"resolve/{head}/(.+)", p))}
    assert names == FILES
    assert all(f"/{head}/" in p for p in fake.paths() if "/resolve/" in p), "a moving revision was downloaded"
    assert not [p for p in fake.paths() if "/tree/" in p]


def test_an_older_commit_stays_available(fake: FakeHub, anybody: Hub, seeded: str, out: Path) -> None:
    header = json.loads(fake.files(ID)["avatar.json"])
    header["card"]["name"] = "Newer"
    fake.seed(ID, {"avatar.json": json.dumps(header).encode()})
    anybody.pull(ID, out, revision=seeded)
    assert read_card(out).name == "Zoë"
    anybody.pull(ID, out, replace=True)
    assert read_card(out).name == "Newer"
    refuse("hub.revision", anybody, out.with_name("x"), revision="v9")
    refuse("hub.revision", anybody, out.with_name("x"), revision="0" * 40)


def test_a_folder_in_use_is_not_overwritten(fake: FakeHub, anybody: Hub, seeded: str, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("years of work")
    refuse("hub.destination", anybody, out)
    assert fake.requests == [] and (out / "thesis.tex").read_text() == "years of work"
    refuse("hub.destination", anybody, out / "thesis.tex")
    (out / "thesis.tex").unlink()
    anybody.pull(ID, out)
    # A failed replacement leaves the old one.
    before = contents(out)
    fake.served[ID, "model.safetensors"] = b"other"
    refuse("hub.changed", anybody, out, replace=True)
    assert contents(out) == before


# --- names


BAD_NAMES = [
    "",
    " ",
    "zoe",
    "/",
    "alice/",
    "/zoe",
    "alice/zoe/",
    "a/b/c",
    "../zoe",
    "alice/..",
    "alice/.zoe",
    "alice/zoe.",
    "-a/zoe",
    "alice/zoe-",
    "alice/z--e",
    "alice/z..e",
    "alice/zoe.git",
    "alice/zoe\n",
    "alice/zo\u00eb",
    "alice/zoe\u202e",
    "alice\\zoe",
    "alice/zoe?x=1",
    "alice/zoe#1",
    "alice/%2e%2e",
    "https://huggingface.co/alice/zoe",
    "datasets/alice/zoe",
    "a/" + "b" * 95,
    "alice/zoe\0",
    "alice/z oe",
    "\u0661/\u0662",
    None,
    7,
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:30])
def test_hostile_names_cause_no_request(fake: FakeHub, alice: Hub, out: Path, name: object) -> None:
    refuse("hub.repo_id", alice, out, repo_id=name)  # type: ignore[arg-type]
    with pytest.raises(HubError) as caught:
        alice.publish(out, name)  # type: ignore[arg-type]
    assert caught.value.code == "hub.repo_id"
    assert fake.requests == []


def test_what_we_accept_the_library_accepts() -> None:
    from huggingface_hub.utils import validate_repo_id

    rng, accepted = random.Random(0), 0
    for _ in range(10_000):
        alphabet = rng.choice(["ab0/.-_", "ab/", "aZ/.-_ %:\\\n\u00e9\u0661"])
        name = "".join(rng.choices(alphabet, k=rng.randint(0, 12)))
        try:
            check_repo_id(name)
        except HubError:
            continue
        accepted += 1
        validate_repo_id(name)
        assert name.count("/") == 1 and name.isascii() and name.isprintable()
    assert accepted > 100


@pytest.mark.parametrize(
    "revision", ["", "..", "a/../b", "a b", "a\n", "/a", "a/", "a?b", "x" * 101, "a//b", "-a"]
)
def test_hostile_revisions_cause_no_request(fake: FakeHub, anybody: Hub, out: Path, revision: str) -> None:
    refuse("hub.revision", anybody, out, revision=revision)
    assert fake.requests == []


def test_good_names_pass() -> None:
    for name in ("a/b", "Alice-1/my_avatar.v2", "a_/b_", "0/0"):
        assert check_repo_id(name) == name
    for revision in (None, "main", "refs/pr/1", "v1.0-rc_2", "0" * 40):
        assert check_revision(revision) == revision


# --- who may read


def test_missing_private_and_gated_look_the_same(
    fake: FakeHub, alice: Hub, bob: Hub, anybody: Hub, seeded: str, avatar_template: Path, out: Path
) -> None:
    fake.seed("alice/private", contents(avatar_template), private=True)
    fake.seed("alice/gated", contents(avatar_template), gated=True)
    # The owner used it on this machine before: that must not help anybody else.
    alice.pull("alice/private", out)
    alice.pull("alice/gated", out, replace=True)
    shutil.rmtree(out)
    texts = {
        (error.code, str(error))
        for hub in (bob, anybody)
        for name in ("alice/private", "alice/gated", "alice/missing", "nobody/missing")
        for error in [refuse("hub.not_found", hub, out, repo_id=name)]
    }
    assert len(texts) == 1
    refuse("hub.unauthorized", Hub(fake.endpoint, EXPIRED), out)


# --- sizes and bytes


def test_sizes_are_refused_before_a_byte_is_fetched(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path
) -> None:
    for name, size in (("model.safetensors", 50 << 30), ("README.md", 1 << 20), ("avatar.json", 2 << 20)):
        fake.listed_sizes = {(ID, name): size}
        error = refuse("hub.too_large", anybody, out)
        assert name in str(error) and f"{size:,}" in str(error)
    assert not downloads(fake)


def test_incomplete_repositories_are_refused_before_a_byte(fake: FakeHub, anybody: Hub, out: Path) -> None:
    fake.seed(ID, {"README.md": b"---\n---\n", "pytorch_model.bin": b"x"})
    assert "avatar.json" in str(refuse("hub.incomplete", anybody, out))
    assert not downloads(fake)


@pytest.mark.parametrize("name", ["model.safetensors", "avatar.json"])
def test_a_stream_larger_than_announced_is_cut(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path, name: str
) -> None:
    announced = len(fake.files(ID)[name])
    fake.served[ID, name] = b"\0" * (64 << 20)
    refuse("hub.too_large", anybody, out)
    sent = max(r.sent for r in fake.requests)
    assert sent < 2 * announced + (8 << 20), "most of it was fetched nevertheless"


def test_content_changed_between_listing_and_download(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path
) -> None:
    for name in sorted(FILES):
        honest = fake.files(ID)[name]
        fake.served = {(ID, name): bytes([honest[0] ^ 1]) + honest[1:]}  # the same size
        assert name in str(refuse("hub.changed", anybody, out))


def test_no_room_on_the_disk(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talker.hub.pull.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    refuse("hub.no_space", anybody, out)
    assert not downloads(fake)


# --- faults


def test_cut_downloads_are_resumed(
    fake: FakeHub, anybody: Hub, seeded: str, avatar_template: Path, out: Path, waits: list[float]
) -> None:
    fake.fail("GET", "/_cdn/.*model", cut_after=20_000)
    fake.fail("GET", "/_cdn/.*motion", hang_up=True)
    fake.fail("GET", "/resolve/.*/avatar.json", cut_after=10)
    fake.fail("HEAD", "/resolve/.*/model", 503)
    anybody.pull(ID, out)
    assert contents(out)["model.safetensors"] == (avatar_template / "model.safetensors").read_bytes()
    assert all(f.times == 0 for f in fake.faults)


def test_a_line_that_never_holds(fake: FakeHub, anybody: Hub, seeded: str, out: Path) -> None:
    fake.fail("GET", "/_cdn/", hang_up=True, times=1000)
    refuse("hub.interrupted", anybody, out)
    fake.faults.clear()
    fake.fail("HEAD", "/resolve/", hang_up=True, times=1000)
    refuse("hub.interrupted", anybody, out)


@pytest.mark.parametrize("path", ["/api/models/", "/paths-info/", "/resolve/", "/_cdn/"])
@pytest.mark.parametrize(
    ("status", "code"), [(500, "hub.unavailable"), (403, "hub.forbidden"), (429, "hub.rate_limited")]
)
def test_every_refusal_has_words(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path, path: str, status: int, code: str
) -> None:
    fake.fail("", path, status, times=10_000)
    refuse(code, anybody, out)


def test_an_answer_that_makes_no_sense(fake: FakeHub, anybody: Hub, seeded: str, out: Path) -> None:
    for path in ("/revision|/api/models/alice/zoe$", "/paths-info/"):
        for body in (
            b"<html>Welcome to the hotel wifi</html>",
            b"[]",
            b"{}",
            b"null",
            b'{"id": 7}',
            b'["a"]',
        ):
            fake.faults.clear()
            fake.fail("", path, 200, body=body)
            with pytest.raises(HubError):
                anybody.pull(ID, out)
            assert not out.exists()


def test_offline(fake: FakeHub, out: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        hub = Hub(f"http://127.0.0.1:{unused.getsockname()[1]}", "hf_x")
        for call in (lambda: hub.pull(ID, out), hub.search, hub.whoami, lambda: hub.delete(ID)):
            with pytest.raises(HubError) as caught:
                call()
            assert caught.value.code == "hub.offline" and "without it" in str(caught.value)
    assert sum(waits) < 10, "nobody waits half a minute to learn that there is no network"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refuse("hub.offline", Hub(fake.endpoint, False), out)
    assert fake.requests == []


def test_a_server_that_drips_is_given_up(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talker.hub.pull._META_S", 0.5)
    fake.fail("GET", "/_cdn/", dribble_s=0.02)  # the first file from there would take over a minute
    refuse("hub.timeout", anybody, out)
    fake.faults.clear()
    fake.fail("POST", "/paths-info/", dribble_s=0.02)
    refuse("hub.timeout", anybody, out)


def test_long_waits_are_not_waited(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path, waits: list[float]
) -> None:
    fake.fail("HEAD", "/resolve/", 429, headers={"RateLimit": '"resolvers";r=0;t=7200'}, times=100)
    assert "120 minutes" in str(refuse("hub.rate_limited", anybody, out))
    assert not [w for w in waits if w > 60]
