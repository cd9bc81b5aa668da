"""One frame of an avatar: deform, pose, rasterise, composite. Training and driving both call this."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talker.model.avatar import FACE, MOUTH, Avatar
from talker.model.canonical import Offsets
from talker.model.fusion import Prepared
from talker.render import Backend, rasterize
from talker.render.compose import compose, compose_uint8
from talker.types import Camera, Driving, RenderOutput


@dataclass(frozen=True)
class Frame:
    """A rendered frame with what the losses and the density control need."""

    rgb: Tensor  # [H, W, 3] composited over the plate
    outputs: dict[str, RenderOutput]
    offsets: dict[str, Offsets | None]


def render_frame(  # noqa: PLR0913 - each is one independent choice of the caller
    avatar: Avatar,
    driving: Driving,
    *,
    camera: Camera | None = None,
    plate: Tensor | None = None,
    prepared: dict[str, Prepared] | None = None,
    static: bool = False,
    pose_jitter: Tensor | None = None,
    pixel_counts: bool = False,
    backend: Backend = "auto",
) -> Frame:
    """Render ``avatar`` under ``driving``.

    Args:
        avatar: The avatar.
        driving: The frame's control.
        camera: Another view or size than the avatar's own.
        plate: [H, W, 3] background of that size; the avatar's own if absent.
        prepared: ``avatar.prepare()``, to be shared between frames while nothing is trained.
        static: Leave the deformation out (stage 1).
        pose_jitter: [6] noise on the pose the field sees, while training.
        pixel_counts: Also count the pixels of every Gaussian (pixel-aware density control).
        backend: See ``talker.render.rasterize``.
    """
    camera = camera or avatar.camera
    outputs: dict[str, RenderOutput] = {}
    offsets: dict[str, Offsets | None] = {}
    for name in avatar.branches:
        cached = None if prepared is None else prepared[name]
        gaussians, offsets[name] = avatar.gaussians(
            name,
            driving,
            prepared=cached,
            static=static,
            pose_jitter=pose_jitter,
            face=offsets.get(FACE),
        )
        outputs[name] = rasterize(gaussians, camera, backend=backend, pixel_counts=pixel_counts)
    plate = avatar.plate if plate is None else plate
    rgb = compose(outputs[FACE], outputs.get(MOUTH), plate)
    return Frame(rgb, outputs, offsets)


def draw_frame(
    avatar: Avatar,
    driving: Driving,
    *,
    camera: Camera,
    plate: Tensor,
    prepared: dict[str, Prepared],
    backend: Backend = "auto",
) -> Tensor:
    """What ``render_frame`` renders as bytes [H, W, 3], nothing kept for training; arguments as there."""
    with torch.inference_mode():
        outputs: dict[str, RenderOutput] = {}
        face: Offsets | None = None
        for name in avatar.branches:  # the face first: the mouth may follow its lips
            gaussians, offsets = avatar.gaussians(name, driving, prepared=prepared[name], face=face)
            face = face or offsets
            outputs[name] = rasterize(gaussians, camera, backend=backend)
        return compose_uint8(outputs[FACE], outputs.get(MOUTH), plate)
