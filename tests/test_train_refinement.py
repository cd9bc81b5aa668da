"""Codes learnt with the images: nearer to what lips did than those measured, and still the same code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import tiny_avatar, tiny_model, write_dataset
from safetensors.torch import load_file

from talker.checkpoint import load_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.provenance import new_consent
from talker.train.build import Conditioning, refit_motion
from talker.train.create import CreateConfig, state_folder, train_avatar
from talker.train.loop import LoopConfig, train
from talker.train.presets import Preset
from talker.train.refinement import CodeRefinement
from talker.train.schedule import LearningRates, LossWeights, Stage
from talker.train.state import STATE_FILE, TrainState

STAGES = (
    Stage("static", 60, static=True, decay=0.5),
    Stage("deform", 500, decay=0.1, weights=LossWeights(mouth=1.6)),
)
TREMBLE = 0.5
"""What is added to the first number of the code, the opening, in its standard deviations."""


@pytest.fixture
def dataset(tmp_path: Path) -> TalkingHeadDataset:
    return TalkingHeadDataset(write_dataset(tmp_path / "tiny.data"))


def test_a_correction_starts_at_nothing_and_moves_one_frame() -> None:
    refinement, code = CodeRefinement(5, torch.ones(3)), torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(refinement(2, code), code)
    optimizer = torch.optim.SparseAdam(list(refinement.parameters()), lr=0.1)
    refinement(2, code).sum().backward()
    optimizer.step()
    moved = refinement.table.weight.abs().sum(1) > 0
    assert moved.tolist() == [False, False, True, False, False]


def test_a_step_is_the_same_length_for_every_component() -> None:
    lengths = torch.tensor([0.1, 0.01])
    refinement = CodeRefinement(1, lengths)
    optimizer = torch.optim.SparseAdam(list(refinement.parameters()), lr=0.002)
    (refinement(0, torch.zeros(2)) * torch.tensor([5.0, 0.3])).sum().backward()
    optimizer.step()
    moved = refinement(0, torch.zeros(2)) * lengths
    assert torch.allclose(moved, torch.tensor([-0.002, -0.002]), rtol=1e-3)


def test_what_is_linear_in_the_codes_is_taken_out_and_nothing_else() -> None:
    g = torch.Generator().manual_seed(0)
    codes, frames = torch.randn(4000, 3, generator=g), torch.arange(3900)
    refinement = CodeRefinement(4000, torch.ones(3))
    own = torch.randn(4000, 3, generator=g)
    known = torch.cat((codes, torch.ones(4000, 1)), 1)
    own[:3900] -= known[:3900] @ torch.linalg.lstsq(known[:3900], own[:3900]).solution
    renamed = known @ torch.randn(4, 3, generator=g)
    with torch.no_grad():
        refinement.table.weight.copy_(own + renamed)
    refinement.centre(codes, frames)
    assert torch.allclose(refinement.table.weight[:3900], own[:3900], atol=1e-2)
    assert torch.equal(refinement.table.weight[3900:], (own + renamed)[3900:]), "not of the training part"


def trained(
    state: TrainState,
    conditioning: Conditioning,
    dataset: TalkingHeadDataset,
    folder: Path,
    stages: tuple[Stage, ...] = STAGES,
) -> TrainState:
    config = LoopConfig(folder, "settings")
    for _ in train(state, conditioning, dataset, stages, config=config, should_stop=lambda: False):
        pass
    return state


@pytest.mark.parametrize(("measured", "left"), [(0.0, 0.5), (STAGES[1].measured_codes, 0.75)])
def test_codes_that_tremble_are_found_in_the_pictures(
    dataset: TalkingHeadDataset, tmp_path: Path, measured: float, left: float
) -> None:
    """Less of the tremble is found where the field is also to know the codes that tremble."""
    avatar, conditioning = tiny_avatar(dataset)
    frames, true = dataset.train_indices(), conditioning.signal.clone()
    noise = torch.randn(len(true), generator=torch.Generator().manual_seed(1))
    trembling = true.clone()
    trembling[:, 0] += TREMBLE * noise
    conditioning = replace(conditioning, signal=trembling)
    rates = replace(LearningRates(), code=0.03)  # these lips tremble by more than landmarks do
    stages = (STAGES[0], replace(STAGES[1], measured_codes=measured))
    state = trained(TrainState(avatar, dataset.n_frames, rates), conditioning, dataset, tmp_path, stages)
    refined = state.refined_codes(trembling)
    assert refined is not None

    def unexplained(codes: np.ndarray) -> float:
        return 1 - np.corrcoef(codes[frames, 0], true.numpy()[frames, 0])[0, 1] ** 2

    assert unexplained(trembling.numpy()) > 0.15
    assert unexplained(refined) < left * unexplained(trembling.numpy())
    assert np.array_equal(refined[dataset.n_train :], trembling[dataset.n_train :]), (
        "held-out frames are not learnt"
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_steps_sees_codes_as_measured(
    dataset: TalkingHeadDataset, tmp_path: Path, share: float
) -> None:
    avatar, conditioning = tiny_avatar(dataset)
    state = TrainState(avatar, dataset.n_frames, LearningRates())
    assert state.code_refinement is not None
    refined: list[None] = []
    state.code_refinement.register_forward_hook(lambda *_: refined.append(None))
    stages = (STAGES[0], replace(STAGES[1], steps=240, measured_codes=share))
    trained(state, conditioning, dataset, tmp_path, stages)
    expected = 240 * (1 - share)
    assert abs(len(refined) - expected) <= 4 * (expected * share) ** 0.5, "of a fair draw"
    learnt = state.refined_codes(conditioning.signal)
    assert learnt is not None
    assert np.array_equal(learnt, conditioning.signal.numpy()) == (share == 1)


def test_a_share_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"1\.5"):
        Stage("deform", 1, measured_codes=1.5)


def test_a_rate_of_zero_leaves_codes_as_measured(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = tiny_avatar(dataset)
    state = TrainState(avatar, dataset.n_frames, replace(LearningRates(), code=0.0))
    assert state.refined_codes(conditioning.signal) is None
    assert state.codes is None and len(state.optimizers(STAGES[1])) == 3


def test_sound_that_drives_the_field_itself_has_no_code(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = tiny_avatar(dataset, fusion="mgf", signal="audio")
    assert TrainState(avatar, dataset.n_frames, LearningRates()).refined_codes(conditioning.signal) is None


def test_the_map_from_sound_is_fitted_to_the_codes_it_is_given(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = tiny_avatar(dataset)
    codes = conditioning.signal.numpy()
    assert avatar.motion is not None
    again = refit_motion(avatar, dataset, codes)
    assert all(torch.equal(a, b) for a, b in zip(again.buffers(), avatar.motion.buffers(), strict=True))
    other = refit_motion(avatar, dataset, 2 * codes)
    assert torch.allclose(other.weight, 2 * avatar.motion.weight, rtol=1e-3, atol=1e-5)


def test_a_finished_avatar_hears_the_refined_codes(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    stages = tuple(replace(stage, steps=30) for stage in STAGES)
    preset = Preset("tiny", "Tiny", "For tests.", tiny_model(), stages)
    config = CreateConfig(size=128, evaluate=False)
    for _ in train_avatar(
        dataset, tmp_path / "ada", new_consent("the tests", "Nobody is shown."), config, preset=preset
    ):
        pass
    finished = load_avatar(tmp_path / "ada")
    avatar, conditioning = tiny_avatar(dataset)
    newest = max(state_folder(tmp_path / "ada").iterdir())
    learnt = TrainState(avatar, dataset.n_frames, LearningRates()).code_refinement
    assert learnt is not None
    learnt.load_state_dict({"table.weight": load_file(newest / STATE_FILE)["refine_code.table.weight"]})
    codes = learnt.applied(conditioning.signal)
    assert (codes - conditioning.signal).abs().max() > 0.05
    expected = refit_motion(avatar, dataset, codes.numpy())
    assert finished.motion is not None and avatar.motion is not None
    assert torch.equal(finished.motion.weight, expected.weight)
    assert not torch.allclose(finished.motion.weight, avatar.motion.weight, rtol=1e-2)
