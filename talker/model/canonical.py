"""The avatar at rest: raw Gaussian parameters in the head frame, and the rig that carries them.

Raw means unconstrained (log scales, logit opacities, quaternions of any length); ``activate`` is the only place
where they become the values a renderer takes. Everybody else holds ``Gaussians``, so nothing is activated twice.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talker.geometry import matrix_to_quat, quat_multiply, transform
from talker.types import Gaussians

SH_C0 = 0.28209479177387814
"""Zeroth spherical harmonic; ``rgb = 0.5 + SH_C0 * sh0`` as in every 3DGS file."""

FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "rig_logit")
"""Per-Gaussian parameters, in the order they are optimised and stored. ``embedding`` may follow."""


def rgb_to_sh0(rgb: Tensor) -> Tensor:
    """Degree-0 coefficients [N, 3] of colours [N, 3] in 0..1."""
    return (rgb - 0.5) / SH_C0


class CanonicalGaussians(nn.Module):
    """N Gaussians of one branch in the head frame.

    Attributes:
        means: [N, 3] head units.
        quats: [N, 4] wxyz, any length.
        log_scales: [N, 3].
        logit_opacities: [N].
        sh0: [N, 3].
        rig_logit: [N]; its sigmoid is the share of head motion, the rest follows the torso.
        embedding: [N, D] free vector per Gaussian for encoders that want one, or absent.
    """

    means: nn.Parameter
    quats: nn.Parameter
    log_scales: nn.Parameter
    logit_opacities: nn.Parameter
    sh0: nn.Parameter
    rig_logit: nn.Parameter
    embedding: nn.Parameter | None

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        for name in FIELDS:
            setattr(self, name, nn.Parameter(values[name].float().contiguous()))
        embedding = values.get("embedding")
        self.embedding = None if embedding is None else nn.Parameter(embedding.float().contiguous())

    @classmethod
    def from_points(
        cls,
        means: np.ndarray,
        colors: np.ndarray,
        scales: np.ndarray,
        rig: np.ndarray,
        *,
        embedding_dim: int = 0,
        opacity: float = 0.7,
        generator: torch.Generator | None = None,
    ) -> CanonicalGaussians:
        """Isotropic Gaussians at ``means`` [N, 3] with ``colors`` [N, 3], ``scales`` [N] and ``rig`` [N] 0..1."""
        n = len(means)
        values = {
            "means": torch.from_numpy(np.asarray(means, np.float32)),
            "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
            "log_scales": torch.from_numpy(np.log(np.asarray(scales, np.float32)))[:, None].repeat(1, 3),
            "logit_opacities": torch.full((n,), float(np.log(opacity / (1 - opacity)))),
            "sh0": rgb_to_sh0(torch.from_numpy(np.asarray(colors, np.float32))),
            "rig_logit": torch.from_numpy(np.asarray(rig, np.float32)).clamp(0.018, 0.982).logit(),
        }
        if embedding_dim:
            values["embedding"] = 0.1 * torch.randn(n, embedding_dim, generator=generator)
        return cls(values)

    def __len__(self) -> int:
        return self.means.shape[0]

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """The per-Gaussian parameters, as density control and optimisers want them."""
        found = {name: getattr(self, name) for name in FIELDS}
        if self.embedding is not None:
            found["embedding"] = self.embedding
        return found

    def replace_parameters(self, values: dict[str, nn.Parameter]) -> None:
        """Take over the parameters density control returned; all share the new N."""
        for name, value in values.items():
            setattr(self, name, value)

    def rig(self) -> Tensor:
        """Share of head motion [N] in 0..1."""
        return torch.sigmoid(self.rig_logit)


class Offsets:
    """What the deformation adds to the raw parameters of one branch for one frame; absent means nothing.

    Attributes:
        means: [N, 3] head units.
        quats: [N, 4] added to the raw quaternion.
        log_scales: [N, 3].
        logit_opacities: [N].
        rgb: [N, 3] added to the colour.
    """

    __slots__ = ("log_scales", "logit_opacities", "means", "quats", "rgb")

    def __init__(self, **values: Tensor | None) -> None:
        for name in self.__slots__:
            setattr(self, name, values.get(name))

    def present(self) -> list[Tensor]:
        """The offsets there are, in a fixed order."""
        return [getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None]


def raw_values(canonical: CanonicalGaussians, offsets: Offsets | None = None) -> dict[str, Tensor]:
    """Deformed but not yet activated: means, quats, log_scales, logit_opacities, and colours that may be negative."""

    def plus(value: Tensor, name: str) -> Tensor:
        offset = getattr(offsets, name) if offsets is not None else None
        return value if offset is None else value + offset

    names = ("means", "quats", "log_scales", "logit_opacities")
    values = {name: plus(getattr(canonical, name), name) for name in names}
    return values | {"colors": plus(0.5 + SH_C0 * canonical.sh0, "rgb")}


def activate(canonical: CanonicalGaussians, offsets: Offsets | None = None) -> Gaussians:
    """Head-frame Gaussians of a branch, deformed by ``offsets``."""
    raw = raw_values(canonical, offsets)
    return Gaussians(
        means=raw["means"],
        quats=F.normalize(raw["quats"], dim=-1),
        scales=raw["log_scales"].exp(),
        opacities=torch.sigmoid(raw["logit_opacities"]),
        colors=raw["colors"].clamp_min(0.0),
    )


def pose(gaussians: Gaussians, rig: Tensor, T_cam_head: Tensor, T_cam_torso: Tensor) -> Gaussians:
    """Carry head-frame Gaussians into the camera frame by linear blend skinning over two bones.

    Args:
        gaussians: Head-frame Gaussians.
        rig: [N] share of the head bone; the rest follows the torso.
        T_cam_head: [4, 4] pose of the head.
        T_cam_torso: [4, 4] pose of the torso, in the same coordinates.

    Returns:
        Camera-frame Gaussians.
    """
    share = rig[:, None]
    means = share * transform(T_cam_head, gaussians.means) + (1 - share) * transform(
        T_cam_torso, gaussians.means
    )
    q_head, q_torso = matrix_to_quat(T_cam_head[:3, :3]), matrix_to_quat(T_cam_torso[:3, :3])
    # Both bones turn by a few degrees, so q and -q cannot be mixed up and a normalised blend is close to slerp.
    bone = F.normalize(share * q_head + (1 - share) * q_torso, dim=-1)
    quats = quat_multiply(bone, gaussians.quats)
    return Gaussians(means, quats, gaussians.scales, gaussians.opacities, gaussians.colors)
