"""The first look: made once, between the stages, of the real head, without touching the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import tiny_model, write_dataset

from talker.dataset.reader import TalkingHeadDataset
from talker.events import CheckpointSaved, Event, PreviewClip, StageStarted
from talker.frame import render_frame
from talker.model.avatar import FACE
from talker.provenance import label_visible, new_consent
from talker.render.compose import to_uint8
from talker.train.build import build
from talker.train.create import CreateConfig, train_avatar
from talker.train.presets import Preset
from talker.train.schedule import Stage
from talker.train.turntable import FRAMES, turntable

CONSENT = new_consent("the tests", "Nobody is shown.")
STAGES = (Stage("static", 3, static=True), Stage("deform", 2))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TalkingHeadDataset:
    return TalkingHeadDataset(write_dataset(tmp_path_factory.mktemp("clip") / "ada.data"))


def test_it_swings_to_both_sides_and_ends_where_it_began(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = build(dataset, tiny_model(), 0)
    driving = conditioning.driving(dataset.reference)
    before = {name: value.clone() for name, value in avatar.state_dict().items()}
    random = torch.get_rng_state()
    clip = turntable(avatar, driving, "static", 3)
    assert clip.rgb.shape == (FRAMES, dataset.size, dataset.size, 3)
    assert torch.equal(random, torch.get_rng_state()), "a resumed run draws the same"
    assert all(torch.equal(value, before[name]) for name, value in avatar.state_dict().items())
    assert all(p.grad is None for p in avatar.parameters())
    with torch.no_grad():
        front = to_uint8(render_frame(avatar, driving, static=True).rgb).numpy().astype(int)
    away = np.abs(clip.rgb.astype(int) - front).mean((1, 2, 3))
    assert away[0] == away.min() and away[FRAMES // 2] == pytest.approx(away[0], abs=0.05)
    assert away[FRAMES // 4] > away[0] and away[3 * FRAMES // 4] > away[0]
    assert not np.array_equal(clip.rgb[FRAMES // 4], clip.rgb[3 * FRAMES // 4]), "two sides"
    middle = avatar.branch(FACE).canonical.means.median(0).values
    assert torch.isfinite(middle).all()


def test_it_bears_the_label_where_there_is_room(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = build(dataset, tiny_model(), 0)
    clip = turntable(avatar, conditioning.driving(dataset.reference), "static", 3)
    assert all(label_visible(frame) for frame in clip.rgb[:: FRAMES // 3])


def run(dataset: TalkingHeadDataset, out: Path, *, resume: bool = False, stop_at: str = "") -> list[Event]:
    seen: list[Event] = []

    def should_stop() -> bool:
        return bool(seen) and any(isinstance(e, StageStarted) and e.stage == stop_at for e in seen)

    preset = Preset("tiny", "Tiny", "For tests.", tiny_model(), STAGES)
    config = CreateConfig(size=128, evaluate=False)
    for event in train_avatar(
        dataset, out, CONSENT, config, preset=preset, resume=resume, should_stop=should_stop
    ):
        seen.append(event)
    return seen


def test_it_comes_once_right_after_the_first_stage_and_not_again_after_a_stop(
    dataset: TalkingHeadDataset, tmp_path: Path
) -> None:
    first = run(dataset, tmp_path / "ada", stop_at="deform")
    kinds = [type(e) for e in first]
    at = kinds.index(PreviewClip)
    assert kinds.count(PreviewClip) == 1
    assert isinstance(first[at - 1], CheckpointSaved), "what is shown is saved already"
    assert isinstance(first[at + 1], StageStarted) and first[at + 1].stage == "deform"
    resumed = run(dataset, tmp_path / "ada", resume=True)
    assert not any(isinstance(e, PreviewClip) for e in resumed)
