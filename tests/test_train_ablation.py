"""Experiments turn one switch at a time, are resumable, and end in a table with spread and a plot."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from core_support import write_dataset

from talker.card import read_card
from talker.checkpoint import load_avatar
from talker.cli.parser import build_parser
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError, DatasetError
from talker.events import Evaluated, Finished, Note
from talker.frame import render_frame
from talker.train.ablation import speakers
from talker.train.ablation.ablate import ablate
from talker.train.ablation.catalogue import COLUMNS, EXPERIMENTS
from talker.train.ablation.run import Run
from talker.train.ablation.table import markdown, row
from talker.train.ablation.variants import _VARIANTS, chosen, decoder_parameters, variants
from talker.train.ablation.worker import work_apart
from talker.train.build import build
from talker.train.presets import PRESETS, Preset, get_preset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("core") / "tiny.data", size=128)


@pytest.fixture(scope="module")
def dataset(data: Path) -> TalkingHeadDataset:
    return TalkingHeadDataset(data)


def presets(experiment: str, dataset: TalkingHeadDataset) -> dict[str, Preset]:
    return {variant.name: variant.preset for variant in variants(experiment, dataset)}


def run_of(
    data: Path, out: Path, *, preset: Preset | None = None, seed: int = 0, scale: float = 0.001
) -> Run:
    return Run(preset or get_preset("preview"), seed, scale, data, ("tiny.mp4", 88, 128), out)


def test_every_question_has_variants_a_plot_and_a_place_in_the_help(
    capsys: pytest.CaptureFixture,
) -> None:
    assert set(EXPERIMENTS) == set(_VARIANTS)
    assert chosen("all") == tuple(EXPERIMENTS) and chosen("ppe") == ("ppe",)
    sections = (Path(__file__).parents[1] / "docs" / "RESULTS.md").read_text().split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(EXPERIMENTS)
    for experiment in EXPERIMENTS.values():
        assert experiment.question.endswith("?")
        assert set(experiment.plot.figures) <= set(COLUMNS)
        assert experiment.plot.kind != "scatter" or len(experiment.plot.figures) == 2
    with pytest.raises(SystemExit):
        build_parser().parse_args(["ablate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ", ".join(EXPERIMENTS) in said


@pytest.mark.parametrize(
    "experiment", [name for name in EXPERIMENTS if name not in ("speakers", "identities", "cost")]
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
    for name in ("agents", "fusion", "mgf", "ppe", "encoder", "deform", "decoder", "mouth"):
        assert all(preset.stages == preview.stages for preset in presets(name, dataset).values())
    for name in ("density", "stage1"):
        assert all(preset.model == preview.model for preset in presets(name, dataset).values())
    switches = {"agents": ("fusion", "agents"), "mgf": ("fusion",), "ppe": ("ppe",), "encoder": ("encoder",)}
    for name, fields in {**switches, "deform": ("deform",)}.items():
        faces = [preset.model.face for preset in presets(name, dataset).values()]
        same = {field: getattr(faces[0], field) for field in fields}
        assert all(dataclasses.replace(face, **same) == faces[0] for face in faces), name


def test_agents_are_the_shares_asked_for_against_cross_attention(dataset: TalkingHeadDataset) -> None:
    faces = [preset.model.face for preset in presets("agents", dataset).values()]
    assert faces[0].fusion == "cross_attention"
    assert [face.agents for face in faces[1:]] == [0.001, 0.005, 0.01, 0.02]
    assert all(face.fusion == "esaa" for face in faces[1:])


def test_comparisons_are_fair(dataset: TalkingHeadDataset) -> None:
    found = presets("decoder", dataset)
    wide, matched = (
        decoder_parameters(found[n].model.face) for n in ("MLP, wide", "KAN, as many parameters")
    )
    assert abs(wide - matched) / wide < 0.03
    grown = [
        preset.stages[0].density for name, preset in presets("density", dataset).items() if name != "none"
    ]
    assert [d.kind for d in grown] == ["uniform", "standard", "pixel_aware", "pixel_aware"]
    assert [d.region_weight for d in grown] == [1, 1, 1, 3]
    assert all(d.exact and d.max_gaussians == 615 for d in grown), "an equal number: 1.5 x 410"
    cost = presets("cost", dataset)
    assert set(cost) == set(PRESETS)
    assert {sum(s.steps for s in preset.stages) for preset in cost.values()} == {5200}
    assert {sum(s.steps for s in preset.stages if s.static) for preset in cost.values()} == {600}
    for preset in cost.values():
        density = preset.stages[0].density
        assert density.kind == "none" or 0 < density.start < density.stop < 600


def test_without_stage_1_the_same_steps_are_all_deformation(dataset: TalkingHeadDataset) -> None:
    found = presets("stage1", dataset)
    for first, second in (
        ("two stages", "deformation only"),
        ("two stages, growing", "deformation only, growing"),
    ):
        one, two = found[first].stages, found[second].stages
        assert sum(stage.steps for stage in one) == sum(stage.steps for stage in two)
        assert one[0].static and len(two) == 1 and not two[0].static
        assert one[0].density == two[0].density and one[-1].average == two[0].average


def test_an_experiment_runs_once_and_ends_in_a_table_and_a_plot(data: Path, tmp_path: Path) -> None:
    def notes() -> list[str]:
        events = ablate(data, "mgf", tmp_path, seeds=1, steps_scale=0.001, own_process=False)
        return [e.message for e in events if isinstance(e, Note) and "seed 0" in e.message]

    assert notes() == ["mgf: MGF, seed 0 (1 of 2).", "mgf: plain sum, seed 0 (2 of 2)."]
    table = json.loads((tmp_path / "mgf" / "table.json").read_text())
    assert [row["variant"] for row in table["rows"]] == ["MGF", "plain sum"]
    assert table["protocol"] == "B" and table["seeds"] == 1
    assert set(table["steps"]) == {"static", "deform"} and max(table["steps"].values()) < 10
    for found in table["rows"]:
        figures = found["figures"]
        assert 5 < figures["psnr"]["mean"] < 60 and figures["gaussians"]["mean"] == 410
        assert figures["psnr"]["spread"] == 0 and len(figures["psnr"]["values"]) == 1
        assert figures["fps"]["mean"] > 0 and figures["peak_memory_mb"]["mean"] > 50
        assert 0 < figures["lips_share"]["mean"] < 60 and 0 < figures["eyes_share"]["mean"] < 60
        assert found["curves"][0][-1][0] == sum(table["steps"].values()), "up to the last step"
    gated, plain = (found["figures"]["parameters"]["mean"] for found in table["rows"])
    assert gated > plain, "the gate has weights"
    text = (tmp_path / "mgf" / "table.md").read_text()
    assert "| plain sum |" in text and "PSNR dB" in text and "8 held-out frames" in text
    assert str(data) not in text and str(tmp_path) not in json.dumps(table)
    assert (tmp_path / "mgf" / "plot.png").read_bytes().startswith(b"\x89PNG")
    for folder in (tmp_path / "avatars").iterdir():
        load_avatar(folder)
        assert not folder.name.endswith(".state"), "checkpoints are not kept"
    # Again: nothing is trained twice; what is missing is done.
    assert all(line.endswith("done before.") for line in notes())
    results = sorted((tmp_path / "runs").iterdir())
    kept = results[1].read_text()
    results[0].unlink()
    shutil.rmtree(tmp_path / "avatars")
    again = notes()
    assert sum(line.endswith("done before.") for line in again) == 1
    assert results[0].is_file() and results[1].read_text() == kept


def test_speakers_are_rows_and_need_the_avatar(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listening(avatar, source, predicted) -> dict[str, float]:
        assert avatar.n_gaussians == 410 and len(predicted) == source.speech.n_frames
        return {"probe_r": 0.5, "own_lips_r": 0.25}

    def trained() -> list[bool]:
        events = ablate(data, "speakers", tmp_path, seeds=1, steps_scale=0.001, own_process=False)
        return [
            not e.message.endswith("before.") for e in events if isinstance(e, Note) and "seed" in e.message
        ]

    monkeypatch.setattr(speakers, "listening_figures", listening)
    assert trained() == [True]
    table = json.loads((tmp_path / "speakers" / "table.json").read_text())
    names = ["own voice, held out", "own voice, start", "own voice, middle"]
    assert [found["variant"] for found in table["rows"]] == names
    assert {key for found in table["rows"] for key in found["figures"]} == {"probe_r", "own_lips_r"}
    assert trained() == [False]
    shutil.rmtree(tmp_path / "avatars")  # figures alone cannot speak
    assert trained() == [True]


def test_a_run_has_a_process_and_a_peak_of_its_own(data: Path, tmp_path: Path) -> None:
    """What this process holds does not count, and what is not a picture comes through."""
    ballast = bytearray(os.urandom(1 << 20)) * 3000
    run = run_of(data, tmp_path, preset=get_preset("standard"))
    events = list(work_apart(run))
    assert read_card(run.avatar).preset == run.read()["preset"] == "standard"
    assert len(ballast) > 3e9 and 100 < run.read()["metrics"]["peak_memory_mb"] < 2500
    assert any(isinstance(event, Evaluated) for event in events) and isinstance(events[-1], Finished)


def test_an_error_of_the_process_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        list(work_apart(run_of(tmp_path / "nothing.data", tmp_path)))
    assert caught.value.code == "dataset.missing"


def test_runs_are_shared_by_settings_and_kept_apart_otherwise(data: Path, tmp_path: Path) -> None:
    dataset = TalkingHeadDataset(data)
    names = {
        run_of(data, tmp_path, preset=preset, seed=seed, scale=scale).name
        for preset in presets("stage1", dataset).values()
        for seed in (0, 1)
        for scale in (1.0, 0.5)
    }
    assert len(names) == 16
    base = run_of(data, tmp_path).name
    assert run_of(data, tmp_path, preset=presets("encoder", dataset)["embedding"]).name == base
    assert Run(get_preset("preview"), 0, 0.001, data, ("other.mp4", 88, 128), tmp_path).name != base


def result(psnr: float, **more: float) -> dict:
    machine = {"processor": "P", "gpu": ""}
    return {"commit": "abc", "machine": machine, "metrics": {"psnr": psnr, **more}, "curve": [[1, 2.0, psnr]]}


def test_rows_hold_mean_and_spread() -> None:
    found = row("one", [result(30.0, gaussians=20_000), result(31.0, gaussians=20_000), result(32.0)])
    assert found["figures"]["psnr"] == {"mean": 31.0, "spread": 1.0, "values": [30.0, 31.0, 32.0]}
    assert found["figures"]["gaussians"]["values"] == [20_000, 20_000]
    assert "lpips" not in found["figures"] and len(found["curves"]) == 3
    table = {
        "experiment": "fusion", "question": "Why?", "dataset": "clip.mp4", "size": 256, "protocol": "B",
        "held_out_frames": 9, "seeds": 3, "steps": {"static": 600},
        "rows": [found, row("other", [result(1.5, lpips=0.25)])],
    }  # fmt: skip
    lines = markdown(table).splitlines()
    assert "| one | 31.00 ± 1.00 | - | 20,000 |" in lines
    assert "| other | 1.500 | 0.250 | - |" in lines
    assert lines[-1] == "Commit abc; P, no GPU."


def test_what_does_not_exist_is_said(data: Path, tmp_path: Path) -> None:
    for arguments in ({"experiment": "colour"}, {"seeds": 0}, {"seeds": 1000}):
        with pytest.raises(ConfigError) as caught:
            next(ablate(data, **{"experiment": "fusion", "out": tmp_path, **arguments}))
        assert caught.value.expected
