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
from talker.train.together import Speaker, build_together, train_together

SIZE = 128


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("together")
    one, other = (
        write_dataset(folder / f"{n}.data", size=SIZE, seed=s) for n, s in (("one", 0), ("other", 5))
    )
    header = other / "dataset.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "name": "other.mp4"}))
    return one, other


def speakers(data: tuple[Path, Path], seed: int = 0) -> tuple[Speaker, ...]:
    return build_together([TalkingHeadDataset(path) for path in data], get_preset("preview").model, seed)


def trained(data: tuple[Path, Path]) -> tuple[Speaker, ...]:
    found = speakers(data)
    preset = scaled(get_preset("preview"), 0.003)
    events = list(train_together(found, preset, 0))
    names = [e.stage for e in events if isinstance(e, StageStarted)]
    assert names == ["static", "align", "align", "deform"], "poses of both are aligned before the deformation"
    assert [e.step for e in events if isinstance(e, Progress) and e.stage == "deform"][-1] == 14
    return found


def drawn(speaker: Speaker) -> torch.Tensor:
    with torch.no_grad():
        return render_frame(speaker.avatar, speaker.conditioning.driving(3)).rgb


def test_the_networks_are_one_and_the_gaussians_are_not(data: tuple[Path, Path]) -> None:
    one, other = (speaker.avatar.branch(FACE) for speaker in speakers(data))
    assert one.deformation is other.deformation
    assert one.canonical.embedding is not None and one.canonical.embedding is not other.canonical.embedding


def test_both_teach_the_shared_field_and_are_drawn_by_it(data: tuple[Path, Path], tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in speakers(data)[0].avatar.branch(FACE).deformation.state_dict().items()}
    found = trained(data)
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


def test_the_second_speaker_counts(data: tuple[Path, Path]) -> None:
    """With somebody else beside the first speaker the shared networks become others."""
    one, _ = data
    twice, both = trained((one, one)), trained(data)
    fields = [s[0].avatar.branch(FACE).deformation.state_dict() for s in (twice, both)]
    assert any(not torch.equal(fields[0][name], fields[1][name]) for name in fields[0])


def test_it_is_repeatable(data: tuple[Path, Path]) -> None:
    assert all(torch.equal(drawn(a), drawn(b)) for a, b in zip(trained(data), trained(data), strict=True))


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

    assert len(first := notes()) == 3 and "together" in first[2]
    table = json.loads((tmp_path / "identities" / "table.json").read_text())
    rows = {row["variant"]: row["figures"] for row in table["rows"]}
    names = [f"{who}, {how}" for who in ("tiny", "other") for how in ("alone", "one field for both")]
    assert list(rows) == names
    assert rows["tiny, alone"]["psnr"] != rows["tiny, one field for both"]["psnr"]
    assert rows["tiny, alone"]["parameters"] == rows["other, one field for both"]["parameters"]
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
