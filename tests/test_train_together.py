"""Two speakers share one field: the same networks, controls that mean the same, Gaussians of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import write_dataset

from talker.card import AvatarCard
from talker.checkpoint import load_avatar, save_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.events import Note, Progress, StageStarted
from talker.frame import render_frame
from talker.model.avatar import FACE, ModelConfig
from talker.model.deformation import FieldConfig
from talker.train.ablation.ablate import ablate
from talker.train.ablation.identities import Pair, partner
from talker.train.ablation.run import Run, clip_of
from talker.train.presets import get_preset, scaled
from talker.train.schedule import Stage
from talker.train.together import Speaker, build_together, train_together

SIZE = 128
STAGES = (Stage("static", 2, static=True), Stage("deform", 6, signal_jitter=0.1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("together")
    one, other = (
        write_dataset(folder / f"{n}.data", size=SIZE, n_frames=66, seed=s)
        for n, s in (("one", 0), ("other", 5))
    )
    header = other / "dataset.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "name": "other.mp4"}))
    return one, other


def speakers(data: tuple[Path, Path], seed: int = 0) -> tuple[Speaker, ...]:
    return build_together([TalkingHeadDataset(path) for path in data], get_preset("preview").model, seed)


def trained(data: tuple[Path, Path]) -> tuple[Speaker, ...]:
    found = speakers(data)
    list(train_together(found, replace(get_preset("preview"), stages=STAGES), 0))
    return found


@pytest.fixture(scope="module")
def both(data: tuple[Path, Path]) -> tuple[Speaker, ...]:
    return trained(data)


def drawn(speaker: Speaker) -> torch.Tensor:
    with torch.no_grad():
        return render_frame(speaker.avatar, speaker.conditioning.driving(3)).rgb


def test_the_networks_are_one_and_the_gaussians_are_not(data: tuple[Path, Path]) -> None:
    one, other = (speaker.avatar.branch(FACE) for speaker in speakers(data))
    assert one.deformation is other.deformation
    assert one.canonical.embedding is not None and one.canonical.embedding is not other.canonical.embedding


def test_stages_are_those_of_one_speaker_for_each(data: tuple[Path, Path]) -> None:
    events = list(train_together(speakers(data), scaled(get_preset("preview"), 0.001), 0))
    names = [e.stage for e in events if isinstance(e, StageStarted)]
    assert names == ["static", "align", "align", "deform"], "poses of both are aligned before the deformation"
    assert [e.step for e in events if isinstance(e, Progress) and e.stage == "deform"][-1] == 5


def test_both_teach_the_shared_field_and_are_drawn_by_it(
    data: tuple[Path, Path], both: tuple[Speaker, ...], tmp_path: Path
) -> None:
    before = speakers(data)[0].avatar.branch(FACE).deformation.state_dict()
    found = both
    after = found[0].avatar.branch(FACE).deformation.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in after.items())
    for number, speaker in enumerate(found):
        folder = tmp_path / str(number)
        card = AvatarCard(f"S{number}", "now", "preview", SIZE, speaker.avatar.n_gaussians, "mel", {})
        save_avatar(speaker.avatar, folder, card)
        loaded = load_avatar(folder).branch(FACE).deformation.state_dict()
        assert all(torch.allclose(loaded[name], after[name], atol=1e-3) for name in after)
        assert torch.isfinite(drawn(speaker)).all()
    assert not torch.equal(drawn(found[0]), drawn(found[1]))


def test_the_second_speaker_counts(data: tuple[Path, Path], both: tuple[Speaker, ...]) -> None:
    """With somebody else beside the first speaker the shared networks become others."""
    one, _ = data
    twice = trained((one, one))
    fields = [s[0].avatar.branch(FACE).deformation.state_dict() for s in (twice, both)]
    assert any(not torch.equal(fields[0][name], fields[1][name]) for name in fields[0])


def test_it_is_repeatable(data: tuple[Path, Path], both: tuple[Speaker, ...]) -> None:
    assert all(torch.equal(drawn(a), drawn(b)) for a, b in zip(both, trained(data), strict=True))


def test_it_stops_when_told(data: tuple[Path, Path]) -> None:
    polled = iter([False, False, False, True, True, True])
    found = speakers(data)
    list(train_together(found, get_preset("preview"), 0, should_stop=lambda: next(polled)))
    assert [s.state.position.step for s in found] == [4, 4] and found[0].state.position.stage == 0


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(face=FieldConfig(encoder="triplane_hash")),
        ModelConfig(face=FieldConfig(fusion="mgf", signal="audio")),
        ModelConfig(mouth=FieldConfig(fusion="mgf")),
    ],
)
def test_switches_without_a_place_for_an_identity(data: tuple[Path, Path], model: ModelConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        build_together([TalkingHeadDataset(path) for path in data], model, 0)
    assert caught.value.code == "together.model" and caught.value.expected


def test_the_experiment_has_both_speakers_alone_and_together(data: tuple[Path, Path], tmp_path: Path) -> None:
    def notes() -> list[str]:
        events = ablate(
            data[0], "identities", tmp_path, seeds=1, steps_scale=0.001, others=data[1:], own_process=False
        )
        return [e.message for e in events if isinstance(e, Note) and "seed 0" in e.message]

    # Runs of one speaker are those of every experiment, and done before; tests/test_train_ablation.py does such.
    alone = Run(get_preset("preview"), 0, 0.001, data[0], clip_of(TalkingHeadDataset(data[0])), tmp_path)
    for run, psnr in zip(Pair.of(alone, data[1]).runs, (20.0, 21.0), strict=True):
        run.result.parent.mkdir(exist_ok=True)
        origin = {"commit": "abc", "machine": {"processor": "P", "gpu": ""}}
        run.result.write_text(json.dumps({**origin, "metrics": {"psnr": psnr}, "curve": []}))
    assert [line.split(",")[0] for line in notes()] == [
        f"identities: {x}" for x in ("tiny", "other", "together")
    ]
    table = json.loads((tmp_path / "identities" / "table.json").read_text())
    rows = {row["variant"]: row["figures"] for row in table["rows"]}
    assert list(rows) == [
        f"{who}, {how}" for who in ("tiny", "other") for how in ("alone", "one field for both")
    ]
    assert rows["tiny, alone"]["psnr"]["mean"] == 20 and rows["other, alone"]["psnr"]["mean"] == 21
    one, other = (rows[f"{who}, one field for both"] for who in ("tiny", "other"))
    assert one["parameters"] == other["parameters"] and one["psnr"] != other["psnr"]
    assert 5 < one["psnr"]["mean"] < 60 and one["train_cpu_s"]["mean"] > 0
    assert all(line.endswith("done before.") for line in notes())


def test_all_leaves_it_out_without_a_second_speaker(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from talker.train.ablation import ablate as module

    monkeypatch.setattr(module, "chosen", lambda _: ("identities",))
    events = list(ablate(data[0], "all", tmp_path, seeds=1))
    assert [e.message for e in events if isinstance(e, Note)] == [
        "identities: left out, there is no second speaker (--other)."
    ]


def test_who_the_second_speaker_can_be(data: tuple[Path, Path], tmp_path: Path) -> None:
    first = TalkingHeadDataset(data[0])
    small = write_dataset(tmp_path / "small.data", size=64, n_frames=60)
    recording = tmp_path / "someone.wav"
    assert partner(first, [recording, data[1]]) == data[1], "recordings are for another experiment"
    for others in ([], [recording], [data[1], small], [small]):
        with pytest.raises(ConfigError) as caught:
            partner(first, others)
        assert caught.value.code == "ablate.identities" and caught.value.expected


def test_speakers_of_the_same_name_are_told_apart(data: tuple[Path, Path], tmp_path: Path) -> None:
    run = Run(get_preset("preview"), 0, 1.0, data[0], clip_of(TalkingHeadDataset(data[0])), tmp_path)
    assert Pair.of(run, data[1]).names == ("tiny", "other")
    assert Pair.of(run, data[0]).names == ("first", "second")
    assert len(set(Pair.of(run, data[1]).results)) == 2
    again = replace(run, seed=1)
    assert set(Pair.of(again, data[1]).results).isdisjoint(Pair.of(run, data[1]).results)
    assert np.isfinite(run.clip[1])
