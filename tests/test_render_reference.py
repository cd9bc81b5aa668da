"""The definition of the picture: its rules one by one, and its gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from talker.render import rasterize
from talker.render.constants import BLUR, MAX_ALPHA, MIN_ALPHA
from talker.types import Camera, Gaussians
from tests.render_support import NAMES, camera, cloud, cut_margin, random_loss

SIZE = 9
VIEW = Camera(torch.tensor([[10.0, 0, 4.5], [0, 10.0, 4.5], [0, 0, 1]]), SIZE, SIZE)
MIDDLE = SIZE // 2


def stack(opacities: list[float], colors: list[float], *, scale: float = 0.05, z: float = 1.0) -> Gaussians:
    """Round Gaussians behind each other in the middle of the view, the first in front."""
    n = len(opacities)
    depth = z + 0.001 * torch.arange(n).double()
    return Gaussians(
        torch.stack((torch.zeros(n).double(), torch.zeros(n).double(), depth), 1),
        torch.tensor([[2.0, 0, 0, 0]]).double().repeat(n, 1),
        torch.full((n, 3), scale, dtype=torch.float64),
        torch.tensor(opacities, dtype=torch.float64),
        torch.tensor(colors, dtype=torch.float64)[:, None].repeat(1, 3),
    )


def draw(gaussians: Gaussians, **options):
    return rasterize(gaussians, VIEW, backend="reference", **options)


def test_one_gaussian_is_a_bell_of_its_blurred_size() -> None:
    output = draw(stack([0.8], [0.5]))
    variance = (10 * 0.05) ** 2 + BLUR
    for dx in range(3):
        alpha = 0.8 * math.exp(-(dx**2) / (2 * variance))
        expected = alpha if alpha >= MIN_ALPHA else 0.0
        assert output.alpha[MIDDLE, MIDDLE + dx, 0].item() == pytest.approx(expected, rel=1e-9)
        assert output.rgb[MIDDLE, MIDDLE + dx, 0].item() == pytest.approx(0.5 * expected, rel=1e-9)
    assert output.means2d[0].tolist() == pytest.approx([4.5, 4.5])
    extent = math.sqrt(2 * math.log(0.8 * 255))
    assert output.radii[0].item() == math.ceil(extent * math.sqrt(variance))


def test_the_front_one_hides_the_back_one() -> None:
    output = draw(stack([0.6, 0.5], [1.0, 0.2]))
    # The second is a hair smaller in the picture, being farther; in the middle pixel that does not matter.
    assert output.rgb[MIDDLE, MIDDLE, 0].item() == pytest.approx(0.6 + 0.4 * 0.5 * 0.2)
    assert output.alpha[MIDDLE, MIDDLE, 0].item() == pytest.approx(1 - 0.4 * 0.5)


def test_alpha_below_one_255th_does_not_count() -> None:
    output = draw(stack([0.8 / 255], [1.0]), pixel_counts=True)
    assert output.alpha.abs().max() == 0
    assert output.radii.tolist() == [0]
    assert output.pixel_count is not None
    assert output.pixel_count.tolist() == [0]
    visible = draw(stack([1.2 / 255], [1.0]), pixel_counts=True)
    assert visible.pixel_count is not None
    assert visible.pixel_count.tolist() == [1]


def test_there_is_no_cut_at_three_sigma() -> None:
    output = draw(stack([0.99], [1.0], scale=0.1))
    mahalanobis2 = (3**2 + 2**2) / ((10 * 0.1) ** 2 + BLUR)
    assert mahalanobis2 > 3**2
    expected = 0.99 * math.exp(-0.5 * mahalanobis2)
    assert expected > MIN_ALPHA
    assert output.alpha[MIDDLE + 2, MIDDLE + 3, 0].item() == pytest.approx(expected, rel=1e-9)


def test_alpha_is_clamped_and_then_has_no_gradient() -> None:
    g = stack([1.0], [1.0])
    g.opacities.requires_grad_()
    output = draw(g)
    assert output.alpha[MIDDLE, MIDDLE, 0].item() == pytest.approx(MAX_ALPHA)
    output.alpha[MIDDLE, MIDDLE, 0].backward()
    assert g.opacities.grad is not None
    assert g.opacities.grad.item() == 0


def test_blending_stops_before_the_entry_that_would_close_the_pixel() -> None:
    # Transmittance 1e-1, 1e-2, 1e-3, then 0.5e-4 would be below the limit: the fourth is left out, the fifth too.
    output = draw(stack([0.9, 0.9, 0.9, 0.95, 0.1], [0.0, 0.0, 0.0, 1.0, 1.0]), pixel_counts=True)
    assert output.rgb[MIDDLE, MIDDLE, 0].item() == 0
    assert output.alpha[MIDDLE, MIDDLE, 0].item() == pytest.approx(1 - 1e-3)
    assert output.pixel_count is not None
    counts = output.pixel_count.tolist()
    assert counts[0] == counts[1] == counts[2]
    assert counts[3] < counts[2]


def test_near_and_far_planes_and_the_image_cull() -> None:
    g = stack([0.5, 0.5, 0.5, 0.5], [1.0] * 4)
    g.means[:, 2] = torch.tensor([0.005, 2e10, -1.0, 1.0])
    g.means[3, 0] = 30.0
    output = draw(g)
    assert output.radii.tolist() == [0, 0, 0, 0]
    assert output.alpha.abs().max() == 0


def test_the_jacobian_is_held_beyond_the_margin() -> None:
    # Two Gaussians far to the right: beyond the margin the size on the image depends on depth alone.
    g = stack([0.9, 0.9], [1.0, 1.0], scale=2.0)
    g.means[:, 0] = torch.tensor([3.0, 5.0])
    g.means[:, 2] = 1.0
    wide = Camera(torch.tensor([[10.0, 0, 4.5], [0, 10.0, 4.5], [0, 0, 1]]), SIZE, SIZE)
    radii = rasterize(g, wide, backend="reference").radii
    assert radii[0] == radii[1] > 0


def test_gradient_agrees_with_finite_differences() -> None:
    view, g = camera(12, 10), cloud(7, seed=4)
    assert cut_margin(g, view) > 1e-4
    leaves = [getattr(g, name).clone().requires_grad_() for name in NAMES]

    def picture(*tensors: torch.Tensor):
        output = rasterize(Gaussians(*tensors), view, backend="reference")
        return output.rgb, output.alpha

    assert torch.autograd.gradcheck(picture, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_means2d_gradient_is_that_of_moving_the_picture() -> None:
    view, g = camera(20, 18), cloud(15, seed=1, spread=0.8)
    assert cut_margin(g, view) > 1e-4
    g.means.requires_grad_()

    def loss(shift: float):
        K = view.K.double()
        K[0, 2] += shift  # the principal point moves all projected means, and nothing else
        output = rasterize(g, Camera(K, view.width, view.height), backend="reference")
        return random_loss(output), output

    value, output = loss(0.0)
    value.backward()
    assert output.means2d.grad is not None
    moved = (loss(1e-6)[0] - loss(-1e-6)[0]).item() / 2e-6
    assert output.means2d.grad[:, 0].sum().item() == pytest.approx(moved, rel=1e-5)


def test_float32_and_float64_agree() -> None:
    view, g = camera(24, 20), cloud(30, seed=2)
    low = rasterize(g.map(lambda t: t.float()), view, backend="reference")
    high = rasterize(g, view, backend="reference")
    assert low.rgb.dtype == torch.float32
    assert (low.rgb - high.rgb).abs().max() < 1e-5
