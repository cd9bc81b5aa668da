"""Rotations, rigid transforms and the pinhole projection. Quaternions are wxyz; ``T_a_b`` maps b into a."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def quat_multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product [..., 4]: rotate by ``right`` first, then by ``left``."""
    lw, lx, ly, lz = left.unbind(-1)
    rw, rx, ry, rz = right.unbind(-1)
    return torch.stack(
        (
            lw * rw - lx * rx - ly * ry - lz * rz,
            lw * rx + lx * rw + ly * rz - lz * ry,
            lw * ry - lx * rz + ly * rw + lz * rx,
            lw * rz + lx * ry - ly * rx + lz * rw,
        ),
        -1,
    )


def quat_to_matrix(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] of any non-zero length."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_quat(R: Tensor) -> Tensor:
    """Unit quaternions [..., 4] with w >= 0 of rotation matrices [..., 3, 3]."""
    m00, m11, m22 = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    # Four candidates; the one with the largest norm is numerically safe (Bar-Itzhack's variant of Shepperd).
    q_abs = torch.stack(
        (1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22), -1
    )
    # Not 0: the square root has no slope there, and near the identity three of the four are rounding noise.
    q_abs = q_abs.clamp_min(1e-12).sqrt()
    d21, d02, d10 = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    s10, s20, s21 = R[..., 1, 0] + R[..., 0, 1], R[..., 2, 0] + R[..., 0, 2], R[..., 2, 1] + R[..., 1, 2]
    candidates = torch.stack(
        (
            torch.stack((q_abs[..., 0] ** 2, d21, d02, d10), -1),
            torch.stack((d21, q_abs[..., 1] ** 2, s10, s20), -1),
            torch.stack((d02, s10, q_abs[..., 2] ** 2, s21), -1),
            torch.stack((d10, s20, s21, q_abs[..., 3] ** 2), -1),
        ),
        -2,
    )
    best = q_abs.argmax(-1)[..., None, None].expand(*q_abs.shape[:-1], 1, 4)
    quat = F.normalize(candidates.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quat[..., :1] < 0, -quat, quat)


def rotvec_to_matrix(rotvec: Tensor) -> Tensor:
    """Rodrigues: rotation matrices [..., 3, 3] of axis-angle vectors [..., 3] in radians; smooth at zero."""
    angle2 = (rotvec * rotvec).sum(-1)[..., None, None]
    small = angle2 < 1e-8
    angle = torch.where(small, torch.ones_like(angle2), angle2).sqrt()
    a = torch.where(small, 1 - angle2 / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / (angle * angle))
    x, y, z = rotvec.unbind(-1)
    o = torch.zeros_like(x)
    skew = torch.stack(
        (torch.stack((o, -z, y), -1), torch.stack((z, o, -x), -1), torch.stack((-y, x, o), -1)), -2
    )
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return eye + a * skew + b * (skew @ skew)


def matrix_to_rotvec(R: Tensor) -> Tensor:
    """Axis-angle vectors [..., 3] in radians of rotation matrices [..., 3, 3]."""
    quat = matrix_to_quat(R)
    sine = quat[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quat[..., :1])
    return torch.where(sine > 1e-7, quat[..., 1:] / sine.clamp_min(1e-12) * angle, 2 * quat[..., 1:])


def rigid(R: Tensor, t: Tensor) -> Tensor:
    """Homogeneous [..., 4, 4] of rotations [..., 3, 3] and translations [..., 3]."""
    top = torch.cat((R, t[..., None]), -1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=R.dtype, device=R.device).expand(*R.shape[:-2], 1, 4)
    return torch.cat((top, bottom), -2)


def corrected(T: Tensor, delta: Tensor) -> Tensor:
    """Pose ``T`` [4, 4] turned about its own origin by ``delta[:3]`` (radians) and shifted by ``delta[3:]``."""
    return rigid(rotvec_to_matrix(delta[:3]) @ T[:3, :3], T[:3, 3] + delta[3:])


def invert_rigid(T: Tensor) -> Tensor:
    """Inverse of rigid transforms [..., 4, 4]."""
    R_t = T[..., :3, :3].transpose(-1, -2)
    return rigid(R_t, -(R_t @ T[..., :3, 3:])[..., 0])


def transform(T: Tensor, points: Tensor) -> Tensor:
    """Apply rigid transforms [..., 4, 4] to points [..., P, 3]."""
    return points @ T[..., :3, :3].transpose(-1, -2) + T[..., None, :3, 3]


def project(K: Tensor, points: Tensor) -> Tensor:
    """Pixels [..., P, 2] of camera-frame points [..., P, 3]; z must be positive."""
    uv = points[..., :2] / points[..., 2:]
    return uv * torch.stack((K[..., 0, 0], K[..., 1, 1]), -1) + K[..., :2, 2]
