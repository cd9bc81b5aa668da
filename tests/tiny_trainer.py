"""A small deterministic trainer with the interface of ``talker.train.create`` and real checkpoints on disk.

Two stages, each a pseudo-random walk of a vector that depends on the clip's bytes: any repeated, skipped or
reordered step changes the result. Every executed step is written to ``trace`` in the state folder, so that a test
can count repeated work.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talker.errors import ConsentError, VideoError
from talker.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    Note,
    Preview,
    PreviewClip,
    Progress,
    StageStarted,
)

if TYPE_CHECKING:
    from talker.types import Consent

STAGES = ("static", "deform")


@dataclass(frozen=True)
class CreateConfig:
    preset: str = "preview"
    size: int = 256
    max_minutes: float | None = None
    seed: int = 0
    steps: int = 40
    step_s: float = 0.005
    checkpoint_every: int = 5
    real_avatar: bool = False
    turning: bool = False
    """Shows a few moving pictures after the first stage."""
    fault: str = ""
    """``abort``, ``abort_once``, ``raise``, ``memory``, ``disk``, ``hang``, ``user``: what happens in ``deform``."""


def create(
    clip: Path,
    avatar_dir: Path,
    consent: Consent,
    config: CreateConfig,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    if not consent.who:
        raise ConsentError("consent.missing", "Nobody consented.")
    if not clip.read_bytes():
        raise VideoError("video.empty", f"{clip.name} is empty (0 bytes).", todo="Choose another file.")
    state_dir = avatar_dir.with_name(avatar_dir.name + ".state")
    state_dir.mkdir(exist_ok=True)
    checkpoint = state_dir / "checkpoint.json"
    seed = int.from_bytes(hashlib.sha256(clip.read_bytes()).digest()[:4], "big") + config.seed
    stage_index, step, w = 0, 0, np.zeros(8)
    if resume and checkpoint.exists():
        saved = json.loads(checkpoint.read_text())
        stage_index, step, w = saved["stage"], saved["step"], np.array(saved["w"])
        yield Note(f"Continuing {STAGES[stage_index]} at step {step}.")
    for index in range(stage_index, len(STAGES)):
        stage = STAGES[index]
        yield StageStarted(stage, config.steps)
        while step < config.steps:
            if should_stop():
                _save(checkpoint, index, step, w)
                yield CheckpointSaved(stage, step, checkpoint)
                return
            if stage == "deform" and step == config.steps // 2:
                _fault(config.fault, state_dir)
            w = np.tanh(w + np.random.default_rng((seed, index, step)).normal(size=8))
            step += 1
            with (state_dir / "trace").open("a") as trace:
                trace.write(f"{stage} {step}\n")
            time.sleep(config.step_s)
            left = (config.steps - step + (len(STAGES) - 1 - index) * config.steps) * config.step_s
            yield Progress(
                stage, step, config.steps, left, {"loss": float(np.abs(w).mean()), "psnr": 20.0 + step}
            )
            if step % config.checkpoint_every == 0:
                should_stop()
                _save(checkpoint, index, step, w)
                yield CheckpointSaved(stage, step, checkpoint)
            if step % (config.steps // 2) == 0:
                yield Preview(stage, step, np.full((16, 16, 3), 10 * step % 256, np.uint8))
        if config.turning and index == 0:
            turn = np.arange(0, 250, 50, np.uint8)[:, None, None, None]
            yield PreviewClip(stage, step, np.broadcast_to(turn, (5, 16, 24, 3)), 10)
        step = 0
        _save(checkpoint, index + 1, 0, w) if index + 1 < len(STAGES) else None
    yield Evaluated("B", {"psnr": 30.0})
    if config.real_avatar:
        from avatar_support import tiny_avatar_folder

        tiny_avatar_folder(avatar_dir)
        yield Finished(avatar_dir, {"seconds": 1.0})
        return
    avatar_dir.mkdir(exist_ok=True)
    (avatar_dir / "avatar.json").write_text(
        json.dumps({"w": w.tolist(), "preset": config.preset, "size": config.size})
    )
    yield Finished(avatar_dir, {"seconds": 1.0})


def _save(path: Path, stage: int, step: int, w: np.ndarray) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(json.dumps({"stage": stage, "step": step, "w": w.tolist()}))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _fault(fault: str, state_dir: Path) -> None:
    if fault == "abort_once":
        fault = "" if (state_dir / "aborted").exists() else "abort"
        (state_dir / "aborted").touch()
    if fault == "abort":
        os.abort()
    if fault == "raise":
        raise ZeroDivisionError("secret /path/inside")
    if fault == "memory":
        raise MemoryError
    if fault == "disk":
        raise OSError(28, "No space left on device")
    if fault == "user":
        raise VideoError("video.no_face", "No face was found.", todo="Film the face from the front.")
    if fault == "hang":
        time.sleep(3600)
