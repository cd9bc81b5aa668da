"""Avatars made to hurt who loads them: refused with a typed error, and nothing of them stays."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from avatar_support import SIZE
from fake_hub import FakeHub
from hub_support import *  # noqa: F403 - fixtures
from hub_support import ID, contents
from safetensors.torch import load, save

from talker.card import FORMAT
from talker.checkpoint import load_avatar
from talker.errors import CheckpointError, HubError, TalkerError
from talker.hub import Hub


def _json(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def edit(blob: bytes) -> bytes:
        value = json.loads(blob)
        change(value)
        return json.dumps(value).encode()

    return edit


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[bytes], bytes]:
    def edit(blob: bytes) -> bytes:
        value = load(blob)
        change(value)
        return save(value)

    return edit


MEANS = "branches.face.canonical.means"
HOSTILE = {
    "json_not_json": ("avatar.json", lambda b: b"<html>"),
    "json_deep": ("avatar.json", lambda b: b'{"format":1,"card":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "json_duplicate": ("avatar.json", lambda b: b'{"format":1,' + b[1:]),
    "json_nan": ("avatar.json", lambda b: b.replace(b'"format": %d' % FORMAT, b'"format": NaN')),
    "json_future": ("avatar.json", _json(lambda v: v.update(format=99))),
    "json_no_card": ("avatar.json", _json(lambda v: v.pop("card"))),
    "card_unknown": ("avatar.json", _json(lambda v: v["card"].update(auto_map="x.py"))),
    "card_name_type": ("avatar.json", _json(lambda v: v["card"].update(name={"a": 1}))),
    "card_metric_type": ("avatar.json", _json(lambda v: v["card"].update(metrics={"psnr": "<b>"}))),
    "card_no_consent": ("avatar.json", _json(lambda v: v["card"].update(consent={}))),
    "card_empty_consent": ("avatar.json", _json(lambda v: v["card"]["consent"].update(who=" "))),
    "billion_gaussians": ("avatar.json", _json(lambda v: v["branches"].update(face=10**9))),
    "negative_gaussians": ("avatar.json", _json(lambda v: v["branches"].update(face=-1))),
    "huge_table": ("avatar.json", _json(lambda v: v["model"]["face"].update(hash_log2_table=40))),
    "huge_camera": ("avatar.json", _json(lambda v: v["camera"].update(width=10**9))),
    "model_nan": ("model.safetensors", _tensors(lambda t: t[MEANS].fill_(float("nan")))),
    "model_other_n": ("model.safetensors", _tensors(lambda t: t.update({MEANS: t[MEANS][:-1]}))),
    "model_missing": ("model.safetensors", _tensors(lambda t: t.pop(MEANS))),
    "model_extra": ("model.safetensors", _tensors(lambda t: t.update(evil=torch.zeros(1)))),
    "model_dtype": ("model.safetensors", _tensors(lambda t: t.update({MEANS: t[MEANS].double()}))),
    "model_pickle": ("model.safetensors", lambda b: b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "model_header": ("model.safetensors", lambda b: struct.pack("<Q", 2**63) + b[8:]),
    "model_cut": ("model.safetensors", lambda b: b[:-100]),
    "motion_inf": ("motion.safetensors", _tensors(lambda t: t["T_cam_head"].fill_(float("inf")))),
    "motion_lengths": ("motion.safetensors", _tensors(lambda t: t.update(valid=t["valid"][:-1]))),
    "plate_no_png": ("background.png", lambda b: b"GIF89a" + b),
    "plate_size": (
        "background.png",
        lambda b: b.replace(struct.pack(">II", SIZE, SIZE), struct.pack(">II", 9, 9)),
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_content_is_refused_and_leaves_nothing(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path, case: str
) -> None:
    name, edit = HOSTILE[case]
    honest = fake.files(ID)[name]
    hostile = edit(honest)
    assert hostile != honest
    fake.seed(ID, {name: hostile})
    with pytest.raises(TalkerError) as caught:
        anybody.pull(ID, out)
    assert not isinstance(caught.value, HubError), "it is the content that is wrong, not the Hub"
    assert str(out) not in str(caught.value)
    assert list(out.parent.iterdir()) == []


def test_extras_that_are_not_what_they_say_are_left_out(
    fake: FakeHub, anybody: Hub, seeded: str, out: Path
) -> None:
    html = b"<html><script>alert(1)</script></html>"
    fake.seed(ID, {"poster.jpg": html, "preview.mp4": html, "neutral.ply": html, "training.json": html})
    fake.seed(ID, {"README.md": b"\xff\xfe\0"})
    anybody.pull(ID, out)
    assert set(contents(out)) == {"avatar.json", "model.safetensors", "motion.safetensors", "background.png"}


def test_mutants_of_the_model_never_crash(fake: FakeHub, avatar: Path) -> None:
    """Damaged avatars, loaded directly: refused with a typed error, or sound."""
    rng = random.Random(0)
    honest = {
        name: (avatar / name).read_bytes()
        for name in ("avatar.json", "model.safetensors", "motion.safetensors")
    }
    outcomes = set()
    for _ in range(150):
        name = rng.choice(list(honest))
        blob = bytearray(honest[name])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(min(len(blob), 3000))
            blob[at] = rng.choice([blob[at] ^ (1 << rng.randrange(8)), 0x30, 0x39, 0x2D, 0x22, 0x7D])
        (avatar / name).write_bytes(blob)
        try:
            loaded = load_avatar(avatar)
            assert all(bool(torch.isfinite(v).all()) for v in loaded.state_dict().values())
            outcomes.add("sound")
        except CheckpointError:
            outcomes.add("refused")
        (avatar / name).write_bytes(honest[name])
    assert "refused" in outcomes
