"""A process of its own for each run: the peak of its memory is the run's, and the next one starts clean."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TypeVar

from talker.errors import TrainingError
from talker.events import Event, Preview
from talker.train.ablation.run import work

R = TypeVar("R")


def work_apart(run: R, work: Callable[[R], Iterator[Event]] = work) -> Iterator[Event]:
    """``work`` in a new process, which ends with this one; its events but for pictures, its errors.

    Raises:
        TalkerError: As raised by ``work``.
        TrainingError: The process ended without a word.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads, locks and memory
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(run, work, there), daemon=True)
    process.start()
    there.close()  # or the end of the process would not end the pipe
    try:
        yield from _received(here)
    finally:
        process.terminate()
        process.join()


def _received(pipe: Connection) -> Iterator[Event]:
    """Everything up to the ``None`` at the end."""
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            raise TrainingError(
                "ablate.died",
                "The process of a run ended before it was done.",
                todo="Start the command again; it goes on from the last checkpoint.",
            ) from None
        if message is None:
            return
        if isinstance(message, BaseException):
            raise message
        yield message


def _main(run: R, work: Callable[[R], Iterator[Event]], pipe: Connection) -> None:
    try:
        for event in work(run):
            if not isinstance(event, Preview):
                pipe.send(event)
        pipe.send(None)
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the parent was interrupted, too, or is gone
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        pipe.send(error)
