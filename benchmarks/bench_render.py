"""How fast the CPU renderer is: forward, forward and backward, first start and warm start.

    python -m benchmarks.bench_render [--n 10000 30000 60000] [--size 128 256 512] [--threads 1 2] [--seconds 5]

Writes ``benchmarks/results/render.json`` with the command, the commit and the machine. Times with one thread are
CPU time of that thread, which other load disturbs less; with several threads they are wall time. Best and median.
"""

from __future__ import annotations

import talker  # noqa: F401 - before PyTorch: it decides how that one's threads wait

# isort: split
import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from talker.render import rasterize
from talker.types import Camera, Gaussians

ROOT = Path(__file__).parents[1]
SIGMA_AT_512 = {10_000: 3.0, 30_000: 2.2, 60_000: 1.6}
"""Median size of a Gaussian in pixels at 512 x 512, by their number: more of them are smaller."""


def ellipsoid(n: int, radii: tuple[float, float, float], front: float, rng: np.random.Generator) -> tuple:
    """Points and normals [n, 3] on an ellipsoid; a share ``front`` of them is forced to the side of the camera."""
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    facing = rng.random(n) < front
    direction[facing, 2] = -np.abs(direction[facing, 2])
    normals = direction / np.array(radii)
    return direction * radii, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def head(n: int, seed: int = 0) -> Gaussians:
    """Flat Gaussians on a head and shoulders, 0.7 units before the camera, in random order; half the picture."""
    rng = np.random.default_rng(seed)
    n_face, n_hair = int(0.55 * n), int(0.25 * n)
    parts = [
        ellipsoid(n_face, (0.09, 0.12, 0.10), 1.0, rng),
        ellipsoid(n_hair, (0.09, 0.12, 0.10), 0.0, rng),
        ellipsoid(n - n_face - n_hair, (0.24, 0.10, 0.10), 0.7, rng),
    ]
    parts[2][0][:] += (0.0, 0.19, 0.02)
    points, normals = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    means = points + normals * rng.normal(size=(n, 1)) * 0.002 + (0.0, -0.03, 0.7)
    pixels = SIGMA_AT_512.get(n, 2.2) * np.exp(0.45 * rng.normal(size=n))
    pixels[rng.random(n) < 0.02] *= 3
    stretch = np.sqrt(rng.uniform(0.35, 1.0, n))
    flat = rng.uniform(0.05, 0.4, n)
    scales = np.stack((pixels / stretch, pixels * stretch, pixels * flat), 1) * 0.7 / 1200
    # The shortest rotation from z to the normal, then a random turn about it.
    w, x, y = 1 + normals[:, 2], -normals[:, 1], normals[:, 0]
    length = np.sqrt(w * w + x * x + y * y) + 1e-9
    c, s = (f(rng.uniform(0, math.pi, n)) for f in (np.cos, np.sin))
    quats = np.stack((w * c, x * c + y * s, y * c - x * s, w * s), 1) / length[:, None]
    colors = np.clip(0.5 + 0.3 * np.sin(means * (60, 80, 70)) + 0.08 * rng.normal(size=(n, 3)), 0, 1)
    order = rng.permutation(n)
    arrays = (means, quats, scales, rng.uniform(0.2, 0.95, n), colors)
    return Gaussians(*(torch.tensor(a[order], dtype=torch.float32).requires_grad_() for a in arrays))


def view(size: int) -> Camera:
    """The camera of the scene."""
    f = 1200 * size / 512
    return Camera(torch.tensor([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1.0]]), size, size)


def measure(function: Callable[[], None], n_threads: int, seconds: float) -> dict[str, float]:
    """Milliseconds of a call, best and median."""
    clock = time.thread_time if n_threads == 1 else time.perf_counter
    function()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = clock()
        function()
        times.append((clock() - start) * 1e3)
    return {
        "best_ms": round(min(times), 2),
        "median_ms": round(float(np.median(times)), 2),
        "runs": len(times),
    }


def bench(n: int, size: int, n_threads: int, seconds: float) -> dict:
    """Time one setting."""
    gaussians, camera = head(n), view(size)
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(size, size, c, generator=generator) for c in (3, 1)]

    def forward() -> None:
        with torch.no_grad():
            rasterize(gaussians, camera, backend="cpu", n_threads=n_threads)

    def both() -> None:
        gaussians.map(lambda t: setattr(t, "grad", None))
        output = rasterize(gaussians, camera, backend="cpu", n_threads=n_threads)
        torch.autograd.backward([output.rgb, output.alpha], grads)

    counted = rasterize(gaussians, camera, backend="cpu", pixel_counts=True)
    assert counted.pixel_count is not None
    result: dict[str, object] = {
        "n": n,
        "size": size,
        "threads": n_threads,
        "pairs": int(counted.pixel_count.sum()),
    }
    result["clock"] = "CPU time of the thread" if n_threads == 1 else "wall"
    result["forward"] = measure(forward, n_threads, seconds)
    result["forward_backward"] = measure(both, n_threads, seconds)
    return result


def start_times() -> dict[str, float]:
    """Seconds for the first picture in a new process, with an empty and with a filled cache; wall and CPU time."""
    code = (
        "import time; import talker.render as r; t, c = time.time(), time.process_time(); r.warmup();"
        "print(time.time() - t, time.process_time() - c)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TALKER_CACHE": folder, "PYTHONPATH": str(ROOT)}
        result = {}
        for name in ("cold", "warm"):
            output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
            result[f"{name}_s"], result[f"{name}_cpu_s"] = (round(float(v), 2) for v in output.split())
    return result


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    """Measure every combination and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[10_000, 30_000, 60_000])
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "render.json")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    report = {
        "command": "python -m benchmarks.bench_render " + " ".join(sys.argv[1:]),
        "commit": commit.stdout.strip(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load_at_start": os.getloadavg()[0]},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "start": start_times(),
        "results": [],
    }
    print(json.dumps(report["start"]))
    for n in options.n:
        for size in options.size:
            for n_threads in options.threads:
                report["results"].append(bench(n, size, n_threads, options.seconds))
                print(json.dumps(report["results"][-1]), flush=True)
    report["machine"]["load_at_end"] = os.getloadavg()[0]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
