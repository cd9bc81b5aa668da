"""Experiments turn one switch at a time, are resumable, and end in a table with spread."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from core_support import write_dataset

from talker.checkpoint import load_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.events import Note
from talker.frame import render_frame
from talker.train.ablate import _decoder_parameters, _markdown, _row, ablate, experiments, variants
from talker.train.build import build
from talker.train.presets import get_preset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("core") / "tiny.data", size=128)


@pytest.fixture(scope="module")
def dataset(data: Path) -> TalkingHeadDataset:
    return TalkingHeadDataset(data)


def presets(experiment: str, dataset: TalkingHeadDataset) -> dict:
    return {variant.name: variant.preset for variant in variants(experiment, dataset)}


def test_all_experiments_are_there() -> None:
    assert set(experiments()) == {"fusion", "decoder", "encoder", "density", "mouth", "stage1", "deform"}


@pytest.mark.parametrize(
    "experiment", ["fusion", "decoder", "encoder", "density", "mouth", "stage1", "deform"]
)
def test_every_variant_is_another_one_and_can_be_built(dataset: TalkingHeadDataset, experiment: str) -> None:
    found = presets(experiment, dataset)
    assert len(found) >= 2
    different = {json.dumps(dataclasses.asdict(preset), sort_keys=True) for preset in found.values()}
    assert len(different) == len(found)
    for preset in found.values():
        motion = dataclasses.replace(preset.model.motion, features="mel")  # the quickest to listen with
        avatar, conditioning = build(dataset, dataclasses.replace(preset.model, motion=motion), 0)
        assert render_frame(avatar, conditioning.driving(0)).rgb.shape == (128, 128, 3)


def test_only_what_is_asked_about_differs(dataset: TalkingHeadDataset) -> None:
    preview = get_preset("preview")
    for name in ("fusion", "encoder", "deform", "decoder", "mouth"):
        assert all(preset.stages == preview.stages for preset in presets(name, dataset).values())
    for name in ("density", "stage1"):
        assert all(preset.model == preview.model for preset in presets(name, dataset).values())
    faces = [preset.model.face for preset in presets("fusion", dataset).values()]
    assert all(dataclasses.replace(f, fusion="mgf", agents=16) == faces[1] for f in faces)


def test_comparisons_are_fair(dataset: TalkingHeadDataset) -> None:
    found = presets("decoder", dataset)
    wide, matched = (
        _decoder_parameters(found[n].model.face) for n in ("MLP, wide", "KAN, as many parameters")
    )
    assert abs(wide - matched) / wide < 0.03
    grown = presets("density", dataset)
    densities = [grown[name].stages[0].density for name in ("standard", "pixel-aware")]
    assert [d.kind for d in densities] == ["standard", "pixel_aware"]
    assert all(d.exact and d.max_gaussians == 615 for d in densities), "an equal number: 1.5 x 410"
    one, two = presets("stage1", dataset).values()
    assert sum(s.steps for s in one.stages) == sum(s.steps for s in two.stages)
    assert len(two.stages) == 1 and not two.stages[0].static


def test_an_experiment_runs_once_and_ends_in_a_table(data: Path, tmp_path: Path) -> None:
    def notes() -> list[str]:
        return [
            e.message
            for e in ablate(data, "stage1", tmp_path, seeds=1, steps_scale=0.001)
            if isinstance(e, Note)
        ]

    first = [line for line in notes() if "seed 0" in line]
    assert first == ["two stages, seed 0 (1 of 2).", "deformation only, seed 0 (2 of 2)."]
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["variant"] for row in table["rows"]] == ["two stages", "deformation only"]
    assert table["protocol"] == "B" and table["seeds"] == 1
    assert set(table["steps"]) == {"static", "deform"} and max(table["steps"].values()) < 10
    for row in table["rows"]:
        figures = row["figures"]
        assert 5 < figures["psnr"]["mean"] < 60 and figures["gaussians"]["mean"] == 410
        assert figures["psnr"]["spread"] == 0 and len(figures["psnr"]["values"]) == 1
    text = (tmp_path / "table.md").read_text()
    assert "| two stages |" in text and "PSNR dB" in text and "8 held-out frames" in text
    assert str(data) not in text and str(tmp_path) not in json.dumps(table)
    for folder in (tmp_path / "avatars").iterdir():
        load_avatar(folder)
        assert not folder.name.endswith(".state"), "checkpoints are not kept"
    # Again: nothing is trained twice; what is missing is done.
    assert all(line.endswith("done before.") for line in notes() if "seed 0" in line)
    results = sorted((tmp_path / "results").iterdir())
    kept = results[1].read_text()
    results[0].unlink()
    shutil.rmtree(tmp_path / "avatars")
    again = [line for line in notes() if "seed 0" in line]
    assert sum(line.endswith("done before.") for line in again) == 1
    assert results[0].is_file() and results[1].read_text() == kept


def test_results_of_other_settings_are_not_taken_over(data: Path, tmp_path: Path) -> None:
    """Stopped before the first run is done: the other scale has its own place."""
    from talker.train.ablate import _Run

    dataset = TalkingHeadDataset(data)
    rows = variants("stage1", dataset)
    names = {
        _Run(variant, seed, dataset, tmp_path, scale).name
        for variant in rows
        for seed in (0, 1)
        for scale in (1.0, 0.5)
    }
    assert len(names) == 8


def result(psnr: float, seed: int, **more: float) -> dict:
    machine = {"processor": "P", "gpu": ""}
    return {"seed": seed, "commit": "abc", "machine": machine, "metrics": {"psnr": psnr, **more}}


def test_rows_hold_mean_and_spread() -> None:
    row = _row("one", [result(30.0, 0, gaussians=20_000), result(31.0, 1, gaussians=20_000), result(32.0, 2)])
    assert row["figures"]["psnr"] == {"mean": 31.0, "spread": 1.0, "values": [30.0, 31.0, 32.0]}
    assert row["figures"]["gaussians"]["values"] == [20_000, 20_000]
    assert "lpips" not in row["figures"]
    table = {
        "experiment": "fusion", "dataset": "clip.mp4", "size": 256, "protocol": "B", "held_out_frames": 9,
        "seeds": 3, "steps": {"static": 600}, "rows": [row, _row("other", [result(1.5, 0, lpips=0.25)])],
    }  # fmt: skip
    lines = _markdown(table).splitlines()
    assert "| one | 31.00 ± 1.00 | - | 20,000 |" in lines
    assert "| other | 1.500 | 0.250 | - |" in lines
    assert lines[-1] == "Commit abc; P, no GPU."


def test_what_does_not_exist_is_said(data: Path, tmp_path: Path) -> None:
    for arguments in ({"experiment": "colour"}, {"seeds": 0}, {"seeds": 1000}):
        with pytest.raises(ConfigError) as caught:
            next(ablate(data, **{"experiment": "fusion", "out": tmp_path, **arguments}))
        assert caught.value.expected
