from __future__ import annotations

import pytest
import torch
from torch import nn

from talker.errors import ConfigError
from talker.render import rasterize
from talker.train.densify import DensityConfig, DensityControl
from talker.types import Camera, Gaussians, RenderOutput

W, H = 80, 40
EXTENT = 1.0


def parameters(n: int, scale: float = 0.1) -> dict[str, nn.Parameter]:
    rng = torch.Generator().manual_seed(5)
    values = {
        "means": torch.randn(n, 3, generator=rng),
        "quats": torch.randn(n, 4, generator=rng),
        "log_scales": torch.full((n, 3), scale).log(),
        "logit_opacities": torch.full((n,), 1.0),
        "sh0": torch.randn(n, 3, generator=rng),
        "shN": torch.randn(n, 3, 3, generator=rng),
        "rig_logit": torch.randn(n, generator=rng),
        "embedding": torch.randn(n, 8, generator=rng),
    }
    return {name: nn.Parameter(value) for name, value in values.items()}


def optimizer_of(params: dict[str, nn.Parameter]) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": [p], "lr": 1e-3, "name": k} for k, p in params.items()], fused=True)


def warmed(params: dict[str, nn.Parameter]) -> torch.optim.Adam:
    """An optimizer with moments: those of row i are made of i."""
    optimizer = optimizer_of(params)
    for p in params.values():
        p.grad = torch.arange(1.0, len(p) + 1).reshape(-1, *[1] * (p.dim() - 1)).expand_as(p).contiguous()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def view(grads: torch.Tensor, counts: torch.Tensor | None = None, visible: bool = True) -> RenderOutput:
    """A render of which only what density control reads is filled in. ``grads`` [N, 2] in pixels."""
    means2d = torch.zeros(len(grads), 2, requires_grad=True)
    means2d.grad = grads
    radii = torch.full((len(grads),), 3.0 if visible else 0.0)
    blank = torch.zeros(H, W, 1)
    return RenderOutput(blank.expand(-1, -1, 3), blank, means2d, radii, counts)


def control(**options) -> DensityControl:
    options = {"kind": "standard", "start": 0, "stop": 1000, "every": 10, **options}
    return DensityControl(DensityConfig(**options), EXTENT, W, H)


def along_x(*ndc: float) -> torch.Tensor:
    """Pixel gradients [N, 2] whose size in normalised device coordinates is given."""
    return torch.tensor([[value / (W / 2), 0.0] for value in ndc])


def test_scores_are_in_device_coordinates_and_averaged_over_the_views_that_see() -> None:
    ours = control()
    ours.observe(view(torch.tensor([[3.0, 0.0], [0.0, 3.0]])))
    torch.testing.assert_close(ours.scores, torch.tensor([3.0 * W / 2, 3.0 * H / 2]))
    ours.observe(view(torch.tensor([[1.0, 0.0], [0.0, 0.0]])))
    torch.testing.assert_close(ours.scores, torch.tensor([2.0 * W / 2, 1.5 * H / 2]))
    ours.observe(view(torch.zeros(2, 2), visible=False))
    torch.testing.assert_close(ours.scores, torch.tensor([2.0 * W / 2, 1.5 * H / 2]))


def test_pixel_aware_weighs_views_by_covered_pixels() -> None:
    ours = control(kind="pixel_aware")
    assert ours.wants_pixel_counts and not control().wants_pixel_counts
    ours.observe(view(along_x(1.0, 1.0), torch.tensor([90, 10])))
    ours.observe(view(along_x(0.0, 0.0), torch.tensor([10, 90])))
    torch.testing.assert_close(ours.scores, torch.tensor([0.9, 0.1]))  # sum m|g| / sum m
    with pytest.raises(AssertionError):
        ours.observe(view(along_x(1.0, 1.0)))


def test_region_weight_favours_the_region() -> None:
    ours = control(region_weight=3.0)
    out = view(along_x(1.0, 1.0, 1.0))
    with torch.no_grad():
        out.means2d.copy_(torch.tensor([[5.5, 2.5], [60.0, 2.5], [-40.0, 5000.0]]))
    region = torch.zeros(H, W, dtype=torch.bool)
    region[:10, :10] = True
    ours.observe(out, region)
    torch.testing.assert_close(ours.scores, torch.tensor([3.0, 1.0, 1.0]))


def test_region_weight_scales_the_pixel_aware_score_too() -> None:
    ours = control(kind="pixel_aware", region_weight=3.0)
    region = torch.zeros(H, W, dtype=torch.bool)
    region[:10, :10] = True
    for at, grads, counts in (((5.0, 5.0), (1.0,), [90]), ((60.0, 5.0), (1.0,), [10])):
        out = view(along_x(*grads), torch.tensor(counts))
        with torch.no_grad():
            out.means2d.copy_(torch.tensor([at]))
        ours.observe(out, region)
    torch.testing.assert_close(
        ours.scores, torch.tensor([0.9 * 3 + 0.1])
    )  # views inside the region count more


def test_uniform_growth_draws_lots() -> None:
    """Neither the gradient nor the place in memory decides; the seed does."""
    n, chosen = 400, []
    for seed in (0, 0, 1):
        params = parameters(n, scale=1e-3)
        with torch.no_grad():
            params["rig_logit"].copy_(torch.arange(float(n)))
        ours = control(kind="uniform", max_gaussians=600, exact=True, stop=10)
        ours.observe(view(along_x(*[1.0] * 200, *[1e-9] * 200)))
        ours.step(params, optimizer_of(params), 10, generator=torch.Generator().manual_seed(seed))
        chosen.append(set(params["rig_logit"][n:].tolist()))
    assert len(chosen[0]) == 200 and chosen[0] == chosen[1] != chosen[2]
    assert 70 < sum(mark < 200 for mark in chosen[0]) < 130


def test_broken_or_absent_gradients_are_ignored() -> None:
    ours = control()
    ours.observe(view(torch.tensor([[float("nan"), 0.0], [1.0, 0.0]])))
    torch.testing.assert_close(ours.scores, torch.tensor([0.0, W / 2]))
    out = view(torch.zeros(2, 2))
    out.means2d.grad = None
    ours.observe(out)
    torch.testing.assert_close(ours.scores, torch.tensor([0.0, W / 2]))


def test_small_ones_are_duplicated_large_ones_split_faint_ones_pruned() -> None:
    params = parameters(5)
    with torch.no_grad():
        params["log_scales"][0] = torch.tensor([1e-3, 2e-3, 1e-3]).log()  # below 1 % of the extent
        params["logit_opacities"][3] = -8.0
    before = {name: p.detach().clone() for name, p in params.items()}
    held = dict(params)
    optimizer = warmed(params)
    before = {name: p.detach().clone() for name, p in params.items()}
    ours = control()
    ours.observe(view(along_x(1.0, 1.0, 1e-5, 1.0, 1e-5)))
    change = ours.step(params, optimizer, 10, generator=torch.Generator().manual_seed(0))
    assert change and (change.duplicated, change.split, change.pruned, change.n) == (1, 1, 1, 6)
    # Order: those that stay (0, 2, 4), the copy of 0, the halves of 1.
    for name, parameter in params.items():
        assert parameter is not held[name] and isinstance(parameter, nn.Parameter)
        assert len(parameter) == 6 and torch.equal(parameter[:3], before[name][[0, 2, 4]])
        assert torch.equal(parameter[3], before[name][0])
        if name not in ("means", "log_scales"):
            assert torch.equal(parameter[4:], before[name][[1, 1]])
    torch.testing.assert_close(params["log_scales"][4:].exp(), before["log_scales"][[1, 1]].exp() / 1.6)
    shift = params["means"][4:] - before["means"][1]
    assert (shift.norm(dim=-1) > 0).all() and shift.norm(dim=-1).max() < 0.1 * 5
    for group in optimizer.param_groups:
        assert group["params"] == [params[group["name"]]]
    assert set(optimizer.state) == set(params.values())


def test_moments_follow_their_gaussians_and_newcomers_start_at_zero() -> None:
    params = parameters(4)
    with torch.no_grad():
        params["logit_opacities"][0] = -8.0
    optimizer = warmed(params)
    moments = {n: optimizer.state[p]["exp_avg"].clone() for n, p in params.items()}
    ours = control()
    ours.observe(view(along_x(0.0, 1.0, 0.0, 0.0)))
    assert ours.step(params, optimizer, 10)
    for name, parameter in params.items():
        state = optimizer.state[parameter]
        assert torch.equal(state["exp_avg"][:2], moments[name][[2, 3]])
        assert (state["exp_avg"][:2] != 0).all()
        assert (state["exp_avg"][2:] == 0).all() and (state["exp_avg_sq"][2:] == 0).all()
        assert state["exp_avg_sq"].shape == parameter.shape and state["step"] == 1
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # the optimizer accepts what it was left with
    assert all(torch.isfinite(p).all() for p in params.values())


def test_halves_are_drawn_from_the_gaussian_they_replace() -> None:
    n = 4000
    params = parameters(n)
    with torch.no_grad():
        params["means"].zero_()
        params["quats"].copy_(torch.tensor([0.5**0.5, 0.0, 0.0, 0.5**0.5]).expand(n, 4))  # x becomes y
        params["log_scales"].copy_(torch.tensor([0.5, 0.1, 0.02]).log().expand(n, 3))
    ours = control(max_gaussians=10 * n)
    ours.observe(view(along_x(1.0).expand(n, 2).contiguous()))
    ours.step(params, optimizer_of(params), 10, generator=torch.Generator().manual_seed(1))
    assert len(params["means"]) == 2 * n
    spread = params["means"].detach().std(0)
    torch.testing.assert_close(spread, torch.tensor([0.1, 0.5, 0.02]), rtol=0.05, atol=0)


def test_cap_keeps_the_highest_scores() -> None:
    params = parameters(6, scale=1e-3)
    marks = params["rig_logit"].detach().clone()
    ours = control(max_gaussians=8)
    ours.observe(view(along_x(0.1, 0.9, 0.2, 0.8, 0.3, 0.4)))
    change = ours.step(params, optimizer_of(params), 10)
    assert (change.duplicated, change.n) == (2, 8)
    assert set(params["rig_logit"][6:].tolist()) == set(marks[[1, 3]].tolist())
    ours.observe(view(along_x(*[1.0] * 8)))
    assert not ours.step(params, optimizer_of(params), 20)


def test_exact_growth_ends_at_the_same_number_for_both_kinds() -> None:
    for kind in ("standard", "pixel_aware"):
        params = parameters(40, scale=1e-3)
        optimizer = optimizer_of(params)
        ours = control(kind=kind, max_gaussians=97, exact=True, start=0, stop=55)
        sizes = []
        for step in range(1, 61):
            n = len(params["means"])
            # Far below any threshold, and a few fade away on the way.
            ours.observe(view(torch.rand(n, 2) * 1e-9, torch.ones(n)))
            if step == 25:
                with torch.no_grad():
                    params["logit_opacities"][:5] = -9
            if ours.step(params, optimizer, step):
                sizes.append(len(params["means"]))
        assert sizes[-1] == 97 and sizes == sorted(sizes) and len(sizes) == 5


def test_nothing_happens_off_schedule_below_the_threshold_or_when_off() -> None:
    for options, step, size in (
        ({}, 15, 1.0),
        ({"start": 10}, 10, 1.0),
        ({"stop": 5}, 10, 1.0),
        ({}, 10, 1e-4),
        ({"kind": "none"}, 10, 1.0),
    ):
        params = parameters(3)
        before = dict(params)
        ours = control(**options)
        ours.observe(view(along_x(size, size, size)))
        assert not ours.step(params, optimizer_of(params), step), (options, step)
        assert all(params[name] is before[name] for name in params)


def test_a_branch_is_never_emptied() -> None:
    params = parameters(3)
    with torch.no_grad():
        params["logit_opacities"].fill_(-20)
    ours = control()
    ours.observe(view(along_x(0.0, 0.0, 0.0)))
    ours.step(params, optimizer_of(params), 10)
    assert len(params["means"]) == 3


def run(ours: DensityControl, params, optimizer, steps: range) -> None:
    for step in steps:
        n = len(params["means"])
        rng = torch.Generator().manual_seed(step)
        counts = torch.randint(1, 50, (n,), generator=rng)
        ours.observe(view(torch.randn(n, 2, generator=rng) * 1e-5, counts))
        for p in params.values():
            p.grad = torch.randn(p.shape, generator=rng)
        optimizer.step()
        ours.step(params, optimizer, step, generator=torch.Generator().manual_seed(step))


def test_a_resumed_run_computes_the_same_bits() -> None:
    def fresh():
        params = parameters(30)
        ours = control(kind="pixel_aware", max_gaussians=200)
        return ours, params, optimizer_of(params)

    ours, params, optimizer = fresh()
    run(ours, params, optimizer, range(1, 16))
    saved = {k: torch.as_tensor(v).clone() for k, v in ours.state_dict().items()}
    values = {k: p.detach().clone() for k, p in params.items()}
    moments = optimizer.state_dict()
    moments = {
        **moments,
        "state": {i: {k: v.clone() for k, v in s.items()} for i, s in moments["state"].items()},
    }
    run(ours, params, optimizer, range(16, 36))
    assert len(params["means"]) > len(values["means"])

    again, _, _ = fresh()
    resumed = {k: nn.Parameter(v) for k, v in values.items()}
    other = optimizer_of(resumed)
    other.load_state_dict(moments)
    again.load_state_dict(saved)
    run(again, resumed, other, range(16, 36))
    assert all(torch.equal(resumed[name], params[name]) for name in params)


def test_with_the_real_renderer_density_grows_where_the_picture_is_unsolved() -> None:
    """The left half is right from the start; the right half has blocks that few Gaussians cannot draw."""
    rng = torch.Generator().manual_seed(0)
    n = 60
    low, size = torch.tensor([-2.0, -1.0]), torch.tensor([4.0, 2.0])
    values = {
        "means": torch.cat((torch.rand(n, 2, generator=rng) * size + low, torch.full((n, 1), 4.0)), 1),
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(n, 1),
        "log_scales": torch.full((n, 3), 0.3).log(),
        "logit_opacities": torch.full((n,), 3.0),
        "sh0": torch.full((n, 3), 0.5),
    }
    params = {name: nn.Parameter(value) for name, value in values.items()}
    optimizer = torch.optim.Adam([{"params": [p], "lr": 5e-3, "name": k} for k, p in params.items()])
    camera = Camera(torch.tensor([[80.0, 0, W / 2], [0, 80.0, H / 2], [0, 0, 1]]), W, H)
    blocks = torch.rand(H // 8, W // 16, 3, generator=rng)

    def render() -> RenderOutput:
        gaussians = Gaussians(
            params["means"],
            nn.functional.normalize(params["quats"], dim=-1),
            params["log_scales"].exp(),
            params["logit_opacities"].sigmoid(),
            params["sh0"],
        )
        return rasterize(gaussians, camera, backend="reference", pixel_counts=True)

    truth = render().rgb.detach()
    truth[:, W // 2 :] = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)
    config = DensityConfig("pixel_aware", grad_threshold=1e-6, every=20, start=0, stop=20, max_gaussians=80)
    ours = DensityControl(config, 2.0, W, H)
    for step in range(1, 21):
        out = render()
        optimizer.zero_grad()
        (out.rgb - truth).square().mean().backward()  # L1 pulls as hard at a solved pixel
        ours.observe(out)
        optimizer.step()
        right_before = (params["means"][:, 0] > 0).sum()
        change = ours.step(params, optimizer, step, generator=rng)
    assert change.duplicated + change.split == 20
    assert (params["means"][:, 0] > 0).sum() - right_before >= 17


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError):
        DensityConfig(kind="often")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        DensityConfig(every=0)
