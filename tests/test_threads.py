"""Items side by side: in order, few ahead, nothing lost when one fails or the caller leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from talker.threads import map_ahead, n_threads, run

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items() -> None:
    last_first = threading.Event()

    def slow_start(item: int) -> int:
        if item == 0:
            assert last_first.wait(30), "the next item is worked on meanwhile"
        last_first.set()
        return item * item

    assert list(map_ahead(slow_start, range(20))) == [i * i for i in range(20)]
    assert list(map_ahead(slow_start, [])) == []


def test_items_are_taken_a_few_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = map_ahead(str, items())
    assert taken == []
    for wanted in range(5):
        assert next(results) == str(wanted)
        assert len(taken) == wanted + 4
    results.close()
    assert len(taken) == 8


def test_an_error_comes_at_its_place() -> None:
    def third_fails(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        return item

    results = map_ahead(third_fails, range(10))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert list(results) == []


def test_leaving_early_waits_for_what_is_under_way() -> None:
    started, finished = [], []

    def work(item: int) -> int:
        started.append(item)
        threading.Event().wait(0.05)
        finished.append(item)
        return item

    results = map_ahead(work, range(100))
    next(results)
    results.close()
    assert sorted(started) == sorted(finished)
    assert len(started) <= 4


def test_work_inside_is_not_shared_out_again() -> None:
    assert n_threads() == 2
    assert list(map_ahead(lambda _: n_threads(), range(4))) == [1, 1, 1, 1]
    assert n_threads() == 2


def test_a_share_that_fails_is_raised_after_all_are_done() -> None:
    done = []

    def share(i: int) -> None:
        if i == 0:
            raise ValueError("the first")
        done.append(i)

    with pytest.raises(ValueError, match="the first"):
        run(share, 2)
    assert done == [1]
