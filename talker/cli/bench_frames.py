"""``bench render`` and ``bench drive``: what a frame costs, beside what the rasteriser alone would."""

from __future__ import annotations

import itertools
import resource
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from talker.checkpoint import load_avatar
from talker.cli.bench_samples import Results, finish, needed, sampled, sizes, voice
from talker.device import chosen_device
from talker.drive import DriveConfig, drive, own_motion, speech_signals
from talker.frame import FrameDrawer
from talker.model.avatar import FACE, MOUTH, Avatar
from talker.model.kan import KANLinear
from talker.render import Backend, rasterize
from talker.render.compose import compose_uint8
from talker.threads import alone, map_ahead
from talker.types import SAMPLE_RATE, Camera, Driving, Gaussians, RenderOutput, Speech

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH = 16
"""Frames in one call, where a GPU draws them: what the papers call batched."""

SLOW_S = 1.0
"""Share of the time for what is only there to be compared with and takes seconds a call."""


def measure_render(a: Namespace) -> Results:
    """One frame at a time, all threads on it: deform, pose, rasterise, composite to bytes; and its alternatives.

    ``forward`` is the rasteriser alone on the same Gaussians, the limit of a frame; ``forward_backward`` that of a
    training step.
    """
    avatar = load_avatar(needed(a, "avatar"), device=chosen_device())
    camera = _camera(avatar, a.size)
    plate = torch.zeros(camera.height, camera.width, 3, device=avatar.device)
    controls = itertools.cycle(_controls(avatar, voice(4.0)))
    share = a.seconds / 6
    with torch.inference_mode():
        prepared = avatar.prepare()

    @torch.inference_mode()
    def deform(cached: bool = True) -> None:
        driving = next(controls)
        for name in avatar.branches:
            avatar.gaussians(name, driving, prepared=prepared[name] if cached else None)

    drawer = FrameDrawer(avatar, camera, plate)

    def frame() -> None:
        drawer(next(controls))

    with torch.no_grad():
        first = next(controls)
        branches = [avatar.gaussians(name, first)[0].map(torch.clone) for name in avatar.branches]
    results = sampled("frame", frame, share) | sampled("deform", deform, share)
    results |= sampled("deform_uncached", lambda: deform(cached=False), share)
    results |= _rasteriser(branches, camera, share)
    results |= _kan_layer(avatar.n_gaussians, min(share, SLOW_S))
    results["frames_per_s"] = round(1e3 / float(results["frame_ms"]), 1)
    results["frame_over_rasteriser"] = _ratio(results, "frame", "forward")
    return sizes(avatar.n_gaussians, camera.width) | results


def measure_drive(a: Namespace) -> Results:
    """Sound to frames, then sound to a finished file with label and H.264; and where the processor's time goes.

    All in: features of the whole sound, motion, frames. ``rasteriser`` draws the same Gaussians by the same number
    of threads side by side and does nothing else.
    """
    from talker.provenance import stamp_frames
    from talker.video.encode import Mp4Writer

    avatar = load_avatar(needed(a, "avatar"), device=chosen_device())
    config = DriveConfig(size=a.size)
    camera = _camera(avatar, a.size)
    size, speech = camera.width, voice(a.seconds)
    list(drive(avatar, voice(0.4), config=config))  # compile and load
    drawn = _Clock(speech)
    drawn.run(drive(avatar, speech, config=config))
    written = _Clock(speech)
    with TemporaryDirectory(prefix="talker-bench-") as folder:
        with Mp4Writer(Path(folder) / "bench.mp4", size, size, sample_rate=SAMPLE_RATE) as writer:
            written.run(stamp_frames(drive(avatar, speech, config=config)), writer.write)
            writer.write_audio(speech.waveform)
        written.stop()
    results = drawn.results("drawn") | written.results("written")
    if avatar.device.type == "cuda":
        batched = _Clock(speech)
        batched.run(drive(avatar, speech, config=replace(config, batch=BATCH)))
        results |= batched.results("batched")
    results |= _parts(avatar, camera, speech, config)
    results["frame_over_rasteriser"] = _ratio(results, "drawn", "rasteriser")
    return sizes(avatar.n_gaussians, size) | {"speech_s": round(speech.duration_s, 2)} | results


class _Clock:
    """Wall and processor time, children's too, of taking every frame of a speech."""

    def __init__(self, speech: Speech) -> None:
        self._n_frames = speech.n_frames
        self._wall, self._cpu = time.perf_counter(), _cpu_s()
        self._first = 0.0
        self.stop()

    def run(self, frames: Iterable, use: Callable = lambda frame: None) -> None:
        for frame in frames:
            self._first = self._first or time.perf_counter() - self._wall
            use(frame)
        self.stop()

    def stop(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter() - self._wall, _cpu_s() - self._cpu

    def results(self, name: str) -> Results:
        return {
            f"{name}_frames_per_s": round(self._n_frames / self._wall_s, 1),
            f"{name}_first_s": round(self._first, 3),
            f"{name}_total_s": round(self._wall_s, 3),
            f"{name}_ms": round(1e3 * self._wall_s / self._n_frames, 3),
            f"{name}_cpu_ms": round(1e3 * self._cpu_s / self._n_frames, 3),
        }


def _parts(avatar: Avatar, camera: Camera, speech: Speech, config: DriveConfig) -> Results:
    """Processor milliseconds a frame of every part, each by itself on one thread; and the rasteriser side by side."""
    from talker.provenance import stamp_frames

    plate = torch.zeros(camera.height, camera.width, 3, device=avatar.device)
    controls = list(itertools.islice(_controls(avatar, voice(1.0)), 25))
    names = list(avatar.branches)

    def pose(driving: Driving) -> list[Gaussians]:
        return [avatar.gaussians(name, driving, prepared=prepared[name])[0] for name in names]

    def raster(branches: list[Gaussians]) -> dict[str, RenderOutput]:
        return {name: rasterize(branch, camera) for name, branch in zip(names, branches, strict=True)}

    def to_bytes(layers: dict[str, RenderOutput]) -> np.ndarray:
        return compose_uint8(layers[FACE], layers.get(MOUTH), plate).cpu().numpy()

    with alone(), torch.inference_mode():
        prepared = avatar.prepare()
        posed, deforming = _each(pose, controls)
        layers, rasterising = _each(raster, posed)
        frames, converting = _each(to_bytes, layers)
        stamped, labelling = _each(lambda frame: next(stamp_frames([frame])), frames)
        _, listening = _each(lambda sound: speech_signals(avatar, sound, config), [speech])
    parts = {
        "features": listening / speech.n_frames,
        "deform": deforming,
        "rasterise": rasterising,
        "to_bytes": converting,
        "label": labelling,
        "encode": _encoding(stamped),
    }
    _, start = list(map_ahead(raster, posed)), time.perf_counter()
    for _ in map_ahead(raster, posed * 4):
        pass
    named: Results = {f"part_{name}_cpu_ms": round(value, 3) for name, value in parts.items()}
    return named | {"rasteriser_ms": round(1e3 * (time.perf_counter() - start) / (4 * len(posed)), 3)}


def _each(function: Callable[[Item], Result], items: list[Item]) -> tuple[list[Result], float]:
    """``function`` of every item, and the processor milliseconds one call took."""
    results = [function(item) for item in items]
    start = _cpu_s()
    for item in items:  # again, and nothing kept: fresh memory for every result would be most of the cost
        function(item)
    finish()
    return results, 1e3 * (_cpu_s() - start) / len(items)


def _encoding(frames: list[np.ndarray]) -> float:
    """Processor milliseconds of H.264 a frame."""
    from talker.video.encode import Mp4Writer

    height, width = frames[0].shape[:2]
    start = _cpu_s()
    with (
        TemporaryDirectory(prefix="talker-bench-") as folder,
        Mp4Writer(Path(folder) / "part.mp4", width, height, sample_rate=None) as writer,
    ):
        for frame in frames * 4:
            writer.write(frame)
    return 1e3 * (_cpu_s() - start) / (4 * len(frames))


def _rasteriser(branches: list[Gaussians], camera: Camera, share: float) -> Results:
    """The rasteriser alone, with and without gradients, and the back ends that define or replace it."""
    leaves = [gaussians.map(lambda t: t.detach().clone().requires_grad_()) for gaussians in branches]

    @torch.inference_mode()
    def forward(backend: Backend = "auto") -> None:
        for gaussians in branches:
            rasterize(gaussians, camera, backend=backend)

    def both() -> None:
        for gaussians in leaves:
            gaussians.map(lambda t: setattr(t, "grad", None))
            out = rasterize(gaussians, camera)
            (out.rgb.mean() + out.alpha.mean()).backward()

    results = sampled("forward", forward, share) | sampled("forward_backward", both, share)
    if branches[0].means.device.type == "cuda":  # what the same Gaussians cost without the GPU
        branches, camera = [g.map(lambda t: t.cpu()) for g in branches], camera.to("cpu")
        results |= sampled("cpu_back_end", lambda: forward("cpu"), share)
    return results | sampled("reference", lambda: forward("reference"), 0.0, warm_up=0, least=1)


def _kan_layer(rows: int, share: float) -> Results:
    """A layer 64 to 64 on as many rows as Gaussians: ours, and the recursion of efficient-kan with tensors."""
    layer, x = KANLinear(64, 64, grid_range=(-3.0, 3.0)), torch.randn(rows, 64)
    layer, x = layer.to(chosen_device()), x.to(chosen_device())

    def recursion() -> Tensor:
        knots, at = layer.grid, x[..., None]
        bases = ((at >= knots[:, :-1]) & (at < knots[:, 1:])).to(x)
        for k in range(1, layer.spline_order + 1):
            left = (at - knots[:, : -k - 1]) / (knots[:, k:-1] - knots[:, : -k - 1])
            right = (knots[:, k + 1 :] - at) / (knots[:, k + 1 :] - knots[:, 1:-k])
            bases = left * bases[..., :-1] + right * bases[..., 1:]
        base = torch.nn.functional.linear(torch.nn.functional.silu(x), layer.base_weight)
        return base + bases.flatten(1) @ layer.scaled_spline_weight.flatten(1).T

    with torch.inference_mode():
        assert torch.allclose(layer(x), recursion(), atol=1e-4), "the same function"
        kernel = sampled("kan_layer", lambda: layer(x), share)
        return kernel | sampled("kan_layer_recursion", recursion, share, warm_up=0)


def _controls(avatar: Avatar, speech: Speech) -> Iterator[Driving]:
    motion = own_motion(avatar.track, speech.n_frames, DriveConfig())
    for t, signal in enumerate(speech_signals(avatar, speech)):
        poses = (torch.from_numpy(v[t]) for v in (motion.expression, motion.T_cam_head, motion.T_cam_torso))
        yield Driving(signal, *poses).to(avatar.device)


def _camera(avatar: Avatar, size: int | None) -> Camera:
    return avatar.camera if size is None else avatar.camera.scaled(size / avatar.camera.width)


def _ratio(results: Results, name: str, limit: str) -> float:
    return round(float(results[f"{name}_ms"]) / float(results[f"{limit}_ms"]), 3)


def _cpu_s() -> float:
    """Processor seconds of this process, all its threads, and its ended children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
