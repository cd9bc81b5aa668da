"""Consent is required; every mark is there, survives what it should, and shows tampering."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from talker import provenance
from talker.errors import ConsentError, ProvenanceError
from talker.provenance import identity, marks, reading
from talker.types import Consent

N, SIZE, RATE = 30, 128, 48_000


def frames(n: int = N, height: int = SIZE, width: int = SIZE) -> list[np.ndarray]:
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([(x * 2 + 3 * t) % 256, (y * 2) % 256, np.full_like(x, 120)], -1).astype(np.uint8)
        for t in range(n)
    ]


def encode(path: Path, pictures: list[np.ndarray], *, sound: bool = True) -> Path:
    with av.open(str(path), "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=25)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt, video.options = "yuv420p", {"crf": "20", "preset": "ultrafast"}
        audio = out.add_stream("aac", rate=RATE, layout="mono") if sound else None
        for picture in pictures:
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())
        if audio is not None:
            wave = np.sin(np.arange(RATE * len(pictures) // 25) * 0.05).astype(np.float32)[None] * 0.3
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.rate = RATE
            out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return path


def decode(path: Path) -> tuple[np.ndarray, list[float], int]:
    with av.open(str(path)) as file:
        shown = [(f.to_ndarray(format="rgb24"), float(f.time)) for f in file.decode(video=0)]
        file.seek(0)
        samples = sum(f.samples for f in file.decode(audio=0)) if file.streams.audio else 0
    return np.stack([f for f, _ in shown]), [t for _, t in shown], samples


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALKER_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def signed(home: Path) -> Path:
    path = encode(home / "clip.mp4", frames())
    provenance.sign(path, avatar_name="Zoë")
    return path


# --- consent


def test_a_new_declaration_is_complete() -> None:
    consent = provenance.new_consent("  Zoë \u202e\n Doe ")
    assert consent.who == "Zoë Doe"
    assert consent.statement == provenance.CONSENT_TEXT
    assert consent.version == provenance.CONSENT_VERSION
    assert abs(datetime.now(UTC) - datetime.fromisoformat(consent.when)) < timedelta(minutes=1)
    provenance.require(consent)
    assert provenance.new_consent("Zoë", "I am Zoë and I agree.").statement == "I am Zoë and I agree."


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": "0"}, "consent.version"),
        ({"who": " "}, "consent.who"),
        ({"who": "\u202e\x00"}, "consent.who"),
        ({"who": "x" * 121}, "consent.who"),
        ({"statement": ""}, "consent.statement"),
        ({"statement": "x" * 2001}, "consent.statement"),
        ({"when": ""}, "consent.when"),
        ({"when": "yesterday"}, "consent.when"),
        ({"when": "2026-01-01T00:00:00"}, "consent.when"),
        ({"when": "9999-01-01T00:00:00+00:00"}, "consent.when"),
    ],
)
def test_an_incomplete_declaration_is_refused(change: dict[str, str], code: str) -> None:
    consent = replace(
        Consent("I agree.", "Zoë", "2026-01-01T00:00:00+00:00", provenance.CONSENT_VERSION), **change
    )
    with pytest.raises(ConsentError) as caught:
        provenance.require(consent)
    assert caught.value.code == code


def test_no_declaration_at_all() -> None:
    for call in (lambda: provenance.require(None), lambda: provenance.new_consent("")):
        with pytest.raises(ConsentError):
            call()


# --- the visible label


@pytest.mark.parametrize(
    ("height", "width"), [(128, 128), (256, 256), (512, 512), (720, 1280), (40, 40), (8, 8)]
)
@pytest.mark.parametrize("fill", [0, 255])
def test_label_is_small_and_legible_on_black_and_white(height: int, width: int, fill: int) -> None:
    original = np.full((height, width, 3), fill, np.uint8)
    (stamped,) = provenance.stamp_frames([original])
    assert (original == fill).all(), "the caller's frame was drawn on"
    changed = (stamped != original).any(-1)
    assert changed.any()
    if min(height, width) < 100:
        return
    assert changed.mean() < 0.12 if height >= 256 else changed.mean() < 0.25
    rows, columns = np.nonzero(changed)
    assert rows.max() < height / 4 and rows.max() - rows.min() >= 9
    area = stamped[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(int).mean(-1)
    assert area.max() - np.median(area) > 100, "letters do not stand out"
    assert provenance.label_visible(stamped) and not provenance.label_visible(original)


def test_label_survives_the_encoder_and_is_not_seen_elsewhere(tmp_path: Path) -> None:
    pictures = frames(10, 256, 256)
    shown, *_ = decode(encode(tmp_path / "a.mp4", list(provenance.stamp_frames(pictures)), sound=False))
    assert all(provenance.label_visible(f) for f in shown)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (20, 256, 256, 3), dtype=np.uint8)
    assert not any(provenance.label_visible(f) for f in [*pictures, *noise, *(255 - shown)])


def test_stamping_is_lazy_and_follows_a_change_of_size() -> None:
    taken = []

    def source():
        for height in (64, 256):
            taken.append(height)
            yield np.zeros((height, 256, 3), np.uint8)

    stamped = provenance.stamp_frames(source())
    assert next(stamped).shape == (64, 256, 3) and taken == [64]
    assert next(stamped).shape == (256, 256, 3)


# --- marks in the file


def test_sign_writes_every_mark_and_changes_no_picture_or_sound(home: Path) -> None:
    path = encode(home / "clip.mp4", frames())
    before = decode(path)
    provenance.sign(path, avatar_name="Zoë")
    after = decode(path)
    assert np.array_equal(before[0], after[0]) and np.allclose(before[1], after[1]) and before[2] == after[2]
    found = provenance.inspect(path)
    assert found["ai_generated"] and found["made_by_talker"] and found["xmp"]
    assert found["comment"] == provenance.PLAIN_MARK
    assert found["c2pa"] == {
        "intact": True,
        "problems": [],
        "software": "talker",
        "source_type": reading.SOURCE_TYPE,
        "signer": "talker local signer",
    }
    assert "intact" in found["summary"]
    with av.open(str(path)) as file:
        assert file.metadata["title"] == "Zoë"
    blob = path.read_bytes()
    assert blob.index(b"moov") < blob.index(b"mdat"), "no longer starts fast"
    assert sorted(p.name for p in home.iterdir()) == ["cache", "clip.mp4"]


def test_signed_manifest_holds_no_personal_data(signed: Path) -> None:
    import c2pa

    with c2pa.Reader(str(signed)) as reader:
        text = reader.detailed_json() + reader.json()
    user = os.environ.get("USER", "")
    for word in ("Zoë", str(signed.parent), os.uname().nodename, user):
        assert not word or len(word) < 4 or word not in text


def test_marks_of_silent_video_and_signing_twice(home: Path) -> None:
    path = encode(home / "clip.mp4", frames(), sound=False)
    provenance.sign(path, avatar_name="a")
    provenance.sign(path, avatar_name="b")
    found = provenance.inspect(path)
    assert found["c2pa"]["intact"] and path.read_bytes().count(reading.XMP) == 1


def test_a_changed_byte_shows(signed: Path) -> None:
    blob = bytearray(signed.read_bytes())
    blob[blob.index(b"mdat") + 200] ^= 1
    signed.write_bytes(blob)
    found = provenance.inspect(signed)
    assert not found["c2pa"]["intact"] and found["c2pa"]["problems"]
    assert "changed after signing" in found["summary"]


def test_plain_tags_survive_what_the_signature_does_not(signed: Path) -> None:
    """A re-encode by ffmpeg keeps the comment: that is why there are two kinds of marks."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    other = signed.with_name("other.mp4")
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "error",
        "-i",
        str(signed),
        "-crf",
        "30",
        str(other),
    ]
    subprocess.run(command, check=True, timeout=60)
    found = provenance.inspect(other)
    assert found["c2pa"] is None
    assert found["ai_generated"] and "plain tags" in found["summary"]


def test_an_unmarked_video_is_called_unmarked(home: Path) -> None:
    found = provenance.inspect(encode(home / "clip.mp4", frames(5)))
    assert not found["ai_generated"] and not found["made_by_talker"] and found["c2pa"] is None
    assert "proves nothing" in found["summary"]


def test_what_is_no_video_gets_one_clear_message(home: Path) -> None:
    for name, content in (
        ("empty.mp4", b""),
        ("text.mp4", b"hello " * 1000),
        ("cut.mp4", b"\0\0\0\x18ftypisom"),
    ):
        path = home / name
        path.write_bytes(content)
        with pytest.raises(ProvenanceError) as caught:
            provenance.inspect(path)
        assert caught.value.code == "provenance.unreadable"
        assert str(home) not in str(caught.value)
    with pytest.raises(ProvenanceError):
        provenance.inspect(home / "missing.mp4")


def test_fails_closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while marking, no unmarked video stays behind."""

    def attempt(code: str) -> None:
        path = encode(home / "clip.mp4", frames(5))
        with pytest.raises(ProvenanceError) as caught:
            provenance.sign(path, avatar_name="Zoë")
        assert caught.value.code == code and str(home) not in str(caught.value)
        assert not path.exists()
        assert [p.name for p in home.iterdir()] == ["cache"]

    provenance.sign(encode(home / "clip.mp4", frames(5)), avatar_name="Zoë")
    (home / "clip.mp4").unlink()
    with monkeypatch.context() as patch:  # signed, but the mark says something else
        honest = json.dumps(marks._manifest())
        lie = json.loads(honest.replace("trainedAlgorithmicMedia", "digitalCapture"))
        patch.setattr(marks, "_manifest", lambda: lie)
        attempt("provenance.failed")
    with monkeypatch.context() as patch:  # a key without certificate
        patch.setattr(marks, "load_identity", lambda folder: identity.Identity(b"no key", b"no chain"))
        attempt("provenance.failed")
    with monkeypatch.context() as patch:  # tags do not arrive
        patch.setattr(marks, "plain_metadata", lambda name: {})
        attempt("provenance.failed")
    text = home / "clip.mp4"
    text.write_text("no video")
    with pytest.raises(ProvenanceError):
        provenance.sign(text, avatar_name="Zoë")
    assert not text.exists()
    shutil.rmtree(home / "cache")
    (home / "cache").write_text("a file where the folder should be")
    attempt("provenance.key")


def test_reading_a_manifest_calls_nobody(home: Path) -> None:
    """A file may name an address for its manifest; opening it must not make this machine fetch it."""
    import c2pa

    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        plain, path = encode(home / "plain.mp4", frames(5)), home / "remote.mp4"
        me = identity.load_identity()
        with (
            c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", me.chain, me.key, None)) as signer,
            c2pa.Builder(marks._manifest()) as builder,
        ):
            builder.set_no_embed()
            builder.set_remote_url(f"http://127.0.0.1:{server.server_port}/manifest.c2pa")
            builder.sign_file(plain, path, signer)
        assert b"/manifest.c2pa" in path.read_bytes()
        found = provenance.inspect(path)
        assert not asked
        assert not found["c2pa"] or not found["c2pa"]["intact"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- the key


def test_key_is_private_stable_and_replaced_when_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    first = identity.load_identity(folder)
    file = folder / "signer.pem"
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert identity.load_identity(folder) == first
    assert b"PRIVATE" in first.key and b"PRIVATE" not in first.chain
    assert first.chain.count(b"BEGIN CERTIFICATE") == 2
    assert "PRIVATE" not in repr(first)
    file.chmod(0o644)
    assert identity.load_identity(folder) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(first.key + b"garbage")
    second = identity.load_identity(folder)
    assert second != first and identity.load_identity(folder) == second
    other = identity._new_identity()
    file.write_bytes(first.key + other.chain)  # key and certificate that do not belong together
    assert identity.load_identity(folder).chain != other.chain


def test_importing_is_cheap() -> None:
    code = "import sys, talker.provenance; print({'torch', 'av', 'c2pa', 'cryptography'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"
