"""One at a time in the order of arrival; who waits is told, who leaves is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from talker.studio import TalkWaiting
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
