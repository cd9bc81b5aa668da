"""SyncNet has the published shapes, and weights that are not SyncNet's are refused in words."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from syncnet_support import random_weights, save_weights
from torch import Tensor

from talker.errors import CheckpointError
from talker.train import syncnet
from talker.train.syncnet import SyncNet, load_syncnet

PUBLISHED = {
    "netcnnaud.0.weight": (64, 1, 3, 3),
    "netcnnaud.4.weight": (192, 64, 3, 3),
    "netcnnaud.8.weight": (384, 192, 3, 3),
    "netcnnaud.11.weight": (256, 384, 3, 3),
    "netcnnaud.14.weight": (256, 256, 3, 3),
    "netcnnaud.18.weight": (512, 256, 5, 4),
    "netcnnaud.19.running_var": (512,),
    "netfcaud.0.weight": (512, 512),
    "netfcaud.3.weight": (1024, 512),
    "netfclip.3.bias": (1024,),
    "netcnnlip.0.weight": (96, 3, 5, 7, 7),
    "netcnnlip.4.weight": (256, 96, 1, 5, 5),
    "netcnnlip.8.weight": (256, 256, 1, 3, 3),
    "netcnnlip.14.weight": (256, 256, 1, 3, 3),
    "netcnnlip.18.weight": (512, 256, 1, 6, 6),
    "netcnnlip.19.running_mean": (512,),
}
"""Names and shapes that the public weights have."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model")


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = SyncNet().state_dict()
    assert {name: tuple(state[name].shape) for name in PUBLISHED} == PUBLISHED
    counted = sum(v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked"))
    assert 4 * counted == pytest.approx(54_573_000, rel=1e-3), "the size of the public file in bytes"


def test_both_ways_give_1024_features_always_the_same(weights: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    faces = 255 * torch.rand(2, 3, 5, 224, 224, generator=generator)
    rows = torch.randn(3, 13, 20, generator=generator)
    first, second = load_syncnet(weights), load_syncnet(weights)
    assert first.lips(faces).shape == (2, 1024) and first.sound(rows).shape == (3, 1024)
    assert torch.equal(first.lips(faces), second.lips(faces))
    assert torch.equal(first.sound(rows), second.sound(rows))
    torch.testing.assert_close(first.sound(rows[:1]), first.sound(rows)[:1])  # one by one or together
    assert not torch.allclose(first.sound(rows[:1]), first.sound(rows[1:2]))
    assert not any(p.requires_grad for p in first.parameters())


def test_loading_draws_no_random_numbers(weights: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_syncnet(weights)
    assert torch.equal(torch.rand(1), expected)


def test_weights_of_an_old_pytorch_load(tmp_path: Path, weights: Path) -> None:
    """Without counters of batches, in the format from before 1.6, as the public file is."""
    state = {k: v for k, v in random_weights().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.model", _use_new_zipfile_serialization=False)
    rows = torch.ones(1, 13, 20)
    assert torch.equal(load_syncnet(tmp_path / "old.model").sound(rows), load_syncnet(weights).sound(rows))


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def damaged(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = random_weights()
        change(state)
        torch.save(state, path)

    return write


@pytest.mark.parametrize(
    ("write", "code", "says"),
    [
        (lambda path: None, "missing", "no file called"),
        (lambda path: path.mkdir(), "missing", "no file called"),
        (lambda path: path.write_bytes(b""), "unreadable", "cannot be read"),
        (lambda path: path.write_bytes(b"these are no weights" * 99), "unreadable", "cannot be read"),
        (lambda path: path.write_bytes(pickle.dumps(Trap(path.with_name("trap")))), "unreadable", "cannot"),
        (lambda path: torch.save(Trap(path.with_name("trap")), path), "unreadable", "cannot be read"),
        (lambda path: torch.save([1, 2], path), "weights", "lacks netcnnaud.0.weight"),
        (lambda path: torch.save({"state_dict": {}}, path), "weights", "lacks netcnnaud.0.weight"),
        (damaged(lambda state: state.pop("netfclip.3.bias")), "weights", "lacks netfclip.3.bias"),
        (damaged(lambda s: s.update(extra=torch.ones(1))), "weights", "1 tensors that SyncNet does not have"),
        (
            damaged(lambda s: s.update({"netfcaud.3.weight": torch.ones(256, 512)})),
            "weights",
            "netfcaud.3.weight of shape [256, 512] instead of [1024, 512]",
        ),
        (damaged(lambda s: s["netfcaud.0.bias"].fill_(float("nan"))), "values", "not finite"),
    ],
)
def test_what_is_no_syncnet_is_refused(
    tmp_path: Path, write: Callable[[Path], None], code: str, says: str
) -> None:
    write(tmp_path / "other.pth")
    with pytest.raises(CheckpointError) as caught:
        load_syncnet(tmp_path / "other.pth")
    assert caught.value.code == f"syncnet.{code}" and says in caught.value.found
    assert caught.value.expected and caught.value.todo
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "trap").exists(), "nothing in the file was executed"


def test_a_cut_off_file_is_refused(tmp_path: Path, weights: Path) -> None:
    whole = weights.read_bytes()
    for at in (100, len(whole) // 2, len(whole) - 50):
        (tmp_path / "cut.model").write_bytes(whole[:at])
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_syncnet(tmp_path / "cut.model")


@pytest.mark.parametrize("new", [True, False])
def test_damaged_files_are_refused_whatever_pytorch_makes_of_them(tmp_path: Path, new: bool) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "small.pth", _use_new_zipfile_serialization=new)
    whole, rng = (tmp_path / "small.pth").read_bytes(), random.Random(0)
    for _ in range(150):
        changed = bytearray(whole[: rng.choice((len(whole), rng.randrange(1, len(whole))))])
        for _ in range(3):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        (tmp_path / "small.pth").write_bytes(changed)
        with pytest.raises(CheckpointError):
            load_syncnet(tmp_path / "small.pth")


def test_a_file_that_is_too_large_is_not_read(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncnet, "MAX_WEIGHTS_BYTES", 50 << 20)
    with pytest.raises(CheckpointError) as caught:
        load_syncnet(weights)
    assert caught.value.code == "syncnet.too_large" and "52 MB" in caught.value.found
