"""What a kill leaves behind: complete checkpoints, the newest intact one counts, nothing is mixed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from core_support import tiny_avatar

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import CheckpointError, ConfigError
from talker.geometry import rotvec_to_matrix
from talker.train.densify import DensityConfig
from talker.train.refinement import PoseRefinement
from talker.train.schedule import LearningRates, Stage
from talker.train.state import MANIFEST, STATE_FILE, TrainState
from talker.types import FPS

PRINT = "settings"
STAGES = (
    Stage("static", 9, static=True),
    Stage("deform", 9, density=DensityConfig(kind="standard", max_gaussians=500)),
)


@pytest.fixture
def state(dataset: TalkingHeadDataset) -> TrainState:
    return fresh(dataset)


def fresh(dataset: TalkingHeadDataset) -> TrainState:
    avatar, _ = tiny_avatar(dataset)
    made = TrainState(avatar, dataset.n_frames, LearningRates())
    made.begin_stage(STAGES[0])
    return made


def learn(state: TrainState, seed: int) -> None:
    """One step of every optimizer along random gradients."""
    g = torch.Generator().manual_seed(seed)
    for _, optimizer in state._named_optimizers()[:-2]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randn(parameter.shape, generator=g)
        optimizer.step()
    state.poses.zero_grad()
    rows = state.refinement(seed % FPS, torch.eye(4), torch.eye(4))
    sum(T.square().sum() for T in rows).backward()
    state.poses.step()
    assert state.code_refinement is not None and state.codes is not None
    state.codes.zero_grad()
    state.code_refinement(seed % FPS, torch.zeros(4)).sum().backward()
    state.codes.step()


def at(state: TrainState, stage: int, step: int, folder: Path) -> Path:
    state.position.stage, state.position.step = stage, step
    return state.save(folder, STAGES[stage].name, PRINT)


def same(a: TrainState, b: TrainState) -> bool:
    first, second = a._tensors(), b._tensors()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_everything_comes_back(dataset: TalkingHeadDataset, state: TrainState, tmp_path: Path) -> None:
    for seed in range(3):
        learn(state, seed)
    at(state, 0, 4, tmp_path)
    again = fresh(dataset)
    assert not same(again, state)
    assert again.load_newest(tmp_path, STAGES, PRINT)
    assert same(again, state)
    assert (again.position.stage, again.position.step) == (0, 4)
    # Not only the numbers: the optimizers go on with them.
    for one in (state, again):
        learn(one, 7)
    assert same(again, state)


def test_nothing_there_is_nothing_loaded(state: TrainState, tmp_path: Path) -> None:
    assert not state.load_newest(tmp_path / "nowhere", STAGES, PRINT)
    assert not state.load_newest(tmp_path, STAGES, PRINT)


def test_the_two_newest_are_kept(state: TrainState, tmp_path: Path) -> None:
    for step in (1, 5, 9):
        at(state, 0, step, tmp_path)
    at(state, 1, 2, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0_static_000009", "1_deform_000002"]
    at(state, 1, 2, tmp_path)  # saved twice at the same place
    assert len(list(tmp_path.iterdir())) == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 4
    path.write_bytes(bytes(blob))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (STATE_FILE, cut),
        (STATE_FILE, flip),
        (STATE_FILE, Path.unlink),
        (MANIFEST, cut),
        (MANIFEST, Path.unlink),
        (MANIFEST, lambda p: p.write_text("{}")),
        (MANIFEST, lambda p: p.write_bytes(b"\xff\xfe")),
    ],
)
def test_damaged_newest_falls_back_to_the_one_before(
    dataset: TalkingHeadDataset, state: TrainState, tmp_path: Path, file: str, damage
) -> None:
    at(state, 0, 3, tmp_path)
    earlier = state._tensors()
    learn(state, 0)
    newest = at(state, 0, 6, tmp_path)
    damage(newest / file)
    again = fresh(dataset)
    assert again.load_newest(tmp_path, STAGES, PRINT)
    assert again.position.step == 3
    assert all(torch.equal(value, earlier[name]) for name, value in again._tensors().items())


def test_both_damaged_is_a_new_start(dataset: TalkingHeadDataset, state: TrainState, tmp_path: Path) -> None:
    for step in (3, 6):
        flip(at(state, 0, step, tmp_path) / STATE_FILE)
    assert not fresh(dataset).load_newest(tmp_path, STAGES, PRINT)


def test_a_kill_while_writing_leaves_the_last_one(
    dataset: TalkingHeadDataset, state: TrainState, tmp_path: Path
) -> None:
    """Folders that were never renamed look like checkpoints inside; they are swept, the last good one is read."""
    good = at(state, 0, 3, tmp_path)
    learn(state, 1)
    torn = at(state, 0, 6, tmp_path)
    torn.rename(tmp_path / ".tmp-0123456789ab-0_static_000006")
    again = fresh(dataset)
    assert again.load_newest(tmp_path, STAGES, PRINT) and again.position.step == 3
    assert [p.name for p in tmp_path.iterdir()] == [good.name]
    # Killed between moving the old one aside and moving the new one in place.
    good.rename(tmp_path / f".tmp-0123456789ab=old={good.name}")
    assert fresh(dataset).load_newest(tmp_path, STAGES, PRINT)


@pytest.mark.parametrize("entry", ["fingerprint", "version"])
def test_checkpoints_of_other_settings_are_refused(state: TrainState, tmp_path: Path, entry: str) -> None:
    path = at(state, 0, 3, tmp_path) / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, entry: "other" if entry == "fingerprint" else 99}))
    with pytest.raises(CheckpointError) as caught:
        state.load_newest(tmp_path, STAGES, PRINT)
    assert caught.value.code == "resume.other_config" and "--resume" in caught.value.todo
    assert str(tmp_path) not in str(caught.value)


def test_foreign_files_beside_checkpoints_do_not_matter(
    dataset: TalkingHeadDataset, state: TrainState, tmp_path: Path
) -> None:
    at(state, 0, 3, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "7_backup_x").mkdir()
    (tmp_path / "7_backup_x" / MANIFEST).write_text("{}")
    assert fresh(dataset).load_newest(tmp_path, STAGES, PRINT)
    assert (tmp_path / "notes.txt").exists()


def test_between_stages_the_next_begins_with_fresh_statistics(
    dataset: TalkingHeadDataset, state: TrainState, tmp_path: Path
) -> None:
    """The stage that just ended had no density control, the next one has."""
    assert state.density == {}
    state.position.stage, state.position.step = 1, 0
    state.save(tmp_path, "deform", PRINT)
    again = fresh(dataset)
    assert again.load_newest(tmp_path, STAGES, PRINT)
    assert list(again.density) == ["face"]


def test_a_finished_run_is_loaded_as_finished(
    dataset: TalkingHeadDataset, state: TrainState, tmp_path: Path
) -> None:
    state.position.stage, state.position.step = 2, 0
    state.save(tmp_path, "done", PRINT)
    again = fresh(dataset)
    assert again.load_newest(tmp_path, STAGES, PRINT) and again.position.stage == 2


def test_learning_rates_fall_over_the_stage_and_geometry_can_be_frozen(state: TrainState) -> None:
    stage = Stage("x", 10, decay=0.1, rates=2.0)

    def rate(name: str) -> float:
        groups = [g for _, o in state._named_optimizers()[:-1] for g in o.param_groups]
        return next(g["lr"] for g in groups if g["name"] == name)

    state.set_rates(stage, 0.0)
    assert rate("means") == pytest.approx(2 * LearningRates().means)
    assert rate("network") == pytest.approx(2 * LearningRates().network)
    state.set_rates(stage, 1.0)
    assert rate("sh0") == pytest.approx(0.2 * LearningRates().sh0)
    state.set_rates(Stage("x", 10, geometry=False), 0.0)
    assert rate("means") == rate("rig_logit") == 0 and rate("sh0") > 0


def test_networks_rest_in_the_static_stage(state: TrainState) -> None:
    assert state.networks not in state.optimizers(STAGES[0])
    assert state.networks in state.optimizers(STAGES[1])


def test_pose_refinement_starts_at_the_tracked_pose_and_moves_one_frame() -> None:
    refinement = PoseRefinement(5)
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = rotvec_to_matrix(torch.tensor([0.1, 0.2, 0.3])), torch.tensor([1.0, 2.0, 9.0])
    head, torso = refinement(2, T, T)
    assert torch.equal(head, T) and torch.equal(torso, T)
    optimizer = torch.optim.SparseAdam(list(refinement.parameters()), lr=0.01)
    refinement(2, T, T)[0].sum().backward()
    optimizer.step()
    moved = refinement.head.weight.abs().sum(1) > 0
    assert moved.tolist() == [False, False, True, False, False]
    head, _ = refinement(2, T, T)
    assert torch.allclose(head[:3, :3] @ head[:3, :3].T, torch.eye(3), atol=1e-6), "still rigid"


def test_average_follows_the_parameters_and_becomes_the_avatar(state: TrainState) -> None:
    stage = Stage("deform", 100, average=0.5)
    state.begin_stage(stage)
    name, parameter = next(iter(state.avatar.named_parameters()))
    expected = parameter.detach().clone()
    for step in range(30):
        learn(state, step)
        state.position.step = step + 1
        state.update_average(stage)
        decay = min(0.5, (step + 2) / (step + 11))
        expected = decay * expected + (1 - decay) * parameter.detach()
    assert torch.allclose(state.average[name], expected, atol=1e-6)
    assert not torch.allclose(parameter, expected, atol=1e-6)
    state.end_stage()
    assert torch.allclose(parameter, expected, atol=1e-6)
    last = parameter.detach().clone()
    state.begin_stage(Stage("deform", 100))
    learn(state, 0)
    state.update_average(stage)
    moved = parameter.detach().clone()
    state.end_stage()
    assert torch.equal(parameter, moved) and not torch.equal(moved, last), (
        "without an average the last step counts"
    )


@pytest.mark.parametrize(
    "wrong", [{"average": 1.0}, {"average": -0.1}, {"average": 0.9, "density": STAGES[1].density}]
)
def test_averages_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Stage("deform", 10, **wrong)
