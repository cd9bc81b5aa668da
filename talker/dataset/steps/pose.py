"""Head pose: one bundle adjustment over the whole clip.

Unknown are one focal length, one rigid shape of the person and a pose a frame; known are the pixels of a
rigid subset of the landmarks. Gauss-Newton with robust weights; because frames only meet in the shape, the
focal length and the smoothness of neighbouring poses, the normal equations are banded with a narrow border
and are solved exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solveh_banded

from talker.dataset.steps import mesh
from talker.dataset.steps.se3 import cross_matrix, left_jacobian, matrix_to_rotvec, rigid, rotvec_to_matrix
from talker.dataset.steps.smoothing import add_blocks, bends, second_difference
from talker.errors import TrackingError

WORKING_SIDE = 512.0
"""Noise levels below are pixels of a picture of this side, whatever the size of the dataset."""


@dataclass(frozen=True)
class PoseConfig:
    """How much each kind of evidence weighs: standard deviations.

    Attributes:
        noise_px: Error of one landmark in x or y.
        depth_noise_px: Error of one landmark's own z, which is known only roughly.
        common: Landmark errors of one frame go together; so many of them count as one.
        turn_accel: Second difference of the rotation, radians a frame squared.
        shift_accel: Second difference of the position, head units a frame squared.
        shape_prior: Deviation of the shape from the aligned mean of the landmarks, head units.
        focal: Expected focal length in picture sides, and its spread as a log.
        huber: Residuals beyond so many deviations count linearly.
        iterations: Gauss-Newton steps at most.
    """

    noise_px: float = 1.0
    depth_noise_px: float = 6.0
    common: float = 6.0
    turn_accel: float = 0.010
    shift_accel: float = 0.010
    shape_prior: float = 0.05
    focal: float = 2.2
    focal_spread: float = 0.35
    huber: float = 2.0
    iterations: int = 25


@dataclass(frozen=True)
class PoseTrack:
    """Poses of one clip in one head frame (see ``talker.types``)."""

    K: np.ndarray  # [3, 3] pixels
    T_cam_head: np.ndarray  # [T, 4, 4]
    shape: np.ndarray  # [478, 3] head frame
    error: np.ndarray  # [T] median reprojection error of the rigid subset in pixels; NaN where not tracked
    seen: np.ndarray  # [T] bool: the pose rests on this frame's own landmarks


@dataclass
class _State:
    """What is being adjusted; pixels of a WORKING_SIDE picture, head units."""

    rotvec: np.ndarray  # [T, 3]
    position: np.ndarray  # [T, 3]
    shape: np.ndarray  # [R, 3]
    log_focal: float

    def moved(self, step: _State) -> _State:
        return _State(
            self.rotvec + step.rotvec,
            self.position + step.position,
            self.shape + step.shape,
            self.log_focal + step.log_focal,
        )


def adjust_pose(
    landmarks: np.ndarray, segment: np.ndarray, size: int, config: PoseConfig | None = None
) -> PoseTrack:
    """Fit focal length, shape and poses to a clip's landmarks.

    Args:
        landmarks: [T, 478, 3] pixels of ``size`` pictures, NaN where there is no face.
        segment: [T] number of the shot of each frame; nothing is smoothed over a cut.
        size: Side of the pictures.
        config: Noise levels.

    Raises:
        TrackingError: No frame has a face.
    """
    config = config or PoseConfig()
    seen = np.isfinite(landmarks[:, 0, 0])
    if not seen.any():
        raise TrackingError(
            "track.no_face",
            "No face was found in any frame.",
            todo="Use a clip in which the face is well lit and looks towards the camera.",
        )
    observed = _centred(landmarks, size)
    problem = _Problem(observed[:, mesh.RIGID], seen, segment, config)
    state = problem.solve(_initial(observed, seen, config))
    R, focal = rotvec_to_matrix(state.rotvec), float(np.exp(state.log_focal))
    full = _whole_shape(R, state.position, focal, observed, seen, state.shape)
    full[mesh.RIGID] = state.shape
    return _canonical(R, state.position, focal, full, observed, seen, size)


def _initial(observed: np.ndarray, seen: np.ndarray, config: PoseConfig) -> _State:
    """Similarity-align all frames to their mean (generalised Procrustes); depth from the scale."""
    points = observed[seen][:, mesh.RIGID]
    centre = points.mean(1)
    mean: np.ndarray = points[0] - centre[0]
    for _ in range(4):
        R, scale = _align(mean, points - centre[:, None])
        mean = np.einsum("tij,tki->kj", R, (points - centre[:, None]) / scale[:, None, None]) / len(points)
    right, left = (list(mesh.RIGID).index(eye) for eye in (mesh.EYE_OUTER_RIGHT, mesh.EYE_OUTER_LEFT))
    unit = float(np.linalg.norm(np.diff(mean[[right, left]], axis=0)))
    focal = config.focal * WORKING_SIDE
    depth = np.asarray(focal / (scale * unit))
    position = np.concatenate([centre[:, :2] * depth[:, None] / focal, depth[:, None]], 1)
    frame = np.arange(len(seen))
    fill = np.stack([np.interp(frame, frame[seen], position[:, i]) for i in range(3)], 1)
    rotvec = matrix_to_rotvec(R)
    turn = np.stack([np.interp(frame, frame[seen], rotvec[:, i]) for i in range(3)], 1)
    return _State(turn, fill, mean / unit, float(np.log(focal)))


def _align(model: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations [T, 3, 3] and scales [T] that best map ``model`` [R, 3] onto ``points`` [T, R, 3] (Umeyama)."""
    U, S, Vt = np.linalg.svd(np.einsum("tki,kj->tij", points, model))
    sign = np.ones_like(S)
    sign[:, 2] = np.sign(np.linalg.det(U @ Vt))
    return (U * sign[:, None]) @ Vt, (S * sign).sum(1) / (model**2).sum()


class _Problem:
    """Residuals, normal equations and their solution."""

    def __init__(self, observed: np.ndarray, seen: np.ndarray, segment: np.ndarray, config: PoseConfig):
        self.observed = observed
        self.depth = observed[..., 2] - observed[..., 2].mean(1, keepdims=True)
        self.seen = seen.astype(np.float64)
        self.config = config
        self.segment = segment
        self.smooth = bends(segment)

    def solve(self, state: _State) -> _State:
        self.prior = state.shape.copy()
        damping, cost = 1e-3, self._cost(state)
        for _ in range(self.config.iterations):
            candidate = state.moved(self._step(state, damping))
            new = self._cost(candidate)
            if new < cost:
                gain, cost, state, damping = (cost - new) / cost, new, candidate, damping / 5
                if gain < 1e-5:
                    break
            else:
                damping *= 10
                if damping > 1e6:
                    break
        return state

    def _residuals(self, state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Whitened residuals [T, R, 3] (x, y, depth), camera points and rotated shape [T, R, 3]."""
        R = rotvec_to_matrix(state.rotvec)
        turned = np.einsum("tij,kj->tki", R, state.shape)
        points = turned + state.position[:, None]
        focal = np.exp(state.log_focal)
        residual = np.empty_like(points)
        residual[..., :2] = (
            focal * points[..., :2] / points[..., 2:] - self.observed[..., :2]
        ) / self.config.noise_px
        relative = turned[..., 2] - turned[..., 2].mean(1, keepdims=True)
        zoom = focal / state.position[:, 2:]
        residual[..., 2] = (relative * zoom - self.depth) / self.config.depth_noise_px
        return residual * self.seen[:, None, None], points, turned

    def _cost(self, state: _State) -> float:
        residual, _, _ = self._residuals(state)
        size = np.abs(residual)
        h = self.config.huber
        data = np.where(size < h, 0.5 * size**2, h * (size - h / 2)).sum() / self.config.common
        turn, shift = np.diff(state.rotvec, 2, axis=0), np.diff(state.position, 2, axis=0)
        data += 0.5 * (turn[self.smooth] ** 2).sum() / self.config.turn_accel**2
        data += 0.5 * (shift[self.smooth] ** 2).sum() / self.config.shift_accel**2
        data += 0.5 * ((state.shape - self.prior) ** 2).sum() / self.config.shape_prior**2
        return data + 0.5 * self._focal_off(state) ** 2

    def _focal_off(self, state: _State) -> float:
        return (state.log_focal - np.log(self.config.focal * WORKING_SIDE)) / self.config.focal_spread

    def _step(self, state: _State, damping: float) -> _State:
        """One damped Gauss-Newton step through the Schur complement of the poses."""
        n, k = len(state.rotvec), len(state.shape)
        pose_jac, shape_jac, focal_jac, residual, weight = self._linearise(state)
        weighted = pose_jac * weight[..., None]
        A = weighted.reshape(n, -1, 6).transpose(0, 2, 1) @ pose_jac.reshape(n, -1, 6)
        B = np.empty((n, 6, 3 * k + 1))
        by_both = weighted.transpose(0, 1, 3, 2) @ shape_jac  # [T, R, 6, 3]
        B[..., :-1] = by_both.transpose(0, 2, 1, 3).reshape(n, 6, 3 * k)
        B[..., -1] = np.einsum("tkai,tka->ti", weighted, focal_jac)
        C = np.zeros((3 * k + 1, 3 * k + 1))
        blocks = np.einsum("tkai,tka,tkaj->kij", shape_jac, weight, shape_jac, optimize=True)
        for i in range(k):
            C[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = blocks[i]
        C[:-1, -1] = np.einsum("tkai,tka,tka->ki", shape_jac, weight, focal_jac, optimize=True).reshape(-1)
        C[-1, :-1] = C[:-1, -1]
        C[-1, -1] = (weight * focal_jac**2).sum() + 1 / self.config.focal_spread**2
        C[np.arange(3 * k), np.arange(3 * k)] += 1 / self.config.shape_prior**2
        pose_grad = np.einsum("tkai,tka->ti", weighted, residual)
        shape_grad = np.concatenate(
            [
                np.einsum("tkai,tka,tka->ki", shape_jac, weight, residual, optimize=True).reshape(-1)
                + (state.shape - self.prior).reshape(-1) / self.config.shape_prior**2,
                [(weight * focal_jac * residual).sum() + self._focal_off(state) / self.config.focal_spread],
            ]
        )
        banded, smooth_grad = self._smoothness(state)
        # A trace of damping also holds frames nobody speaks for.
        add_blocks(banded, A + damping * A * np.eye(6) + 1e-6 * np.eye(6))
        C[np.diag_indices_from(C)] *= 1 + damping
        right = np.concatenate([B.reshape(6 * n, -1), (pose_grad + smooth_grad).reshape(-1, 1)], 1)
        solved = solveh_banded(banded, right, overwrite_ab=True, check_finite=False)
        flat = B.reshape(6 * n, -1)
        schur = C - flat.T @ solved[:, :-1]
        border = cho_solve(cho_factor(schur), shape_grad - flat.T @ solved[:, -1])
        pose = -(solved[:, -1] - solved[:, :-1] @ border).reshape(n, 6)
        return _State(pose[:, :3], pose[:, 3:], -border[:-1].reshape(k, 3), float(-border[-1]))

    def _linearise(self, state: _State) -> tuple[np.ndarray, ...]:
        """Jacobians of x, y, depth [T, R, 3, ...] by pose, shape and log focal; residuals; weights."""
        residual, points, turned = self._residuals(state)
        focal = np.exp(state.log_focal)
        c = self.config
        zoom = focal / points[..., 2]
        by_point = np.zeros((*points.shape[:2], 2, 3))
        by_point[..., 0, 0] = by_point[..., 1, 1] = zoom / c.noise_px
        by_point[..., 2] = -zoom[..., None] * points[..., :2] / points[..., 2:] / c.noise_px
        R = rotvec_to_matrix(state.rotvec)
        by_turn = -cross_matrix(turned) @ left_jacobian(state.rotvec)[:, None]
        depth_zoom = focal / state.position[:, 2] / c.depth_noise_px
        pose_jac = np.zeros((*points.shape[:2], 3, 6))
        pose_jac[..., :2, :3] = by_point @ by_turn
        pose_jac[..., :2, 3:] = by_point
        z_turn = by_turn[..., 2, :] - by_turn[..., 2, :].mean(1, keepdims=True)
        pose_jac[..., 2, :3] = z_turn * depth_zoom[:, None, None]
        shape_jac = np.zeros((*points.shape[:2], 3, 3))
        shape_jac[..., :2, :] = by_point @ R[:, None]
        shape_jac[..., 2, :] = R[:, None, 2] * depth_zoom[:, None, None]
        focal_jac = np.zeros(points.shape)
        focal_jac[..., :2] = zoom[..., None] * points[..., :2] / c.noise_px
        focal_jac[..., 2] = (turned[..., 2] - turned[..., 2].mean(1, keepdims=True)) * depth_zoom[:, None]
        size = np.maximum(np.abs(residual), 1e-9)
        weight = np.minimum(1.0, c.huber / size) * self.seen[:, None, None] / c.common
        return pose_jac, shape_jac, focal_jac, residual, weight

    def _smoothness(self, state: _State) -> tuple[np.ndarray, np.ndarray]:
        """Banded upper form [13, 6 T] and gradient [T, 6] of the second-difference terms."""
        inverse = np.repeat([1 / self.config.turn_accel**2, 1 / self.config.shift_accel**2], 3)
        banded = second_difference(self.segment, inverse)
        pose = np.concatenate([state.rotvec, state.position], 1)
        bend = np.diff(pose, 2, axis=0) * self.smooth[:, None] * inverse
        gradient = np.zeros_like(pose)
        gradient[:-2] += bend
        gradient[1:-1] -= 2 * bend
        gradient[2:] += bend
        return banded, gradient


def with_poses(track: PoseTrack, T_cam_head: np.ndarray, landmarks: np.ndarray, size: int) -> PoseTrack:
    """The track with other poses [T, 4, 4], and the shape that landmarks [T, 478, 3] have under them."""
    observed, seen = _centred(landmarks, size), track.seen
    R, position = T_cam_head[:, :3, :3].astype(np.float64), T_cam_head[:, :3, 3].astype(np.float64)
    focal = float(track.K[0, 0]) * WORKING_SIDE / size
    full = _whole_shape(R, position, focal, observed, seen, track.shape[mesh.RIGID].astype(np.float64))
    return _canonical(R, position, focal, full, observed, seen, size)


def _centred(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Landmarks as pixels of a WORKING_SIDE picture from its middle, float64; 0 where there are none."""
    observed = np.nan_to_num(landmarks.astype(np.float64)) * (WORKING_SIDE / size)
    observed[..., :2] -= WORKING_SIDE / 2
    return observed


def _canonical(
    R: np.ndarray,
    position: np.ndarray,
    focal: float,
    full: np.ndarray,
    observed: np.ndarray,
    seen: np.ndarray,
    size: int,
) -> PoseTrack:
    """Turn, centre and scale the head frame to its definition; ``full`` are all landmarks in it [478, 3]."""
    turn = facing(full)
    centre = full[mesh.RIGID].mean(0)
    unit = float(np.linalg.norm(full[mesh.EYE_OUTER_RIGHT] - full[mesh.EYE_OUTER_LEFT]))
    shape = (full - centre) @ turn.T / unit
    T = rigid(R @ turn.T, (position + R @ centre) / unit)
    points = np.einsum("tij,kj->tki", T[:, :3, :3], shape[mesh.RIGID]) + T[:, None, :3, 3]
    off = focal * points[..., :2] / points[..., 2:] - observed[:, mesh.RIGID, :2]
    pixel = size / WORKING_SIDE
    error = np.where(seen, np.median(np.linalg.norm(off, axis=-1), axis=1), np.nan) * pixel
    K = np.array([[focal * pixel, 0, size / 2], [0, focal * pixel, size / 2], [0, 0, 1]])
    return PoseTrack(
        K.astype(np.float32), T.astype(np.float32), shape.astype(np.float32), error.astype(np.float32), seen
    )


def _whole_shape(
    R: np.ndarray,
    position: np.ndarray,
    focal: float,
    observed: np.ndarray,
    seen: np.ndarray,
    anchor: np.ndarray,
) -> np.ndarray:
    """Mean head-frame position [478, 3] of every landmark, moving ones included.

    The landmarks' own z is taken relative to the rigid subset, which lies at ``anchor`` [R, 3], and scaled
    like x and y.
    """
    points, R, position = observed[seen], R[seen], position[seen]
    zoom = focal / position[:, 2]
    rigid_depth = np.einsum("tj,kj->tk", R[:, 2], anchor).mean(1)
    own = points[..., 2] - points[:, mesh.RIGID, 2].mean(1, keepdims=True)
    depth = position[:, 2, None] + rigid_depth[:, None] + own / zoom[:, None]
    camera = np.concatenate([points[..., :2] * depth[..., None] / focal, depth[..., None]], -1)
    return np.einsum("tji,tkj->tki", R, camera - position[:, None]).mean(0)


def facing(shape: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] into the head frame: x from the right eye to the left, y from forehead to chin.

    Mirror pairs give x; the line from the top of the forehead to the chin is parallel to the picture when a
    face looks into the camera.
    """
    sides = shape[mesh.MIRROR_PAIRS[:, 1]] - shape[mesh.MIRROR_PAIRS[:, 0]]
    x = sides.mean(0)
    x /= np.linalg.norm(x)
    y = shape[mesh.CHIN] - shape[mesh.FOREHEAD]
    y -= x * (x @ y)
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)])
