from __future__ import annotations

import pytest
import torch
from torch import nn

from talker.errors import CheckpointError, ConfigError
from talker.model import kan_rows
from talker.model.kan import KAN, KANLinear, partial_linear, uniform_b_spline


def cox_de_boor(x: float, knots: list[float], k: int, order: int) -> float:
    """The textbook recursion, one number at a time."""
    if order == 0:
        return 1.0 if knots[k] <= x < knots[k + 1] else 0.0
    left = (x - knots[k]) / (knots[k + order] - knots[k])
    right = (knots[k + order + 1] - x) / (knots[k + order + 1] - knots[k + 1])
    return left * cox_de_boor(x, knots, k, order - 1) + right * cox_de_boor(x, knots, k + 1, order - 1)


def slow_layer(layer: KANLinear, x: torch.Tensor) -> torch.Tensor:
    """A KAN layer by its definition, in float64 loops."""
    out = torch.zeros(len(x), layer.out_features, dtype=torch.float64)
    for n in range(len(x)):
        for i in range(layer.in_features):
            value = x[n, i].double()
            knots = layer.grid[i].double().tolist()
            bases = [
                cox_de_boor(value.item(), knots, k, layer.spline_order)
                for k in range(layer.grid_size + layer.spline_order)
            ]
            weights = layer.spline_weight[:, i].double() * layer.spline_scaler[:, i, None].double()
            silu = value * torch.sigmoid(value)
            out[n] += layer.base_weight[:, i].double() * silu + weights @ torch.tensor(bases).double()
    return out


def inputs(n: int, width: int, seed: int = 0) -> torch.Tensor:
    """Inside the grid, on its rim and far outside."""
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) * 1.3


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_basis_equals_the_recursion(order: int) -> None:
    layer = KANLinear(1, 1, grid_size=4, spline_order=order).double()
    x = torch.linspace(-3.4, 3.4, 101, dtype=torch.float64)[:, None]
    knots = layer.grid[0].tolist()
    expected = [[cox_de_boor(v, knots, k, order) for k in range(4 + order)] for v in x[:, 0].tolist()]
    torch.testing.assert_close(layer.b_splines(x)[:, 0], torch.tensor(expected).double(), rtol=0, atol=1e-6)
    inside = x.abs()[:, 0] < 1
    ones = torch.ones(int(inside.sum()), dtype=torch.float64)
    torch.testing.assert_close(layer.b_splines(x)[inside, 0].sum(-1), ones, rtol=0, atol=1e-6)


def test_bump_is_symmetric_and_ends_at_zero() -> None:
    u = torch.linspace(-1, 5, 61, dtype=torch.float64)
    b = uniform_b_spline(u, 3)
    torch.testing.assert_close(b, b.flip(0))
    assert (b[(u <= 0) | (u >= 4)].abs() < 1e-12).all()
    torch.testing.assert_close(uniform_b_spline(torch.tensor(2.0), 3), torch.tensor(2 / 3))


@pytest.mark.parametrize(("order", "dtype", "tolerance"), [(3, "float32", 3e-6), (2, "float32", 3e-6)])
def test_layer_equals_the_definition(order: int, dtype: str, tolerance: float) -> None:
    torch.manual_seed(1)
    layer = KANLinear(3, 5, spline_order=order, scale_noise=5.0)  # noise large: the splines must matter
    x = inputs(60, 3)
    expected = slow_layer(layer, x)
    assert (expected - x.double().sigmoid().mul(x) @ layer.base_weight.double().T).abs().max() > 0.1
    torch.testing.assert_close(layer(x).double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("width", [1, 5, 8, 19])
def test_kernel_gradients_equal_those_of_the_float64_definition(width: int) -> None:
    torch.manual_seed(2)
    fast = KANLinear(7, width, scale_noise=2.0)
    exact = KANLinear(7, width).double()
    exact.load_state_dict(fast.state_dict())
    x_fast = inputs(301, 7).requires_grad_()
    x_exact = x_fast.detach().double().requires_grad_()
    weight = torch.randn(301, width)
    (fast(x_fast) * weight).sum().backward()
    (exact(x_exact) * weight).sum().backward()
    torch.testing.assert_close(x_fast.grad.double(), x_exact.grad, rtol=1e-3, atol=1e-4)
    for a, b in zip(fast.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-4)


def test_gradients_match_finite_differences() -> None:
    layer = KANLinear(3, 2).double()
    assert torch.autograd.gradcheck(layer, (inputs(5, 3).double().requires_grad_(),))


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    torch.manual_seed(0)
    layer, x = KANLinear(6, 9), inputs(1003, 6)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        layer.zero_grad()
        layer._splines(x, slice(None), layer.scaled_spline_weight).square().sum().backward()
        results.append(layer.spline_weight.grad.clone())
    torch.set_num_threads(before)
    assert torch.equal(*results)


def test_state_has_the_public_names_and_shapes() -> None:
    state = KAN((6, 5, 3), grid_size=7, spline_order=2).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "layers.0.base_weight": (5, 6),
        "layers.0.spline_weight": (5, 6, 9),
        "layers.0.spline_scaler": (5, 6),
        "layers.0.grid": (6, 12),
        "layers.1.base_weight": (3, 5),
        "layers.1.spline_weight": (3, 5, 9),
        "layers.1.spline_scaler": (3, 5),
        "layers.1.grid": (5, 12),
    }
    assert "spline_scaler" not in KANLinear(2, 2, enable_standalone_scale_spline=False).state_dict()
    knots = KANLinear(1, 1).grid[0]
    torch.testing.assert_close(knots, torch.linspace(-2.2, 2.2, 12))


def test_a_foreign_checkpoint_loads_and_an_adaptive_grid_is_refused() -> None:
    torch.manual_seed(4)
    source, target = KANLinear(4, 3, grid_range=(-2.0, 1.0)), KANLinear(4, 3)
    target.load_state_dict(source.state_dict())
    x = inputs(20, 4)
    assert torch.equal(source(x), target(x))
    state = source.state_dict()
    state["grid"] = state["grid"].clone()
    state["grid"][2, 4] += 0.2
    with pytest.raises(CheckpointError) as error:
        target.load_state_dict(state)
    assert error.value.code == "kan.grid"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_partial_sums_over_inputs_give_the_layer(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    tolerance = 1e-6 if dtype is torch.float32 else 1e-14
    for layer in (KANLinear(10, 6, scale_noise=3.0).to(dtype), nn.Linear(10, 6).to(dtype)):
        spatial, row = inputs(40, 7).to(dtype), inputs(1, 3, seed=1).to(dtype)
        whole = layer(torch.cat((spatial, row.expand(40, -1)), 1))
        parts = partial_linear(layer, spatial, slice(0, 7)) + partial_linear(layer, row, slice(7, None))
        torch.testing.assert_close(parts, whole, rtol=0, atol=tolerance)
        assert (partial_linear(layer, row, slice(7, None)) - parts).abs().max() > 0.01


def test_update_grid_keeps_the_function_and_covers_the_inputs() -> None:
    torch.manual_seed(6)
    layer = KANLinear(3, 4, scale_noise=3.0).double()
    x = torch.rand(400, 3, dtype=torch.float64) * torch.tensor([0.4, 0.7, 0.2]).double() - 0.1
    before = layer(x)
    layer.update_grid(x)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0.02 * before.std().item())
    inner = layer.grid[:, [3, -4]]
    assert (inner[:, 0] <= x.amin(0)).all() and (inner[:, 1] >= x.amax(0)).all()
    gaps = layer.grid.diff(dim=-1)
    torch.testing.assert_close(gaps, gaps.mean(-1, keepdim=True).expand_as(gaps))


def test_a_network_can_start_as_zero_and_still_learns() -> None:
    torch.manual_seed(7)
    network = KAN((2, 8, 1), zero_last=True)
    x = torch.rand(512, 2) * 2 - 1
    assert (network(x) == 0).all()
    target = (x[:, :1] * x[:, 1:]).sin() + x[:, :1] ** 2
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (network(x) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.03 * target.var()


def test_regularisation_prefers_few_functions_and_survives_zeros() -> None:
    layer = KANLinear(4, 4)
    with torch.no_grad():
        layer.spline_weight.fill_(1.0)
        spread = layer.regularization_loss(0, 1)
        layer.spline_weight.zero_()
        layer.spline_weight[0, 0] = 16.0
        few = layer.regularization_loss(0, 1)
        torch.testing.assert_close(layer.regularization_loss(1, 0), torch.tensor(16.0))
    assert few < spread
    loss = layer.zero_output().regularization_loss()
    loss.backward()
    assert loss.isfinite() and layer.spline_weight.grad.isfinite().all()


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ConfigError):
        KANLinear(2, 2, spline_order=0)
    with pytest.raises(ConfigError):
        KAN((3,))


@pytest.mark.parametrize(
    ("n", "n_in", "n_out"), [(8, 2, 1), (13, 6, 3), (71, 4, 8), (72, 64, 11), (1000, 64, 64), (2049, 10, 17)]
)
def test_the_pass_without_gradients_agrees_with_the_one_with(n: int, n_in: int, n_out: int) -> None:
    torch.manual_seed(n)
    layer = KANLinear(n_in, n_out, grid_range=(-3.0, 3.0))
    x = torch.randn(n, n_in) * 3  # some outside the grid
    x[0, 0], x[1, 0] = -3.0, 3.0  # on its ends
    x[2] = 200.0 * torch.arange(-1, 1).repeat(n_in // 2)
    with torch.no_grad():
        found = layer(x)
    assert kan_rows.applies(x, n_in) is False, "with gradients it must not apply"
    torch.testing.assert_close(found, layer(x).detach(), atol=1e-4, rtol=2e-5)


def test_nan_stays_in_its_row_without_gradients() -> None:
    layer = KANLinear(4, 3)
    x = torch.zeros(20, 4)
    x[9, 2] = torch.nan
    with torch.no_grad():
        found = layer(x)
    assert found[9].isnan().all()
    assert found[torch.arange(20) != 9].isfinite().all()


def test_the_pass_without_gradients_does_not_depend_on_threads() -> None:
    layer, x = KANLinear(6, 5), torch.randn(777, 6)
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            with torch.no_grad():
                results.append(layer(x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
