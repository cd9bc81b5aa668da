"""The head as the first stage leaves it, turning a little: something to look at minutes before the avatar is done."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from talker.events import PreviewClip
from talker.frame import render_frame
from talker.geometry import rigid, rotvec_to_matrix
from talker.model.avatar import FACE, Avatar
from talker.provenance import stamp_frames
from talker.render.compose import to_uint8
from talker.types import Driving

SIDE = 256
"""Largest side of the pictures."""
FRAMES, RATE = 36, 12
ANGLE = math.radians(14)
"""To either side; beyond it no clip has shown the head."""


def turntable(avatar: Avatar, driving: Driving, stage: str, step: int) -> PreviewClip:
    """One swing of the undeformed head to both sides and back, labelled as every clip.

    Args:
        avatar: The avatar in training; not changed.
        driving: Control of the frame the head turns from.
        stage: Name of the stage that is done.
        step: Its last step.
    """
    factor = min(1.0, SIDE / avatar.camera.width)
    camera = avatar.camera.scaled(factor)
    plate = _resized(avatar.plate, camera.height, camera.width)
    middle = avatar.branch(FACE).canonical.means.detach().median(0).values
    frames = []
    with torch.no_grad():
        for index in range(FRAMES):
            turn = _about(middle, ANGLE * math.sin(2 * math.pi * index / FRAMES))
            turned = replace(
                driving, T_cam_head=driving.T_cam_head @ turn, T_cam_torso=driving.T_cam_torso @ turn
            )
            frame = render_frame(avatar, turned, camera=camera, plate=plate, static=True)
            frames.append(to_uint8(frame.rgb).cpu().numpy())
    return PreviewClip(stage, step, np.stack(list(stamp_frames(frames))), RATE)


def _about(point: Tensor, angle: float) -> Tensor:
    """Rotation [4, 4] about the vertical through ``point`` of the head's frame."""
    R = rotvec_to_matrix(point.new_tensor([0.0, angle, 0.0]))
    return rigid(R, point - R @ point)


def _resized(plate: Tensor, height: int, width: int) -> Tensor:
    channels_first = plate.detach().permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(channels_first, (height, width), mode="area")[0].permute(1, 2, 0)
