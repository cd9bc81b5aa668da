"""A function of tensors recorded once as a CUDA graph and replayed: one launch instead of some hundred small ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

WARM_UP = 3
"""Calls before recording: libraries allocate their workspaces in the first."""

AHEAD = 2
"""Frames on their way to main memory while later ones are drawn."""


class Captured:
    """``function`` of tensors whose shapes and devices never change, without gradients.

    On a CUDA device the results are overwritten by the next call; elsewhere the function is simply called.

    Args:
        function: Tensors to tensors; it may not wait for the device.
        example: Arguments of the shapes to come.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], *example: Tensor) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if example[0].device.type == "cuda":
            self._record(example)

    def _record(self, example: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            self._inputs = tuple(value.detach().clone() for value in example)
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._function(*self._inputs)
            torch.cuda.current_stream().wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outputs = self._function(*self._inputs)

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        """``function(*values)``."""
        with torch.no_grad():
            if self._graph is None:
                return self._function(*values)
            for kept, value in zip(self._inputs, values, strict=True):
                kept.copy_(value, non_blocking=True)
            self._graph.replay()
            return self._outputs


def fetched(frames: Iterator[Tensor], ahead: int = AHEAD) -> Iterator[np.ndarray]:
    """Frames of a CUDA device in main memory, in order, each copied while the next ones are drawn."""
    coming: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    for frame in frames:
        host = torch.empty(frame.shape, dtype=frame.dtype, pin_memory=True)
        host.copy_(frame, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        coming.append((host, copied))
        if len(coming) > ahead:
            yield _arrived(*coming.popleft())
    while coming:
        yield _arrived(*coming.popleft())


def _arrived(host: Tensor, copied: torch.cuda.Event) -> np.ndarray:
    copied.synchronize()
    return host.numpy()
