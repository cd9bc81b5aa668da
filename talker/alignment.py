"""Head and torso poses aligned to the avatar itself: where its head and shoulders lie in a frame, to parts of a pixel.

Tracking follows landmarks and an averaged picture; what it leaves, a pixel or two, is seen at hair, jaw and collar.
Here the rendered frame is laid over the true one by Gauss-Newton steps (Lucas and Kanade 1981, in three dimensions by
the rendered depth): two renders a step and no gradients.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch

from talker.events import Event, Progress, StageStarted
from talker.geometry import corrected
from talker.model.avatar import FACE, Avatar
from talker.model.canonical import Offsets
from talker.model.carrying import carry
from talker.render import rasterize
from talker.threads import map_ahead
from talker.types import Driving, MotionTrack, RenderOutput

POSE_DIM = 6
MIN_ALPHA = 0.02
"""Pixels with less of the person say nothing about where it is."""


@dataclass(frozen=True)
class AlignConfig:
    """How poses are aligned. Lengths are shares of the frame's width, so that they mean the same at every size."""

    steps: int = 12
    """At most; most poses lie right after three or four."""
    settled: float = 3e-4
    """The last step moved pixels less than this, on average: the pose lies right."""
    blur: float = 0.005
    """Standard deviation of the blur of both pictures: how far off a pose may be and still be caught."""
    grid: float = 1 / 128
    """Distance of the pixels that are compared."""
    floor: float = 0.03
    """Differences (RGB 0..1) far above count as they are and not squared: a new fold or a speck does not pull."""
    spread: float = 0.04
    """Standard deviation expected of a correction, radians and head units."""
    caution: float = 1.0
    """Weight of that expectation against the pixels."""


class _View(NamedTuple):
    """The avatar in one pose, as arrays."""

    rgb: np.ndarray  # [H, W, 3] over black
    alpha: np.ndarray  # [H, W]
    depth: np.ndarray  # [H, W] times alpha
    share: np.ndarray  # [H, W] of the head's motion, times alpha


class PoseAligner:
    """Finds what has to be added to tracked poses so that the avatar lies over a picture.

    Args:
        avatar: The avatar.
        static: Leave the deformation out (while there is none yet).
        config: See ``AlignConfig``.
    """

    def __init__(self, avatar: Avatar, *, static: bool = False, config: AlignConfig | None = None) -> None:
        self.avatar, self.static, self.config = avatar, static, config or AlignConfig()
        with torch.inference_mode():
            self._prepared = {} if static else avatar.prepare()
        self._K = avatar.camera.K.cpu().numpy().astype(np.float32)
        self._rig = avatar.branch(FACE).canonical.rig().detach()

    def __call__(self, picture: np.ndarray, plate: np.ndarray, driving: Driving) -> np.ndarray:
        """Corrections [2, 6] of head and torso, for ``talker.geometry.corrected``.

        Args:
            picture: [S, S, 3] uint8, the true frame at the avatar's size.
            plate: [S, S, 3] 0..1, what is behind the person.
            driving: The frame's control with its poses as tracked. Lips need not be right: they are few pixels, and
                differences count as they are.
        """
        truth = picture.astype(np.float32) / 255
        delta = np.zeros(2 * POSE_DIM)
        with torch.inference_mode():
            offsets = self._offsets(driving)
            for _ in range(self.config.steps):
                T_head, T_torso = self._posed(driving, delta)
                view = self._view(replace(driving, T_cam_head=T_head, T_cam_torso=T_torso), offsets)
                step, moved = self._step(
                    truth, plate, view, T_head.cpu().numpy(), T_torso.cpu().numpy(), delta
                )
                delta = delta + step
                if moved < self.config.settled * len(truth):
                    break
        return delta.reshape(2, POSE_DIM).astype(np.float32)

    def _offsets(self, driving: Driving) -> dict[str, Offsets | None]:
        """Deformation of every branch; it does not follow the small corrections."""
        offsets: dict[str, Offsets | None] = {}
        for name in self.avatar.branches:
            if self.static:
                offsets[name] = None
                continue
            prepared, face = self._prepared[name], offsets.get(FACE)
            _, offsets[name] = self.avatar.gaussians(name, driving, prepared=prepared, face=face)
        return offsets

    @staticmethod
    def _posed(driving: Driving, delta: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        head, torso = torch.from_numpy(delta.astype(np.float32)).to(driving.T_cam_head).split(POSE_DIM)
        return corrected(driving.T_cam_head, head), corrected(driving.T_cam_torso, torso)

    def _view(self, driving: Driving, offsets: dict[str, Offsets | None]) -> _View:
        rgb = alpha = None
        camera, T_head, T_torso = self.avatar.camera, driving.T_cam_head, driving.T_cam_torso
        for name in self.avatar.branches:  # the face, and what is behind it
            gaussians = carry(self.avatar.branch(name).canonical, offsets[name], T_head, T_torso)
            layer = rasterize(gaussians, camera)
            if rgb is None or alpha is None:
                rgb, alpha = layer.rgb, layer.alpha
                values = torch.stack([gaussians.means[:, 2], self._rig, torch.zeros_like(self._rig)], 1)
                where: RenderOutput = rasterize(replace(gaussians, colors=values), camera)
            else:
                rgb, alpha = rgb + (1 - alpha) * layer.rgb, alpha + (1 - alpha) * layer.alpha
        assert rgb is not None and alpha is not None
        depth, share, _ = where.rgb.cpu().numpy().transpose(2, 0, 1)
        return _View(rgb.cpu().numpy(), alpha.cpu().numpy()[..., 0], depth, share)

    def _step(
        self,
        truth: np.ndarray,
        plate: np.ndarray,
        view: _View,
        T_head: np.ndarray,
        T_torso: np.ndarray,
        delta: np.ndarray,
    ) -> tuple[np.ndarray, float]:
        """A Gauss-Newton step [12] of robust least squares over a grid of pixels, and how far it moves them."""
        config, size = self.config, len(truth)
        sigma, grid = config.blur * size, max(1, round(config.grid * size))
        missing = cv2.GaussianBlur(
            truth - view.rgb - (1 - view.alpha[..., None]) * plate,
            (0, 0),
            sigma,
            borderType=cv2.BORDER_REFLECT,
        )
        v, u = np.nonzero(view.alpha[1:-1:grid, 1:-1:grid] > MIN_ALPHA)
        v, u = grid * v + 1, grid * u + 1
        across, down = _slopes(view, plate, sigma, v, u)
        rest = missing[v, u]
        weight = 1 / (np.abs(rest).mean(1) + config.floor)
        flow_x, flow_y = self._flow(view, v, u, T_head, T_torso)
        xx, xy, yy = (
            (weight * (a * b).sum(1))[:, None] for a, b in ((across, across), (across, down), (down, down))
        )
        normal = flow_x.T @ (xx * flow_x + xy * flow_y) + flow_y.T @ (xy * flow_x + yy * flow_y)
        right = flow_x.T @ (weight * (across * rest).sum(1)) + flow_y.T @ (weight * (down * rest).sum(1))
        expected = config.caution / config.spread**2
        normal = normal.astype(np.float64) + expected * np.eye(2 * POSE_DIM)
        step = np.linalg.solve(normal, right - expected * delta)
        return step, float(np.hypot(flow_x @ step, flow_y @ step).mean())

    def _flow(
        self, view: _View, v: np.ndarray, u: np.ndarray, T_head: np.ndarray, T_torso: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How pixels [P] move, across and down [P, 12], with the corrections of head and torso."""
        alpha = view.alpha[v, u]
        z, share = view.depth[v, u] / alpha, view.share[v, u] / alpha
        fx, fy = self._K[0, 0], self._K[1, 1]
        x, y = (u + 0.5 - self._K[0, 2]) * z / fx, (v + 0.5 - self._K[1, 2]) * z / fy
        points = np.stack([x, y, z], 1).astype(np.float32)
        flows = ([], [])
        for T, part in ((T_head, share), (T_torso, 1 - share)):
            moved = _rigid_motion(points - T[:3, 3])
            for flow, focal, side, place in ((flows[0], fx, 0, x), (flows[1], fy, 1, y)):
                seen = focal / z[:, None] * (moved[:, side] - (place / z)[:, None] * moved[:, 2])
                flow.append(part[:, None] * seen)
        return np.concatenate(flows[0], 1), np.concatenate(flows[1], 1)


def aligned_track(
    avatar: Avatar, pictures: Sequence[np.ndarray], track: MotionTrack, signals: torch.Tensor
) -> Generator[Event, None, MotionTrack]:
    """Reports its progress and returns ``track`` with every tracked frame's poses aligned to ``avatar``.

    Args:
        avatar: The avatar.
        pictures: The true frames, T of [S, S, 3] uint8; of another size they are scaled.
        track: Their motion as tracked, T frames.
        signals: What drives the lips meanwhile: codes [T, K] or audio windows [T, W, A]; the last one is held.
    """
    aligner, plate, size = PoseAligner(avatar), avatar.plate.cpu().numpy(), avatar.camera.width

    def aligned(index: int) -> tuple[np.ndarray, np.ndarray]:
        head, torso = (torch.from_numpy(T[index]).float() for T in (track.T_cam_head, track.T_cam_torso))
        if track.valid[index]:
            expression = torch.from_numpy(track.expression[index])
            driving = Driving(signals[min(index, len(signals) - 1)], expression, head, torso)
            picture = _sized(np.asarray(pictures[index]), size)
            delta = torch.from_numpy(aligner(picture, plate, driving.to(avatar.device)))
            head, torso = corrected(head, delta[0]), corrected(torso, delta[1])
        return head.numpy(), torso.numpy()

    yield StageStarted("align", len(track))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for pair in map_ahead(aligned, range(len(track))):
        found.append(pair)
        yield Progress("align", len(found), len(track))
    heads, torsos = zip(*found, strict=True)
    return replace(track, T_cam_head=np.stack(heads), T_cam_torso=np.stack(torsos))


def _sized(picture: np.ndarray, size: int) -> np.ndarray:
    return (
        picture if len(picture) == size else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    )


def _rigid_motion(points: np.ndarray) -> np.ndarray:
    """How points [P, 3] about the origin move with a small turn and a shift, [P, 3, 6]."""
    x, y, z = points.T
    motion = np.zeros((len(points), 3, POSE_DIM), np.float32)
    motion[:, 0, 1], motion[:, 0, 2] = z, -y
    motion[:, 1, 0], motion[:, 1, 2] = -z, x
    motion[:, 2, 0], motion[:, 2, 1] = y, -x
    motion[:, [0, 1, 2], [3, 4, 5]] = 1
    return motion


def _slopes(
    view: _View, plate: np.ndarray, sigma: float, v: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How the frame's colours [P, 3] at pixels change as the person moves right, and down, by one pixel.

    The person moves over a plate that stays: what counts is the slope of its own light, less the plate it covers.
    """
    blurred = [
        cv2.GaussianBlur(layer, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        for layer in (view.rgb, view.alpha)
    ]
    behind = plate[v, u]
    across, down = (
        [(layer[v + dv, u + du] - layer[v - dv, u - du]) / 2 for layer in blurred]
        for dv, du in ((0, 1), (1, 0))
    )
    return behind * across[1][:, None] - across[0], behind * down[1][:, None] - down[0]
