"""The CPU back end against the definition, and what a renderer must survive."""

from __future__ import annotations

import os
import platform
import signal
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from talker import threads
from talker.errors import BackendError, ConfigError
from talker.jit.compile import cache_root
from talker.render import Backend, rasterize, warmup
from talker.render.cpu.blend import blend
from talker.render.cpu.memory import keep_freed_memory
from talker.types import Gaussians, RenderOutput
from tests.render_support import NAMES, camera, cloud, cut_margin, random_loss, relative, with_grad

BEYOND = cloud(60, seed=6, spread=6.0)
SCENES = {
    "square": (cloud(500, seed=0), camera(64, 64)),
    "odd size": (cloud(500, seed=1), camera(70, 53)),
    "wide": (cloud(300, seed=2), camera(131, 9)),
    "one row": (cloud(200, seed=3, opacity=(0.3, 0.9)), camera(37, 1)),
    "opaque": (cloud(900, seed=14, opacity=(0.9, 1.2)), camera(40, 40)),
    "few": (cloud(3, seed=5, spread=0.3), camera(32, 32)),
    "beyond the margin": (replace(BEYOND, scales=BEYOND.scales * 15), camera(48, 40, focal=0.3)),
}
GRADIENTS = (*NAMES, "means2d")


def same(*tensors: torch.Tensor | None) -> bool:
    """Whether two tensors are equal, bit by bit."""
    a, b = tensors
    return a is not None and b is not None and torch.equal(a, b)


def both(name: str) -> tuple[Gaussians, RenderOutput, Gaussians, RenderOutput]:
    """A scene drawn and differentiated by the CPU kernels and by the definition in float64."""
    scene, view = SCENES[name]
    results = []
    pairs: tuple[tuple[Backend, torch.dtype], ...] = (("cpu", torch.float32), ("reference", torch.float64))
    for backend, dtype in pairs:
        # Both see the same numbers: those float32 can hold.
        g = with_grad(scene.map(lambda t: t.float()), dtype)
        output = rasterize(g, view, backend=backend, pixel_counts=True)
        random_loss(output).backward()
        results += [g, output]
    return tuple(results)


@pytest.mark.parametrize("name", SCENES)
def test_picture_and_gradients_are_those_of_the_definition(name: str) -> None:
    scene, view = SCENES[name]
    assert cut_margin(scene.map(lambda t: t.float()), view) > 4e-6, (
        "choose a seed that stays away from the cuts"
    )
    g, output, truth_g, truth = both(name)
    assert truth.alpha.max() > 0.05
    assert (output.rgb - truth.rgb).abs().max() < 1e-4
    assert (output.alpha - truth.alpha).abs().max() < 1e-4
    assert torch.equal(output.radii, truth.radii)
    assert output.pixel_count is not None
    assert truth.pixel_count is not None
    assert torch.equal(output.pixel_count, truth.pixel_count)
    assert (output.means2d - truth.means2d).abs().max() < 1e-3
    for attribute in GRADIENTS:
        mine = output.means2d if attribute == "means2d" else getattr(g, attribute)
        theirs = truth.means2d if attribute == "means2d" else getattr(truth_g, attribute)
        assert theirs.grad is not None
        assert theirs.grad.norm() > 0
        assert relative(mine.grad, theirs.grad) < 1e-3, attribute


def test_a_scene_has_visible_gaussians_beyond_the_margin_of_the_jacobian() -> None:
    scene, view = SCENES["beyond the margin"]
    slope = scene.means[:, 0] / scene.means[:, 2]
    limit = 1.3 * view.width / (2 * view.K[0, 0])
    radii = rasterize(scene, view, backend="reference").radii
    assert ((slope.abs() > limit + 0.1) & (radii > 0)).sum() >= 3


def test_typical_errors_are_far_below_the_limit() -> None:
    g, output, truth_g, truth = both("square")
    assert (output.rgb - truth.rgb).abs().max() < 1e-5
    for attribute in NAMES:
        assert relative(getattr(g, attribute).grad, getattr(truth_g, attribute).grad) < 2e-5, attribute


def test_a_loss_on_the_projected_means_reaches_the_means() -> None:
    scene, view = SCENES["square"]
    gradients = []
    for backend in ("cpu", "reference"):
        g = with_grad(scene, torch.float64)
        output = rasterize(g, view, backend=backend)
        (output.rgb.sum() + (output.means2d[:50].double() ** 2).sum() * 1e-3).backward()
        assert g.means.grad is not None
        gradients.append(g.means.grad)
    assert relative(*gradients) < 1e-4


def test_gradient_of_colours_alone() -> None:
    scene, view = SCENES["odd size"]
    g = scene.map(lambda t: t.float())
    g.colors.requires_grad_()
    output = rasterize(g, view, backend="cpu")
    output.rgb.sum().backward()
    full = with_grad(scene, torch.float32)
    rasterize(full, view, backend="cpu").rgb.sum().backward()
    assert same(g.colors.grad, full.colors.grad)


def test_many_threads_and_many_runs_give_the_same_bits() -> None:
    scene, view = SCENES["opaque"]

    def run(n_threads: int) -> list[torch.Tensor]:
        g = with_grad(scene, torch.float32)
        output = rasterize(g, view, backend="cpu", pixel_counts=True, n_threads=n_threads)
        random_loss(output).backward()
        assert output.pixel_count is not None
        assert output.means2d.grad is not None
        gradients = [getattr(g, name).grad for name in NAMES]
        return [
            output.rgb.detach(),
            output.alpha.detach(),
            output.pixel_count,
            output.means2d.grad,
            *gradients,
        ]

    first = run(1)
    for n_threads in (1, 2, 3, 7):
        assert all(torch.equal(a, b) for a, b in zip(first, run(n_threads), strict=True))


def test_several_python_threads_may_draw_at_once() -> None:
    scene, view = SCENES["odd size"]
    truth = rasterize(scene, view, backend="cpu").rgb
    wrong = []

    def draw() -> None:
        for _ in range(20):
            if not torch.equal(rasterize(scene, view, backend="cpu", n_threads=3).rgb, truth):
                wrong.append(1)

    workers = [threading.Thread(target=draw) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("n", [0, 1, 7, 9])
def test_few_gaussians(backend, n: int) -> None:
    g = with_grad(cloud(n, seed=3, spread=0.1), torch.float32)
    output = rasterize(g, camera(33, 7), backend=backend, pixel_counts=True)
    random_loss(output).backward()
    assert output.rgb.shape == (7, 33, 3)
    assert output.alpha.shape == (7, 33, 1)
    assert output.means2d.shape == (n, 2)
    assert output.radii.shape == (n,)
    assert output.pixel_count is not None
    assert output.pixel_count.shape == (n,)
    assert (output.alpha.max() > 0) == (n > 0)
    for name in NAMES:
        assert getattr(g, name).grad.shape == getattr(g, name).shape
    if n:
        assert output.means2d.grad is not None
        assert output.means2d.grad.shape == (n, 2)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_culled_gaussians_leave_a_black_picture_and_zero_gradients(backend) -> None:
    g = with_grad(cloud(40, seed=3), torch.float32)
    with torch.no_grad():
        g.means[:, 2] *= -1
    output = rasterize(g, camera(33, 7), backend=backend)
    random_loss(output).backward()
    assert output.rgb.abs().max() == output.alpha.abs().max() == 0
    assert output.radii.abs().max() == 0
    assert all(getattr(g, name).grad.abs().max() == 0 for name in NAMES)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_gaussian_is_left_out(backend, name: str, value: float) -> None:
    view, scene = camera(33, 17), cloud(40, seed=3)
    broken = torch.arange(40) % 5 == 2
    g = with_grad(scene, torch.float32)
    with torch.no_grad():
        getattr(g, name)[broken] = value
    output = rasterize(g, view, backend=backend)
    random_loss(output).backward()
    healthy = with_grad(scene.select(~broken), torch.float32)
    random_loss(rasterize(healthy, view, backend=backend)).backward()
    assert torch.equal(output.rgb, rasterize(healthy, view, backend=backend).rgb)
    for attribute in NAMES:
        grad = getattr(g, attribute).grad
        assert grad[broken].abs().max() == 0
        assert torch.allclose(grad[~broken], getattr(healthy, attribute).grad, rtol=1e-4, atol=1e-5)


def test_equal_depths_are_drawn_in_the_order_of_their_index() -> None:
    scene, view = cloud(64, seed=8, spread=0.5), camera(24, 24)
    scene.means[:, 2] = 3.0
    forward = rasterize(scene, view, backend="cpu").rgb
    assert (forward - rasterize(scene, view, backend="reference").rgb).abs().max() < 1e-5
    backward = rasterize(scene.map(lambda t: t.flip(0)), view, backend="cpu").rgb
    assert (forward - backward).abs().max() > 1e-3


def test_depth_order_is_exact_for_neighbouring_floats() -> None:
    scene, view = cloud(64, seed=9, spread=0.5), camera(24, 24)
    steps = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    scene.means[:, 2] = (torch.tensor(3.0).view(torch.int32) + steps.int()).view(torch.float32).double()
    difference = rasterize(scene, view, backend="cpu").rgb - rasterize(scene, view, backend="reference").rgb
    assert difference.abs().max() < 1e-5


def test_a_crop_shows_the_same_pixels() -> None:
    # Small ones: whoever reaches into the part must lie within its margin, where the Jacobian is the same.
    scene, view = cloud(300, seed=10, spread=0.8), camera(64, 64)
    scene.scales.mul_(0.3)
    K = view.K.clone()
    K[0, 2] -= 21
    K[1, 2] -= 10
    part = rasterize(scene, type(view)(K, 30, 27), backend="cpu").rgb
    whole = rasterize(scene, view, backend="cpu").rgb
    assert (part - whole[10:37, 21:51]).abs().max() < 1e-4


def test_gradients_without_a_memory_layout_of_their_own() -> None:
    scene, view = SCENES["odd size"]
    gradients = []
    for weight in (torch.ones(()), torch.ones(53, 70, 3)):
        g = with_grad(scene, torch.float32)
        (rasterize(g, view, backend="cpu").rgb * weight.expand(53, 70, 3)).permute(2, 1, 0).sum().backward()
        gradients.append(g.means.grad)
    assert same(*gradients)


def test_changing_the_picture_in_place_is_noticed() -> None:
    scene, view = SCENES["few"]
    g = with_grad(scene, torch.float32)
    output = rasterize(g, view, backend="cpu")
    loss = output.rgb.sum()
    with torch.no_grad():
        output.rgb.mul_(0.5)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_second_derivatives_are_refused_not_wrong() -> None:
    scene, view = SCENES["few"]
    g = with_grad(scene, torch.float32)
    (grad,) = torch.autograd.grad(
        rasterize(g, view, backend="cpu").rgb.square().sum(), g.means, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_no_gradient_is_recorded_when_none_is_wanted() -> None:
    scene, view = SCENES["few"]
    with torch.no_grad():
        output = rasterize(with_grad(scene, torch.float32), view, backend="cpu")
    assert not output.rgb.requires_grad
    assert not output.means2d.requires_grad


def test_a_failing_share_is_reported_after_all_have_ended() -> None:
    done = []

    def share(i: int) -> None:
        if i == 1:
            raise KeyError("share 1")
        done.append(i)

    with pytest.raises(KeyError, match="share 1"):
        threads.run(share, 4)
    assert sorted(done) == [0, 2, 3]


@pytest.mark.parametrize(("n", "shares", "step"), [(0, 3, 8), (5, 2, 8), (100, 3, 8), (31, 4, 1), (2, 8, 1)])
def test_shares_cover_everything_once(n: int, shares: int, step: int) -> None:
    ranges = threads.split(n, shares, step)
    assert len(ranges) == shares
    assert [i for a, b in ranges for i in range(a, b)] == list(range(n))
    assert all(a % step == 0 or a == n for a, _ in ranges)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_threads_work_in_a_forked_child() -> None:
    threads.run(lambda _: None, 3)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a pool that waits for threads that are gone would wait for ever
        done = []
        threads.run(done.append, 3)
        os._exit(0 if sorted(done) == [0, 1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_compiled_kernels_are_kept_in_the_cache_folder() -> None:
    warmup()
    assert Path(blend.stats.cache_path).is_relative_to(cache_root())
    assert list(Path(blend.stats.cache_path).glob("blend.blend-*.nbc"))


def test_the_cache_folder_is_a_setting_and_always_writable(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TALKER_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TALKER_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache_root().is_dir()
    assert cache_root().parent == tmp_path


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_the_next_picture_uses_the_memory_of_the_last() -> None:
    import resource

    assert keep_freed_memory()
    scene, view = cloud(20_000, seed=0), camera(512, 512)
    with torch.no_grad():
        for _ in range(3):
            rasterize(scene, view, backend="cpu")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            rasterize(scene, view, backend="cpu")
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    # The picture alone has 1,024 pages of 4 KB.
    assert faults < 5 * 300


def test_unknown_and_unfit_back_ends_are_refused() -> None:
    scene, view = SCENES["few"]
    with pytest.raises(ConfigError, match="no renderer called 'opengl'"):
        rasterize(scene, view, backend="opengl")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BackendError, match="given Gaussians on cpu"):
        rasterize(scene, view, backend="gsplat")
    with pytest.raises(BackendError, match="given Gaussians on meta"):
        rasterize(scene.map(lambda t: t.to("meta")), view, backend="cpu")
