"""Experiments: every claim of the papers is a switch, and each experiment turns one of them.

Variants differ from ``preview`` in what the experiment asks about and in nothing else. Each is trained from
several seeds and measured on the same held-out frames; the table gives mean and spread.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.events import Event, Finished, Note
from talker.model.avatar import ModelConfig
from talker.model.deformation import DEFORM_SIZES, DeformationField, FieldConfig
from talker.provenance import new_consent
from talker.safe_files import read_json, write_atomic, write_json
from talker.train.create import CreateConfig, state_folder, train_avatar
from talker.train.densify import DensityConfig
from talker.train.origin import commit, machine
from talker.train.presets import Preset, get_preset

TABLE_JSON, TABLE_MD = "table.json", "table.md"
MAX_SEEDS = 20

COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "psnr_mouth": "mouth dB",
    "mouth_r": "lips r",
    "mouth_r_swapped": "r, other sound",
    "mouth_r_true_motion": "r, true motion",
    "mouth_variation": "lip variation",
    "lmd_px_at_512": "LMD px",
    "jitter_px": "jitter px",
    "silence_variation": "silence",
    "blink_recall": "blinks",
    "train_s": "training s",
    "gaussians": "Gaussians",
    "parameters": "parameters",
}
"""Figures of the table, in this order; those no variant has are left out."""


@dataclass(frozen=True)
class Variant:
    """One row: what it is called and what is trained."""

    name: str
    preset: Preset


def experiments() -> tuple[str, ...]:
    """Names of all experiments."""
    return tuple(_EXPERIMENTS)


def variants(experiment: str, dataset: TalkingHeadDataset) -> tuple[Variant, ...]:
    """The rows of an experiment.

    Raises:
        ConfigError: There is no such experiment.
    """
    if experiment not in _EXPERIMENTS:
        raise ConfigError(
            "ablate.experiment",
            f"There is no experiment called {experiment!r}.",
            expected=f"One of {', '.join(_EXPERIMENTS)}.",
        )
    return tuple(Variant(name, preset) for name, preset in _EXPERIMENTS[experiment](dataset).items())


def ablate(
    data: Path, experiment: str, out: Path, *, seeds: int = 3, steps_scale: float = 1.0
) -> Iterator[Event]:
    """Train and measure every variant of ``experiment``; ends with ``Finished``.

    What is done is never done again: a run that was interrupted goes on where it stopped.

    Args:
        data: A prepared clip.
        experiment: See ``experiments``.
        out: Folder for avatars, results, ``table.json`` and ``table.md``.
        seeds: Runs of each variant.
        steps_scale: Factor on the steps of ``preview``.

    Raises:
        ConfigError: There is no such experiment, or the seeds are out of range.
        DatasetError: The dataset cannot be used.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError("ablate.seeds", f"An experiment with {seeds} seeds.", expected=f"1 to {MAX_SEEDS}.")
    dataset = TalkingHeadDataset(data)
    rows = variants(experiment, dataset)
    runs = [_Run(variant, seed, dataset, out, steps_scale) for variant in rows for seed in range(seeds)]
    (out / "results").mkdir(parents=True, exist_ok=True)
    for number, run in enumerate(runs, 1):
        about = f"{run.variant.name}, seed {run.seed} ({number} of {len(runs)})"
        if run.result.is_file():
            yield Note(f"{about}: done before.")
            continue
        yield Note(f"{about}.")
        yield from run.train()
    results = {v.name: [read_json(r.result, max_bytes=1 << 20) for r in runs if r.variant is v] for v in rows}
    header = {
        "experiment": experiment,
        "protocol": "B",
        "dataset": dataset.header.get("name", ""),
        "size": dataset.size,
        "held_out_frames": len(dataset.held_out_indices()),
        "seeds": seeds,
        "steps_scale": steps_scale,
        "steps": {
            stage.name: max(2, round(stage.steps * steps_scale)) for stage in get_preset("preview").stages
        },
    }
    table = {**header, "rows": [_row(name, found) for name, found in results.items()]}
    write_json(out / TABLE_JSON, table)
    write_atomic(out / TABLE_MD, _markdown(table).encode())
    yield Finished(out, table)


class _Run:
    """One variant from one seed."""

    def __init__(
        self, variant: Variant, seed: int, dataset: TalkingHeadDataset, out: Path, steps_scale: float
    ) -> None:
        self.variant, self.seed, self.dataset = variant, seed, dataset
        self.config = CreateConfig(seed=seed, size=dataset.size, steps_scale=steps_scale, name=variant.name)
        settings = {
            "model": asdict(variant.preset.model),
            "stages": [asdict(stage) for stage in variant.preset.stages],
            "seed": seed,
            "steps_scale": steps_scale,
            "dataset": [dataset.header.get("name", ""), dataset.n_frames, dataset.size],
        }
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        # The settings are part of the name: results of others are neither taken over nor lost.
        self.name = f"{_slug(variant.name)}-seed{seed}-{key}"
        self.avatar = out / "avatars" / self.name
        self.result = out / "results" / f"{self.name}.json"

    def train(self) -> Iterator[Event]:
        """Train, measure, write ``result``."""
        consent = new_consent("ablation on a prepared clip")
        self.avatar.parent.mkdir(parents=True, exist_ok=True)
        finished = None
        for event in train_avatar(
            self.dataset, self.avatar, consent, self.config, resume=True, preset=self.variant.preset
        ):
            if isinstance(event, Finished):
                finished = event
            else:
                yield event
        assert finished is not None
        write_json(self.result, self._measured(finished.summary))
        _remove(state_folder(self.avatar))

    def _measured(self, summary: dict) -> dict:
        from talker.checkpoint import load_avatar

        avatar = load_avatar(self.avatar)
        fields = [avatar.branch(name).deformation for name in avatar.branches]
        return {
            "variant": self.variant.name,
            "seed": self.seed,
            "commit": commit(),
            "machine": machine(),
            "metrics": {
                **summary["metrics"],
                "train_s": summary["seconds"]["train"],
                "gaussians": avatar.n_gaussians,
                "parameters": sum(p.numel() for field in fields for p in field.parameters()),
            },
        }


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


def _row(name: str, results: list[dict]) -> dict:
    """Mean, spread (sample standard deviation) and values of every figure."""
    figures = {}
    for key in COLUMNS:
        values = [result["metrics"][key] for result in results if key in result["metrics"]]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            figures[key] = {"mean": statistics.fmean(values), "spread": spread, "values": values}
    return {
        "variant": name,
        "commits": sorted({result["commit"] for result in results}),
        "machines": sorted(
            {f"{r['machine']['processor']}, {r['machine']['gpu'] or 'no GPU'}" for r in results}
        ),
        "figures": figures,
    }


def _markdown(table: dict) -> str:
    columns = [key for key in COLUMNS if any(key in row["figures"] for row in table["rows"])]
    steps = ", ".join(f"{n:,} {name}" for name, n in table["steps"].items())
    lines = [
        f"# {table['experiment']}: {table['dataset']}, {table['size']} px",
        "",
        f"Protocol {table['protocol']}, {table['held_out_frames']} held-out frames, {table['seeds']} seeds, "
        f"{steps} steps unless a row says otherwise. Mean ± standard deviation over the seeds.",
        "",
        "| variant | " + " | ".join(COLUMNS[key] for key in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in table["rows"]:
        cells = [_cell(row["figures"].get(key)) for key in columns]
        lines.append(f"| {row['variant']} | " + " | ".join(cells) + " |")
    commits = sorted({c for row in table["rows"] for c in row["commits"]})
    machines = sorted({m for row in table["rows"] for m in row["machines"]})
    return "\n".join([*lines, "", f"Commit {', '.join(commits)}; {'; '.join(machines)}.", ""])


def _cell(figure: dict | None) -> str:
    if figure is None:
        return "-"
    mean, spread = figure["mean"], figure["spread"]
    if float(mean).is_integer() and spread == 0:
        return f"{mean:,.0f}"
    digits = 0 if abs(mean) >= 1000 else 1 if abs(mean) >= 100 else 2 if abs(mean) >= 10 else 3
    return (
        f"{mean:,.{digits}f} ± {spread:,.{digits}f}" if len(figure["values"]) > 1 else f"{mean:,.{digits}f}"
    )


def _with_face(**changes: object) -> Preset:
    """``preview`` with entries of its face field replaced."""
    preset = get_preset("preview")
    return replace(preset, model=replace(preset.model, face=replace(preset.model.face, **changes)))


def _with_stages(function: Callable) -> Preset:
    preset = get_preset("preview")
    return replace(preset, stages=tuple(function(preset.stages)))


def _fusion(_: TalkingHeadDataset) -> dict[str, Preset]:
    """How sound and place come together; agents as a share of the Gaussians."""
    shares = {f"agents, {100 * share:g} %": share for share in (0.001, 0.005, 0.01, 0.02)}
    return {
        "blendshapes": _with_face(fusion="blendshapes"),
        "gated": _with_face(fusion="mgf"),
        "cross attention": _with_face(fusion="cross_attention"),
        **{name: _with_face(fusion="esaa", agents=share) for name, share in shares.items()},
    }


def _decoder(_: TalkingHeadDataset) -> dict[str, Preset]:
    """KAN against MLP, at equal width and at an equal number of parameters."""
    wide = _with_face(fusion="mgf", decoder="mlp", hidden=256)
    goal = _decoder_parameters(wide.model.face)
    widths = range(8, 65)
    kan = min(
        (_with_face(fusion="mgf", decoder="kan", hidden=h) for h in widths),
        key=lambda preset: abs(_decoder_parameters(preset.model.face) - goal),
    )
    return {
        "MLP": _with_face(fusion="mgf", decoder="mlp"),
        "KAN": _with_face(fusion="mgf", decoder="kan"),
        "MLP, wide": wide,
        "KAN, as many parameters": kan,
    }


def _decoder_parameters(config: FieldConfig) -> int:
    field = DeformationField(config, torch.zeros(3), 1.0)
    return sum(p.numel() for p in field.decoder.parameters())


def _encoder(_: TalkingHeadDataset) -> dict[str, Preset]:
    """What the field knows about a place."""
    return {
        "embedding": _with_face(encoder="embedding"),
        "hash tri-plane": _with_face(encoder="triplane_hash"),
        "dense tri-plane": _with_face(encoder="triplane_dense"),
    }


def _density(dataset: TalkingHeadDataset) -> dict[str, Preset]:
    """Where Gaussians are added, at an equal number of them."""
    goal = round(1.5 * len(dataset.cloud.means))

    def grown(kind: str) -> Preset:
        def stages(old):
            first = old[0]
            density = DensityConfig(
                kind=kind,  # type: ignore[arg-type]
                every=max(1, first.steps // 12),
                start=first.steps // 6,
                stop=first.steps - first.steps // 6,
                max_gaussians=goal,
                exact=True,
            )
            return (replace(first, density=density), *old[1:])

        return _with_stages(stages)

    return {"none": get_preset("preview"), "standard": grown("standard"), "pixel-aware": grown("pixel_aware")}


def _mouth(_: TalkingHeadDataset) -> dict[str, Preset]:
    """One field, or another one for the inside of the mouth."""
    preset = get_preset("preview")
    face = preset.model.face
    inside = replace(face, deform=("mu", "alpha", "rgb"), width=32, hidden=32)
    model: ModelConfig = replace(preset.model, mouth=inside)
    return {"one field": preset, "face and mouth": replace(preset, model=model)}


def _stage1(_: TalkingHeadDataset) -> dict[str, Preset]:
    """A static head first, or all steps with the deformation."""

    def without(old):
        return (replace(old[-1], steps=sum(stage.steps for stage in old)),)

    return {"two stages": get_preset("preview"), "deformation only": _with_stages(without)}


def _deform(_: TalkingHeadDataset) -> dict[str, Preset]:
    """Which attributes move."""
    sets = (
        ("mu", "alpha", "rgb"),
        ("mu",),
        ("mu", "alpha"),
        ("mu", "rgb"),
        ("mu", "r", "s"),
        tuple(DEFORM_SIZES),
    )
    return {", ".join(chosen): _with_face(deform=chosen) for chosen in sets}


_EXPERIMENTS: dict[str, Callable[[TalkingHeadDataset], dict[str, Preset]]] = {
    "fusion": _fusion,
    "decoder": _decoder,
    "encoder": _encoder,
    "density": _density,
    "mouth": _mouth,
    "stage1": _stage1,
    "deform": _deform,
}
