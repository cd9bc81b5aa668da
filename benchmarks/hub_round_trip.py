"""An avatar to the Hub and back: publish privately, find, fetch, compare, take back.

    HF_TOKEN=hf_... python -m benchmarks.hub_round_trip anna YOUR-NAME/talker-round-trip     # the real Hub
    python -m benchmarks.hub_round_trip anna --local                                         # the tests' local server

The token needs the right to make and delete repositories; it is read from the environment and shown nowhere. The
repository must not exist; it is made, and deleted again whatever happens.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from talker.errors import HubError, TalkerError
from talker.hub import Hub


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}


@contextlib.contextmanager
def server(local: bool) -> Iterator[Hub]:
    """The real Hub with the token of the environment, or the local one with a token of its own."""
    if not local:
        yield Hub(token=os.environ.get("HF_TOKEN") or None)
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fake_hub import FakeHub

    os.environ["HF_HUB_DISABLE_XET"] = "1"
    with FakeHub() as fake:
        yield Hub(fake.endpoint, fake.token("tester"))


def round_trip(hub: Hub, avatar: Path, repo_id: str) -> dict[str, object]:
    """Every step with its seconds; raises at the first that is not as it should be."""
    steps: dict[str, object] = {}
    clock = time.monotonic()

    def done(step: str, good: bool) -> None:
        nonlocal clock
        now = time.monotonic()
        steps[step] = round(now - clock, 2)
        clock = now
        if not good:
            raise SystemExit(f"FAILED: {step}")
        print(f"{step}: {steps[step]} s")

    owner = hub.whoami()
    done("signed in", bool(owner))
    try:
        hub.look(repo_id)
        raise SystemExit(f"{repo_id} exists already: choose a name that is free.")
    except HubError as error:
        done("the name is free", error.code == "hub.not_found")
    try:
        hub.publish(avatar, repo_id)
        done("published", True)
        anonymous = hub.with_token(False)
        try:
            anonymous.look(repo_id)
            hidden = False
        except HubError as error:
            hidden = error.code == "hub.not_found"
        done("hidden from others", hidden)
        found = hub.search(author=repo_id.split("/", maxsplit=1)[0])
        done("listed by its tag, private", any(f.repo_id == repo_id and f.private for f in found))
        looked = hub.look(repo_id)
        done("looked at", looked.card is not None and looked.private and len(looked.text) > 100)
        with tempfile.TemporaryDirectory() as folder:
            fetched = hub.pull(repo_id, Path(folder) / "avatar")
            sent, got = digests(avatar), digests(fetched)
            same = all(sent[name] == digest for name, digest in got.items()) and "model.safetensors" in got
            done(f"fetched, {len(got)} files byte for byte the same", same)
    finally:
        with contextlib.suppress(TalkerError):
            hub.delete(repo_id)
    try:
        hub.look(repo_id)
        gone = False
    except HubError as error:
        gone = error.code == "hub.not_found"
    done("taken back", gone)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("avatar", type=Path)
    parser.add_argument("repo", nargs="?", help="owner/name, which must be free")
    parser.add_argument("--local", action="store_true", help="against the tests' own server")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    if not a.local and not a.repo:
        parser.error("name a repository, or use --local")
    with server(a.local) as hub, tempfile.TemporaryDirectory() as folder:
        # Publishing writes the card and marks the preview: in a copy.
        avatar = Path(shutil.copytree(a.avatar, Path(folder) / "avatar"))
        steps = round_trip(hub, avatar, a.repo or "tester/talker-round-trip")
    if a.json:
        a.json.write_text(
            json.dumps({"server": "local" if a.local else "Hub", "seconds": steps}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
