"""Sound to lips: a motion code of a few numbers, and the model that predicts it from audio features.

The code is what head-aligned lip and jaw landmarks do, by principal components of the speaker's own clip. It can be
learnt from landmarks alone, in seconds, before and beside the images (an image loss alone teaches the lips nothing on
a short clip: DESIGN, section 5). Silence, intensity and driving by another face all act on this code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from talker.errors import ConfigError
from talker.model.ridge import choose_penalties, ridge, time_bumps

RIGID = (
    *(10, 151, 9, 8, 168, 6, 197, 195, 5, 67, 109, 338, 297, 54, 284, 103, 332, 127, 356, 234, 454, 93, 323),
    *(33, 133, 362, 263),
)
"""Mesh points that move with the skull: forehead, nose bridge, temples, cheekbones, eye corners."""

LIPS_AND_JAW = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(152, 148, 377, 176, 400),
)
"""Mesh points the code describes: outer and inner lips, chin."""

PRESSED = 0.035
"""How far lips at rest are pressed beyond the most closed ones seen, in outer-eye distances."""

SLIDE_PENALTY = 20.0
"""Holds back what is called sliding with the head pose, in frames of evidence."""


def align_rigidly(landmarks: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Remove head motion: rotate and shift every frame so that its rigid points lie on ``reference``.

    Args:
        landmarks: [T, 478, 3] pixels.
        reference: [len(RIGID), 3] mean rigid points, pixels.

    Returns:
        Aligned landmarks [T, 478, 3] (Kabsch, no scale).
    """
    rigid = landmarks[:, RIGID].astype(np.float64)
    mean = rigid.mean(1, keepdims=True)
    target = reference - reference.mean(0)
    U, _, Vt = np.linalg.svd(np.swapaxes(rigid - mean, 1, 2) @ target)
    flip = np.ones((len(rigid), 3))
    flip[:, 2] = np.sign(np.linalg.det(U @ Vt))
    R = (U * flip[:, None]) @ Vt
    return (landmarks - mean) @ R + reference.mean(0)


@dataclass(frozen=True)
class LipCode:
    """Principal components of what aligned lip and jaw points do by themselves, in standard deviations.

    A tracked mesh slides over the face as the head turns, by several pixels, and no sound tells how far. That part is
    linear in the head pose and taken out first; the deformation sees the pose and puts it back.

    What the head does by itself is taken out before, in one of two ways: by its rigid points, frame by frame, or by
    its tracked pose (``view``). Rigid points follow brows a little; a pose is only as good as the tracking.
    """

    reference: np.ndarray  # [len(RIGID), 3]
    mean: np.ndarray  # [P]
    slide: np.ndarray  # [6, P] points per standard deviation of the head pose
    basis: np.ndarray  # [K, P]
    std: np.ndarray  # [K]
    view: np.ndarray | None = None
    """[4] focal length, image centre x and y (pixels) and mean depth (head units) for a code that goes by tracked
    heads; absent for one that goes by rigid points."""

    @classmethod
    def fit(
        cls,
        landmarks: np.ndarray,
        pose: np.ndarray,
        opening: np.ndarray,
        dim: int,
        *,
        heads: np.ndarray | None = None,
        K: np.ndarray | None = None,
        like: LipCode | None = None,
    ) -> LipCode:
        """Components of the training frames.

        Args:
            landmarks: [T, 478, 3] pixels, no NaN.
            pose: [T, 6] standardised head poses.
            opening: [T] of the mouth; what goes with it is never taken for sliding, however a speaker nods.
            dim: Length K of the code.
            heads: [T, 4, 4] tracked poses, to measure lips from there and not from the rigid points.
            K: [3, 3] camera matrix, if ``heads`` are given.
            like: Another speaker's code, whose components and deviations are taken, at the size of this face: then
                a number means the same motion of the lips for both.
        """
        reference = landmarks[:, RIGID].astype(np.float64).mean(0)
        view = None
        if heads is not None and K is not None:
            view = np.array([K[0, 0], K[0, 2], K[1, 2], heads[:, 2, 3].mean()], np.float32)
        points = _lip_points(landmarks, reference, view, heads)
        mean = points.mean(0)
        causes = np.c_[pose, (opening - opening.mean()) / max(opening.std(), 1e-6)].astype(np.float64)
        evidence = causes.T @ causes + SLIDE_PENALTY * np.eye(causes.shape[1])
        slide = np.linalg.solve(evidence, causes.T @ (points - mean))[:-1]
        own = points - mean - pose @ slide
        mean += own.mean(0)
        if like is None:
            _, singular, Vt = np.linalg.svd(own - own.mean(0), full_matrices=False)
            basis, std = Vt[:dim], np.maximum(singular[:dim] / np.sqrt(len(points)), 1e-6)
        else:
            basis, std = like.basis, like.std * (_eye_distance(reference) / like.eye_distance)
        return cls(*(np.asarray(v, np.float32) for v in (reference, mean, slide, basis, std)), view=view)

    @property
    def eye_distance(self) -> float:
        """Between the outer eye corners, in the pixels the code was fitted in."""
        return _eye_distance(self.reference)

    def encode(self, landmarks: np.ndarray, pose: np.ndarray, heads: np.ndarray | None = None) -> np.ndarray:
        """Codes [T, K] of landmarks [T, 478, 3] of the same person at the same size.

        Args:
            landmarks: [T, 478, 3].
            pose: [T, 6] standardised head poses.
            heads: [T, 4, 4] the poses themselves; only a code that goes by them (``view``) needs them.
        """
        return (self._own(landmarks, pose, heads) @ self.basis.T / self.std).astype(np.float32)

    def missed(
        self, landmarks: np.ndarray, pose: np.ndarray, codes: np.ndarray, heads: np.ndarray | None = None
    ) -> float:
        """Root mean square distance, in pixels, of the points from where ``codes`` [T, K] put them."""
        left = self._own(landmarks, pose, heads) - (codes * self.std) @ self.basis
        return float(np.sqrt(2 * np.square(left).mean()))

    def _own(self, landmarks: np.ndarray, pose: np.ndarray, heads: np.ndarray | None) -> np.ndarray:
        """What the points do by themselves [T, P]."""
        return _lip_points(landmarks, self.reference, self.view, heads) - self.mean - pose @ self.slide


def _eye_distance(rigid: np.ndarray) -> float:
    """Between the outer eye corners of rigid points [len(RIGID), 3]."""
    right, left = rigid[[RIGID.index(corner) for corner in (33, 263)]]
    return float(np.linalg.norm(left - right))


def _lip_points(
    landmarks: np.ndarray, reference: np.ndarray, view: np.ndarray | None, heads: np.ndarray | None
) -> np.ndarray:
    if view is None:
        points = align_rigidly(landmarks, reference)[:, LIPS_AND_JAW, :2]
    else:
        assert heads is not None, "this code is measured from tracked heads"
        points = _seen_from_head(landmarks[:, LIPS_AND_JAW, :2], heads.astype(np.float64), view)
    return points.reshape(len(landmarks), -1)


def _seen_from_head(points: np.ndarray, heads: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Points [T, P, 2] from the projected origin of each head [T, 4, 4], upright, as at its mean depth.

    How it turns otherwise is left to what slides, which is linear in it.
    """
    focal, centre, depth = float(view[0]), view[1:3].astype(np.float64), float(view[3])
    origin = heads[:, :3, 3]
    middle = focal * origin[:, :2] / origin[:, 2:] + centre
    roll = np.arctan2(heads[:, 1, 0], heads[:, 0, 0])
    c, s = np.cos(roll), np.sin(roll)
    upright = np.stack((np.stack((c, s), -1), np.stack((-s, c), -1)), -2)
    return (points - middle[:, None]) @ upright.transpose(0, 2, 1) * (origin[:, 2] / depth)[:, None, None]


@dataclass(frozen=True)
class MotionPrior:
    """Where a fit of sound to codes may start instead of at zero: what another speaker's avatar knows.

    Attributes:
        weight: [F, K] of the flattened windows to this speaker's codes.
        shares: How much of it may be kept, beside nothing.
    """

    weight: np.ndarray
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)


class MotionModel(nn.Module):
    """Audio windows to motion codes: a ridge regression, blended into the rest code where nobody speaks.

    A linear model, because a minute of one speaker is about a thousand frames: networks of every size tried
    overfitted them (docs/LOG.md). It is fitted in closed form, with the penalty chosen by cross-validation over
    contiguous blocks of the training frames.

    Attributes:
        mean: [F] of the flattened windows.
        weight: [F, K].  bias: [K] mean code.
        rest: [K] code of the closed, silent mouth.
        prior_share: How much of a prior the fit kept, 0..1; known only to whoever fitted, not stored.
    """

    mean: Tensor
    weight: Tensor
    bias: Tensor
    rest: Tensor

    def __init__(self, window: int, features: int, dim: int) -> None:
        super().__init__()
        flat = window * features
        for name, shape in (("mean", flat), ("weight", (flat, dim)), ("bias", dim), ("rest", dim)):
            self.register_buffer(name, torch.zeros(shape))
        self.prior_share = 0.0

    @property
    def dim(self) -> int:
        """Length K of the code."""
        return self.bias.shape[0]

    def forward(self, windows: Tensor, activity: Tensor | None = None) -> Tensor:
        """Codes [T, K] for audio windows [T, W, A] and speech activity [T] in 0..1 (1 everywhere if absent)."""
        spoken = self.bias + (windows.flatten(1) - self.mean) @ self.weight
        if activity is None:
            return spoken
        share = activity[:, None]
        return share * spoken + (1 - share) * self.rest

    @classmethod
    def fit(
        cls,
        windows: np.ndarray,
        codes: np.ndarray,
        *,
        rest: np.ndarray,
        slope: np.ndarray,
        config: MotionConfig,
        prior: MotionPrior | None = None,
    ) -> MotionModel:
        """Fit on training frames.

        Args:
            windows: [T, W, A] audio features.
            codes: [T, K] true codes.
            rest: [K] the silent mouth's code.
            slope: [K] of the mouth opening in the code, see ``opening_slope``.
            config: Penalties and how far the opening is stretched.
            prior: What the regression starts from; it explains what the best share of it leaves over.
        """
        model = cls(windows.shape[1], windows.shape[2], codes.shape[1])
        flat = windows.reshape(len(windows), -1)  # hundreds of megabytes for a long clip: never copied whole
        mean, bias = flat.mean(0, dtype=np.float64), codes.mean(0)
        bumps = time_bumps(windows.shape[1], config.bumps, config.taper)
        X = _heard(windows, bumps)
        Y = (codes - bias).astype(np.float64)
        prior = prior or MotionPrior(np.zeros((len(mean), Y.shape[1])), shares=())
        known = flat @ prior.weight.astype(np.float32) - mean @ prior.weight
        model.prior_share = _choose_share(X, Y, known, prior.shares, config)
        known *= model.prior_share
        penalties, predicted = choose_penalties(X, Y - known, config.penalties, config.folds)
        own = np.empty((X.shape[1], Y.shape[1]))
        for penalty in np.unique(penalties):
            alike = penalties == penalty
            own[:, alike] = ridge(X, (Y - known)[:, alike], penalty)
        own = own.reshape(bumps.shape[1], -1, Y.shape[1])
        weight = (
            np.einsum("wb,bak->wak", bumps, own).reshape(len(mean), -1) + model.prior_share * prior.weight
        )
        weight = weight @ _stretch(Y, predicted + known, slope.astype(np.float64), config)
        for name, value in (("mean", mean), ("weight", weight), ("bias", bias), ("rest", rest)):
            getattr(model, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))
        return model


def told(windows: np.ndarray, codes: np.ndarray, config: MotionConfig) -> np.ndarray:
    """Codes [T, K] as sound tells them: each predicted from windows [T, W, A] by a fit that has not seen its block."""
    X = _heard(windows, time_bumps(windows.shape[1], config.bumps, config.taper))
    mean = codes.mean(0)
    return choose_penalties(X, (codes - mean).astype(np.float64), config.penalties, config.folds)[1] + mean


def _heard(windows: np.ndarray, bumps: np.ndarray) -> np.ndarray:
    """What a fit hears [T, B * A] of windows [T, W, A] by functions of time [W, B], without its mean."""
    X = np.einsum("twa,wb->tba", windows, bumps, dtype=np.float64).reshape(len(windows), -1)
    X -= X.mean(0)  # in place: of a long clip this is hundreds of megabytes
    return X


@dataclass(frozen=True)
class MotionConfig:
    """How the motion code is made and predicted."""

    dim: int = 8
    features: str = "mel+moonshine"
    window: int = 32
    bumps: int = 9
    """Functions of time the weights of a window are made of; closer together near the frame."""
    taper: float = 6.0
    """Standard deviation, in rows of sound, of the weight of the rows around the frame."""
    penalties: tuple[float, ...] = (100.0, 300.0, 1000.0, 2000.0, 4000.0, 10000.0, 30000.0)
    folds: int = 6
    variation: float = 1.0
    """Share of the true opening's variation the predicted one is stretched to. A ridge holds it back; a mouth that
    moves as much as the speaker's looks alive, and one that moves more is wrong by more."""
    max_gain: float = 2.0

    def __post_init__(self) -> None:
        if not (
            1 <= self.dim <= 64
            and 1 <= self.window <= 64
            and 1 <= self.bumps <= 64
            and self.taper > 0
            and self.penalties
            and self.folds > 1
        ):
            raise ConfigError(
                "model.motion",
                f"A motion code of {self.dim} numbers from {self.window} rows of sound in {self.bumps} bumps.",
                expected="1 to 64 of each.",
            )


def _stretch(Y: np.ndarray, predicted: np.ndarray, slope: np.ndarray, config: MotionConfig) -> np.ndarray:
    """Map [K, K] that gives the predicted opening the variation the penalty takes, and changes nothing else.

    Stretching every component instead would also stretch those that sound hardly tells.
    """
    steepness = float(slope @ slope)
    said = float((predicted @ slope).std())
    if steepness < _FLAT or said < _FLAT:
        return np.eye(len(slope))
    gain = min(max(config.variation * float((Y @ slope).std()) / said, 1.0), config.max_gain)
    return np.eye(len(slope)) + (gain - 1) * np.outer(slope, slope) / steepness


def _error(predicted: np.ndarray, Y: np.ndarray) -> float:
    """Mean square of what is missed of the leading components; all are in standard deviations."""
    return float(((predicted - Y)[:, :3] ** 2).mean())


def _choose_share(
    X: np.ndarray, Y: np.ndarray, known: np.ndarray, shares: tuple[float, ...], config: MotionConfig
) -> float:
    """How much of what a prior knows [T, K] is kept: the share with the best out-of-block error of the whole fit.

    The prior comes from another clip, so what it says of a block is out of block already. Where no share of it makes
    the error smaller nothing of it is kept, and the fit is the one without it.
    """
    if not shares:
        return 0.0
    errors = {}
    for share in (0.0, *shares):
        left = Y - share * known
        errors[share] = _error(choose_penalties(X, left, config.penalties, config.folds)[1], left)
    return min(errors, key=lambda share: errors[share])  # the first of equals, which is the smallest


_FLAT = 1e-12
"""Below this nothing depends on anything."""


def opening_slope(codes: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Change of the mouth opening [T] with the code [T, K], by least squares: [K]; it is very nearly linear."""
    return np.linalg.lstsq(codes - codes.mean(0), opening - opening.mean(), rcond=None)[0]


def rest_code(codes: np.ndarray, opening: np.ndarray, activity: np.ndarray) -> np.ndarray:
    """Code [K] of the closed, silent mouth.

    The median over the quietest frames with the most closed lips, moved on until the lips press together a little:
    the code of lips that just touch renders as a dark hair between them, which widens and narrows with the head. Lips
    of a speaker who never closes them are pressed no further beyond what was seen: nobody knows how they look.

    Args:
        codes: [T, K].
        opening: [T] inner-lip gap, in outer-eye distances.
        activity: [T] speech activity 0..1.
    """
    closed = opening <= np.percentile(opening, 20)
    quiet = activity <= np.percentile(activity, 30)
    chosen = closed & quiet if (closed & quiet).sum() >= 5 else closed
    rest = np.median(codes[chosen], axis=0)
    slope = opening_slope(codes, opening)
    steepness = float(slope @ slope)
    if steepness < _FLAT:
        return rest
    # The shortest way down the slope changes least else.
    expected = float((rest - codes.mean(0)) @ slope + opening.mean())
    least = float(np.percentile(opening, 1))
    return rest - slope * (max(expected - least + PRESSED, 0.0) / steepness)
