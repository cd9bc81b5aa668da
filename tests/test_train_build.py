"""What the lip code of a clip is measured from: its rigid points or its tracked heads, whichever is steadier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core_support import tiny_model, write_dataset

from talker.dataset.reader import TalkingHeadDataset
from talker.model.motion import RIGID, LipCode
from talker.train.build import build

TREMBLE_PX = 1.5


@pytest.fixture
def dataset(tmp_path: Path) -> TalkingHeadDataset:
    return TalkingHeadDataset(write_dataset(tmp_path / "tiny.data"))


def with_trembling_points(dataset: TalkingHeadDataset) -> TalkingHeadDataset:
    """All rigid points shift together, as with brows that pull them; lips do not."""
    landmarks = np.array(dataset.landmarks)
    shift = np.random.default_rng(0).normal(0, TREMBLE_PX, (len(landmarks), 1, 2))
    landmarks[:, RIGID, :2] += shift.astype(np.float32)
    dataset.landmarks = landmarks
    return dataset


def with_trembling_heads(dataset: TalkingHeadDataset) -> TalkingHeadDataset:
    """Tracked heads shift sideways and down; the face in the picture does not."""
    heads = np.array(dataset.T_cam_head)
    focal, depth = float(dataset.K[0, 0]), heads[:, 2, 3].mean()
    shift = np.random.default_rng(0).normal(0, TREMBLE_PX * depth / focal, (len(heads), 2))
    heads[:, :2, 3] += shift.astype(np.float32)
    dataset.T_cam_head = heads
    return dataset


def lip_code(dataset: TalkingHeadDataset, like: LipCode | None = None) -> LipCode:
    code = build(dataset, tiny_model(), 0, like=like)[0].lip_code
    assert code is not None
    return code


def test_trembling_rigid_points_are_not_gone_by(dataset: TalkingHeadDataset) -> None:
    assert lip_code(with_trembling_points(dataset)).view is not None


def test_trembling_heads_are_not_gone_by(dataset: TalkingHeadDataset) -> None:
    assert lip_code(with_trembling_heads(dataset)).view is None


def test_a_code_like_another_is_measured_as_that_one(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    by_heads = lip_code(with_trembling_points(dataset))
    second = TalkingHeadDataset(write_dataset(tmp_path / "second.data", seed=1))
    by_points = lip_code(with_trembling_heads(second))
    assert lip_code(second, like=by_heads).view is not None, "though its heads tremble"
    assert lip_code(dataset, like=by_points).view is None, "though its rigid points tremble"
