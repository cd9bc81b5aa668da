"""``bench render|drive|train|prepare``: how fast this machine is, with what is needed to compare two reports.

Wall times are what a person waits for; the processor time beside them shows how much of it other load has cost.
Every frame or step is one sample: the median and the 10th and 90th percentile are given.
"""

from __future__ import annotations

import itertools
import resource
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from talker.errors import ConfigError
from talker.train.origin import commit, machine
from talker.types import FPS, SAMPLE_RATE, Speech

Results = dict[str, float | int | str]

MIN_SAMPLES = 5
WARM_UP = 3
"""First calls compile, load and fill caches."""


def run(arguments: Namespace) -> dict:
    """Measure ``arguments.what`` and say on what: ``command``, ``commit``, ``machine``, ``results``.

    Raises:
        ConfigError: An option the measurement needs is missing.
    """
    measure = {"render": _render, "drive": _drive, "train": _train, "prepare": _prepare}[arguments.what]
    before = machine()
    results = measure(arguments) | {"peak_memory_mb": _peak_memory_mb()}
    on = {**before, "load_after": machine()["load"]}
    return {"command": _command(arguments), "commit": commit(), "machine": on, "results": results}


def _render(a: Namespace) -> Results:
    """A frame in memory: deform, pose, rasterise, composite, to bytes. Roofline: the rasteriser alone."""
    from talker.checkpoint import load_avatar
    from talker.drive import DriveConfig, own_motion, speech_signals
    from talker.frame import draw_frame
    from talker.render import rasterize
    from talker.types import Driving

    avatar = load_avatar(_needed(a, "avatar"))
    camera = avatar.camera if a.size is None else avatar.camera.scaled(a.size / avatar.camera.width)
    plate = torch.zeros(camera.height, camera.width, 3)
    speech = _voice(4.0)
    signals, motion = speech_signals(avatar, speech), own_motion(avatar.track, speech.n_frames, DriveConfig())
    controls = itertools.cycle(
        Driving(
            signal,
            *(torch.from_numpy(v[t]) for v in (motion.expression, motion.T_cam_head, motion.T_cam_torso)),
        )
        for t, signal in enumerate(signals)
    )
    with torch.inference_mode():
        prepared = avatar.prepare()

        def deform() -> None:
            driving = next(controls)
            for name in avatar.branches:
                avatar.gaussians(name, driving, prepared=prepared[name])

        def frame() -> None:
            draw_frame(avatar, next(controls), camera=camera, plate=plate, prepared=prepared).numpy()

        first = next(controls)
        branches = [avatar.gaussians(name, first, prepared=prepared[name])[0] for name in avatar.branches]

        def raster() -> None:
            for gaussians in branches:
                rasterize(gaussians, camera)

        share = a.seconds / 3
        results = _sampled("frame", frame, share) | _sampled("deform", deform, share)
        results |= _sampled("roofline_rasteriser", raster, share)
    return (
        _sizes(avatar.n_gaussians, camera.width) | results | _rates(results, "frame", "roofline_rasteriser")
    )


def _drive(a: Namespace) -> Results:
    """Sound to a finished file: features, lips, frames, label, H.264. Roofline: the frames alone."""
    from talker.checkpoint import load_avatar
    from talker.drive import DriveConfig, drive
    from talker.provenance import stamp_frames
    from talker.video.encode import Mp4Writer

    avatar = load_avatar(_needed(a, "avatar"))
    config = DriveConfig(size=a.size)
    size = config.size or avatar.camera.width
    speech = _voice(a.seconds)
    list(drive(avatar, _voice(0.4), config=config))  # compile and load
    drawing, writing = _Samples(), _Samples()
    start = time.perf_counter()
    with TemporaryDirectory(prefix="talker-bench-") as folder:
        with Mp4Writer(Path(folder) / "bench.mp4", size, size, sample_rate=SAMPLE_RATE) as writer:
            frames = stamp_frames(drive(avatar, speech, config=config))
            first = None
            while (frame := drawing.time(lambda: next(frames, None))) is not None:
                first = first or time.perf_counter() - start
                writing.time(lambda frame=frame: writer.write(frame))
            writer.write_audio(speech.waveform)
        seconds = time.perf_counter() - start
    drawing.drop_first()  # holds the features of the whole sound
    results = drawing.summary("frame") | writing.summary("encode")
    return {
        **_sizes(avatar.n_gaussians, size),
        "speech_s": round(speech.duration_s, 2),
        "first_frame_s": round(first or 0.0, 3),
        "total_s": round(seconds, 3),
        "times_real_time": round(speech.duration_s / seconds, 2),
        **results,
        **_rates(results, "frame"),
    }


def _train(a: Namespace) -> Results:
    """Steps of both stages of ``preview``. Roofline: the rasteriser, forward and backward, on the same Gaussians."""
    import dataclasses

    from talker.dataset.reader import TalkingHeadDataset
    from talker.events import Progress
    from talker.train.build import build
    from talker.train.loop import LoopConfig, train
    from talker.train.presets import get_preset
    from talker.train.schedule import LearningRates
    from talker.train.state import TrainState

    dataset = TalkingHeadDataset(_needed(a, "data"))
    preset = get_preset("preview")
    avatar, conditioning = build(dataset, preset.model, 0)
    state = TrainState(avatar, dataset.n_frames, LearningRates())
    results = _sizes(avatar.n_gaussians, dataset.size)
    with TemporaryDirectory(prefix="talker-bench-") as folder:
        for stage in preset.stages:
            # Long enough never to end by itself; the run is left when the time is up.
            stages = (dataclasses.replace(stage, steps=10**6),)
            state.position.stage = state.position.step = 0
            config = LoopConfig(Path(folder), "bench", progress_every_s=0.0, checkpoint_every_s=1e9)
            events = train(state, conditioning, dataset, stages, config=config, should_stop=lambda: False)
            steps = (event for event in events if isinstance(event, Progress))
            results |= _sampled(f"step_{stage.name}", lambda steps=steps: next(steps), a.seconds / 3)
            events.close()  # type: ignore[attr-defined]
    results |= _sampled("roofline_rasteriser", _raster_step(avatar, conditioning), a.seconds / 3)
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


def _prepare(a: Namespace) -> Results:
    """Clip to dataset, step by step. Roofline: decoding alone, the first step."""
    from talker.cli.show import show
    from talker.dataset.prepare import PrepareConfig, prepare
    from talker.dataset.reader import TalkingHeadDataset

    clip = _needed(a, "clip")
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
        **_sizes(n_points, size),
        "clip_s": n_frames / FPS,
        "frames": n_frames,
        "total_s": round(total, 2),
        "frames_per_s": round(n_frames / total, 1),
        "times_real_time": round(n_frames / FPS / total, 2),
        **{f"step_{name}_s": seconds for name, seconds in steps.items()},
        "roofline_decode_share": round(steps["decode"] / total, 3),
    }


class _Samples:
    """Wall and processor milliseconds of repeated calls."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, function: Callable):
        """Call once; the result of the call."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        self.wall.append(1e3 * (time.perf_counter() - wall))
        self.cpu.append(1e3 * (time.process_time() - cpu))
        return result

    def drop_first(self) -> None:
        """Forget a call that did more than the others, if it is not the only one."""
        self.wall, self.cpu = self.wall[1:] or self.wall, self.cpu[1:] or self.cpu

    def summary(self, name: str) -> Results:
        """``<name>_ms`` (median) and its spread."""
        low, median, high = (round(float(v), 3) for v in np.percentile(self.wall, [10, 50, 90]))
        return {
            f"{name}_ms": median,
            f"{name}_ms_p10": low,
            f"{name}_ms_p90": high,
            f"{name}_cpu_ms": round(float(np.median(self.cpu)), 3),
            f"{name}_samples": len(self.wall),
        }


def _sampled(name: str, function: Callable[[], object], seconds: float) -> Results:
    """Call ``function`` for about ``seconds``, after a few calls that do not count."""
    for _ in range(WARM_UP):
        function()
    samples = _Samples()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples.wall) < MIN_SAMPLES:
        samples.time(function)
    return samples.summary(name)


def _sizes(n_gaussians: int, size: int) -> Results:
    return {"gaussians": n_gaussians, "size": size, "threads": torch.get_num_threads()}


def _rates(results: Results, name: str, limit: str | None = None) -> Results:
    rates: Results = {"frames_per_s": round(1e3 / float(results[f"{name}_ms"]), 1)}
    if limit is not None:
        share = float(results[f"{limit}_ms"]) / float(results[f"{name}_ms"])
        rates["rasteriser_share_of_frame"] = round(share, 3)
    return rates


def _voice(seconds: float) -> Speech:
    """Noise in syllables: features and lips cost the same whatever is said."""
    n = max(1, round(seconds * SAMPLE_RATE))
    loudness = 0.1 * np.abs(np.sin(2 * np.pi * 2.5 * np.arange(n) / SAMPLE_RATE))
    return Speech((loudness * np.random.default_rng(0).standard_normal(n)).astype(np.float32))


def _needed(a: Namespace, option: str) -> Path:
    value = getattr(a, option)
    if value is None:
        raise ConfigError(
            f"bench.{option}", f"'bench {a.what}' measures a given one.", expected=f"--{option} PATH."
        )
    return value


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
