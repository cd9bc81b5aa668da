"""Figures of a trained variant that ``evaluate`` does not give: speed, memory, where its Gaussians are."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from talker.dataset.reader import TalkingHeadDataset
from talker.drive import speech_signals
from talker.frame import FrameDrawer
from talker.model.avatar import Avatar
from talker.train.regions import Box, face_boxes
from talker.types import FPS, SAMPLE_RATE, Driving, Speech

WARM_FRAMES, TIMED_FRAMES = 5, 40
VISIBLE = 1 / 255
"""Opacity below which a renderer passes a Gaussian over."""


def trained_figures(avatar: Avatar, dataset: TalkingHeadDataset) -> dict[str, float]:
    """Size, speed and point density of an avatar."""
    fields = [avatar.branch(name).deformation for name in avatar.branches]
    return {
        "gaussians": float(avatar.n_gaussians),
        "parameters": float(sum(p.numel() for field in fields for p in field.parameters())),
        **drawing_speed(avatar, dataset),
        **region_shares(avatar, dataset),
    }


def drawing_speed(avatar: Avatar, dataset: TalkingHeadDataset) -> dict[str, float]:
    """Frames drawn a second (``fps``), one after the other in this process, and what a frame costs in CPU time.

    From the motion code or sound window to bytes; the median frame counts. What depends on the Gaussians alone is
    kept between frames, as while driving; reading the sound, encoding and writing are left out. ``frame_cpu_ms`` adds
    up all threads and, unlike ``fps``, does not depend on what else the machine is doing.
    """
    n = WARM_FRAMES + TIMED_FRAMES
    signals = speech_signals(avatar, Speech(dataset.waveform[: n * SAMPLE_RATE // FPS]))
    frames = np.resize(dataset.train_indices(), n)
    drawer = FrameDrawer(avatar, avatar.camera, avatar.plate)
    seconds, cpu_seconds = [], []
    for signal, index in zip(signals, frames, strict=False):
        driving = Driving(
            signal,
            torch.from_numpy(np.asarray(dataset.expression[index], np.float32)),
            torch.from_numpy(np.asarray(dataset.T_cam_head[index], np.float32)),
            torch.from_numpy(np.asarray(dataset.T_cam_torso[index], np.float32)),
        ).to(avatar.device)
        start, cpu_start = time.perf_counter(), time.process_time()
        drawer(driving).cpu()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {
        "fps": round(1 / statistics.median(seconds[WARM_FRAMES:]), 2),
        "frame_cpu_ms": round(1000 * statistics.median(cpu_seconds[WARM_FRAMES:]), 2),
    }


def region_shares(avatar: Avatar, dataset: TalkingHeadDataset) -> dict[str, float]:
    """Per cent of the visible Gaussians that lie, seen in the reference frame, in the boxes of lips and eyes."""
    boxes = face_boxes(np.asarray(dataset.landmarks[dataset.reference]), dataset.size)
    pose = torch.from_numpy(np.asarray(dataset.T_cam_head[dataset.reference], np.float32))
    branches = [avatar.branch(name).canonical for name in avatar.branches]
    means = torch.cat([branch.means.detach().cpu() for branch in branches])
    opacity = torch.cat([torch.sigmoid(branch.logit_opacities.detach()).cpu() for branch in branches])
    camera = means[opacity >= VISIBLE] @ pose[:3, :3].T + pose[:3, 3]
    pixels = camera @ dataset.K.T
    pixels = (pixels[:, :2] / pixels[:, 2:]).numpy()
    inside = {"lips_share": _within(pixels, boxes.mouth)}
    inside["eyes_share"] = np.any([_within(pixels, eye) for eye in boxes.eyes], axis=0)
    return {name: round(100 * float(found.mean()), 3) for name, found in inside.items()}


def _within(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Which pixels [N, 2] (x, y) lie in the box."""
    x, y = pixels.T
    return (x >= box.left) & (x < box.right) & (y >= box.top) & (y < box.bottom)


def peak_memory_mb() -> float:
    """Largest resident memory this process ever had, in MB; it never falls, so honest peaks need a process each."""
    try:
        # Not getrusage where it can be helped: that counts what the parent held at the moment of the fork.
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 1024
