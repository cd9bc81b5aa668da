"""``bench render|drive|train|prepare``: how fast this machine is, with what is needed to compare two reports.

Wall times are what a person waits for; the processor time beside them shows how much of it other load has cost.
Every frame or step is one sample: the median and the 10th and 90th percentile are given.
"""

from __future__ import annotations

import resource
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from talker.cli.bench_frames import measure_drive, measure_render
from talker.cli.bench_samples import Results, needed, sampled, sizes
from talker.device import chosen_device
from talker.train.origin import commit, machine
from talker.types import FPS


def run(arguments: Namespace) -> dict:
    """Measure ``arguments.what`` and say on what: ``command``, ``commit``, ``machine``, ``results``.

    Raises:
        ConfigError: An option the measurement needs is missing.
    """
    measure = {"render": measure_render, "drive": measure_drive, "train": _train, "prepare": _prepare}
    before = machine()
    results = measure[arguments.what](arguments) | {"peak_memory_mb": _peak_memory_mb()}
    on = {**before, "load_after": machine()["load"]}
    return {"command": _command(arguments), "commit": commit(), "machine": on, "results": results}


def _train(a: Namespace) -> Results:
    """Steps of both stages of ``preview``, and the three large parts of one alone, forward and backward.

    The roofline is the rasteriser on the same Gaussians.
    """
    import dataclasses

    from talker.dataset.reader import TalkingHeadDataset
    from talker.events import Progress
    from talker.train.build import build
    from talker.train.loop import LoopConfig, train
    from talker.train.presets import get_preset
    from talker.train.schedule import LearningRates
    from talker.train.state import TrainState

    dataset = TalkingHeadDataset(needed(a, "data"))
    preset = get_preset("preview")
    avatar, conditioning = build(dataset, preset.model, 0)
    avatar, conditioning = avatar.place(chosen_device()), conditioning.to(chosen_device())
    state = TrainState(avatar, dataset.n_frames, LearningRates())
    results = sizes(avatar.n_gaussians, dataset.size)
    with TemporaryDirectory(prefix="talker-bench-") as folder:
        for stage in preset.stages:
            # Long enough never to end by itself; the run is left when the time is up.
            stages = (dataclasses.replace(stage, steps=10**6),)
            state.position.stage = state.position.step = 0
            config = LoopConfig(Path(folder), "bench", progress_every_s=0.0, checkpoint_every_s=1e9)
            events = train(state, conditioning, dataset, stages, config=config, should_stop=lambda: False)
            steps = (event for event in events if isinstance(event, Progress))
            results |= sampled(f"step_{stage.name}", lambda steps=steps: next(steps), a.seconds / 3)
            events.close()  # type: ignore[attr-defined]
    share = a.seconds / 9
    results |= sampled("roofline_rasteriser", _raster_step(avatar, conditioning), share)
    results |= sampled("part_field", _field_step(avatar, conditioning), share)
    results |= sampled("part_objective", _objective_step(dataset), share)
    deform, limit = results["step_deform_ms"], results["roofline_rasteriser_ms"]
    return results | {"rasteriser_share_of_step": round(float(limit) / float(deform), 3)}


def _raster_step(avatar, conditioning) -> Callable[[], None]:
    """Draw one frame's Gaussians and send gradients back to them."""
    from talker.render import rasterize

    index = int(np.argmax(avatar.track.valid))
    with torch.no_grad():
        drawn = [avatar.gaussians(name, conditioning.driving(index))[0] for name in avatar.branches]
    leaves = [gaussians.map(lambda t: t.detach().clone().requires_grad_()) for gaussians in drawn]

    def step() -> None:
        for gaussians in leaves:
            gaussians.map(lambda t: setattr(t, "grad", None))
            out = rasterize(gaussians, avatar.camera)
            (out.rgb.mean() + out.alpha.mean()).backward()

    return step


def _field_step(avatar, conditioning) -> Callable[[], None]:
    """Deform and pose one frame's Gaussians and send gradients back to the parameters."""
    driving = conditioning.driving(int(np.argmax(avatar.track.valid)))

    def step() -> None:
        drawn = [avatar.gaussians(name, driving)[0] for name in avatar.branches]
        parts = [t.sum() for g in drawn for t in (g.means, g.quats, g.scales, g.opacities, g.colors)]
        torch.stack(parts).sum().backward()
        avatar.zero_grad(set_to_none=True)

    return step


def _objective_step(dataset) -> Callable[[], None]:
    """The photometric terms over a whole frame and their gradient."""
    from talker.losses import dssim, weighted_l1

    truth = torch.from_numpy(np.array(dataset.frames[0])).to(chosen_device()).float() / 255
    image = (0.9 * truth).requires_grad_()
    weight = np.full(truth.shape[:2], 1 / truth.numel(), np.float32)

    def step() -> None:
        (weighted_l1(image, truth, weight)[0] + 0.2 * dssim(image, truth)).backward()
        image.grad = None

    return step


def _prepare(a: Namespace) -> Results:
    """Clip to dataset, step by step. Roofline: decoding alone, the first step."""
    from talker.cli.show import show
    from talker.dataset.prepare import PrepareConfig, prepare
    from talker.dataset.reader import TalkingHeadDataset

    clip = needed(a, "clip")
    size = a.size or 256
    with TemporaryDirectory(prefix="talker-bench-") as folder:
        start = time.perf_counter()
        finished = show(prepare(clip, Path(folder) / "clip.data", PrepareConfig(size=size)))
        total = time.perf_counter() - start
        dataset = TalkingHeadDataset(Path(folder) / "clip.data")
        n_frames, n_points = dataset.n_frames, len(dataset.cloud.means)
    assert finished is not None
    steps = finished.summary["seconds"]
    assert isinstance(steps, dict)
    return {
        **sizes(n_points, size),
        "clip_s": n_frames / FPS,
        "frames": n_frames,
        "total_s": round(total, 2),
        "frames_per_s": round(n_frames / total, 1),
        "times_real_time": round(n_frames / FPS / total, 2),
        **{f"step_{name}_s": seconds for name, seconds in steps.items()},
        "roofline_decode_share": round(steps["decode"] / total, 3),
    }


def _command(a: Namespace) -> str:
    """The command without the folders of this machine."""

    def words() -> Iterator[str]:
        for option in ("avatar", "data", "clip", "size", "seconds"):
            value = getattr(a, option)
            if value is not None:
                yield f"--{option} {value.name if isinstance(value, Path) else value}"

    return " ".join(("python -m talker bench", a.what, *words()))


def _peak_memory_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
