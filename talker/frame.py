"""One frame of an avatar: deform, pose, rasterise, composite; with gradients for training, as bytes for driving."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from talker.captured import Captured
from talker.model.avatar import FACE, MOUTH, Avatar
from talker.model.canonical import Offsets
from talker.model.fusion import Prepared
from talker.render import Backend, rasterize, rasterize_batch
from talker.render.compose import compose, compose_uint8
from talker.types import Camera, Driving, Gaussians, RenderOutput


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


class FrameDrawer:
    """Draws frames of one avatar in one view, as bytes; nothing is kept for training.

    What frames share is worked out once. On a CUDA device deforming and posing are recorded and replayed, and several
    frames can be drawn in one call of the rasteriser.

    Args:
        avatar: The avatar.
        camera: The view.
        plate: [H, W, 3] background of that size.
        backend: See ``talker.render.rasterize``.
    """

    def __init__(self, avatar: Avatar, camera: Camera, plate: Tensor, backend: Backend = "auto") -> None:
        self.avatar, self.camera, self.plate = avatar, camera, plate
        self.backend: Backend = backend
        with torch.inference_mode():
            self.prepared = avatar.prepare()
        self._posing: Captured | None = None

    def __call__(self, driving: Driving) -> Tensor:
        """The frame [H, W, 3] uint8 under ``driving``."""
        with torch.inference_mode():
            posed = self._posed(driving)
            layers = {name: rasterize(posed[name], self.camera, backend=self.backend) for name in posed}
            return compose_uint8(layers[FACE], layers.get(MOUTH), self.plate)

    def together(self, drivings: Sequence[Driving]) -> Tensor:
        """Frames [B, H, W, 3] uint8, drawn at once where the device can."""
        with torch.inference_mode():
            posed = [self._posed(driving) for driving in drivings]
            layers = {
                name: rasterize_batch([frame[name] for frame in posed], self.camera, backend=self.backend)
                for name in self.avatar.branches
            }
            mouths = layers.get(MOUTH, [None] * len(posed))
            pairs = zip(layers[FACE], mouths, strict=True)
            return torch.stack([compose_uint8(face, mouth, self.plate) for face, mouth in pairs])

    def _posed(self, driving: Driving) -> dict[str, Gaussians]:
        """Camera-frame Gaussians of every branch."""
        if self.avatar.device.type != "cuda":
            return self._branches(driving)
        values = driving.tensors()
        if self._posing is None:
            self._posing = Captured(self._flat, *values)
        flat = iter([tensor.clone() for tensor in self._posing(*values)])
        size = len(fields(Gaussians))
        return {name: Gaussians(*itertools.islice(flat, size)) for name in self.avatar.branches}

    def _flat(self, *values: Tensor) -> tuple[Tensor, ...]:
        branches = self._branches(Driving(*values)).values()
        return tuple(getattr(g, field.name) for g in branches for field in fields(Gaussians))

    def _branches(self, driving: Driving) -> dict[str, Gaussians]:
        posed: dict[str, Gaussians] = {}
        face: Offsets | None = None
        for name in self.avatar.branches:  # the face first: the mouth may follow its lips
            prepared = self.prepared[name]
            posed[name], offsets = self.avatar.gaussians(name, driving, prepared=prepared, face=face)
            face = face or offsets
        return posed
