"""The rig and the one place where raw parameters become Gaussians."""

from __future__ import annotations

import numpy as np
import torch

from talker.geometry import quat_multiply, quat_to_matrix, rigid, rotvec_to_matrix, transform
from talker.model.canonical import SH_C0, CanonicalGaussians, Offsets, activate, pose, rgb_to_sh0
from talker.types import Gaussians

N = 12


def gaussians(seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        torch.randn(N, 3, generator=g),
        torch.nn.functional.normalize(torch.randn(N, 4, generator=g), dim=-1),
        torch.rand(N, 3, generator=g) + 0.1,
        torch.rand(N, generator=g),
        torch.rand(N, 3, generator=g),
    )


def bone(rotvec: tuple[float, ...], place: tuple[float, ...]) -> torch.Tensor:
    return rigid(rotvec_to_matrix(torch.tensor(rotvec)), torch.tensor(place))


HEAD = bone((0.2, -0.3, 0.1), (0.3, -0.2, 9.0))
TORSO = bone((0.0, 0.05, -0.08), (-0.1, 0.4, 10.0))


def same_rotation(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(quat_to_matrix(a), quat_to_matrix(b), atol=1e-6)


def test_rig_1_follows_the_head_and_0_the_torso_exactly() -> None:
    start = gaussians()
    for share, T in ((1.0, HEAD), (0.0, TORSO)):
        posed = pose(start, torch.full((N,), share), HEAD, TORSO)
        assert torch.equal(posed.means, transform(T, start.means))
        turned = T[:3, :3] @ quat_to_matrix(start.quats)
        assert torch.allclose(quat_to_matrix(posed.quats), turned, atol=1e-6)
        assert torch.equal(posed.scales, start.scales)
        assert torch.equal(posed.colors, start.colors)


def test_rig_between_blends_places_linearly_and_turns_by_a_part_of_the_angle() -> None:
    start, share = gaussians(), torch.linspace(0, 1, N)
    posed = pose(start, share, HEAD, TORSO)
    head, torso = transform(HEAD, start.means), transform(TORSO, start.means)
    assert torch.allclose(posed.means, torso + share[:, None] * (head - torso), atol=1e-6)
    # A turn of 0.4 rad about one axis: the middle of the blend is 0.2 rad.
    T0, T1 = bone((0.0, 0.0, 0.0), (0, 0, 9)), bone((0.0, 0.4, 0.0), (0, 0, 9))
    middle = pose(start, torch.full((N,), 0.5), T1, T0)
    half = torch.tensor([np.cos(0.1), 0.0, np.sin(0.1), 0.0], dtype=torch.float32)
    assert same_rotation(middle.quats, quat_multiply(half.expand(N, 4), start.quats))
    assert torch.allclose(middle.quats.norm(dim=-1), torch.ones(N), atol=1e-6)


def test_gradients_reach_the_rig_and_both_poses() -> None:
    share = torch.full((N,), 0.4, requires_grad=True)
    head, torso = HEAD.clone().requires_grad_(), TORSO.clone().requires_grad_()
    posed = pose(gaussians(), share, head, torso)
    (posed.means.square().sum() + posed.quats[:, 1].sum()).backward()
    for value in (share, head, torso):
        assert value.grad is not None and torch.isfinite(value.grad).all() and value.grad.abs().sum() > 0


def canonical() -> CanonicalGaussians:
    rng = np.random.default_rng(3)
    return CanonicalGaussians.from_points(
        rng.standard_normal((N, 3)), rng.random((N, 3)), rng.random(N) + 0.05, np.linspace(0, 1, N)
    )


def test_points_come_back_as_they_were_given() -> None:
    rng = np.random.default_rng(3)
    means, colors, scales = rng.standard_normal((N, 3)), rng.random((N, 3)), rng.random(N) + 0.05
    out = activate(canonical())
    assert np.allclose(out.means.detach(), means, atol=1e-6)
    assert np.allclose(out.colors.detach(), colors, atol=1e-6)
    assert np.allclose(out.scales.detach(), scales[:, None], rtol=1e-5)
    assert torch.allclose(out.opacities, torch.tensor(0.7))
    assert torch.equal(out.quats.detach(), torch.tensor([1.0, 0, 0, 0]).repeat(N, 1))


def test_a_rig_prior_of_0_or_1_can_still_be_learnt() -> None:
    rig = canonical().rig().detach()
    assert torch.isfinite(rig).all()
    assert float(rig[0]) < 0.02 and float(rig[-1]) > 0.98
    assert (rig * (1 - rig)).min() > 0.01, "the sigmoid must have a slope left"


def test_activation_is_in_range_for_any_raw_value() -> None:
    raw = canonical()
    with torch.no_grad():
        raw.quats.mul_(-37.0)
        raw.logit_opacities.copy_(torch.linspace(-60, 60, N))
        raw.sh0.copy_(torch.linspace(-9, 9, 3 * N).reshape(N, 3))
        raw.log_scales.copy_(torch.linspace(-20, 8, 3 * N).reshape(N, 3))
    out = activate(raw)
    assert torch.allclose(out.quats.norm(dim=-1), torch.ones(N), atol=1e-6)
    assert out.opacities.min() >= 0 and out.opacities.max() <= 1
    assert out.colors.min() >= 0
    assert out.scales.min() > 0


def test_offsets_add_to_raw_values_and_absent_ones_add_nothing() -> None:
    raw = canonical()
    plain = activate(raw)
    moved = activate(raw, Offsets(means=torch.full((N, 3), 0.1), logit_opacities=torch.full((N,), 1.0)))
    assert torch.allclose(moved.means, plain.means + 0.1)
    assert torch.allclose(moved.opacities, torch.sigmoid(raw.logit_opacities + 1))
    assert torch.equal(moved.colors, plain.colors) and torch.equal(moved.scales, plain.scales)
    bigger = activate(raw, Offsets(log_scales=torch.full((N, 3), np.log(2)), rgb=torch.full((N, 3), 0.05)))
    assert torch.allclose(bigger.scales, 2 * plain.scales, rtol=1e-5)
    assert torch.allclose(bigger.colors, plain.colors + 0.05)


def test_present_offsets_are_listed_in_a_fixed_order() -> None:
    means, rgb = torch.ones(2, 3), torch.zeros(2, 3)
    for offsets in (Offsets(means=means, rgb=rgb), Offsets(rgb=rgb, means=means)):
        first, second = offsets.present()
        assert {id(first), id(second)} == {id(means), id(rgb)}
        assert first is Offsets(means=means, rgb=rgb).present()[0]


def test_colours_and_coefficients_are_inverse() -> None:
    rgb = torch.rand(5, 3)
    assert torch.allclose(0.5 + SH_C0 * rgb_to_sh0(rgb), rgb, atol=1e-6)


def test_embedding_is_a_parameter_like_the_others() -> None:
    rng = np.random.default_rng(0)
    points = (rng.standard_normal((N, 3)), rng.random((N, 3)), rng.random(N) + 0.05, rng.random(N))
    first, second = (
        CanonicalGaussians.from_points(*points, embedding_dim=6, generator=torch.Generator().manual_seed(4))
        for _ in range(2)
    )
    assert list(first.parameters_by_name())[-1] == "embedding"
    assert first.embedding is not None and first.embedding.shape == (N, 6)
    assert second.embedding is not None and torch.equal(first.embedding, second.embedding)
