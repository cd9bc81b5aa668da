"""What is trained for each experiment: ``preview`` with what the experiment asks about changed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.model.deformation import DeformationField, FieldConfig
from talker.train.ablation.catalogue import ALL, EXPERIMENTS
from talker.train.densify import DensityConfig
from talker.train.presets import PRESETS, Preset, get_preset
from talker.train.schedule import Stage

GROWTH = 1.5
"""Gaussians after density control, as a multiple of the initial cloud: equal for all kinds."""

REGION_WEIGHT = 3.0

AGENT_SHARES = (0.001, 0.005, 0.01, 0.02)


@dataclass(frozen=True)
class Variant:
    """One row: what it is called and what is trained."""

    name: str
    preset: Preset


def chosen(experiment: str) -> tuple[str, ...]:
    """The experiments a name stands for.

    Raises:
        ConfigError: There is no such experiment.
    """
    if experiment == ALL:
        return tuple(EXPERIMENTS)
    if experiment not in EXPERIMENTS:
        raise ConfigError(
            "ablate.experiment",
            f"There is no experiment called {experiment!r}.",
            expected=f"One of {', '.join(EXPERIMENTS)}, or {ALL}.",
        )
    return (experiment,)


def variants(experiment: str, dataset: TalkingHeadDataset) -> tuple[Variant, ...]:
    """The rows of one experiment."""
    return tuple(Variant(name, preset) for name, preset in _VARIANTS[experiment](dataset).items())


def decoder_parameters(config: FieldConfig) -> int:
    """Numbers the decoder of a field learns."""
    field = DeformationField(config, torch.zeros(3), 1.0)
    return sum(p.numel() for p in field.decoder.parameters())


_EVERYTHING_SEEN = ("mu", "alpha", "rgb")
"""What moves where fusions are compared: only blendshapes can keep colour and lips apart."""


def _with_face(**changes: object) -> Preset:
    """``preview`` with entries of its face field replaced."""
    preset = get_preset("preview")
    if "fusion" in changes:
        changes = {"deform": _EVERYTHING_SEEN} | changes
    return replace(preset, model=replace(preset.model, face=replace(preset.model.face, **changes)))


def _with_stages(function: Callable[[tuple[Stage, ...]], tuple[Stage, ...]]) -> Preset:
    preset = get_preset("preview")
    return replace(preset, stages=function(preset.stages))


def _agents(_: TalkingHeadDataset) -> dict[str, Preset]:
    shares = {f"ESAA, {100 * share:g} %": share for share in AGENT_SHARES}
    return {
        "cross attention": _with_face(fusion="cross_attention"),
        **{name: _with_face(fusion="esaa", agents=share) for name, share in shares.items()},
    }


def _fusion(_: TalkingHeadDataset) -> dict[str, Preset]:
    return {
        "blendshapes": _with_face(fusion="blendshapes"),
        "MGF": _with_face(fusion="mgf"),
        "cross attention": _with_face(fusion="cross_attention"),
        "ESAA, 16 agents": _with_face(fusion="esaa", agents=16),
    }


def _mgf(_: TalkingHeadDataset) -> dict[str, Preset]:
    return {"MGF": _with_face(fusion="mgf"), "plain sum": _with_face(fusion="sum")}


def _ppe(_: TalkingHeadDataset) -> dict[str, Preset]:
    return {kind: _with_face(fusion="esaa", ppe=kind) for kind in ("none", "add", "bias")}


def _decoder(_: TalkingHeadDataset) -> dict[str, Preset]:
    wide = _with_face(fusion="mgf", decoder="mlp", hidden=256)
    goal = decoder_parameters(wide.model.face)
    widths = range(8, 65)
    kan = min(
        (_with_face(fusion="mgf", decoder="kan", hidden=h) for h in widths),
        key=lambda preset: abs(decoder_parameters(preset.model.face) - goal),
    )
    return {
        "MLP": _with_face(fusion="mgf", decoder="mlp"),
        "KAN": _with_face(fusion="mgf", decoder="kan"),
        "MLP, wide": wide,
        "KAN, as many parameters": kan,
    }


def _encoder(_: TalkingHeadDataset) -> dict[str, Preset]:
    return {
        "embedding": _with_face(encoder="embedding"),
        "hash tri-plane": _with_face(encoder="triplane_hash"),
        "dense tri-plane": _with_face(encoder="triplane_dense"),
    }


def _growth(dataset: TalkingHeadDataset, kind: str, region_weight: float = 1.0) -> DensityConfig:
    """Density control during the steps of the static stage, to exactly ``GROWTH`` times the cloud."""
    steps = get_preset("preview").stages[0].steps
    return DensityConfig(
        kind=kind,  # type: ignore[arg-type]
        every=max(1, steps // 12),
        start=steps // 6,
        stop=steps - steps // 6,
        max_gaussians=round(GROWTH * len(dataset.cloud.means)),
        region_weight=region_weight,
        exact=True,
    )


def _density(dataset: TalkingHeadDataset) -> dict[str, Preset]:
    def grown(kind: str, region_weight: float = 1.0) -> Preset:
        density = _growth(dataset, kind, region_weight)
        return _with_stages(lambda old: (replace(old[0], density=density), *old[1:]))

    return {
        "none": get_preset("preview"),
        "uniform": grown("uniform"),
        "standard": grown("standard"),
        "pixel-aware": grown("pixel_aware"),
        f"pixel-aware, lips and eyes x {REGION_WEIGHT:g}": grown("pixel_aware", REGION_WEIGHT),
    }


def _stage1(dataset: TalkingHeadDataset) -> dict[str, Preset]:
    """As it is, and with the same density control in the same steps: without one no point is ever added."""
    density = _growth(dataset, "pixel_aware")

    def joined(old: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return (replace(old[-1], steps=sum(stage.steps for stage in old)),)

    def growing(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        # No running average in either: it cannot follow Gaussians that come and go.
        plain = tuple(replace(stage, average=0.0) for stage in stages)
        return (replace(plain[0], density=density), *plain[1:])

    return {
        "two stages": get_preset("preview"),
        "deformation only": _with_stages(joined),
        "two stages, growing": _with_stages(growing),
        "deformation only, growing": _with_stages(lambda old: growing(joined(old))),
    }


def _deform(_: TalkingHeadDataset) -> dict[str, Preset]:
    sets = (
        ("mu", "alpha", "shade"),
        ("mu", "alpha", "rgb"),
        ("mu",),
        ("mu", "alpha"),
        ("mu", "rgb"),
        ("mu", "r", "s"),
        ("mu", "alpha", "rgb", "r", "s"),
    )
    return {", ".join(attributes): _with_face(deform=attributes) for attributes in sets}


def _mouth(_: TalkingHeadDataset) -> dict[str, Preset]:
    preset = get_preset("preview")
    inside = replace(preset.model.face, deform=("mu", "alpha", "rgb"), width=32, hidden=32)

    def with_mouth(field: FieldConfig) -> Preset:
        return replace(preset, model=replace(preset.model, mouth=field))

    return {
        "one field": preset,
        "face and mouth": with_mouth(inside),
        "face and mouth that follows the lips": with_mouth(replace(inside, follows_lips=True)),
    }


def _codes(_: TalkingHeadDataset) -> dict[str, Preset]:
    def seeing(share: float) -> Preset:
        return _with_stages(lambda old: tuple(replace(stage, measured_codes=share) for stage in old))

    some = get_preset("preview").stages[-1].measured_codes
    return {
        "as measured": seeing(1.0),
        "learnt": seeing(0.0),
        f"learnt, measured in {100 * some:g} % of the steps": get_preset("preview"),
    }


def _speakers(_: TalkingHeadDataset) -> dict[str, Preset]:
    return {"preview": get_preset("preview")}


def _cost(_: TalkingHeadDataset) -> dict[str, Preset]:
    static, moving = _steps(get_preset("preview"))
    return {preset.name: _at_steps(preset, static, moving) for preset in PRESETS.values()}


def _steps(preset: Preset) -> tuple[int, int]:
    """Steps without and with the deformation."""
    static = sum(stage.steps for stage in preset.stages if stage.static)
    return static, sum(stage.steps for stage in preset.stages) - static


def _at_steps(preset: Preset, static: int, moving: int) -> Preset:
    """``preset`` with so many steps in all, its stages in the same proportion, density control in the same part."""
    old_static, old_moving = _steps(preset)

    def fitted(stage: Stage, count: int) -> Stage:
        def moment(step: int) -> int:
            return round(step * count / stage.steps)

        old = stage.density
        density = replace(
            old, start=moment(old.start), stop=moment(old.stop), every=max(1, moment(old.every))
        )
        return replace(stage, steps=count, density=density)

    def share(stage: Stage) -> float:
        return static / old_static if stage.static else moving / old_moving

    return replace(preset, stages=tuple(fitted(s, round(s.steps * share(s))) for s in preset.stages))


_VARIANTS: dict[str, Callable[[TalkingHeadDataset], dict[str, Preset]]] = {
    "agents": _agents,
    "decoder": _decoder,
    "mgf": _mgf,
    "density": _density,
    "stage1": _stage1,
    "deform": _deform,
    "encoder": _encoder,
    "fusion": _fusion,
    "ppe": _ppe,
    "mouth": _mouth,
    "codes": _codes,
    "speakers": _speakers,
    "identities": _speakers,
    "cost": _cost,
}
