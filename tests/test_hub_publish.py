"""Publishing with the real client: what is sent, to whom, and what happens when it goes wrong."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from avatar_support import tiny_avatar_folder
from fake_hub import EXPIRED, FakeHub
from hub_support import *  # noqa: F403 - fixtures
from hub_support import FILES, contents

from talker import card as manifest
from talker import provenance
from talker.errors import CheckpointError, ConsentError, HubError, TalkerError
from talker.hub import Hub, write_card

ID = "alice/zoe"


def refuse(
    kind: type[TalkerError], code: str, hub: Hub, folder: Path, repo_id: str = ID, **options: object
) -> str:
    with pytest.raises(kind) as caught:
        hub.publish(folder, repo_id, **options)
    assert caught.value.code == code, str(caught.value)
    assert caught.value.todo
    assert str(folder.parent) not in str(caught.value) and "127.0.0.1" not in str(caught.value)
    return str(caught.value)


def edit_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_an_avatar_is_published_whole_private_and_in_one_commit(
    fake: FakeHub, alice: Hub, full_avatar: Path
) -> None:
    avatar = full_avatar
    (avatar / "secret.txt").write_text("not part of an avatar")
    (avatar / "frames.npy").write_bytes(b"0" * 1000)
    (avatar / "raw").mkdir()
    assert alice.publish(avatar, ID) == f"{fake.endpoint}/{ID}"
    repo = fake.repos[ID]
    assert repo.private and len(repo.commits) == 2, "the initial commit and ours"
    sent = fake.files(ID)
    assert set(sent) == FILES | {".gitattributes"}
    for name in FILES:
        assert sent[name] == (avatar / name).read_bytes(), name
    text = sent["README.md"].decode()
    assert f"talker pull {ID}" in text and "Protocol B" in text and "Zoë Doe" in text
    published = avatar.parent / "published.mp4"
    published.write_bytes(sent["preview.mp4"])
    found = provenance.inspect(published)
    assert found["c2pa"]["intact"] and found["ai_generated"], "a video left without its marks"


def test_public_only_on_request(fake: FakeHub, alice: Hub, avatar: Path) -> None:
    alice.publish(avatar, ID, private=False)
    assert not fake.repos[ID].private
    alice.publish(avatar, ID)
    assert fake.repos[ID].private, "publishing privately must end private"


def test_manifest_is_the_last_entry_of_the_commit(
    fake: FakeHub, alice: Hub, avatar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    orders = []
    create_commit = HfApi.create_commit

    def spy(self, repo_id, operations, **options):
        orders.append([o.path_in_repo for o in operations])
        return create_commit(self, repo_id, operations, **options)

    monkeypatch.setattr(HfApi, "create_commit", spy)
    alice.publish(avatar, ID)
    assert orders[0][-1] == "avatar.json" and len(orders) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda v: v["card"].update(consent={}), "consent.missing"),
        (lambda v: v["card"].update(consent=None), "consent.missing"),
        (lambda v: v["card"].update(consent="yes"), "consent.missing"),
        (lambda v: v["card"]["consent"].update(who=""), "consent.who"),
        (lambda v: v["card"]["consent"].update(statement=" "), "consent.statement"),
        (lambda v: v["card"]["consent"].update(version="0"), "consent.version"),
        (lambda v: v["card"]["consent"].update(when="?"), "consent.when"),
    ],
)
def test_no_consent_no_request(fake: FakeHub, alice: Hub, avatar: Path, change, code: str) -> None:
    edit_json(avatar / "avatar.json", change)
    refuse(ConsentError, code, alice, avatar)
    assert fake.requests == []


def test_a_broken_avatar_is_not_sent(fake: FakeHub, alice: Hub, avatar: Path) -> None:
    blob = bytearray((avatar / "model.safetensors").read_bytes())
    (avatar / "model.safetensors").write_bytes(blob[:-5])
    refuse(CheckpointError, "checkpoint.damaged", alice, avatar)
    (avatar / "model.safetensors").unlink()
    refuse(CheckpointError, "checkpoint.missing", alice, avatar)
    refuse(CheckpointError, "avatar.missing", alice, avatar.parent / "nowhere")
    assert fake.requests == []


def test_a_link_is_not_followed_to_the_hub(fake: FakeHub, alice: Hub, avatar: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("{}")
    (avatar / "training.json").unlink()
    (avatar / "training.json").symlink_to(secret)
    refuse(CheckpointError, "checkpoint.damaged", alice, avatar)
    (avatar / "training.json").unlink()
    (avatar / "training.json").mkdir()
    refuse(CheckpointError, "checkpoint.damaged", alice, avatar)
    (avatar / "training.json").rmdir()
    (avatar / "training.json").write_bytes(b" " * (1 << 21))
    refuse(HubError, "hub.too_large", alice, avatar)
    assert fake.requests == []


def test_sign_in_is_needed_and_checked(fake: FakeHub, anybody: Hub, avatar: Path) -> None:
    refuse(HubError, "hub.no_token", anybody, avatar)
    refuse(HubError, "hub.no_token", Hub(fake.endpoint), avatar)
    assert fake.requests == []
    assert "expired" in refuse(HubError, "hub.unauthorized", Hub(fake.endpoint, EXPIRED), avatar)
    assert len(fake.requests) == 1, "no second try with a dead token"


def test_nobody_writes_elsewhere(fake: FakeHub, bob: Hub, avatar: Path) -> None:
    refuse(HubError, "hub.forbidden", bob, avatar)
    assert len(fake.requests) == 1 and ID not in fake.repos


def test_a_foreign_repository_is_never_overwritten(
    fake: FakeHub, alice: Hub, avatar: Path, tmp_path: Path
) -> None:
    fake.seed(ID, {"model.bin": b"precious", "README.md": b"# mine"})
    assert f"{ID}-2" in refuse(HubError, "hub.exists", alice, avatar)
    refuse(HubError, "hub.exists", alice, avatar, replace=True)
    assert set(fake.files(ID)) == {"model.bin", "README.md"}
    # Another avatar is a foreign repository too, unless told otherwise.
    other = tiny_avatar_folder(tmp_path / "other", name="Max", seed=1)
    alice.publish(other, "alice/max")
    refuse(HubError, "hub.exists", alice, avatar, "alice/max")
    assert json.loads(fake.files("alice/max")["avatar.json"])["card"]["name"] == "Max"
    alice.publish(avatar, "alice/max", replace=True)
    assert json.loads(fake.files("alice/max")["avatar.json"])["card"]["name"] == "Zoë"
    # A manifest that cannot be read is not ours.
    fake.seed("alice/odd", {"avatar.json": b'{"card":' + b"[" * 5000})
    refuse(HubError, "hub.exists", alice, avatar, "alice/odd", replace=True)


def test_publishing_again_sends_only_what_changed(fake: FakeHub, alice: Hub, avatar: Path) -> None:
    alice.publish(avatar, ID)
    fake.requests.clear()
    alice.publish(avatar, ID)
    assert len(fake.repos[ID].commits) == 2 and not fake.paths("PUT"), "nothing had changed"
    manifest.update_card(avatar, name="Zoë 2")
    alice.publish(avatar, ID)
    assert len(fake.repos[ID].commits) == 3 and not fake.paths("PUT")
    assert b"# Zo\xc3\xab 2" in fake.files(ID)["README.md"], "the card follows"


def test_a_persons_own_card_is_kept(fake: FakeHub, alice: Hub, avatar: Path) -> None:
    write_card(avatar)
    text = (avatar / "README.md").read_text().split("<!-- Written")[0] + "My own words.\n"
    (avatar / "README.md").write_text(text)
    alice.publish(avatar, ID)
    assert fake.files(ID)["README.md"].decode() == text
    (avatar / "README.md").write_text("no front matter")
    alice.publish(avatar, "alice/second")
    assert b"talker-avatar" in fake.files("alice/second")["README.md"]


# --- faults


def test_lost_answers_and_cut_uploads_are_repeated_without_duplicates(
    fake: FakeHub, alice: Hub, avatar: Path, waits: list[float]
) -> None:
    fake.fail("POST", "/repos/create", hang_up=True, after=True)
    fake.fail("PUT", "/_upload/", hang_up=True, times=2)
    fake.fail("POST", "/objects/batch", 503)
    fake.fail("POST", "/commit/", hang_up=True, after=True)
    alice.publish(avatar, ID)
    assert list(fake.repos) == [ID] and len(fake.repos[ID].commits) == 2
    assert set(fake.files(ID)) == FILES - {"preview.mp4"} | {".gitattributes"}
    assert all(f.times == 0 for f in fake.faults), "a fault did not happen"


@pytest.mark.parametrize(
    ("path", "status"), [("/repos/create", 503), ("/preupload/", 500), ("/commit/", 504), ("/_upload/", 502)]
)
def test_a_broken_hub_is_said_and_the_avatar_is_safe(
    fake: FakeHub, alice: Hub, avatar: Path, path: str, status: int
) -> None:
    fake.fail("", path, status, times=10_000)
    before = contents(avatar)
    text = refuse(HubError, "hub.unavailable", alice, avatar)
    assert "Nothing was lost" in text
    after = contents(avatar)
    assert {name: after[name] for name in before} == before
    fake.faults.clear()
    alice.publish(avatar, ID)
    assert len(fake.repos[ID].commits) == 2


def test_connection_always_lost(fake: FakeHub, alice: Hub, avatar: Path) -> None:
    fake.fail("POST", "/commit/", hang_up=True, times=1000)
    refuse(HubError, "hub.interrupted", alice, avatar)


def test_rate_limits_are_obeyed_but_not_for_ever(
    fake: FakeHub, alice: Hub, avatar: Path, waits: list[float]
) -> None:
    fake.fail("POST", "/preupload/", 429, headers={"Retry_After": "7"})
    alice.publish(avatar, ID)
    assert 8.0 in waits
    fake.fail("POST", "/preupload/", 429, headers={"Retry_After": "86400"}, times=50)
    text = refuse(HubError, "hub.rate_limited", alice, avatar)
    assert "1440 minutes" in text
    fake.faults.clear()
    fake.fail("POST", "/repos/create", 429, times=50)
    refuse(HubError, "hub.rate_limited", alice, avatar, "alice/another")


def test_somebody_else_commits_meanwhile(fake: FakeHub, alice: Hub, avatar: Path) -> None:
    fake.fail("POST", "/commit/", 412, times=50)
    refuse(HubError, "hub.conflict", alice, avatar)


def test_a_hub_that_keeps_something_else_is_noticed(fake: FakeHub, alice: Hub, avatar: Path) -> None:
    fake.listed_sizes[ID, "model.safetensors"] = 17
    refuse(HubError, "hub.changed", alice, avatar)


def test_the_token_reaches_no_log_no_message_no_file(
    fake: FakeHub, avatar: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = fake.token("canary")
    hub = Hub(fake.endpoint, token)
    texts = [repr(hub), str(hub)]
    with caplog.at_level(logging.DEBUG):
        hub.publish(avatar, "canary/zoe")
        for status in (401, 403, 404, 409, 429, 500):
            fake.faults.clear()
            fake.fail("POST", "/commit/", status, times=50)
            manifest.update_card(avatar, name=f"Zoë {status}")
            with pytest.raises(HubError) as caught:
                hub.publish(avatar, "canary/zoe")
            texts += [str(caught.value), repr(caught.value)]
            cause = caught.value.__cause__
            while cause is not None:
                texts += [str(cause), repr(cause)]
                cause = cause.__cause__
    texts += [record.getMessage() for record in caplog.records]
    assert texts and not [text for text in texts if token in text]
    for root in (avatar, tmp_path / "hf", tmp_path / "cache"):
        assert not [p for p in root.rglob("*") if p.is_file() and token.encode() in p.read_bytes()]


# --- looking around


def test_search_finds_avatars_by_tag(fake: FakeHub, alice: Hub, bob: Hub, anybody: Hub, avatar: Path) -> None:
    alice.publish(avatar, ID)
    alice.publish(avatar, "alice/shown", private=False)
    fake.seed("carol/bert", {"README.md": b"---\ntags: [bert]\n---\n"})
    assert [a.repo_id for a in alice.search()] == ["alice/shown", ID], "newest first"
    for hub in (bob, anybody):
        assert [a.repo_id for a in hub.search()] == ["alice/shown"]
    found = anybody.search()[0]
    assert found.url == f"{fake.endpoint}/alice/shown" and not found.private and "talker-avatar" in found.tags
    assert found.modified.startswith("20")
    assert [a.repo_id for a in alice.search(text="zo")] == [ID]
    assert alice.search(author="bob") == []
    assert len(alice.search(limit=1)) == 1
    assert [a.repo_id for a in alice.search("bert")] == ["carol/bert"]


def test_delete_takes_avatars_only(fake: FakeHub, alice: Hub, bob: Hub, anybody: Hub, avatar: Path) -> None:
    alice.publish(avatar, ID, private=False)
    fake.seed("alice/thesis", {"README.md": b"---\ntags: [physics]\n---\n"})
    for hub, name, code in (
        (alice, "alice/thesis", "hub.not_an_avatar"),
        (bob, ID, "hub.forbidden"),
        (anybody, ID, "hub.no_token"),
        (alice, "alice/missing", "hub.not_found"),
        (alice, "../thesis", "hub.repo_id"),
    ):
        with pytest.raises(HubError) as caught:
            hub.delete(name)
        assert caught.value.code == code
    assert set(fake.repos) == {ID, "alice/thesis"}
    alice.delete(ID)
    assert set(fake.repos) == {"alice/thesis"}


def test_whoami(fake: FakeHub, alice: Hub, anybody: Hub) -> None:
    assert alice.whoami() == "alice"
    for hub, code in ((anybody, "hub.no_token"), (Hub(fake.endpoint, EXPIRED), "hub.unauthorized")):
        with pytest.raises(HubError) as caught:
            hub.whoami()
        assert caught.value.code == code


def test_a_local_sign_in_is_used_only_when_nothing_is_said(
    fake: FakeHub, avatar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", fake.token("operator"))
    assert Hub(fake.endpoint).whoami() == "operator"
    Hub(fake.endpoint).publish(avatar, "operator/zoe")
    # A visitor of a shared server must not read with the operator's rights.
    fake.requests.clear()
    with pytest.raises(HubError) as caught:
        Hub(fake.endpoint, False).pull("operator/zoe", avatar.parent / "stolen")
    assert caught.value.code == "hub.not_found"
    with pytest.raises(HubError):
        Hub(fake.endpoint, "").pull("operator/zoe", avatar.parent / "stolen")
    assert fake.requests and not [r for r in fake.requests if r.token]


def test_the_template_was_not_changed(avatar_template: Path, avatar: Path) -> None:
    shutil.rmtree(avatar)
    assert FILES - {"README.md"} == set(contents(avatar_template))
