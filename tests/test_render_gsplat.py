"""The CUDA back end: live against the CPU where there is a GPU, golden files and gsplat's own torch code elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talker.errors import BackendError
from talker.geometry import quat_to_matrix
from talker.render import constants, rasterize, rasterize_batch
from talker.render.gsplat_backend import require_gsplat
from talker.render.reference import _project
from talker.types import Camera, Gaussians
from tests.golden.make_render_goldens import golden, path_of
from tests.render_support import NAMES, camera, cloud, random_loss, relative, with_grad
from tests.test_render_cpu import SCENES


def check(truth: dict[str, np.ndarray]) -> None:
    """Draw a golden scene on the CPU and compare everything."""
    g = with_grad(Gaussians(*(torch.from_numpy(truth[f"input_{n}"]) for n in NAMES)), torch.float32)
    height, width, _ = truth["rgb"].shape
    output = rasterize(
        g, Camera(torch.from_numpy(truth["K"]), width, height), backend="cpu", pixel_counts=True
    )
    random_loss(output).backward()
    # gsplat takes its exponentials from the GPU's fast unit: single pairs at a cut may fall on the other side.
    difference = np.abs(output.rgb.detach().numpy() - truth["rgb"])
    assert np.median(difference) < 1e-6
    assert np.mean(difference > 1e-4) < 1e-3
    assert np.mean(output.radii.numpy() != truth["radii"]) < 0.01
    assert output.pixel_count is not None
    assert np.abs(output.pixel_count.numpy() - truth["pixel_count"]).max() <= 2
    assert output.means2d.grad is not None
    assert relative(output.means2d.grad, torch.from_numpy(truth["grad_means2d"])) < 5e-3
    for name in NAMES:
        assert relative(getattr(g, name).grad, torch.from_numpy(truth[f"grad_{name}"])) < 5e-3, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", SCENES)
def test_gsplat_and_the_cpu_draw_the_same(name: str) -> None:
    check(golden(name))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("n", [0, 1, 40])
def test_gsplat_survives_nothing_to_draw_and_broken_gaussians(n: int) -> None:
    g = with_grad(cloud(n, seed=3).map(lambda t: t.to("cuda")), torch.float32)
    with torch.no_grad():
        g.means[: n // 2] = float("nan")
        g.means[n // 2 :, 2] = -1
    output = rasterize(g, camera(33, 17), pixel_counts=True)
    random_loss(output).backward()
    assert output.rgb.abs().max() == 0
    assert output.means2d.shape == (n, 2)
    assert output.pixel_count is not None
    assert output.pixel_count.shape == (n,)
    assert all(getattr(g, name).grad.isfinite().all() for name in NAMES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_batch_on_cuda_is_its_frames_one_by_one() -> None:
    frames = [cloud(300, seed=seed).map(lambda t: t.float().to("cuda")) for seed in range(3)]
    view = camera(48, 40)
    together = rasterize_batch(frames, view)
    for frame, output in zip(frames, together, strict=True):
        alone = rasterize(frame, view)
        torch.testing.assert_close(output.rgb, alone.rgb)
        torch.testing.assert_close(output.alpha, alone.alpha)
        assert torch.equal(output.radii, alone.radii)


@pytest.mark.parametrize("name", SCENES)
def test_the_cpu_draws_what_gsplat_drew(name: str) -> None:
    if not path_of(name).exists():
        pytest.skip("no golden file: run python -m tests.golden.make_render_goldens on a machine with a GPU")
    with np.load(path_of(name)) as truth:
        check(dict(truth))


def test_projection_is_that_of_gsplats_own_torch_code() -> None:
    implementation = pytest.importorskip("gsplat.cuda._torch_impl")
    view, g = camera(48, 40, focal=0.5), cloud(400, seed=11, spread=4.0)
    rotation = quat_to_matrix(g.quats) * g.scales[:, None, :]
    _, means2d, _, conics, _ = implementation._fully_fused_projection(
        g.means,
        rotation @ rotation.transpose(1, 2),
        torch.eye(4).double()[None],
        view.K.double()[None],
        view.width,
        view.height,
        eps2d=constants.BLUR,
    )
    mine, covariances, _ = _project(g, view)
    inverse = covariances.inverse()
    torch.testing.assert_close(mine, means2d[0], rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(
        torch.stack((inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]), 1),
        conics[0],
        rtol=1e-7,
        atol=1e-9,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gsplat_is_explained() -> None:
    with pytest.raises(BackendError, match=r'pip install "gsplat==1.5.3"'):
        require_gsplat()
