"""The poster shows a calm face: eyes open, lips at rest."""

from __future__ import annotations

import torch

from talker.drive import DriveConfig, own_motion
from talker.train.create import calmest
from talker.types import BLINK_LEFT
from tests.avatar_support import DIM, tiny_avatar

FRAMES = 125


def test_lips_nearest_to_rest() -> None:
    avatar = tiny_avatar()
    assert avatar.motion is not None
    signals = avatar.motion.rest + torch.ones(FRAMES, DIM)
    signals[7] = avatar.motion.rest + 0.1
    assert calmest(avatar, signals) == 7


def test_no_closed_eyes_however_calm_the_lips() -> None:
    avatar = tiny_avatar()
    assert avatar.motion is not None
    closed = int(own_motion(avatar.track, FRAMES, DriveConfig()).expression[:, BLINK_LEFT].argmax())
    signals = avatar.motion.rest + torch.ones(FRAMES, DIM)
    signals[closed] = avatar.motion.rest
    chosen = calmest(avatar, signals)
    assert chosen != closed
    assert own_motion(avatar.track, FRAMES, DriveConfig()).expression[chosen, BLINK_LEFT] < 0.1


def test_sound_without_a_rest_still_opens_the_eyes() -> None:
    avatar = tiny_avatar()
    avatar.motion = None
    lids = own_motion(avatar.track, FRAMES, DriveConfig()).expression[:, BLINK_LEFT]
    assert lids.max() > 0.9, "it blinks"
    assert lids[calmest(avatar, torch.zeros(FRAMES, 16, 40))] == lids.min()
