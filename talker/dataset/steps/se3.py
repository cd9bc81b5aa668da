"""Rotations and rigid transforms of whole tracks, in NumPy; conventions of ``talker.geometry``."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def rotvec_to_matrix(rotvec: np.ndarray) -> np.ndarray:
    """Rodrigues: [..., 3] to [..., 3, 3]."""
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    safe = np.maximum(angle, 1e-9)
    skew = cross_matrix(rotvec)
    return np.eye(3) + np.sinc(angle / np.pi) * skew + (1 - np.cos(safe)) / safe**2 * (skew @ skew)


def matrix_to_rotvec(R: np.ndarray) -> np.ndarray:
    """Inverse of ``rotvec_to_matrix`` below half a turn."""
    return Rotation.from_matrix(R).as_rotvec()


def left_jacobian(rotvec: np.ndarray) -> np.ndarray:
    """J [..., 3, 3] with exp(v + d) = exp(J d) exp(v) for small d; its transpose is the right one."""
    angle = np.maximum(np.linalg.norm(rotvec, axis=-1)[..., None, None], 1e-5)
    skew = cross_matrix(rotvec)
    first = (1 - np.cos(angle)) / angle**2
    second = (angle - np.sin(angle)) / angle**3
    return np.eye(3) + first * skew + second * (skew @ skew)


def cross_matrix(v: np.ndarray) -> np.ndarray:
    """[..., 3] to the matrices [..., 3, 3] with M w = v x w."""
    M = np.zeros((*v.shape, 3))
    M[..., 2, 1], M[..., 0, 2], M[..., 1, 0] = v[..., 0], v[..., 1], v[..., 2]
    M[..., 1, 2], M[..., 2, 0], M[..., 0, 1] = -v[..., 0], -v[..., 1], -v[..., 2]
    return M


def rigid(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Homogeneous [..., 4, 4] of R [..., 3, 3] and t [..., 3]."""
    T = np.zeros((*R.shape[:-2], 4, 4))
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = R, t, 1.0
    return T
