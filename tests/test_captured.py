"""What a GPU repeats is recorded once; without a GPU the same calls simply go through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talker.captured import Captured, fetched


def double_and_sum(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * a, a + b


def devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", devices())
def test_every_call_gives_what_the_function_gives(device: str) -> None:
    captured = Captured(double_and_sum, torch.zeros(3, device=device), torch.zeros(3, device=device))
    for start in range(4):
        a, b = torch.full((3,), float(start), device=device), torch.arange(3.0, device=device)
        for found, expected in zip(captured(a, b), double_and_sum(a, b), strict=True):
            assert torch.equal(found, expected)


def test_nothing_is_kept_for_gradients() -> None:
    weight = torch.ones(3, requires_grad=True)
    (out,) = Captured(lambda x: (x * weight,), torch.zeros(3))(torch.ones(3))
    assert not out.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_frames_arrive_in_order_and_whole() -> None:
    frames = [torch.full((64, 64, 3), value, dtype=torch.uint8, device="cuda") for value in range(7)]
    arrived = list(fetched(iter(frames)))
    assert [int(frame[0, 0, 0]) for frame in arrived] == list(range(7))
    assert all(np.ptp(frame) == 0 for frame in arrived)
