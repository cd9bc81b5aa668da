"""Training is the same run whether it is interrupted or not, and it learns."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import tiny_avatar

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import TrainingError
from talker.events import CheckpointSaved, Event, Preview, Progress, StageStarted
from talker.losses import temporal_difference
from talker.train import loop as module
from talker.train.align import learnt_track
from talker.train.densify import DensityConfig, DensityControl
from talker.train.loop import MAX_BAD_STEPS, LoopConfig, train
from talker.train.regions import face_boxes
from talker.train.sampling import FrameSampler
from talker.train.schedule import LearningRates, LossWeights, Stage
from talker.train.state import TrainState

PRINT = "settings"
STAGES = (
    Stage(
        "static",
        10,
        static=True,
        density=DensityConfig(
            kind="pixel_aware", every=3, start=1, stop=9, grad_threshold=1e-6, max_gaussians=440
        ),
    ),
    Stage(
        "deform",
        10,
        weights=LossWeights(smooth=0.1),
        density=DensityConfig(
            kind="standard", every=4, start=1, stop=9, grad_threshold=1e-7, max_gaussians=470
        ),
    ),
)


def run(
    dataset: TalkingHeadDataset,
    folder: Path,
    *,
    stages: tuple[Stage, ...] = STAGES,
    should_stop: Callable[[], bool] = lambda: False,
    resume: bool = False,
    **config: object,
) -> tuple[TrainState, Iterator[Event]]:
    """A run as a new process would begin it."""
    avatar, conditioning = tiny_avatar(dataset)
    state = TrainState(avatar, dataset.n_frames, LearningRates())
    if resume:
        state.load_newest(folder, stages, PRINT)
    events = train(
        state,
        conditioning,
        dataset,
        stages,
        config=LoopConfig(folder, PRINT, **{"progress_every_s": 0.0, **config}),
        should_stop=should_stop,
    )
    return state, events


def after(n: int) -> Callable[[], bool]:
    """True at the n-th question: the stop comes after n steps."""
    asked = itertools.count(1)
    return lambda: next(asked) >= n


@pytest.fixture(scope="module")
def whole(
    dataset: TalkingHeadDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainState, list[Event]]:
    """The run nobody interrupted."""
    state, events = run(dataset, tmp_path_factory.mktemp("whole"))
    return state, list(events)


def assert_same(a: TrainState, b: TrainState) -> None:
    first, second = a._tensors(), b._tensors()
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_density_control_was_at_work(whole: tuple[TrainState, list[Event]]) -> None:
    """Otherwise the tests below would prove less than they say."""
    counts = [e.values["gaussians"] for e in whole[1] if isinstance(e, Progress)]
    assert counts[0] == 410 and counts[9] == 440 and counts[-1] == 470


@pytest.mark.parametrize("steps", [1, 3, 4, 9, 10, 11, 12, 15, 19])
def test_stopped_and_resumed_is_bit_identical(
    dataset: TalkingHeadDataset, whole: tuple[TrainState, list[Event]], tmp_path: Path, steps: int
) -> None:
    stopped, events = run(dataset, tmp_path, should_stop=after(steps))
    seen = list(events)
    assert isinstance(seen[-1], CheckpointSaved) and seen[-1].path.is_dir(), "a stop saves"
    assert stopped.position.stage < 2
    resumed, events = run(dataset, tmp_path, resume=True)
    list(events)
    assert resumed.position.stage == 2
    assert_same(resumed, whole[0])


def test_any_number_of_interruptions(
    dataset: TalkingHeadDataset, whole: tuple[TrainState, list[Event]], tmp_path: Path
) -> None:
    for _ in range(30):
        state, events = run(dataset, tmp_path, should_stop=after(3), resume=True)
        list(events)
        if state.position.stage == 2:
            break
    assert_same(state, whole[0])


def test_abandoned_run_goes_on_from_its_last_checkpoint(
    dataset: TalkingHeadDataset, whole: tuple[TrainState, list[Event]], tmp_path: Path
) -> None:
    """No farewell: what was done after the last checkpoint is done again, with the same result."""
    _, events = run(dataset, tmp_path, checkpoint_every_s=0.0)
    for event in events:
        if isinstance(event, Progress) and event.stage == "deform" and event.step == 6:
            break  # step 6 is done, not saved
    del events
    resumed, events = run(dataset, tmp_path, resume=True)
    assert (resumed.position.stage, resumed.position.step) == (1, 5)
    list(events)
    assert_same(resumed, whole[0])


AVERAGED = (Stage("static", 4, static=True), Stage("deform", 12, average=0.9))


@pytest.mark.parametrize("steps", [3, 5, 11, 15])
def test_averaging_survives_a_stop(dataset: TalkingHeadDataset, tmp_path: Path, steps: int) -> None:
    reference, events = run(dataset, tmp_path / "whole", stages=AVERAGED)
    list(events)
    _, events = run(dataset, tmp_path / "cut", stages=AVERAGED, should_stop=after(steps))
    list(events)
    resumed, events = run(dataset, tmp_path / "cut", stages=AVERAGED, resume=True)
    list(events)
    assert_same(resumed, reference)
    assert not resumed.average, "the avatar has it now"


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_train_loop import TalkingHeadDataset, run
_, events = run(TalkingHeadDataset(Path(sys.argv[2])), Path(sys.argv[3]), checkpoint_every_s=0.0)
for event in events:
    print(event.stage, event.step if hasattr(event, "step") else "", flush=True)
"""


def test_killed_process_goes_on_bit_by_bit(
    dataset: TalkingHeadDataset, whole: tuple[TrainState, list[Event]], tmp_path: Path
) -> None:
    here = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(here), str(dataset.root), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=here.parent,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("static 7"):
            break
    time.sleep(0.02)  # anywhere: in a step, or while a checkpoint is written
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    resumed, events = run(dataset, tmp_path, resume=True)
    assert resumed.position.step >= 6 or resumed.position.stage == 1
    list(events)
    assert_same(resumed, whole[0])


ALIGNED = (replace(STAGES[0], density=DensityConfig(kind="none")), replace(STAGES[1], align=True))


@pytest.mark.parametrize("stop", [15, 88, 92])
def test_a_stop_while_poses_are_aligned_costs_nothing_else(
    dataset: TalkingHeadDataset, tmp_path: Path, stop: int
) -> None:
    """The tenth question ends the first stage; 80 more are asked while frames are aligned."""
    straight, events = run(dataset, tmp_path / "straight", stages=ALIGNED)
    told = [event for event in events if isinstance(event, Progress) and event.stage == "align"]
    assert told[-1].step == told[-1].total == len(dataset.train_indices()) == 80
    assert straight.refinement.head.weight[:80].abs().max() > 1e-4
    list(run(dataset, tmp_path / "stopped", stages=ALIGNED, should_stop=after(stop))[1])
    resumed, events = run(dataset, tmp_path / "stopped", stages=ALIGNED, resume=True)
    list(events)
    assert_same(straight, resumed)


def test_events_tell_the_run(whole: tuple[TrainState, list[Event]]) -> None:
    _, events = whole
    assert [(e.stage, e.total) for e in events if isinstance(e, StageStarted)] == [
        ("static", 10),
        ("deform", 10),
    ]
    steps = [(e.stage, e.step) for e in events if isinstance(e, Progress)]
    assert steps == [(name, k) for name in ("static", "deform") for k in range(1, 11)]
    assert all(np.isfinite(e.values["loss"]) for e in events if isinstance(e, Progress))
    assert [e.stage for e in events if isinstance(e, CheckpointSaved)] == ["static", "deform"]
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.eta_s == 0


def test_previews_are_pictures(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    _, events = run(dataset, tmp_path, preview_every_s=0.0, should_stop=after(2))
    pictures = [e.rgb for e in events if isinstance(e, Preview)]
    assert len(pictures) == 2
    assert all(p.shape == (96, 96, 3) and p.dtype == np.uint8 and p.std() > 10 for p in pictures)


def test_it_learns(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    """A real run in small: pictures get closer in both stages, and the lips follow their code."""
    stages = (Stage("static", 60, static=True, decay=0.5), Stage("deform", 120, decay=0.3))
    state, events = run(dataset, tmp_path, stages=stages)
    losses = {"static": [], "deform": []}
    for event in events:
        if isinstance(event, Progress):
            losses[event.stage].append(event.values["loss"])
    first, last = np.mean(losses["static"][:10]), np.mean(losses["static"][-10:])
    assert last < 0.93 * first, "the cloud is nearly right from the start"
    assert np.mean(losses["deform"][-10:]) < 0.8 * last
    _, conditioning = tiny_avatar(dataset)
    lips = (np.abs(dataset.cloud.means[:, 0]) < 0.25) & (np.abs(dataset.cloud.means[:, 1] - 0.58) < 0.1)
    heights = []
    with torch.no_grad():
        for t in range(12, 60):
            _, offsets = state.avatar.gaussians("face", conditioning.driving(t))
            assert offsets is not None
            heights.append(float(offsets.means[torch.from_numpy(lips), 1].mean()))
    assert np.corrcoef(heights, dataset.mouth_open[12:60])[0, 1] > 0.6, "y goes down as the mouth opens"


def spoilt(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool]) -> None:
    honest, count = module.StageRun._objective, itertools.count()

    def objective(self, frame, index, weights):
        loss = honest(self, frame, index, weights)
        return loss * float("nan") if bad(next(count)) else loss

    monkeypatch.setattr(module.StageRun, "_objective", objective)


def test_a_step_without_a_number_is_left_out(
    dataset: TalkingHeadDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch, lambda n: n % 2 == 0)
    stages = (Stage("static", 2 * MAX_BAD_STEPS + 6, static=True),)
    state, events = run(dataset, tmp_path, stages=stages)
    list(events)
    assert all(torch.isfinite(v).all() for v in state.avatar.state_dict().values())


def test_a_run_that_is_lost_says_so(
    dataset: TalkingHeadDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch, lambda n: n >= 3)
    state, events = run(dataset, tmp_path, stages=(Stage("static", 200, static=True),))
    with pytest.raises(TrainingError) as caught:
        list(events)
    assert caught.value.code == "train.not_finite" and caught.value.todo
    assert state.position.step == 3 + MAX_BAD_STEPS
    assert all(torch.isfinite(v).all() for v in state.avatar.state_dict().values())


def test_time_limit_is_shared_among_the_stages(
    dataset: TalkingHeadDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))  # every step takes a second
    stages = (Stage("static", 100, static=True), Stage("deform", 300))
    state, events = run(dataset, tmp_path, stages=stages, max_minutes=20 / 60, checkpoint_every_s=1e9)
    steps = {}
    for event in events:
        if isinstance(event, Progress):
            steps[event.stage] = event.step
            assert event.eta_s is not None and event.eta_s <= 20
    assert steps == {"static": 5, "deform": 15}
    assert state.position.stage == 2


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_density_control_is_told_where_lips_and_eyes_are(
    dataset: TalkingHeadDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    told: list[torch.Tensor | None] = []
    observe = DensityControl.observe

    def noted(self, out, region=None):
        told.append(region)
        observe(self, out, region)

    monkeypatch.setattr(DensityControl, "observe", noted)
    density = DensityConfig(kind="pixel_aware", every=3, start=0, stop=5, region_weight=weight)
    _, events = run(dataset, tmp_path, stages=(Stage("static", 6, static=True, density=density),))
    assert list(events) and len(told) == 6
    if weight == 1.0:
        assert told == [None] * 6
        return
    sampler = FrameSampler(dataset.train_indices(), dataset.expression, dataset.mouth_open, 0)
    for step, region in enumerate(told):
        boxes = face_boxes(dataset.landmarks[sampler(0, step)], dataset.size)
        expected = torch.zeros(dataset.size, dataset.size, dtype=torch.bool)
        for box in (boxes.mouth, *boxes.eyes):
            expected[box.top : box.bottom, box.left : box.right] = True
        assert region is not None and torch.equal(region, expected) and 0 < expected.sum() < expected.numel()


def test_without_the_static_stage_the_field_learns_from_the_first_step(
    dataset: TalkingHeadDataset, tmp_path: Path
) -> None:
    moving = {}
    for name, stages in (
        ("off", (Stage("deform", 4),)),
        ("on", (Stage("static", 4, static=True), Stage("deform", 1))),
    ):
        state, events = run(dataset, tmp_path / name, stages=stages, should_stop=after(4))
        list(events)
        basis = state.avatar.branch("face").deformation.fusion.basis
        moving[name] = bool(basis.weight.abs().max() > 0)
    assert moving == {"off": True, "on": False}


def test_the_avatar_moves_as_it_was_trained(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    state, events = run(dataset, tmp_path, stages=ALIGNED)
    list(events)
    with torch.no_grad():  # a correction far larger than any trembling
        state.refinement.head.weight[:, 4] += 0.2
        state.refinement.torso.weight[:, 3] -= 0.3
    track = learnt_track(state, dataset)
    assert len(track) == dataset.n_train
    assert np.allclose(track.T_cam_head[:, 1, 3] - dataset.T_cam_head[:80, 1, 3], 0.2, atol=0.05)
    assert np.allclose(track.T_cam_torso[:, 0, 3] - dataset.T_cam_torso[:80, 0, 3], -0.3, atol=0.05)
    assert np.allclose(np.linalg.det(track.T_cam_head[:, :3, :3]), 1, atol=1e-4)


def test_lips_and_each_eye_count_like_the_whole_frame(dataset: TalkingHeadDataset) -> None:
    """Every part of the weighted difference is a mean over its own pixels, whatever its size."""
    boxes = face_boxes(dataset.landmarks[20], dataset.size)
    weights = LossWeights(l1=1.0, mouth=1.6, eyes=0.2)
    weight = module._pixel_weights(dataset.size, boxes, weights)
    assert 3 * weight.sum() == pytest.approx(1.0 + 1.6 + 2 * 0.2, rel=1e-4)
    frame = 1 / (3 * dataset.size**2)
    assert weight[0, 0] == pytest.approx(frame, rel=1e-5)
    lips = boxes.mouth.crop(weight)
    assert lips.min() == pytest.approx(frame + 1.6 / (3 * lips.size), rel=1e-5)


def test_a_temporal_loss_calms_what_moves(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    """The offsets of neighbouring frames differ less, between frames of one shot alone."""

    def restless(weight: float) -> float:
        stages = (Stage("deform", 60, decay=0.5, weights=LossWeights(smooth=weight)),)
        state, events = run(dataset, tmp_path / str(weight), stages=stages)
        list(events)
        _, conditioning = tiny_avatar(dataset)
        changes = []
        with torch.no_grad():
            for t in range(20, 60):
                _, offsets = state.avatar.gaussians("face", conditioning.driving(t))
                _, later = state.avatar.gaussians("face", conditioning.driving(t + 1))
                assert offsets is not None and later is not None
                changes.append(float(temporal_difference(offsets.present(), later.present())))
        return float(np.mean(changes))

    assert restless(1000.0) < 0.6 * restless(0.0)
