"""What people could do to the app on purpose, where no other test has it; docs/ABUSE.md lists every case."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from media_support import number_of, numbered, tone, write_clip, write_sound

from talker.audio.waveform import load
from talker.errors import TalkerError, VideoError
from talker.studio import Studio, StudioConfig
from talker.studio.inbox import Inbox
from talker.ui.context import COOKIE
from talker.video.decode import DecodeLimits, decode
from tests.avatar_support import tiny_avatar_folder
from tests.ui_support import served

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "ABUSE.md"
A, B = "a" * 32, "b" * 32
PATIENCE_S = 300
"""Of one request: the machine may be busy with something else."""


def refused(path: Path, out: Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        decode(path, out / "out", limits=DecodeLimits(max_seconds=10, wall_s=60))
    assert caught.value.todo and str(out) not in str(caught.value)
    return caught.value


# --- video


def test_a_playlist_opens_no_file_and_calls_nobody(tmp_path: Path) -> None:
    """Every disguise, with a real address and a real neighbour: neither is touched."""
    import socket
    import threading

    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port, stop = listener.getsockname()[1], threading.Event()

        def listen() -> None:
            while not stop.is_set():
                try:
                    calls.append(listener.accept())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        address = f"http://127.0.0.1:{port}/x.ts"
        neighbour = write_clip(tmp_path / "other.mp4", n=5)
        try:
            for content in (
                f"#EXTM3U\n#EXTINF:1,\n{address}\n",
                f"ffconcat version 1.0\nfile {neighbour}\nfile {address}\n",
                f'<?xml version="1.0"?><MPD><BaseURL>{address}</BaseURL></MPD>',
                f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>',
                f"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video {port} RTP/AVP 96\r\n",
            ):
                for name in ("a.mp4", "a.mov", "a.webm"):
                    (tmp_path / name).write_text(content)
                    os.utime(neighbour, (1, 1))
                    assert refused(tmp_path / name, tmp_path).code == "video.not_a_video"
                    assert neighbour.stat().st_atime == 1, "the neighbour was opened"
        finally:
            stop.set()
            thread.join()
    assert calls == []


@pytest.mark.parametrize("size", [(322, 242), (130, 66), (16, 16), (2, 2), (64, 1024)])
def test_odd_sizes_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "a.mkv", n=3, size=size, codec="mpeg4", container="matroska")
    frames = decode(path, tmp_path / "out").frames
    assert frames.shape == (3, size[1], size[0], 3)


def test_one_picture_and_one_sound_of_many(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", format="matroska") as out:
        videos = [out.add_stream("mpeg4", rate=25) for _ in range(20)]
        sounds = [out.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(20)]
        for video in videos:
            video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        for number, video in enumerate(videos):
            for _ in range(5):
                out.mux(video.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
            out.mux(video.encode(None))
        for sound in sounds:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 3200), np.int16), format="s16", layout="mono")
            frame.rate = 16_000
            out.mux(sound.encode(frame))
    clip = decode(path, tmp_path / "out")
    assert [number_of(f) for f in clip.frames] == [0] * 5
    assert clip.waveform is not None


def test_a_protected_video_is_named(tmp_path: Path) -> None:
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
    path = write_clip(tmp_path / "a.mp4", n=10, options=options)
    assert b"encv" in path.read_bytes()
    assert refused(path, tmp_path).code == "video.protected"


@pytest.mark.parametrize(("head", "words"), [(b"GIF89a", "GIF"), (b"RIFF\0\0\0\0WEBPVP8 ", "WebP")])
def test_moving_pictures_that_are_no_video_are_named(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "a.mp4").write_bytes(head + bytes(500))
    error = refused(tmp_path / "a.mp4", tmp_path)
    assert error.code == "video.not_a_video" and words in error.found


def test_a_picture_without_a_decoder_is_named(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "a.mp4", n=5).read_bytes()
    assert data.count(b"avc1") >= 1
    entry = data.rindex(b"avc1")  # the sample entry; the first may be a brand
    (tmp_path / "a.mp4").write_bytes(data[:entry] + b"zzzz" + data[entry + 4 :])
    assert refused(tmp_path / "a.mp4", tmp_path).code in ("video.codec", "video.damaged")


# --- sound


def test_a_lot_of_tags_before_little_sound(tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(1.0), 16_000)
    sound = path.read_bytes()
    n = 30 << 20
    size = bytes((n >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x04\0\0" + size + bytes(n) + sound)
    assert 0.9 < len(load(path)) / 16_000 < 1.2
    path.write_bytes(b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + sound)
    with pytest.raises(TalkerError) as caught:
        load(path)
    assert caught.value.code.startswith("audio.")


def test_a_rate_no_recording_has(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(4_194_368)
        file.writeframes(bytes(20_000))
    with pytest.raises(TalkerError) as caught:
        load(path)
    assert caught.value.code == "audio.damaged" and "4,194,368" in str(caught.value)


def test_a_microphone_without_a_length(tmp_path: Path) -> None:
    import io

    live = io.BytesIO()
    with av.open(live, "w", format="webm", options={"live": "1"}) as out:
        write_sound(out, out.add_stream("libopus", rate=48_000, layout="mono"), tone(1.0, 48_000), 48_000)
    (tmp_path / "a.webm").write_bytes(live.getvalue())
    assert 0.9 < len(load(tmp_path / "a.webm")) / 16_000 < 1.1


# --- names, requests, owners


class Site:
    def __init__(self, studio: Studio, address: str) -> None:
        self.studio, self.address = studio, address

    def send(
        self, path: str, data: bytes | None = None, *, who: str = A, **headers: str
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(self.address + path, data, {"Cookie": f"{COOKIE}={who}", **headers})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def upload(self, name: str, content: bytes) -> tuple[int, bytes]:
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % name.encode()
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        return self.send("/gradio_api/upload", head + content + b"\r\n--x--\r\n", **kind)

    def call(self, name: str, *, who: str = A, **values: object) -> str:
        kind = {"Content-Type": "application/json"}
        status, answer = self.send(
            f"/gradio_api/call/v2/{name}", json.dumps(values).encode(), who=who, **kind
        )
        if status != 200:
            return answer.decode()
        event = json.loads(answer)["event_id"]
        return self.send(f"/gradio_api/call/{name}/{event}", who=who)[1].decode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    studio = Studio(
        tmp_path_factory.mktemp("abuse") / "home",
        config=StudioConfig(report_url="https://example.org/report"),
    )
    with served(studio, shared=True) as address:
        yield Site(studio, address)


@pytest.mark.parametrize("page", ["/", "/talk", "/avatars", "/jobs", "/origin"])
def test_misuse_can_be_reported_signed_out(site: Site, page: str) -> None:
    with urllib.request.urlopen(site.address + page, timeout=PATIENCE_S) as answer:
        assert "https://example.org/report" in answer.read().decode()


@pytest.mark.parametrize(
    "name", ["a\\u0000b.mp4", "a\\nb.mp4", "..%2f..%2fx.mp4", "x" * 300 + ".mp4", "\U0001f600" * 80]
)
def test_a_name_chooses_no_place(site: Site, name: str) -> None:
    status, answer = site.upload(name, b"film")
    assert status in (200, 400, 422)
    if status == 200:
        path = Path(json.loads(answer)[0])
        assert path.resolve().is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve())


@pytest.mark.parametrize(
    "disposition", ['form-data; name="files"; filename=""', 'form-data; name="files"', "x"]
)
def test_an_empty_name_breaks_nothing(site: Site, disposition: str) -> None:
    body = b"--x\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\nfilm\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, answer = site.send("/gradio_api/upload", body, **kind)
    assert status in (200, 400), answer
    if status == 200:
        assert all(Path(name).name.strip(". ") for name in json.loads(answer)), "it got a name of ours"
    assert site.send("/")[0] == 200


@pytest.mark.parametrize("kind", ["svg", "html"])
def test_pages_in_disguise_are_never_shown_as_pages(site: Site, kind: str) -> None:
    content = (
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
        if kind == "svg"
        else b"<script>1</script>"
    )
    path = json.loads(site.upload(f"a.{kind}", content)[1])[0]
    request = urllib.request.Request(f"{site.address}/gradio_api/file={path}")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert "attachment" in answer.headers["content-disposition"]
        assert "html" not in answer.headers["content-type"] and "svg" not in answer.headers["content-type"]
    words = site.call("check_clip", clip={"path": path, "meta": {"_type": "gradio.FileData"}})
    assert "event: error" in words


@pytest.mark.parametrize("endpoint", ["check_clip", "was_made_here"])
def test_a_program_cannot_name_files_or_addresses_of_the_server(site: Site, endpoint: str) -> None:
    secret = site.studio.home / "secret.mp4"
    secret.write_bytes(b"canary-41")
    for clip in (
        {"path": "/etc/passwd"},
        {"path": str(secret)},
        {"path": str(secret), "url": f"{site.address}/theme.css"},
        {"path": "x.mp4", "url": "http://127.0.0.1:9/x.mp4"},
        {"path": "x.mp4", "url": f"file://{secret}"},
    ):
        words = site.call(endpoint, clip={**clip, "meta": {"_type": "gradio.FileData"}})
        assert "complete" not in words.split("data:", maxsplit=1)[0] or "error" in words
        assert "root:" not in words and "canary" not in words and "Traceback" not in words
    assert secret.read_bytes() == b"canary-41", "what it may not read it may not delete"


def test_two_people_with_the_same_film_have_two(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    takes = []
    for owner in (A, B):
        (tmp_path / "same.mp4").write_bytes(b"film")
        takes.append(inbox.take(tmp_path / "same.mp4", owner, max_mb=1))
    inbox.discard(takes[0].id, A)
    assert inbox.get(takes[1].id, B).path.read_bytes() == b"film"


def test_nobody_deletes_or_publishes_what_is_not_theirs(site: Site, tmp_path: Path) -> None:
    slug = site.studio.gallery.adopt(tiny_avatar_folder(tmp_path / "made"), "Ada", A, "job:9")
    words = set()
    for act in (
        lambda s: site.studio.avatar(s, B),
        lambda s: site.studio.delete_avatar(s, B),
        lambda s: site.studio.sharing.publish(s, B, "bob/ada", token="x"),
        lambda s: site.studio.sharing.unpublish(s, B, token="x"),
        lambda s: site.studio.sharing.set_public(s, B, True, token="x"),
        lambda s: site.studio.splat_of(s, B, tmp_path / "x.splat"),
    ):
        for name in (slug, "nobody"):
            with pytest.raises(TalkerError) as caught:
                act(name)
            words.add((caught.value.code, str(caught.value)))
    assert len(words) == 1, "foreign and missing are told apart"
    assert slug in site.call("list_avatars", who=A)
    assert slug not in site.call("list_avatars", who=B)
    site.studio.delete_avatar(slug, A)
    assert not any("ada" in p.name for p in site.studio.gallery.root.rglob("*"))


# --- the table


def test_the_table_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| ([VSNRB]\d+) \|(.*)\|$", TABLE.read_text(), re.MULTILINE)
    wanted = [
        f"{letter}{n}"
        for letter, last in (("V", 20), ("S", 10), ("N", 9), ("R", 11), ("B", 7))
        for n in range(1, last + 1)
    ]
    assert [name for name, _ in rows] == wanted
    for name, row in rows:
        tests = re.findall(r"`(test_\w+)::(test_\w+)`", row)
        assert tests or "not built" in row or "outside" in row, f"{name} has no test"
        for module, test in tests:
            assert f"def {test}(" in (TESTS / f"{module}.py").read_text(), f"{name}: {module}::{test}"
