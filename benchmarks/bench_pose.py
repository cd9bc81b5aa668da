"""How well heads are tracked: prepare a film of the synthetic speaker, whose true poses are known.

    python -m benchmarks.bench_pose [--seconds 20] [--size 512] [--seeds 0 1 2]

Writes ``benchmarks/results/pose.json``. The head frame is a convention, so one constant turn between the estimated
and the true frame is taken out before angles are compared; the reprojection error is that of the fitted face's rigid
points against the landmarks found in the pictures, and of those landmarks against the true ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from talker.dataset.prepare import PrepareConfig, prepare
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.sample import make_sample
from talker.dataset.steps.mesh import RIGID
from talker.train.origin import commit, machine

OUT = Path(__file__).parent / "results" / "pose.json"


def angles_off(estimated: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Degrees [T] between rotations [T, 3, 3] after the one constant turn of the head frame is taken out."""
    u, _, vt = np.linalg.svd((true.transpose(0, 2, 1) @ estimated).mean(0))
    turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    rest = (true @ turn).transpose(0, 2, 1) @ estimated
    return np.degrees(np.arccos(np.clip((np.trace(rest, axis1=1, axis2=2) - 1) / 2, -1, 1)))


def reprojection(dataset: TalkingHeadDataset) -> np.ndarray:
    """Pixels at 512 [T, len(RIGID)] between the fitted face and its landmarks."""
    index = np.flatnonzero(dataset.valid)
    T, K = dataset.T_cam_head[index], dataset.K.numpy()
    camera = np.einsum("tij,pj->tpi", T[:, :3, :3], dataset.shape[RIGID]) + T[:, None, :3, 3]
    pixels = camera[..., :2] / camera[..., 2:] * np.diag(K)[:2] + K[:2, 2]
    return np.linalg.norm(pixels - dataset.landmarks[index][:, RIGID, :2], axis=-1) * 512 / dataset.size


def measure(seconds: float, size: int, seed: int, folder: Path) -> dict[str, float]:
    """Figures of one speaker."""
    truth = make_sample(folder / "clip.mp4", seconds=seconds, size=size, seed=seed)
    started = time.monotonic()
    for _ in prepare(folder / "clip.mp4", folder / "data", PrepareConfig(size=size)):
        pass
    took = time.monotonic() - started
    dataset = TalkingHeadDataset(folder / "data")
    n = min(len(dataset), len(truth.T_cam_head))
    valid = np.flatnonzero(dataset.valid[:n])
    true = truth.T_cam_head[valid][:, :3, :3]
    error = angles_off(dataset.T_cam_head[valid][:, :3, :3], true)
    moved = angles_off(np.repeat(true[:1], len(true), 0), true)
    off = reprojection(dataset)
    opening = np.corrcoef(dataset.mouth_open[valid], truth.mouth_open[valid])[0, 1]
    return {
        "seed": seed,
        "frames": n,
        "tracked_share": len(valid) / n,
        "rotation_error_median_deg": float(np.median(error)),
        "rotation_error_p90_deg": float(np.percentile(error, 90)),
        "rotation_of_the_clip_median_deg": float(np.median(moved)),
        "reprojection_median_px_at_512": float(np.median(off)),
        "mouth_opening_r": float(opening),
        "prepare_frames_per_s": n / took,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    a = parser.parse_args()
    results = []
    for seed in a.seeds:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(a.seconds, a.size, seed, Path(folder)))
        print(json.dumps(results[-1], indent=1), file=sys.stderr)
    command = " ".join(["python -m benchmarks.bench_pose", *sys.argv[1:]])
    OUT.write_text(
        json.dumps(
            {"command": command, "commit": commit(), "machine": machine(), "results": results}, indent=1
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
