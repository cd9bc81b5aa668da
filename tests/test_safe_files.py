"""Readers against files a stranger wrote; writers against a crash."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talker import atomic
from talker.errors import CheckpointError
from talker.safe_files import (
    atomic_folder,
    atomic_path,
    parse_json,
    read_json,
    sha256_file,
    sweep_temporaries,
    write_atomic,
    write_json,
)
from talker.tensor_files import MAX_HEADER_BYTES, TensorRule, read_tensors, write_tensors

LIMIT = 1 << 20
N_MAX = 1000
SCHEMA = {
    "means": TensorRule(torch.float32, 2, max_shape=(N_MAX, 3), same_first_dim="n", low=-10, high=10),
    "scales": TensorRule(torch.float32, 2, shape=(None, 3), same_first_dim="n", low=1e-6, high=1),
    "region": TensorRule(torch.uint8, 1, same_first_dim="n", optional=True, high=3),
    "free": TensorRule(torch.float16, 0, optional=True, finite=False),
}


def good(n: int = 7) -> dict[str, torch.Tensor]:
    return {"means": torch.linspace(-1, 1, n * 3).reshape(n, 3), "scales": torch.full((n, 3), 0.01)}


def refuse(code: str, path: Path, schema: dict = SCHEMA, max_bytes: int = LIMIT) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path, schema=schema, max_bytes=max_bytes)
    assert caught.value.code == code, str(caught.value)
    assert str(path.parent) not in str(caught.value), "a server path leaked"
    return str(caught.value)


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str, shape: list, size: int, start: int = 0) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}


def test_tensors_come_back_as_written(tmp_path: Path) -> None:
    tensors = {
        **good(),
        "region": torch.arange(7, dtype=torch.uint8) % 4,
        "free": torch.tensor(float("nan")).half(),
    }
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors, {"format": "1"})
    found = read_tensors(path, schema=SCHEMA, max_bytes=LIMIT)
    assert set(found) == set(tensors)
    for name in ("means", "scales", "region"):
        assert torch.equal(found[name], tensors[name])
        found[name].zero_()  # they own their memory: the file cannot be reached through them
    assert torch.isnan(found["free"])
    assert torch.equal(read_tensors(path, schema=SCHEMA, max_bytes=LIMIT)["means"], tensors["means"])


def test_non_contiguous_tensors_are_written_by_value(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(3, 4).T
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": tensor})
    assert torch.equal(
        read_tensors(path, schema={"x": TensorRule.like(tensor)}, max_bytes=LIMIT)["x"], tensor
    )


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda t: t.pop("means"), "checkpoint.schema", "means"),
        (lambda t: t.update(evil=torch.zeros(1)), "checkpoint.schema", "evil"),
        (lambda t: t.update(means=t["means"].double()), "checkpoint.schema", "float32"),
        (lambda t: t.update(means=t["means"][0]), "checkpoint.schema", "dimensions"),
        (lambda t: t.update(means=t["means"][:3]), "checkpoint.schema", "rows"),
        (
            lambda t: t.update(means=torch.zeros(0, 3), scales=torch.zeros(0, 3)),
            "checkpoint.schema",
            "nothing",
        ),
        (
            lambda t: t.update(means=torch.zeros(1001, 3), scales=torch.ones(1001, 3)),
            "checkpoint.schema",
            "1,001",
        ),
        (lambda t: t.update(scales=torch.ones(7, 4)), "checkpoint.schema", "instead of 3"),
        (lambda t: t["means"].__setitem__((2, 1), float("nan")), "checkpoint.values", "finite"),
        (lambda t: t["means"].__setitem__((2, 1), float("inf")), "checkpoint.values", "finite"),
        (lambda t: t["means"].__setitem__((2, 1), 11.0), "checkpoint.values", "11"),
        (lambda t: t["scales"].__setitem__((0, 0), 0.0), "checkpoint.values", "scales"),
        (lambda t: t.update(region=torch.full((7,), 4, dtype=torch.uint8)), "checkpoint.values", "region"),
    ],
)
def test_whatever_breaks_the_schema_is_refused(tmp_path: Path, change, code: str, word: str) -> None:
    tensors = good()
    change(tensors)
    path = tmp_path / "model.safetensors"
    write_tensors(path, tensors)
    assert word in refuse(code, path)


def test_declared_sizes_are_refused_before_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rank = {"means": entry("F32", [1] * 5000, 4)}
    billion = {"means": entry("F32", [10**9, 3], 12), "scales": entry("F32", [10**9, 3], 12)}
    assert "1,000,000,000" in refuse("checkpoint.schema", raw(path, billion, b"\0" * 12))
    refuse("checkpoint.schema", raw(path, rank, b"\0" * 4))
    refuse("checkpoint.schema", raw(path, {"free": entry("F16", [0, 2**62], 0)}))
    refuse("checkpoint.damaged", raw(path, {}, length=2**63))
    refuse("checkpoint.damaged", raw(path, {"means": entry("F32", [-1, 3], 12)}))
    refuse("checkpoint.damaged", raw(path, {"means": entry("F32", [True, 3], 12)}))
    refuse("checkpoint.damaged", raw(path, {"means": {"dtype": "F32", "shape": [1, 3]}}))
    refuse("checkpoint.damaged", raw(path, b"[" * 100_000))
    refuse("checkpoint.damaged", raw(path, b'{"means":1,"means":2}'))
    refuse("checkpoint.schema", raw(path, {"means": entry("F8_E4M3", [1, 3], 3)}, b"\0" * 3))
    many = {f"t{i}": entry("F32", [1], 4, 4 * i) for i in range(20_000)}
    refuse("checkpoint.too_large", raw(path, many, b"\0" * 4), max_bytes=1 << 24)
    assert path.stat().st_size > MAX_HEADER_BYTES
    # Offsets that lie: the header passes the schema, the library finds it.
    overlap = {"means": entry("F32", [1, 3], 12), "scales": entry("F32", [1, 3], 12)}
    refuse("checkpoint.damaged", raw(path, overlap, b"\0" * 12))
    huge = {"x": entry("F32", [0, 2**62], 0)}
    rule = TensorRule(torch.float32, 2, allow_empty=True)
    refuse("checkpoint.damaged", raw(path, huge), schema={"x": rule})


def test_size_cap_missing_file_and_pipe(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, good())
    refuse("checkpoint.too_large", path, max_bytes=100)
    refuse("checkpoint.missing", tmp_path / "none.safetensors")
    refuse("checkpoint.missing", tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")  # opening it for reading would wait for ever
    refuse("checkpoint.missing", tmp_path / "pipe.safetensors")
    for size in range(12):
        (tmp_path / "short.safetensors").write_bytes(path.read_bytes()[:size])
        refuse("checkpoint.damaged", tmp_path / "short.safetensors")


def test_mutants_never_crash_and_never_load_wrong(tmp_path: Path) -> None:
    """5,000 damaged files: each is refused with a typed error, or holds what the schema allows."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, {**good(), "region": torch.zeros(7, dtype=torch.uint8)})
    blob = path.read_bytes()
    rng = random.Random(0)
    header = struct.unpack("<Q", blob[:8])[0] + 8
    refused = 0
    for _ in range(5000):
        mutant = bytearray(blob)
        for _ in range(rng.randint(1, 4)):
            kind = rng.randrange(4)
            at = rng.randrange(
                min(header, len(mutant)) if rng.random() < 0.8 and mutant else max(1, len(mutant))
            )
            if kind == 0 and at < len(mutant):
                mutant[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                mutant[at:at] = rng.choice([b"9", b"}", b'"', b",", b"-", b"\xff", b"0000"])
            elif kind == 2:
                del mutant[at : at + rng.randint(1, 9)]
            else:
                del mutant[at + rng.randint(0, 400) :]
        path.write_bytes(mutant)
        try:
            found = read_tensors(path, schema=SCHEMA, max_bytes=LIMIT)
        except CheckpointError:
            refused += 1
            continue
        assert len(found["means"]) == len(found["scales"])
        assert torch.isfinite(found["means"]).all() and found["means"].abs().max() <= 10
    assert refused > 4000


# --- JSON


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'"x"',
        b"{",
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 30 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":1} x',
    ],
    ids=range(18),
)
def test_json_that_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "avatar.json"
    path.write_bytes(text)
    with pytest.raises(CheckpointError) as caught:
        read_json(path, max_bytes=LIMIT)
    assert caught.value.code == "checkpoint.damaged"
    assert str(tmp_path) not in str(caught.value)


def test_json_round_trip_and_cap(tmp_path: Path) -> None:
    value = {"name": "Zoë 🙂", "n": [1, -2.5, None, True], "deep": {"a": {"b": {}}}}
    path = tmp_path / "avatar.json"
    write_json(path, value)
    assert read_json(path, max_bytes=LIMIT) == value
    with pytest.raises(CheckpointError) as caught:
        read_json(path, max_bytes=10)
    assert caught.value.code == "checkpoint.too_large"
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path, max_bytes=LIMIT) == value


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=80) | st.text(alphabet='{}[]",:\\u0129eE+-.naIfy', max_size=80).map(str.encode))
def test_any_bytes_give_an_object_or_a_typed_error(blob: bytes) -> None:
    try:
        assert isinstance(parse_json(blob, "x.json"), dict)
    except CheckpointError as error:
        assert error.code == "checkpoint.damaged"


# --- writing


def test_order_of_the_durable_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page cache survives kill -9, so missing fsyncs show only in the order of the calls."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    kinds = {True: "fsync folder", False: "fsync file"}

    def spy_fsync(handle: int) -> None:
        calls.append(kinds[Path(f"/proc/self/fd/{handle}").resolve().is_dir()])
        fsync(handle)

    def spy_replace(self: Path, target: Path) -> Path:
        assert self.parent == Path(target).parent, "a rename across folders is not atomic"
        calls.append("replace")
        return replace(self, target)

    monkeypatch.setattr(atomic.os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    write_atomic(tmp_path / "a.bin", b"x" * 100)
    assert calls == ["fsync file", "replace", "fsync folder"]
    assert (tmp_path / "a.bin").read_bytes() == b"x" * 100
    assert sha256_file(tmp_path / "a.bin") == hashlib.sha256(b"x" * 100).hexdigest()


def test_failure_keeps_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_atomic(path, b"old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        assert temporary.suffix == ".mp4" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise KeyError
    with pytest.raises(CheckpointError) as caught, atomic_path(path):
        pass  # nothing was written
    assert caught.value.code == "checkpoint.unwritable"
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_full_disk_is_said_and_harmless(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from talker.errors import CheckpointError
from talker.safe_files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path({str(tmp_path / "a.bin")!r})
write_atomic(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(path, b"x" * 100_000)
except CheckpointError as error:
    print(error.code, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("checkpoint.no_space The disk is full: a.bin")
    assert str(tmp_path) not in done.stdout
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.bin", b"old")]


def test_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from talker.atomic import write_atomic
path, n = Path({str(tmp_path / "a.bin")!r}), 0
print("ready", flush=True)
while True:
    n += 1
    write_atomic(path, bytes([n % 251]) * 300_000)
"""
    rng = random.Random(1)
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout and child.stdout.readline()
        deadline = time.monotonic() + 30
        while not (tmp_path / "a.bin").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.2)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        content = (tmp_path / "a.bin").read_bytes()
        assert len(content) == 300_000 and len(set(content)) == 1
    sweep_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_folder_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "avatar"
    with pytest.raises(KeyError), atomic_folder(target) as folder:
        (folder / "half").write_text("x")
        raise KeyError
    assert not list(tmp_path.iterdir())
    for content in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / f"{content}.txt").write_text(content)
        assert [p.name for p in target.iterdir()] == [f"{content}.txt"]
    with pytest.raises(KeyError), atomic_folder(target):
        raise KeyError
    assert (target / "two.txt").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["avatar"]


def test_kill_between_the_two_renames_is_repaired(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from talker.atomic import atomic_folder
replace, seen = Path.replace, []
def spy(self, target):
    replace(self, target)
    if seen: os.kill(os.getpid(), 9)
def arm():
    seen.append(1)
target = Path({str(tmp_path / "avatar")!r})
with atomic_folder(target) as folder:
    (folder / "a").write_text("old")
Path.replace = spy
with atomic_folder(target) as folder:
    (folder / "a").write_text("new")
    arm()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "avatar").exists()
    sweep_temporaries(tmp_path)
    assert (tmp_path / "avatar" / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["avatar"]


def test_sweep_spares_the_young_and_the_foreign(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123456789ab-x.bin").write_text("litter")
    (tmp_path / "keep.bin").write_text("keep")
    assert sweep_temporaries(tmp_path, older_than_s=60) == 0
    assert sweep_temporaries(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["keep.bin"]
