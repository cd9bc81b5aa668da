"""Head poses from the pictures themselves.

The landmarks of a face mesh slide: they follow outlines and what faces usually look like, and so shrink
turns of the head. Here the texture of the face, with the depth of the mesh, is aligned frame by frame to its median
picture in the reference frame; then the hair is added and lids and brows are left out, or a raised brow reads as a
nod. A smoother then joins the aligned poses, each with its information, to the landmarks' poses and to smooth motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator
from scipy.linalg import solveh_banded

from talker.dataset.steps import mesh
from talker.dataset.steps.align import TemplateAligner, pictures
from talker.dataset.steps.fill import continue_smoothly
from talker.dataset.steps.pose import PoseTrack
from talker.dataset.steps.se3 import left_jacobian, matrix_to_rotvec, rigid, rotvec_to_matrix
from talker.dataset.steps.smoothing import add_blocks, second_difference

PERSON = 0.5
"""Mask probability from which a pixel is taken for hair."""


@dataclass(frozen=True)
class PoseAlignConfig:
    """How pictures and landmarks are joined; head units and radians.

    Attributes:
        blurs: Rounds of alignment, coarse first; pixels.
        flatten: Local mean that is taken away against shading; pixels.
        correlated: Neighbouring pixels err together; so many count as one.
        prior_turn: Trust in the landmarks' rotation.
        prior_shift: Trust in the landmarks' position.
        turn_accel: Second difference of the rotation, a frame squared.
        shift_accel: Second difference of the position.
        max_turn: The alignment may not turn further away from the landmarks' pose.
        max_shift: Nor move the middle of the face by more than this share of the side.
    """

    blurs: tuple[float, float] = (2.0, 1.0)
    flatten: float = 6.0
    correlated: float = 60.0
    prior_turn: float = 0.04
    prior_shift: float = 0.10
    turn_accel: float = 0.010
    shift_accel: float = 0.010
    max_turn: float = 0.2
    max_shift: float = 0.03


class HeadWarp:
    """A rigid surface seen by a pinhole camera; states are T_cam_head [4, 4].

    Args:
        K: [3, 3] of the aligned pictures.
        T_reference: [4, 4].
        depth: [S, S] of the reference picture.
    """

    def __init__(self, K: np.ndarray, T_reference: np.ndarray, depth: np.ndarray) -> None:
        self.focal, self.centre = float(K[0, 0]), K[:2, 2]
        self.depth, self.T_reference = depth, T_reference

    def lift(self, points: np.ndarray) -> np.ndarray:
        """See ``align.Warp``; head-frame points [P, 3]."""
        x, y = points.astype(int).T
        z = self.depth[y, x].astype(np.float64)
        camera = np.concatenate([(points + 0.5 - self.centre) * (z / self.focal)[:, None], z[:, None]], 1)
        return (camera - self.T_reference[:3, 3]) @ self.T_reference[:3, :3]

    def pixels(self, state: np.ndarray, lifted: np.ndarray) -> np.ndarray:
        """See ``align.Warp``."""
        camera = lifted @ state[:3, :3].T + state[:3, 3]
        return camera[:, :2] * (self.focal / camera[:, 2:]) + self.centre - 0.5

    def jacobian(self, points: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """See ``align.Warp``; [P, 6] by rotation and translation in the head frame."""
        head = self.lift(points)
        camera = head @ self.T_reference[:3, :3].T + self.T_reference[:3, 3]
        zoom = self.focal / camera[:, 2:]
        by_camera = np.concatenate(
            [gradient * zoom, -(gradient * camera[:, :2]).sum(1, keepdims=True) * zoom / camera[:, 2:]], 1
        )
        by_head = by_camera @ self.T_reference[:3, :3]
        return np.concatenate([np.cross(head, by_head), by_head], 1)

    def undo(self, state: np.ndarray, step: np.ndarray) -> np.ndarray:
        """See ``align.Warp``."""
        return state @ rigid(rotvec_to_matrix(-step[:3]), -step[3:])


def align_poses(
    frames: np.ndarray,
    masks: np.ndarray,
    landmarks: np.ndarray,
    track: PoseTrack,
    segment: np.ndarray,
    reference: int,
    config: PoseAlignConfig | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Refine the landmarks' poses with the pictures.

    Args:
        frames: [T, S, S, 3] uint8.
        masks: [T, S, S] uint8 person probability.
        landmarks: [T, 478, 3] pixels.
        track: Poses from the landmarks.
        segment: [T].
        reference: A frame of the track in which the face was seen.
        config: Weights.

    Returns:
        T_cam_head [T, 4, 4] float64, and which frames were aligned [T] bool.
    """
    config = config or PoseAlignConfig()
    gray = pictures(frames)
    side = gray(reference).shape[0]
    factor = side / frames.shape[1]
    K = track.K.astype(np.float64) * np.array([[factor], [factor], [1.0]])
    first = track.T_cam_head.astype(np.float64)
    points = landmarks[reference, :468, :2].astype(np.float64) * factor
    depth = (track.shape @ first[reference, 2, :3] + first[reference, 2, 3])[:468]
    warp = HeadWarp(K, first[reference], surface_depth(points, depth, side))
    person = (
        cv2.resize(np.asarray(masks[reference]), (side, side), interpolation=cv2.INTER_AREA) > PERSON * 255
    )
    regions = steady_face(points, side), steady_head(points, person)
    T, aligned, seen = first, np.zeros(len(frames), bool), np.flatnonzero(track.seen)
    for blur, region in zip(config.blurs, regions, strict=True):
        aligner = TemplateAligner(gray, warp, T, seen, region, blur, flatten=config.flatten)
        if not aligner.usable:
            break
        found, information = T.copy(), np.zeros((len(frames), 6, 6))
        for t, answer in aligner.align_all(seen, T):
            if np.isfinite(answer.error):
                found[t] = answer.state
                trust = 1 / (config.correlated * (1 + max(0.0, answer.error - 2) ** 2))
                information[t] = answer.information * trust
        near = _near(found, first, K[0, 0], side, config)
        measured = np.where(near[:, None, None], found, T)
        information[~near] = 0
        aligned = information[:, 0, 0] > 0
        T = smooth_poses(measured, information, first, track.seen, segment, config)
    return T, aligned


def steady_face(points: np.ndarray, side: int) -> np.ndarray:
    """Pixels [side, side] of the face without mouth and chin: these move with speech, often with a nod.

    Args:
        points: [468, 2] landmarks in pixels.
        side: Of the picture.
    """
    region = _grown(_filled(points[mesh.FACE_OVAL], side), -max(1, side // 100))
    margin = 0.02 * side
    right, left = points[mesh.MOUTH_CORNERS, 0]
    below = max(0, int(points[mesh.NOSE_BASE, 1] + margin))
    region[below:, max(0, int(right - margin)) : int(left + margin)] = False
    region[max(0, int(points[mesh.LIP_LOWER, 1])) :] = False
    return region


def steady_head(points: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Pixels [S, S] of ``steady_face`` without eyes and brows, and of the hair around it. Hair below the ears hangs.

    Args:
        points: [468, 2] landmarks in pixels.
        person: [S, S] bool.
    """
    side = len(person)
    region = steady_face(points, side)
    for part in (mesh.EYE_RIGHT, mesh.EYE_LEFT, mesh.BROW_RIGHT, mesh.BROW_LEFT):
        hull = cv2.convexHull(np.round(points[part]).astype(np.int32))[:, 0]
        region &= ~_grown(_filled(hull, side), max(2, side // 80))
    hair = _grown(person, -max(1, side // 100)) & ~_filled(points[mesh.FACE_OVAL], side)
    ears, width = points[mesh.EARS], np.ptp(points[:, 0])
    middle = points[:, 0].min() + width / 2
    hair[max(0, int(ears[:, 1].mean() + 0.1 * width)) :] = False
    hair[:, : max(0, int(middle - 0.75 * width))] = False
    hair[:, max(0, int(middle + 0.75 * width)) :] = False
    return region | hair


def _filled(polygon: np.ndarray, side: int) -> np.ndarray:
    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [np.round(polygon).astype(np.int32)], (1,))
    return canvas.astype(bool)


def _grown(region: np.ndarray, by: int) -> np.ndarray:
    """A region widened by so many pixels, or narrowed if negative."""
    change = cv2.dilate if by > 0 else cv2.erode
    return change(region.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=abs(by)).astype(bool)


def surface_depth(points: np.ndarray, depth: np.ndarray, side: int) -> np.ndarray:
    """Depth [side, side] float32 of the mesh seen in a picture, continued smoothly around it.

    Args:
        points: [P, 2] pixels of the mesh's points.
        depth: [P].
        side: Of the picture.
    """
    rows, columns = np.mgrid[:side, :side]
    inside = LinearNDInterpolator(points, depth)(columns + 0.5, rows + 0.5)
    return continue_smoothly(np.nan_to_num(inside), np.isfinite(inside))


def smooth_poses(
    measured: np.ndarray,
    information: np.ndarray,
    prior: np.ndarray,
    usable: np.ndarray,
    segment: np.ndarray,
    config: PoseAlignConfig,
) -> np.ndarray:
    """Most probable poses given measurements with their information, a weak prior and smooth motion.

    Args:
        measured: [T, 4, 4].
        information: [T, 6, 6] by rotation and translation in the head frame; zero where nothing was measured.
        prior: [T, 4, 4].
        usable: [T] bool, where the prior rests on something.
        segment: [T].
        config: Weights.
    """
    turn, shift = matrix_to_rotvec(measured[:, :3, :3]), measured[:, :3, 3]
    into = np.zeros((len(measured), 6, 6))
    into[:, :3, :3] = left_jacobian(-turn)
    into[:, 3:, 3:] = measured[:, :3, :3].transpose(0, 2, 1)
    data = into.transpose(0, 2, 1) @ information @ into
    weak = np.repeat([config.prior_turn**-2, config.prior_shift**-2], 3)
    held = np.where(usable, 1.0, 1e-4)[:, None] * weak
    value = np.concatenate([turn, shift], 1)
    expected = np.concatenate([matrix_to_rotvec(prior[:, :3, :3]), prior[:, :3, 3]], 1)
    banded = second_difference(segment, np.repeat([config.turn_accel**-2, config.shift_accel**-2], 3))
    add_blocks(banded, data + held[:, :, None] * np.eye(6))
    right = np.einsum("tij,tj->ti", data, value) + held * expected
    solved = solveh_banded(banded, right.reshape(-1)).reshape(-1, 6)
    return rigid(rotvec_to_matrix(solved[:, :3]), solved[:, 3:])


def _near(
    found: np.ndarray, first: np.ndarray, focal: float, side: int, config: PoseAlignConfig
) -> np.ndarray:
    """[T] bool: the alignment did not run away."""
    turned = np.linalg.norm(matrix_to_rotvec(found[:, :3, :3] @ first[:, :3, :3].transpose(0, 2, 1)), axis=1)
    moved = focal * (found[:, :2, 3] / found[:, 2:3, 3] - first[:, :2, 3] / first[:, 2:3, 3])
    return np.asarray((turned < config.max_turn) & (np.abs(moved).max(1) < config.max_shift * side))
