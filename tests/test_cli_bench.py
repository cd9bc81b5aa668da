"""Benchmarks measure what they say, and their reports tell on what. No time is asserted."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from core_support import SIZE, stir, tiny_avatar, write_dataset

from talker.card import AvatarCard
from talker.checkpoint import save_avatar
from talker.cli.bench import run
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("core") / "tiny.data")


@pytest.fixture(scope="module")
def avatar(data: Path) -> Path:
    made, _ = tiny_avatar(TalkingHeadDataset(data))
    card = AvatarCard("Tiny", "2026-01-01T00:00:00+00:00", "preview", SIZE, made.n_gaussians, "mel", {})
    save_avatar(stir(made), data.with_name("tiny"), card)
    return data.with_name("tiny")


def options(what: str, **given: object) -> Namespace:
    return Namespace(
        **{"what": what, "avatar": None, "data": None, "clip": None, "size": None, "seconds": 0.3, **given}
    )


def measured(report: dict, *names: str) -> None:
    assert set(report) == {"command", "commit", "machine", "results"}
    results = report["results"]
    assert all(isinstance(value, int | float | str) for value in results.values()), "flat"
    for name in names:
        low, middle, high = (results[f"{name}_ms{end}"] for end in ("_p10", "", "_p90"))
        assert 0 < low <= middle <= high
        assert results[f"{name}_samples"] >= 5
    assert report["machine"]["cores"] >= 1 and report["machine"]["processor"]
    assert results["peak_memory_mb"] > 50
    text = json.dumps(report)
    assert "/" not in report["command"] and "tmp" not in text, "folders of this machine are nobody's business"


def test_render(avatar: Path) -> None:
    report = run(options("render", avatar=avatar))
    measured(report, "frame", "deform", "deform_uncached", "forward", "forward_backward")
    measured(report, "kan_layer", "kan_layer_recursion")
    results = report["results"]
    assert results["reference_samples"] == 1 and results["reference_ms"] > 0, "seconds a call"
    assert results["gaussians"] == 410 and results["size"] == SIZE and results["threads"] >= 1
    assert results["frames_per_s"] == pytest.approx(1000 / results["frame_ms"], rel=0.01)
    assert results["frame_over_rasteriser"] == pytest.approx(
        results["frame_ms"] / results["forward_ms"], rel=0.01
    )
    assert report["command"] == "python -m talker bench render --avatar tiny --seconds 0.3"
    assert run(options("render", avatar=avatar, size=64))["results"]["size"] == 64


def test_drive(avatar: Path) -> None:
    report = run(options("drive", avatar=avatar, seconds=0.6, size=64))
    measured(report)
    results = report["results"]
    for name in ("drawn", "written"):
        assert 0 < results[f"{name}_first_s"] < results[f"{name}_total_s"]
        assert results[f"{name}_frames_per_s"] == pytest.approx(15 / results[f"{name}_total_s"], rel=0.02)
        assert results[f"{name}_cpu_ms"] > 0
    for part in ("features", "deform", "rasterise", "to_bytes", "label", "encode"):
        assert results[f"part_{part}_cpu_ms"] > 0
    assert results["frame_over_rasteriser"] == pytest.approx(
        results["drawn_ms"] / results["rasteriser_ms"], rel=0.01
    )


def test_train(data: Path) -> None:
    report = run(options("train", data=data))
    measured(report, "step_static", "step_deform", "roofline_rasteriser", "part_field", "part_objective")
    assert report["results"]["rasteriser_share_of_step"] > 0


@pytest.mark.parametrize(
    ("what", "option"), [("render", "avatar"), ("drive", "avatar"), ("train", "data"), ("prepare", "clip")]
)
def test_what_is_missing_is_said(what: str, option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(options(what))
    assert caught.value.code == f"bench.{option}" and f"--{option}" in str(caught.value)
