"""Opacity and colour read off places: gradients reach the heads, points of one place agree, nothing of it is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from core_support import tiny_avatar
from test_train_loop import after, assert_same, run

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.events import Progress
from talker.model.avatar import FACE
from talker.model.kan import KAN
from talker.train.presets import get_preset
from talker.train.schedule import Stage
from talker.train.static_heads import StaticHeads

STAGES = (Stage("static", 8, static=True, heads=True), Stage("deform", 3))


def test_gradients_are_those_of_drawing_what_was_read(dataset: TalkingHeadDataset) -> None:
    """As if the renderer had been given the head's output itself."""
    avatar, _ = tiny_avatar(dataset, encoder="triplane_hash", decoder="kan", fusion="mgf")
    heads, branch = StaticHeads(avatar), avatar.branch(FACE)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    learnt = [*heads.parameters(), *branch.deformation.encoder.parameters()]

    def asked(opacities: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        return (opacities.sigmoid() * colours.square().sum(-1)).sum()

    values = heads.branches[FACE](branch)
    expected = torch.autograd.grad(asked(values[:, 0], values[:, 1:]), learnt)
    heads.write(avatar)
    asked(branch.canonical.logit_opacities, branch.canonical.sh0).backward()
    heads.learn(avatar)
    for parameter, gradient in zip(learnt, expected, strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
    assert branch.canonical.sh0.grad is None and branch.canonical.logit_opacities.grad is None


def test_a_stage_with_heads_reads_places_and_learns(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    stages = (replace(STAGES[0], steps=60),)
    state, events = run(dataset, tmp_path, stages=stages)
    losses = [event.values["loss"] for event in events if isinstance(event, Progress)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10]), "from one colour everywhere"
    branch = state.avatar.branch(FACE)
    assert state.heads is not None
    with torch.no_grad():
        read = state.heads.branches[FACE](branch)
    assert torch.equal(branch.canonical.logit_opacities, read[:, 0])
    assert torch.equal(branch.canonical.sh0, read[:, 1:]), "nothing else moves them"
    assert branch.canonical.sh0.std(0).min() > 0.02, "not one colour any more"


def test_after_the_stage_gaussians_are_free_again(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    state, events = run(dataset, tmp_path, stages=STAGES)
    list(events)
    plain, _ = tiny_avatar(dataset)
    assert state.heads is None and not any(name.startswith("heads") for name in state._tensors())
    assert state.avatar.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("steps", [1, 5, 8, 9])
def test_a_stop_costs_nothing(dataset: TalkingHeadDataset, tmp_path: Path, steps: int) -> None:
    whole, events = run(dataset, tmp_path / "whole", stages=STAGES)
    list(events)
    list(run(dataset, tmp_path / "cut", stages=STAGES, should_stop=after(steps))[1])
    resumed, events = run(dataset, tmp_path / "cut", stages=STAGES, resume=True)
    list(events)
    assert_same(resumed, whole)


def test_egstalker_reads_its_static_head_off_a_kan(dataset: TalkingHeadDataset) -> None:
    preset = get_preset("egstalker")
    static, moving = preset.stages
    assert static.heads and not moving.heads and preset.model.face.decoder == "kan"
    avatar, _ = tiny_avatar(dataset, encoder="triplane_hash", decoder="kan", fusion="mgf")
    heads = StaticHeads(avatar).branches[FACE]
    assert isinstance(heads.get_submodule("head"), KAN)
    assert not any(
        stage.heads for name in ("preview", "standard", "pgstalker") for stage in get_preset(name).stages
    )


def test_a_moving_stage_has_no_heads() -> None:
    with pytest.raises(ConfigError, match="static head"):
        Stage("deform", 1, heads=True)
