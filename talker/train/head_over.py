"""Protocol A: the avatar's head over the true torso and background."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from talker.model.avatar import FACE, Avatar
from talker.model.canonical import Offsets
from talker.model.fusion import Prepared
from talker.render import rasterize
from talker.types import Driving

HEAD_SHARE = 0.5
"""Gaussians that follow the head at least so far are the head."""


def head_over(
    avatar: Avatar, driving: Driving, picture: Tensor, *, prepared: dict[str, Prepared] | None = None
) -> Tensor:
    """The frame [H, W, 3] whose head is the avatar's and whose every other part is ``picture`` [H, W, 3].

    All Gaussians are drawn, so that a collar hides the neck behind it; where a pixel's light comes from Gaussians of
    the torso or from behind all of them, the picture is seen instead. Leaving the torso out of the scene would show
    what of the neck is hidden in every real frame and was never fitted to one.

    Args:
        avatar: The avatar.
        driving: The frame's control.
        picture: The true frame, 0..1.
        prepared: ``avatar.prepare()``, shared between frames.
    """
    light, share, unseen = torch.zeros_like(picture), torch.zeros_like(picture), torch.ones_like(picture)
    offsets: dict[str, Offsets | None] = {}
    for name in avatar.branches:  # front to back
        cached = None if prepared is None else prepared[name]
        gaussians, offsets[name] = avatar.gaussians(name, driving, prepared=cached, face=offsets.get(FACE))
        head = (avatar.branch(name).canonical.rig() >= HEAD_SHARE).to(picture)[:, None]
        colored = rasterize(replace(gaussians, colors=gaussians.colors * head), avatar.camera)
        counted = rasterize(replace(gaussians, colors=head.expand_as(gaussians.colors)), avatar.camera)
        light, share = light + unseen * colored.rgb, share + unseen * counted.rgb
        unseen = unseen * (1 - colored.alpha)
    return light + (1 - share) * picture
