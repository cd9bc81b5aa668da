"""The pages without a browser: escaping, ownership, what the server gives away, the documented endpoints."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from talker.provenance import inspect
from talker.studio import Studio, StudioConfig
from talker.ui import html
from talker.ui.context import COOKIE
from tests.studio_support import speaking_avatar_folder
from tests.ui_support import served

VISITORS = "abcdef12"
EVIL = "<img src=x onerror=alert(1)>${7*7}{{7*7}}`${8*8}`\\u0041\u202e\x00"


def test_nothing_from_a_person_is_markup_or_template() -> None:
    for text in (
        html.esc(EVIL),
        html.empty("face", EVIL, EVIL),
        html.message("error", EVIL),
        html.facts([(EVIL, EVIL)]),
    ):
        assert "<img" not in text
        assert not re.search(r"\$\{|\{\{|`|\\", re.sub(r"<svg.*?</svg>", "", text))
        assert "\u202e" not in text
        assert "\x00" not in text
    assert "&lt;img" in html.esc(EVIL), "shown, not swallowed"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (75, "1 min 15 s"), (1200, "20 min"), (3700, "1 h 1 min"), (None, "")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert html.duration(seconds) == words


class Site:
    def __init__(self, studio: Studio, address: str) -> None:
        self.studio, self.address = studio, address

    def get(self, path: str, cookie: str = "") -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(self.address + path, headers={"Cookie": cookie} if cookie else {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("app") / "home"
    studio = Studio(home, config=StudioConfig(max_upload_mb=2))
    speaking_avatar_folder(home / "avatars" / "guide", name="Guide")
    with served(studio, shared=True) as address:
        yield Site(studio, address)


@pytest.mark.parametrize("page", ["/", "/talk", "/avatars", "/jobs", "/origin"])
def test_every_page_is_served(site: Site, page: str) -> None:
    status, headers, body = site.get(page)
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert b"talker" in body


def test_visitors_get_an_identity_once(site: Site) -> None:
    _, first, _ = site.get("/")
    _, second, _ = site.get("/")
    cookies = [re.match(rf"{COOKIE}=([0-9a-f]{{32}});", h["set-cookie"]) for h in (first, second)]
    assert cookies[0] and cookies[1]
    assert cookies[0].group(1) != cookies[1].group(1)
    assert "HttpOnly" in first["set-cookie"]
    assert "SameSite=Lax" in first["set-cookie"]
    _, again, _ = site.get("/", cookie=f"{COOKIE}={cookies[0].group(1)}")
    assert "set-cookie" not in again
    _, forged, _ = site.get("/", cookie=f"{COOKIE}=local")
    assert "set-cookie" in forged, "nobody can claim to be the person at the machine"


def test_private_files_have_no_address(site: Site) -> None:
    secret = site.studio.home / "jobs" / "secret.txt"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("canary-93")
    code = Path(__file__).parents[1] / "talker" / "errors.py"
    for path in (secret, site.studio.home / "avatars" / "guide" / "avatar.json", code, Path("/etc/passwd")):
        for address in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file=../../..{path}"):
            status, _, body = site.get(address)
            assert status >= 400, address
            assert b"canary-93" not in body


def test_history_and_monitoring_are_off(site: Site) -> None:
    for address in ("/gradio_api/monitoring", "/monitoring", "/gradio_api/runs"):
        status, _, body = site.get(address)
        assert status >= 400 or b"disabled" in body.lower(), (address, status, body[:200])


def test_only_four_endpoints_are_documented(site: Site) -> None:
    import json

    info = json.loads(site.get("/gradio_api/info")[2])
    assert set(info["named_endpoints"]) == {"/talk", "/check_clip", "/list_avatars", "/was_made_here"}
    assert info["unnamed_endpoints"] == {}
    assert [p["parameter_name"] for p in info["named_endpoints"]["/talk"]["parameters"]] == [
        "avatar", "text", "voice", "speed", "intensity", "head_motion", "background", "language", "audio",
    ]  # fmt: skip


def test_large_uploads_are_refused(site: Site) -> None:
    def post(n_bytes: int) -> int:
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        address = site.address + "/gradio_api/upload"
        request = urllib.request.Request(
            address, data=head + bytes(n_bytes) + b"\r\n--x--\r\n", headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert post(500_000) == 200
    assert post(2_500_000) == 413


def test_program_without_cookie_is_told_what_to_do(site: Site) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(site.address, verbose=False)
    with pytest.raises(AppError, match=r"[Cc]ookie"):
        client.predict(avatar="guide", text="Hello", voice="", speed=1.0, api_name="/talk")


def test_wrong_input_gets_words_and_no_path(site: Site, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(site.address, verbose=False, headers={"Cookie": f"{COOKIE}={'a' * 32}"})
    with pytest.raises(AppError) as caught:
        client.predict(avatar="nobody", text="Hello", voice="", speed=1.0, api_name="/talk")
    assert "not here" in str(caught.value)
    notes = tmp_path / "notes.mp4"
    notes.write_text("this is no film")
    with pytest.raises(AppError) as caught:
        client.predict(clip=handle_file(notes), api_name="/check_clip")
    assert "/tmp" not in str(caught.value)
    assert str(site.studio.home) not in str(caught.value)
    assert len(str(caught.value)) > 20
    assert not any(site.studio.inbox.root.iterdir()), "a checked clip is not kept"


def test_programs_get_a_signed_film_one_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from gradio_client import Client

    talk, running, most = site.studio.talk, [], []

    def counted(*arguments: object, **options: object) -> Iterator[object]:
        running.append(1)
        most.append(len(running))
        try:
            yield from talk(*arguments, **options)  # type: ignore[arg-type]
        finally:
            running.pop()

    monkeypatch.setattr(site.studio, "talk", counted)

    def call(visitor: str) -> Path:
        client = Client(site.address, verbose=False, headers={"Cookie": f"{COOKIE}={visitor * 32}"})
        answer = client.predict(
            avatar="guide", text=f"I am {visitor}.", voice="", speed=1.0, api_name="/talk"
        )
        return Path(answer["video"] if isinstance(answer, dict) else answer)

    with ThreadPoolExecutor(8) as pool:
        films = list(pool.map(call, VISITORS))
    assert most == [1] * 8, "one at a time, whoever asks"
    for film in films:
        marks = inspect(film)
        assert marks["ai_generated"]
        assert marks["c2pa"]["intact"], "Gradio passed the signed file on as it is"
    assert [len(site.studio.clips(v * 32)) for v in VISITORS + "9"] == [1] * 8 + [0]


def test_programs_choose_manner_and_background(site: Site) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(site.address, verbose=False, headers={"Cookie": f"{COOKIE}={'0' * 32}"})
    answer = client.predict(
        avatar="guide", text="Hi.", intensity=0.5, head_motion=0.0, background="transparent", api_name="/talk"
    )
    film = Path(answer["video"] if isinstance(answer, dict) else answer)
    assert film.suffix == ".mov"
    assert inspect(film)["c2pa"]["intact"]
    with pytest.raises(AppError, match="intensity"):
        client.predict(avatar="guide", text="Hi.", intensity=5, api_name="/talk")
    with pytest.raises(AppError, match="colour"):
        client.predict(avatar="guide", text="Hi.", background="plaid", api_name="/talk")


def test_origin_is_told_in_words_and_the_upload_deleted(site: Site, tmp_path: Path) -> None:
    from media_support import write_clip

    from talker.provenance import sign
    from talker.ui.context import Context
    from talker.ui.origin import OriginPage

    page = OriginPage.__new__(OriginPage)
    page.context = Context(site.studio)
    plain, ours = (write_clip(tmp_path / f"{n}.mp4", n=5) for n in ("plain", "ours"))
    sign(ours, avatar_name="<b>Ada")
    changed = tmp_path / "changed.mp4"
    data = bytearray(ours.read_bytes())
    data[data.index(b"mdat") + 20] ^= 1
    changed.write_bytes(data)
    for path, words in ((plain, "No mark of talker"), (ours, "Made with talker"), (changed, "changed since")):
        shown = page.on_clip(str(path))[0]
        assert words in shown and "<b>" not in shown
        assert not path.exists()
