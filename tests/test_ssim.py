"""The fused pass is the definition, whatever the picture's size, layout and the number of threads."""

from __future__ import annotations

import pytest
import torch

from talker.ssim import mean_ssim, ssim_map


def pair(height: int, width: int, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(height * width)
    image, truth, weight = (torch.rand(height, width, channels, generator=g) for _ in range(3))
    return image, (0.7 * image + 0.3 * truth), weight


def both(image: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = image.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    ssim = ssim_map(leaf, truth)
    (slope,) = torch.autograd.grad((ssim * weight).sum(), leaf)
    return ssim.detach(), slope


@pytest.mark.parametrize("shape", [(1, 1), (4, 9), (11, 11), (40, 53), (64, 64, 1), (30, 31, 5)])
def test_it_is_the_definition_in_double_precision(shape: tuple[int, ...]) -> None:
    values = pair(*shape)
    for mine, true in zip(both(*values), both(*(v.double() for v in values)), strict=True):
        assert mine.dtype == torch.float32
        assert torch.allclose(mine.double(), true, rtol=1e-4, atol=1e-4 * float(true.abs().max()))


def test_a_crop_or_a_transposed_picture_is_read_right() -> None:
    image, truth, weight = pair(50, 60)
    crop = slice(7, 39), slice(3, 44)
    for view in (lambda x: x[crop], lambda x: x.transpose(0, 1)):
        parts = [view(v) for v in (image, truth, weight)]
        assert not parts[0].is_contiguous()
        for a, b in zip(both(*parts), both(*(p.contiguous() for p in parts)), strict=True):
            assert torch.equal(a, b)


def test_the_number_of_threads_changes_no_bit() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(both(*pair(33, 47)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mean_and_its_gradient_are_those_of_the_map(dtype: torch.dtype) -> None:
    image, truth, _ = (value.to(dtype) for value in pair(37, 52))
    slopes = []
    for function in (mean_ssim, lambda *two: ssim_map(*two).mean()):
        leaf = image.clone().requires_grad_()
        (5 * function(leaf, truth)).backward()
        slopes.append(leaf.grad)
    torch.testing.assert_close(mean_ssim(image, truth), ssim_map(image, truth).mean())
    torch.testing.assert_close(*slopes)
