"""The avatar: branches of Gaussians with their fields, the motion model, the plate, the stored motion."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from talker.errors import ConfigError
from talker.geometry import matrix_to_rotvec, rigid, rotvec_to_matrix
from talker.model.canonical import CanonicalGaussians, Offsets
from talker.model.carrying import carry
from talker.model.deformation import DeformationField, FieldConfig
from talker.model.fusion import Prepared
from talker.model.motion import LipCode, MotionConfig, MotionModel
from talker.types import EXPRESSION_DIM, Camera, Driving, Gaussians, MotionTrack

FACE, MOUTH = "face", "mouth"


@dataclass(frozen=True)
class ModelConfig:
    """What an avatar is made of; stored with it, and enough to rebuild its modules."""

    face: FieldConfig = field(default_factory=FieldConfig)
    mouth: FieldConfig | None = None
    """The inside-mouth branch, rendered behind the face (PGSTalker); ``None`` for one field."""
    motion: MotionConfig = field(default_factory=MotionConfig)

    def __post_init__(self) -> None:
        if self.face.follows_lips:
            raise ConfigError(
                "model.follows_lips",
                "The face is to follow its own lips.",
                expected="Only the inside-mouth branch follows them.",
            )


class Branch(nn.Module):
    """One set of canonical Gaussians and the field that deforms it."""

    def __init__(self, canonical: CanonicalGaussians, deformation: DeformationField) -> None:
        super().__init__()
        self.canonical = canonical
        self.deformation = deformation


class PoseStatistics(nn.Module):
    """Mean and spread of the head pose over the training frames; makes the pose token unit-free."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("std", torch.ones(6))

    def fit(self, T_cam_head: Tensor) -> None:
        """Take mean and spread from training poses [T, 4, 4]."""
        vectors = self._vector(T_cam_head)
        self.mean.copy_(vectors.mean(0))
        self.std.copy_(vectors.std(0).clamp_min(1e-3))

    def forward(self, T_cam_head: Tensor) -> Tensor:
        """Standardised pose [6], limited to 2.5 standard deviations: beyond, the field never saw it."""
        return ((self._vector(T_cam_head) - self.mean) / self.std).clamp(-2.5, 2.5)

    @staticmethod
    def _vector(T_cam_head: Tensor) -> Tensor:
        return torch.cat((matrix_to_rotvec(T_cam_head[..., :3, :3]), T_cam_head[..., :3, 3]), -1)


class Avatar(nn.Module):
    """Everything needed to speak, and nothing of the clip it came from but its motion.

    Attributes:
        branches: ``face`` and, if configured, ``mouth``.
        motion: Audio features to motion code; ``None`` where the sound drives the field itself.
        lip_code: The basis of the code, to encode landmarks of the same person (driving by a face).
        camera: The clip's camera at the size the avatar was trained at.
        plate: [H, W, 3] background, RGB 0..1.
        track: The clip's head, torso and face motion.
        audio_encoder: Name of the audio features the avatar was trained on.
    """

    plate: Tensor

    def __init__(
        self,
        config: ModelConfig,
        branches: dict[str, Branch],
        motion: MotionModel | None,
        *,
        camera: Camera,
        plate: Tensor,
        track: MotionTrack,
        audio_encoder: str,
        lip_code: LipCode | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.branches = nn.ModuleDict(branches)
        self.motion = motion
        self.pose_statistics = PoseStatistics()
        self.camera = camera
        self.register_buffer("plate", plate.float(), persistent=False)
        self.track = track
        self.audio_encoder = audio_encoder
        self.lip_code = lip_code

    def branch(self, name: str) -> Branch:
        """The branch ``face`` or ``mouth``."""
        found = self.branches[name]
        assert isinstance(found, Branch)
        return found

    @property
    def n_gaussians(self) -> int:
        """Gaussians of all branches."""
        return sum(len(self.branch(name).canonical) for name in self.branches)

    @property
    def device(self) -> torch.device:
        """Where the avatar is computed."""
        return self.plate.device

    def place(self, device: torch.device | str) -> Avatar:
        """Move everything that is computed with, the camera included; returns itself."""
        self.camera = self.camera.to(device)
        return self.to(device)

    def prepare(self) -> dict[str, Prepared]:
        """What depends on the Gaussians alone, per branch; kept while driving."""
        return {
            name: self.branch(name).deformation.prepare(self.branch(name).canonical) for name in self.branches
        }

    def resting(self) -> Driving:
        """The control of a person who is silent, eyes open, head in the clip's mean pose."""
        mean, one = self.pose_statistics.mean, torch.eye(4, device=self.device)
        silent = torch.zeros(self.config.face.window, self.config.face.signal_dim, device=self.device)
        signal = silent if self.motion is None else self.motion.rest
        T_cam_head = rigid(rotvec_to_matrix(mean[:3]), mean[3:])
        return Driving(signal, torch.zeros(EXPRESSION_DIM, device=self.device), T_cam_head, one)

    def gaussians(
        self,
        name: str,
        driving: Driving,
        *,
        prepared: Prepared | None = None,
        static: bool = False,
        pose_jitter: Tensor | None = None,
        face: Offsets | None = None,
    ) -> tuple[Gaussians, Offsets | None]:
        """Camera-frame Gaussians of one branch for one frame, and the offsets that made them.

        Args:
            name: ``face`` or ``mouth``.
            driving: The frame's control.
            prepared: The branch's entry of ``prepare()``; worked out anew if absent.
            static: Leave the deformation out (stage 1).
            pose_jitter: [6] added to the standardised pose the field sees; keeps it from knowing frames by it.
            face: The face's offsets of this frame, for a mouth that follows the lips; worked out anew if absent.
        """
        branch = self.branch(name)
        offsets = None
        if not static:
            field = branch.deformation
            pose_row = self.pose_statistics(driving.T_cam_head)
            pose_row = pose_row if pose_jitter is None else pose_row + pose_jitter
            lips = self._lips_motion(driving, pose_row, face) if field.config.follows_lips else None
            tokens = field.tokens(driving.audio, driving.expression, pose_row, lips)
            offsets = field.offsets(prepared or field.prepare(branch.canonical), tokens)
        return carry(branch.canonical, offsets, driving.T_cam_head, driving.T_cam_torso), offsets

    @torch.no_grad()  # the mouth follows the lips; its errors must not move them
    def _lips_motion(self, driving: Driving, pose_row: Tensor, face: Offsets | None) -> Tensor:
        """Mean motion [3], in head units, of the face's Gaussians in and before the box of the mouth branch."""
        branch, inside = self.branch(FACE), self.branch(MOUTH).deformation
        if face is None:
            field = branch.deformation
            face = field(branch.canonical, field.tokens(driving.audio, driving.expression, pose_row))
        if face.means is None:
            return pose_row.new_zeros(3)
        away = (branch.canonical.means - inside.center) / inside.extent
        # The lips lie before the teeth: no limit towards the camera.
        near = ((away[:, :2].abs() <= 1).all(-1) & (away[:, 2] <= 1)).to(face.means)
        return near @ face.means / near.sum().clamp_min(1)

    def signals(self, windows: np.ndarray, activity: np.ndarray | None) -> Tensor:
        """What the fields take as ``Driving.audio``, for all frames: codes [T, K] or windows [T, W, A].

        Args:
            windows: [T, W, A] audio features.
            activity: [T] speech activity; absent means speech everywhere.
        """
        features = torch.from_numpy(np.ascontiguousarray(windows, dtype=np.float32)).to(self.device)
        if self.motion is None:
            return features
        speaking = None if activity is None else torch.from_numpy(activity).to(self.device)
        return self.motion(features, speaking)
