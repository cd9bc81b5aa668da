"""One preset trained and measured from one seed, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from talker.checkpoint import load_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.events import Event, Finished
from talker.provenance import new_consent
from talker.safe_files import read_json, write_json
from talker.train.ablation.curve import Curve
from talker.train.ablation.figures import trained_figures
from talker.train.create import CreateConfig, state_folder, train_avatar
from talker.train.origin import commit, machine
from talker.train.presets import Preset, scaled

MAX_RESULT_BYTES = 1 << 20


@dataclass(frozen=True)
class Run:
    """What is trained, on what, and where it goes. Equal runs of two experiments are one and the same.

    Attributes:
        preset: What is trained.
        seed: From where.
        steps_scale: Factor on the steps.
        data: The prepared clip.
        clip: Its name, frames and size: what tells clips apart wherever they lie.
        out: Folder shared by all runs.
    """

    preset: Preset
    seed: int
    steps_scale: float
    data: Path
    clip: tuple[str, int, int]
    out: Path

    @cached_property
    def settings(self) -> dict:
        """All that decides the result but the code and the machine."""
        return {
            "model": asdict(self.preset.model),
            "stages": [asdict(stage) for stage in self.preset.stages],
            "seed": self.seed,
            "steps_scale": self.steps_scale,
            "clip": list(self.clip),
        }

    @cached_property
    def name(self) -> str:
        """Made from the settings: results of others are neither taken over nor lost."""
        key = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:10]
        return f"{key}-seed{self.seed}"

    @property
    def avatar(self) -> Path:
        """The trained avatar."""
        return self.out / "avatars" / self.name

    @property
    def result(self) -> Path:
        """Figures, curve, settings, commit and machine."""
        return self.out / "runs" / f"{self.name}.json"

    @property
    def curve(self) -> Path:
        """Where the curve is kept until the run is done."""
        return self.out / "avatars" / f"{self.name}.curve.json"

    def read(self) -> dict:
        """What ``work`` has written."""
        return read_json(self.result, max_bytes=MAX_RESULT_BYTES)


def clip_of(dataset: TalkingHeadDataset) -> tuple[str, int, int]:
    """What tells a prepared clip from others: its name, frames and size."""
    return dataset.header.get("name", ""), dataset.n_frames, dataset.size


def work(run: Run) -> Iterator[Event]:
    """Train and measure ``run`` in this process; an interrupted run goes on. Ends with ``Finished``."""
    dataset = TalkingHeadDataset(run.data)
    config = CreateConfig(
        preset=run.preset.name, seed=run.seed, size=dataset.size, steps_scale=run.steps_scale, name=run.name
    )
    run.avatar.parent.mkdir(parents=True, exist_ok=True)
    run.result.parent.mkdir(parents=True, exist_ok=True)
    curve = Curve(run.curve, scaled(run.preset, run.steps_scale).stages)
    consent = new_consent("ablation on a prepared clip")
    for event in train_avatar(dataset, run.avatar, consent, config, resume=True, preset=run.preset):
        if isinstance(event, Finished):
            write_json(run.result, _result(run, dataset, event.summary, curve))
            run.curve.unlink(missing_ok=True)
            shutil.rmtree(state_folder(run.avatar), ignore_errors=True)
        else:
            curve.observe(event)
        yield event


def _result(run: Run, dataset: TalkingHeadDataset, summary: dict, curve: Curve) -> dict:
    figures = trained_figures(load_avatar(run.avatar), dataset)
    return {
        "preset": run.preset.name,
        "settings": run.settings,
        "commit": commit(),
        "machine": machine(),
        "metrics": {
            **summary["metrics"],
            "train_s": summary["seconds"]["train"],
            "train_cpu_s": curve.cpu_s,
            "peak_memory_mb": curve.peak_memory_mb,
            **figures,
        },
        "curve": curve.points,
    }
