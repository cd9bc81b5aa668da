"""The fused pass gives what the definition gives, and the same gradients, to everything that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talker.geometry import rigid, rotvec_to_matrix
from talker.model.canonical import CanonicalGaussians, Offsets, activate, pose
from talker.model.carrying import carry
from talker.types import Gaussians

N = 101
SIZES = {"means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": (), "rgb": (3,)}
FIELDS = ("means", "quats", "scales", "opacities", "colors")


def branch(dtype: torch.dtype = torch.float32) -> CanonicalGaussians:
    rng = np.random.default_rng(1)
    made = CanonicalGaussians.from_points(
        rng.normal(size=(N, 3)), rng.random((N, 3)), 0.01 + 0.1 * rng.random(N), rng.random(N)
    )
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        made.quats.copy_(torch.randn(N, 4, generator=g))
        made.sh0.copy_(2 * torch.randn(N, 3, generator=g))  # some colours below black
    return made.to(dtype)


def offsets(names: tuple[str, ...], dtype: torch.dtype = torch.float32) -> Offsets:
    g = torch.Generator().manual_seed(3)
    made = {name: 0.3 * torch.randn(N, *SIZES[name], generator=g) for name in names}
    return Offsets(**{name: value.to(dtype).requires_grad_() for name, value in made.items()})


def bones(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    turns = torch.tensor([[0.2, -0.3, 0.1], [0.0, 0.05, -0.08]], dtype=dtype)
    places = torch.tensor([[0.3, -0.2, 9.0], [-0.1, 0.4, 10.0]], dtype=dtype)
    head, torso = rigid(rotvec_to_matrix(turns), places)
    return head.clone().requires_grad_(), torso.clone().requires_grad_()


def gradients(made: Gaussians, *leaves: torch.Tensor) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(4)
    values = [getattr(made, name) for name in FIELDS]
    loss = sum((v * torch.randn(v.shape, generator=g).to(v.dtype)).sum() for v in values)
    return list(torch.autograd.grad(loss, leaves))  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [(), ("means", "logit_opacities", "rgb"), tuple(SIZES)])
def test_values_and_gradients_are_those_of_the_definition(names: tuple[str, ...]) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        canonical, moved = branch(dtype), offsets(names, dtype) if names else None
        head, torso = bones(dtype)
        if dtype == torch.float32:
            made = carry(canonical, moved, head, torso)
        else:  # the definition, in double precision
            made = pose(activate(canonical, moved), canonical.rig(), head, torso)
        leaves = [*canonical.parameters(), head, torso, *(moved.present() if moved else [])]
        values = [getattr(made, name).detach() for name in FIELDS]
        results.append(values + gradients(made, *leaves))
    for mine, true in zip(*results, strict=True):
        assert mine.dtype == torch.float32
        assert torch.allclose(mine.double(), true, rtol=1e-4, atol=1e-4 * float(true.abs().max()))


def test_black_stays_black_and_learns_nothing_from_below() -> None:
    canonical = branch()
    made = carry(canonical, None, *bones())
    assert made.colors.min() == 0
    (slope,) = torch.autograd.grad(made.colors.sum(), [canonical.sh0])
    assert torch.equal(slope == 0, made.colors == 0)


def test_the_number_of_threads_changes_no_bit() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            canonical, (head, torso) = branch(), bones()
            made = carry(canonical, None, head, torso)
            found.append([made.means, *gradients(made, *canonical.parameters(), head, torso)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_anything_but_float32_goes_through_the_definition() -> None:
    canonical, (head, torso) = branch(torch.float64), bones(torch.float64)
    made, defined = (
        carry(canonical, None, head, torso),
        pose(activate(canonical), canonical.rig(), head, torso),
    )
    assert made.means.dtype == torch.float64
    assert all(torch.equal(getattr(made, name), getattr(defined, name)) for name in FIELDS)
