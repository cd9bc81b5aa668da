"""A share of ``benchmarks.fuzz_files`` in seconds: damaged files are read or refused in words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.fuzz_files import BAD, Judge, make_seeds, merged, mutated, outcome, run

SHARE = {"media": 150, "avatars": 150}
FOUND = {"media": (17, 376, 382, 1192)}
"""Cases that once hung or broke."""


@pytest.mark.parametrize("kind", SHARE)
def test_a_share_of_the_fuzzing(tmp_path: Path, kind: str) -> None:
    found = run(kind, 0, SHARE[kind], time.monotonic() + 600, tmp_path)
    assert found["done"] == SHARE[kind]
    assert found["failures"] == []
    assert sum(n for what, n in found["outcomes"].items() if what.startswith("refused")) > SHARE[kind] / 4


def test_cases_that_once_failed(tmp_path: Path) -> None:
    make_seeds("media", tmp_path / "seeds")
    judge = Judge("media", tmp_path / "seeds")
    try:
        for number in FOUND["media"]:
            assert not judge(number).startswith(BAD)
    finally:
        judge.close()


def test_a_run_is_continued_where_it_ended() -> None:
    first = {"done": 5, "seconds": 1.0, "outcomes": {"sound": 5}, "failures": []}
    more = {"done": 9, "seconds": 2.0, "outcomes": {"sound": 3, "hang": 1}, "failures": [{"case": "media:8"}]}
    both = merged(merged({}, first, 10), more, 10)
    assert both["done"] == 9 and both["outcomes"] == {"sound": 8, "hang": 1} and len(both["failures"]) == 1


def test_what_is_looked_for_is_seen() -> None:
    """The harness tells a bug from a refusal."""

    def broken(number: int) -> None:
        raise KeyError("x")

    assert outcome(broken, 0).startswith("unclassified KeyError")
    assert mutated(b"x" * 500, 3, 100) == mutated(b"x" * 500, 3, 100) != mutated(b"x" * 500, 4, 100)
