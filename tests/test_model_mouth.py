"""The inside of the mouth as a branch of its own: its points, its place behind the face, its tie to the lips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import stir, tiny_model, write_dataset

from talker.card import AvatarCard
from talker.checkpoint import load_avatar, save_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.schema import REGION_MOUTH
from talker.errors import ConfigError
from talker.frame import FrameDrawer, render_frame
from talker.model.avatar import FACE, MOUTH, Avatar, ModelConfig
from talker.model.canonical import Offsets
from talker.model.deformation import FieldConfig
from talker.train.build import Conditioning, build


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TalkingHeadDataset:
    return TalkingHeadDataset(write_dataset(tmp_path_factory.mktemp("core") / "tiny.data"))


def two_branches(dataset: TalkingHeadDataset, **inside: object) -> tuple[Avatar, Conditioning]:
    model = tiny_model()
    avatar, conditioning = build(dataset, replace(model, mouth=replace(model.face, **inside)), 0)
    return stir(avatar), conditioning


def near_lips(avatar: Avatar) -> torch.Tensor:
    """Face Gaussians [N] (bool) in and before the mouth's box."""
    box = avatar.branch(MOUTH).deformation
    low, high = box.center - box.extent, box.center + box.extent
    x, y, z = avatar.branch(FACE).canonical.means.detach().T
    return (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]) & (z <= high[2])


def moved(avatar: Avatar, chosen: torch.Tensor, by: tuple[float, float, float]) -> Offsets:
    """Offsets of the face that move the ``chosen`` Gaussians [N] (bool)."""
    return Offsets(means=chosen[:, None] * torch.tensor(by))


def mouth_means(avatar: Avatar, conditioning: Conditioning, face: Offsets | None) -> torch.Tensor:
    _, offsets = avatar.gaussians(MOUTH, conditioning.driving(30), face=face)
    assert offsets is not None and offsets.means is not None
    return offsets.means


def test_points_behind_the_lips_belong_to_the_mouth_and_all_others_to_the_face(
    dataset: TalkingHeadDataset,
) -> None:
    avatar, _ = two_branches(dataset)
    inside = dataset.cloud.region == REGION_MOUTH
    for name, chosen in ((FACE, ~inside), (MOUTH, inside)):
        means = avatar.branch(name).canonical.means.detach().numpy()
        np.testing.assert_allclose(means, dataset.cloud.means[chosen])


def test_the_mouth_is_drawn_behind_the_face_and_before_the_wall(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = two_branches(dataset)
    frame = render_frame(avatar, conditioning.driving(30))
    face, mouth = frame.outputs[FACE], frame.outputs[MOUTH]
    behind = mouth.rgb + (1 - mouth.alpha) * avatar.plate
    torch.testing.assert_close(frame.rgb, face.rgb + (1 - face.alpha) * behind, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fusion", ["blendshapes", "mgf", "esaa"])
def test_a_tied_mouth_follows_the_lips_and_a_free_one_does_not(
    dataset: TalkingHeadDataset, fusion: str
) -> None:
    for tied in (True, False):
        avatar, conditioning = two_branches(dataset, fusion=fusion, follows_lips=tied)
        lips = near_lips(avatar)
        assert 0 < lips.sum() < len(lips) / 2
        still = mouth_means(avatar, conditioning, moved(avatar, lips, (0, 0, 0)))
        opened = mouth_means(avatar, conditioning, moved(avatar, lips, (0, 0.2, 0)))
        elsewhere = mouth_means(avatar, conditioning, moved(avatar, ~lips, (0, 0.2, 0)))
        assert bool((opened - still).abs().max() > 1e-3) == tied
        torch.testing.assert_close(elsewhere, still, rtol=0, atol=0)


def test_a_tied_mouth_moves_mostly_up_and_down(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = two_branches(dataset, follows_lips=True)
    held = mouth_means(avatar, conditioning, None)
    avatar.branch(MOUTH).deformation.reach.fill_(1.0)
    loose = mouth_means(avatar, conditioning, None)
    assert loose.abs().amin(0).max() > 1e-4
    torch.testing.assert_close(held, loose * torch.tensor([0.2, 1.0, 0.2]))


def test_the_lips_do_not_follow_the_mouth(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = two_branches(dataset, follows_lips=True)
    frame = render_frame(avatar, conditioning.driving(30))
    frame.outputs[MOUTH].rgb.sum().backward()
    assert all(value.grad is None for value in avatar.branch(FACE).parameters())
    assert any(value.grad is not None for value in avatar.branch(MOUTH).deformation.parameters())


def test_training_driving_and_a_single_branch_agree(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    avatar, conditioning = two_branches(dataset, follows_lips=True)
    driving = conditioning.driving(30)
    frame = render_frame(avatar, driving)
    alone, _ = avatar.gaussians(MOUTH, driving)
    known, _ = avatar.gaussians(MOUTH, driving, face=frame.offsets[FACE])
    torch.testing.assert_close(alone.means, known.means, rtol=0, atol=1e-6)
    save_avatar(avatar, tmp_path, AvatarCard("x", "", "pgstalker", dataset.size, 1, "mel", {}))
    again = load_avatar(tmp_path)
    assert again.config.mouth is not None and again.config.mouth.follows_lips
    drawn = FrameDrawer(again, again.camera, again.plate)(driving)
    rendered = (frame.rgb.detach().clamp(0, 1) * 255 + 0.5).floor()
    assert (drawn.float() - rendered).abs().max() <= 1


def test_only_the_mouth_can_follow_the_lips() -> None:
    with pytest.raises(ConfigError):
        ModelConfig(face=FieldConfig(follows_lips=True))
