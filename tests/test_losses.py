from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from talker import losses
from talker.errors import BackendError
from talker.ssim import ssim_map


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture and a disturbed copy, [40, 52, 3]."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 7, generator=rng)
    truth = torch.nn.functional.interpolate(coarse, (40, 52), mode="bicubic", align_corners=True)
    truth = truth[0].permute(1, 2, 0).clamp(0, 1)
    return (truth + 0.1 * torch.randn(truth.shape, generator=rng)).clamp(0, 1), truth


def test_l1_is_the_absolute_difference_unreduced(pair) -> None:
    image, truth = pair
    np.testing.assert_array_equal(losses.l1(image, truth).numpy(), np.abs(image.numpy() - truth.numpy()))


def test_ssim_equals_scikit_image_away_from_the_border(pair) -> None:
    image, truth = pair
    _, expected = structural_similarity(
        truth.double().numpy(),
        image.double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )
    ours = ssim_map(image.double(), truth.double()).numpy()
    assert ours.shape == truth.shape
    np.testing.assert_allclose(ours[5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-6)
    assert ours[5:-5, 5:-5].std() > 0.05
    single = ssim_map(image, truth).numpy()
    np.testing.assert_allclose(single, ours, atol=1e-4)


def test_dssim_is_zero_for_equal_pictures_and_grows_with_noise(pair) -> None:
    image, truth = pair
    assert abs(losses.dssim(truth, truth)) < 1e-4, "single precision under a window without contrast"
    worse = truth + 2 * (image - truth)
    assert 0 < losses.dssim(image, truth) < losses.dssim(worse, truth)


def test_dssim_gradient_matches_finite_differences() -> None:
    rng = torch.Generator().manual_seed(1)
    truth = torch.rand(6, 7, 3, generator=rng, dtype=torch.float64)
    image = torch.rand(6, 7, 3, generator=rng, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: losses.dssim(x, truth), (image,), atol=1e-7, fast_mode=True)


def test_descending_dssim_restores_the_picture(pair) -> None:
    image, truth = (x[:16, :20] for x in pair)
    image = image.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    before = losses.l1(image, truth).mean().item()
    for _ in range(40):
        optimizer.zero_grad()
        losses.dssim(image, truth).backward()
        optimizer.step()
    assert losses.l1(image, truth).mean() < 0.6 * before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weighted_l1_is_a_weighted_sum_with_its_gradient(pair, dtype: torch.dtype) -> None:
    image, truth = (value.to(dtype) for value in pair)
    leaf = image.clone().requires_grad_()
    weight = np.random.default_rng(0).random(image.shape[:2]).astype(np.float32)
    total, square = losses.weighted_l1(leaf, truth, weight)
    (3 * total).backward()
    each = torch.from_numpy(weight)[..., None].to(dtype)
    torch.testing.assert_close(total.detach(), (each * (image - truth).abs()).sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(square.to(dtype), (image - truth).square().mean(), rtol=1e-5, atol=0)
    torch.testing.assert_close(leaf.grad, (3 * each * (image - truth).sign()).to(dtype))
    assert losses.weighted_l1(truth, truth, weight)[0] == 0


def test_mask_loss_wants_cover_inside_and_none_outside() -> None:
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.5]])
    alpha = torch.tensor([[1.0, 0.25], [0.5, 0.5]])[..., None].requires_grad_()
    loss = losses.mask_loss(alpha, mask)
    torch.testing.assert_close(loss[..., 0], torch.tensor([[0.0, 0.75], [0.5, 0.5]]))
    loss.sum().backward()
    assert alpha.grad[0, 1] < 0 < alpha.grad[1, 0]


def test_offset_and_temporal_terms() -> None:
    a, b = torch.full((4, 3), 2.0), torch.full((4,), -1.0)
    assert losses.offset_size([a, b]) == 3.0
    assert losses.temporal_difference([a, b], [a, b]) == 0
    assert losses.temporal_difference([a, b], [a - 1, b + 2]) == 1 + 4
    with pytest.raises(ValueError, match="longer"):
        losses.temporal_difference([a], [a, b])


def test_lpips_without_weights_says_so(monkeypatch, tmp_path, pair) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not losses.lpips_available()
    with pytest.raises(BackendError) as error:
        losses.lpips(*pair)
    assert error.value.code == "lpips.unavailable"
    assert str(tmp_path) not in str(error.value)


def test_lpips_runs_on_weights_in_the_cache_and_fetches_none(monkeypatch, tmp_path, pair) -> None:
    assert losses.ensure_torchvision()
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(alexnet().state_dict(), tmp_path / "hub" / "checkpoints" / losses._LPIPS_TRUNK)
    losses._lpips_network.cache_clear()
    image, truth = (torch.nn.functional.pad(x, (0, 0, 6, 6, 12, 12)) for x in pair)
    image.requires_grad_()
    assert losses.lpips_available()
    assert losses.lpips(truth, truth) == 0
    value = losses.lpips(image, truth)
    assert value.ndim == 0 and value > 0
    value.backward()
    assert image.grad.abs().max() > 0
    losses._lpips_network.cache_clear()  # these weights are random
