"""Draw the renderer's test scenes with gsplat and keep what comes out, gradients included.

Run once on a machine with a CUDA device and gsplat, from the project's root::

    python -m tests.golden.make_render_goldens

It writes ``tests/golden/render_<scene>.npz``; every machine then checks its own renderer against them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from talker.render import rasterize
from tests.render_support import NAMES, random_loss, with_grad
from tests.test_render_cpu import SCENES

FOLDER = Path(__file__).parent


def golden(name: str) -> dict[str, np.ndarray]:
    """Inputs, picture, counts and gradients of one scene on the GPU."""
    import torch

    scene, view = SCENES[name]
    g = with_grad(scene.map(lambda t: t.to("cuda")), torch.float32)
    output = rasterize(g, view, backend="gsplat", pixel_counts=True)
    random_loss(output).backward()
    values = {f"input_{n}": getattr(g, n) for n in NAMES}
    values |= {f"grad_{n}": getattr(g, n).grad for n in NAMES}
    values |= {"rgb": output.rgb, "alpha": output.alpha, "means2d": output.means2d, "radii": output.radii}
    values |= {"grad_means2d": output.means2d.grad, "pixel_count": output.pixel_count, "K": view.K}
    return {key: value.detach().cpu().numpy() for key, value in values.items()}


def path_of(name: str) -> Path:
    """Where the golden file of a scene is kept."""
    return FOLDER / f"render_{name.replace(' ', '_')}.npz"


if __name__ == "__main__":
    for scene_name in SCENES:
        np.savez_compressed(path_of(scene_name), **golden(scene_name))  # pyright: ignore[reportArgumentType]
