"""One at a time in the order of arrival; who waits is told, who leaves is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from talker.errors import BusyError
from talker.studio import TalkWaiting, batch
from talker.studio.line import Line
from talker.ui import stage


def slow(log: list[str], name: str, seconds: float = 0.1) -> Iterator[str]:
    log.append(f"{name} begins")
    time.sleep(seconds)
    yield name
    log.append(f"{name} ends")


def test_eight_at_once_are_served_one_after_the_other() -> None:
    line, log = Line(), []
    threads = [
        threading.Thread(target=lambda n=n: list(line.in_turn(lambda: slow(log, n)))) for n in "abcdefgh"
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.01)  # so that the order of arrival is known
    for thread in threads:
        thread.join(20)
    assert log == [f"{name} {what}" for name in "abcdefgh" for what in ("begins", "ends")]


def test_who_waits_hears_how_many_come_first_and_how_long() -> None:
    line, log = Line(), []
    began = time.monotonic()
    list(line.in_turn(lambda: slow(log, "known", 1.0)))
    usual = time.monotonic() - began
    first = line.in_turn(lambda: slow(log, "first"))
    assert next(first) == "first"
    second, third = (line.in_turn(lambda n=n: slow(log, n)) for n in ("second", "third"))
    waiting = next(second)
    assert isinstance(waiting, TalkWaiting)
    assert waiting.before == 1
    assert waiting.about_s is not None and 0 <= waiting.about_s <= usual
    behind = next(third)
    assert isinstance(behind, TalkWaiting)
    assert behind.before == 2
    assert behind.about_s is not None and 0.9 <= behind.about_s <= 2 * usual
    second.close()  # type: ignore[attr-defined]
    closer = next(third)
    assert isinstance(closer, TalkWaiting)
    assert closer.before == 1
    first.close()  # type: ignore[attr-defined]
    assert list(third) == ["third"]
    assert "second begins" not in log


def test_who_finds_no_place_is_told_when_to_come_back() -> None:
    line, log = Line(places=3), []
    inside = [line.in_turn(lambda n=n: slow(log, n, 0)) for n in "abc"]
    assert next(inside[0]) == "a"
    assert all(isinstance(next(turn), TalkWaiting) for turn in inside[1:])
    with pytest.raises(BusyError, match=r"busy, about \d+ min") as caught:
        next(line.in_turn(lambda: slow(log, "d")))
    assert caught.value.code == "talk.busy"
    started = line.in_turn(lambda: slow(log, "e", 0), again=True)
    assert isinstance(next(started), TalkWaiting), "what was let in once goes on"
    for turn in [*inside, started]:
        list(turn)
    assert list(line.in_turn(lambda: slow(log, "f", 0))) == ["f"]
    assert "d begins" not in log


def test_several_clips_without_a_place_end_at_once() -> None:
    def say(part: batch.Part) -> Iterator[batch.Made]:
        raise BusyError("talk.busy", "The renderer is busy, about 2 min.")
        yield

    with pytest.raises(BusyError):
        list(batch.run([batch.Part("a", text="a"), batch.Part("b", text="b")], say))


def test_a_failure_lets_the_next_one_begin() -> None:
    line = Line()

    def broken() -> Iterator[str]:
        raise ValueError("broken")
        yield ""

    with pytest.raises(ValueError, match="broken"):
        list(line.in_turn(broken))
    assert list(line.in_turn(lambda: iter(["next"]))) == ["next"]


@pytest.mark.parametrize(
    ("waiting", "words"),
    [
        (TalkWaiting(1, None), "1 rendering is before yours"),
        (TalkWaiting(3, 20.0), "3 renderings are before yours, less than a minute"),
        (TalkWaiting(2, 190.0), "2 renderings are before yours, about 3 min"),
    ],
)
def test_the_words_for_it(waiting: TalkWaiting, words: str) -> None:
    assert words in stage.under_way(waiting)
