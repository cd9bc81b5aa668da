"""From one person's avatar to another's: what the networks have learnt, in the other person's terms.

Two avatars count lips in different numbers: each motion code is principal components of its own speaker's landmarks,
in standard deviations of its own clip. Both describe how lips leave their mean, so in units of the distance between
the outer eye corners, where the size of picture and face drops out, one code is a linear function of the other. That
function goes into the first linear layer that meets a code, and nothing is approximated but what one basis cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from talker.model.avatar import Avatar, Branch
from talker.model.deformation import LIPS_DIM, DeformationField, FieldConfig
from talker.model.motion import LipCode, MotionModel, MotionPrior
from talker.types import EXPRESSION_DIM


def change_of_code(old: LipCode, new: LipCode) -> np.ndarray:
    """Matrix [K_new, K_old] that turns codes of ``old`` into codes of ``new``; mean lips stay mean lips."""
    points = old.std[:, None] * old.basis / old.eye_distance
    return (points @ new.basis.T / new.std * new.eye_distance).T


def sound_prior(motion: MotionModel, old: LipCode, new: LipCode) -> MotionPrior:
    """What ``motion``, which predicts codes of ``old``, says about codes of ``new``, for fitting a model of those.

    It stretches the opening, for lively lips; how much of it is kept is up to the fit.
    """
    return MotionPrior(motion.weight.cpu().numpy().astype(np.float64) @ change_of_code(old, new).T)


@dataclass(frozen=True)
class ControlChange:
    """Turns a new avatar's control into an old one's.

    Attributes:
        signal: [K_old, K_new] for motion codes; ``None`` where the sound itself drives, which is no one's own.
        pose: [POSE_DIM] factors: the head pose is in standard deviations of each clip.
    """

    signal: Tensor | None
    pose: Tensor

    @classmethod
    def between(cls, new: Avatar, old: Avatar) -> ControlChange:
        """The change from the control of ``new`` to that of ``old``."""
        signal = None
        if new.lip_code is not None and old.lip_code is not None:
            signal = torch.from_numpy(change_of_code(new.lip_code, old.lip_code).astype(np.float32))
        return cls(signal, new.pose_statistics.std / old.pose_statistics.std)

    def matrix(self, config: FieldConfig) -> Tensor:
        """[C_old, C_new] for code, expression and, if a field of ``config`` takes them, pose and lips."""
        assert self.signal is not None
        parts = [self.signal, torch.eye(EXPRESSION_DIM)]
        parts += [self.pose.diag()] if config.pose_token else []
        parts += [torch.eye(LIPS_DIM)] if config.follows_lips else []
        return torch.block_diag(*parts)


def can_adopt(new: FieldConfig, old: FieldConfig) -> bool:
    """Whether a field of ``new`` switches can take over the networks of one of ``old`` switches.

    Of a motion code the length may differ: it is changed anyway. Then the window is not used.
    """
    if new.signal == "motion":
        old = replace(old, signal_dim=new.signal_dim, window=new.window)
    return new == old


def adopt(new: Branch, old: Branch, change: ControlChange) -> None:
    """Give ``new`` the networks of ``old`` and, Gaussian by Gaussian, the vector of its nearest one there.

    Place for place the field then does for a new control what the old one does for the old control. Its box comes
    along, because the encoder knows places by it. What each Gaussian looks like is not touched.
    """
    with torch.no_grad():
        tensors = {name: value.clone() for name, value in old.deformation.state_dict().items()}
        tensors |= _changed_inlets(old.deformation, change)
        new.deformation.load_state_dict(tensors)
        if new.canonical.embedding is not None and old.canonical.embedding is not None:
            rows = nearest(new.canonical.means, old.canonical.means)
            new.canonical.embedding.copy_(old.canonical.embedding[rows])


def nearest(points: Tensor, among: Tensor) -> Tensor:
    """Rows [N] of ``among`` [M, 3] that are nearest to ``points`` [N, 3]."""
    _, rows = KDTree(among.detach().numpy()).query(points.detach().numpy())
    return torch.from_numpy(rows)


def _changed_inlets(field: DeformationField, change: ControlChange) -> dict[str, Tensor]:
    """The layers of ``field`` that meet the control, for the new one."""
    if field.blendshapes:
        return _changed_blendshapes(field, change.matrix(field.config))
    state = field.state_dict()
    changed = {}
    if field.config.signal == "motion":
        assert change.signal is not None
        changed["signal.weight"] = state["signal.weight"] @ change.signal
    if field.config.pose_token:
        changed["pose.weight"] = state["pose.weight"] * change.pose
    return changed


def _changed_blendshapes(field: DeformationField, matrix: Tensor) -> dict[str, Tensor]:
    """Basis and learnt functions of the control for a control that ``matrix`` [C_old, C_new] turns into the old.

    ``B (A c) = (B A) c`` for the part of the basis that meets the control itself; the functions ``tanh(E A c + e)``
    keep their values, so their part of the basis stays.
    """
    state = field.state_dict()
    controls = len(matrix)
    conditions = field.condition.dim

    def changed(basis: Tensor) -> Tensor:  # [out * M, ...]
        basis = basis.unflatten(0, (field.config.out_dim, conditions))
        own = torch.einsum("oc...,cn->on...", basis[:, :controls], matrix)
        return torch.cat((own, basis[:, controls:]), 1).flatten(0, 1)

    return {
        "fusion.basis.weight": changed(state["fusion.basis.weight"]),
        "fusion.basis.bias": changed(state["fusion.basis.bias"]),
        "condition.extra.weight": state["condition.extra.weight"] @ matrix,
    }
