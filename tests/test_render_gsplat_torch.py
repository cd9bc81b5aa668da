"""The CUDA back end's own code without a GPU: gsplat's PyTorch definitions in the place of its kernels.

Projection, tile lists and offsets are gsplat's; only the last kernel, which gsplat defines through another library, is
written out here. Whether the real kernels agree is asked by the tests marked ``gpu``.
"""

from __future__ import annotations

import types

import pytest
import torch
from torch import Tensor

from talker.geometry import quat_to_matrix
from talker.render import gsplat_backend, rasterize
from tests.render_support import camera, cloud


def project(means, _, quats, scales, view, K, width, height, *, packed, opacities, **limits):
    assert not packed and opacities.shape == means.shape[:-1]
    half = quat_to_matrix(quats) * scales[..., None, :]
    covariances = half @ half.transpose(-1, -2)
    torch_code = pytest.importorskip("gsplat.cuda._torch_impl")
    return torch_code._fully_fused_projection(means, covariances, view, K, width, height, **limits)


def blend(means2d, conics, colors, opacities, width, height, tile, offsets, ids) -> tuple[Tensor, Tensor]:  # noqa: PLR0917 - as the library calls it
    """Front to back over every tile's list, as the kernel does."""
    batch, n = opacities.shape
    rgb, alpha = torch.zeros(batch, height, width, 3), torch.zeros(batch, height, width, 1)
    tiles_y, tiles_x = offsets.shape[1:]
    bounds = [*offsets.flatten().tolist(), len(ids)]
    for cell in range(batch * tiles_y * tiles_x):
        b, rest = divmod(cell, tiles_y * tiles_x)
        top, left = (tile * index for index in divmod(rest, tiles_x))
        rows, columns = (
            torch.arange(top, min(top + tile, height)),
            torch.arange(left, min(left + tile, width)),
        )
        y, x = torch.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")
        color, through = torch.zeros(*x.shape, 3), torch.ones_like(x)
        for row in ids[bounds[cell] : bounds[cell + 1]].tolist():
            owner, i = divmod(row, n)
            assert owner == b, "no Gaussian of another picture"
            dx, dy, (a, c, e) = x - means2d[b, i, 0], y - means2d[b, i, 1], conics[b, i]
            power = 0.5 * (a * dx * dx + e * dy * dy) + c * dx * dy
            part = (opacities[b, i] * torch.exp(-power)).clamp_max(0.999)
            part = torch.where(part >= 1 / 255, part, 0)
            color = color + (through * part)[..., None] * colors[b, i]
            through = through * (1 - part)
        rgb[b, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = color
        alpha[b, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 0] = 1 - through
    return rgb, alpha


@pytest.fixture(autouse=True)
def torch_code_for_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_code = pytest.importorskip("gsplat.cuda._torch_impl")
    library = types.SimpleNamespace(
        fully_fused_projection=project,
        isect_tiles=torch_code._isect_tiles,
        isect_offset_encode=torch_code._isect_offset_encode,
        rasterize_to_pixels=blend,
    )
    monkeypatch.setattr(gsplat_backend, "require_gsplat", lambda: library)
    monkeypatch.setattr(gsplat_backend, "_check_device", lambda gaussians: None)


def test_a_batch_is_its_frames_one_by_one_and_what_the_cpu_draws() -> None:
    frames, view = [cloud(60, seed=seed).map(lambda t: t.float()) for seed in range(3)], camera(48, 40)
    together = gsplat_backend.rasterize_gsplat_batch(frames, view)
    for frame, output in zip(frames, together, strict=True):
        alone = gsplat_backend.rasterize_gsplat(frame, view)
        assert torch.equal(output.rgb, alone.rgb) and torch.equal(output.alpha, alone.alpha)
        assert torch.equal(output.radii, alone.radii) and torch.equal(output.means2d, alone.means2d)
        on_cpu = rasterize(frame, view, backend="cpu")
        torch.testing.assert_close(alone.rgb, on_cpu.rgb, rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.alpha, on_cpu.alpha, rtol=0, atol=1e-5)
    assert (together[0].rgb - together[1].rgb).abs().max() > 0.1


def test_gradients_reach_the_gaussians_and_the_projected_means() -> None:
    g = cloud(30, seed=1).map(lambda t: t.float().requires_grad_())
    output = gsplat_backend.rasterize_gsplat(g, camera(33, 17))
    output.rgb.square().sum().backward()
    assert output.means2d.grad is not None and output.means2d.grad.abs().max() > 0
    assert g.means.grad is not None and g.means.grad.isfinite().all()


@pytest.mark.parametrize("n", [0, 5])
def test_nothing_to_draw_is_an_empty_picture(n: int) -> None:
    g = cloud(n, seed=2).map(lambda t: t.float())
    g.means[:, 2] = -1
    output = gsplat_backend.rasterize_gsplat(g, camera(20, 20))
    assert output.means2d.shape == (n, 2) and output.radii.shape == (n,)
    assert output.rgb.abs().max() == 0 and (output.radii == 0).all()
