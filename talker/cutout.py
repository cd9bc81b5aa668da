"""What is behind the person: the clip's own background, a colour, or nothing (the person cut out, with alpha)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from talker.errors import ConfigError
from talker.frame import render_frame
from talker.model.avatar import FACE, MOUTH, Avatar
from talker.render import Backend
from talker.types import Camera, Driving

CLIP, TRANSPARENT = "clip", "transparent"

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_FAINT = 1 / 512
"""Alpha below which a pixel has no colour of its own: it rounds to nothing in eight bits."""


def check_background(background: str) -> None:
    """Accept ``clip``, ``transparent`` or a colour like ``#00b140``.

    Raises:
        ConfigError: ``drive.background``.
    """
    if background not in (CLIP, TRANSPARENT) and not _COLOUR.fullmatch(background):
        raise ConfigError(
            "drive.background",
            f"The background {background[:40]!r} is not known.",
            expected=f"{CLIP}, {TRANSPARENT}, or a colour like #00b140.",
        )


def coloured_plate(background: str, plate: Tensor) -> Tensor:
    """A plate [H, W, 3] of one colour, the size of ``plate``."""
    rgb = [int(background[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return plate.new_tensor(rgb).expand(plate.shape).contiguous()


class CutoutDrawer:
    """Draws frames [H, W, 4] uint8 without a background; alpha is straight, not multiplied into the colour.

    Args:
        avatar: The avatar.
        camera: The view.
        backend: See ``talker.render.rasterize``.
    """

    def __init__(self, avatar: Avatar, camera: Camera, backend: Backend = "auto") -> None:
        self.avatar, self.camera = avatar, camera
        self.backend: Backend = backend
        self.black = torch.zeros(camera.height, camera.width, 3, device=avatar.device)
        with torch.inference_mode():
            self.prepared = avatar.prepare()

    def __call__(self, driving: Driving) -> Tensor:
        """The frame under ``driving``."""
        with torch.inference_mode():
            frame = render_frame(
                self.avatar,
                driving,
                camera=self.camera,
                plate=self.black,
                prepared=self.prepared,
                backend=self.backend,
            )
            clear = 1 - frame.outputs[FACE].alpha
            if MOUTH in frame.outputs:
                clear = clear * (1 - frame.outputs[MOUTH].alpha)
            return straight(frame.rgb, 1 - clear)

    def together(self, drivings: Sequence[Driving]) -> Tensor:
        """Frames [B, H, W, 4]."""
        return torch.stack([self(driving) for driving in drivings])


def straight(over_black: Tensor, alpha: Tensor) -> Tensor:
    """RGBA [H, W, 4] uint8 with straight alpha, of a picture [H, W, 3] before black and its alpha [H, W, 1].

    Editors and players lay straight alpha over a background as ``alpha * rgb + (1 - alpha) * background``.
    """
    alpha = alpha.clamp(0, 1)
    rgb = torch.where(alpha > _FAINT, over_black / alpha.clamp(min=_FAINT), torch.zeros_like(over_black))
    return (torch.cat([rgb, alpha], -1).clamp(0, 1) * 255 + 0.5).to(torch.uint8)
