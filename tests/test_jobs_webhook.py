"""The operator's own program is told when a job has ended, and nothing of the person in it."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from jobs_support import make_clip, make_queue, request, wait_for, wait_state, worker_for

from talker.jobs import webhook
from talker.jobs.job import JobState


class Listener(HTTPServer):
    """What a receiver was sent, over real HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.told: list[dict] = []
        self.answer = 204
        self.address = f"http://127.0.0.1:{self.server_port}/hook?key=canary-93"


class Receiver(BaseHTTPRequestHandler):
    server: Listener  # type: ignore[assignment]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append({"path": self.path, **json.loads(body)})
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_finished_job_is_told_once_and_without_the_person(tmp_path: Path, listener: Listener) -> None:
    home = tmp_path / "home"
    queue = make_queue(home)
    job = queue.submit(make_clip(tmp_path), request(name="Ada Lovelace", owner="canary-owner"))
    job_id = job if isinstance(job, str) else job.id
    with worker_for(home, TALKER_WEBHOOK=listener.address):
        wait_state(queue, job_id, "done")
        wait_for(lambda: listener.told)
    assert len(listener.told) == 1
    told = listener.told[0]
    assert set(told) == {"path", "event", "job", "state", "at"}
    assert (told["event"], told["job"], told["state"]) == ("job.ended", job_id, "done")
    assert told["path"] == "/hook?key=canary-93"


@pytest.mark.parametrize("answer", [404, 500])
def test_a_receiver_that_fails_disturbs_nothing(
    answer: int, listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listener.answer = answer
    monkeypatch.setenv(webhook.VARIABLE, listener.address)
    with caplog.at_level(logging.WARNING):
        webhook.tell("a" * 24, JobState.FAILED)
    assert [told["state"] for told in listener.told] == ["failed"]
    assert "could not be told: HTTPError" in caplog.text and "canary" not in caplog.text


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/", "file:///etc/passwd", "http://[", "nonsense"])
def test_an_address_that_is_none_disturbs_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(webhook.VARIABLE, address)
    with caplog.at_level(logging.WARNING):
        webhook.tell("a" * 24, JobState.DONE)
    assert "told" in caplog.text


def test_an_answer_that_is_no_http_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def babble(server: socket.socket) -> None:
        caller, _ = server.accept()
        caller.recv(4096)
        caller.sendall(b"nonsense\r\n\r\n")
        caller.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=babble, args=(server,), daemon=True).start()
        monkeypatch.setenv(webhook.VARIABLE, f"http://127.0.0.1:{server.getsockname()[1]}/")
        with caplog.at_level(logging.WARNING):
            webhook.tell("a" * 24, JobState.DONE)
    assert "could not be told: BadStatusLine" in caplog.text


def test_nobody_is_told_without_an_address(monkeypatch: pytest.MonkeyPatch, listener: Listener) -> None:
    monkeypatch.delenv(webhook.VARIABLE, raising=False)
    webhook.tell("a" * 24, JobState.DONE)
    assert listener.told == []
