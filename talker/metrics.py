"""Figures of rendered frames and of landmarks found in them. Arrays in, plain numbers out.

Images are [H, W, 3], uint8 or floating 0..1, before any encoding. Landmarks are the 478 points of the face mesh
in pixels, [T, 478, 3], NaN where no face was found. Lengths are given at 512 pixels where the text says so.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from talker import losses

MOUTH_68 = np.array(
    [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87],
)
"""Mesh points that stand for points 48 to 67 (lips) of the 68-point layout."""

RIGID = np.array([10, 151, 9, 8, 168, 6, 197, 195, 67, 109, 338, 297, 54, 284, 103, 332, 21, 251, 162, 389])
"""Forehead, temples and bridge of the nose: no speech, no blink moves them."""

LIP_INNER = (13, 14)
EYE_CORNERS = (33, 263)
LIDS = (((159, 145), (158, 153), (160, 144)), ((386, 374), (385, 380), (387, 373)))
"""Pairs of upper and lower lid, right eye of the person first."""

REFERENCE_SIZE = 512
BLINK_DIP = 0.35
"""Share by which the lids come together in what counts as a blink of the true clip."""


class Correlation(NamedTuple):
    """How one signal follows another."""

    r: float
    """Pearson's r at the best lag."""
    lag: int
    """Frames by which the first signal comes late (negative: early)."""
    r0: float
    """Pearson's r without shifting."""


class BlinkRecall(NamedTuple):
    """How many blinks of the clip the rendered eyes perform."""

    recall: float
    """Share 0..1; NaN if the clip has no blink."""
    n_blinks: int
    """Blinks of the true clip."""


def psnr(image: NDArray, truth: NDArray) -> float:
    """Peak signal-to-noise ratio in dB; 100 at most."""
    error = np.mean((_unit(image) - _unit(truth)) ** 2)
    return float(-10 * np.log10(max(error, 1e-10)))


def ssim(image: NDArray, truth: NDArray) -> float:
    """Structural similarity with an 11-pixel Gaussian window (scikit-image, the original paper's settings)."""
    from skimage.metrics import structural_similarity

    value = structural_similarity(
        _unit(truth),
        _unit(image),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
    )
    return float(cast(float, value))


def lpips(image: NDArray, truth: NDArray) -> float | None:
    """Learned perceptual distance (AlexNet); None where its weights are not on this machine."""
    if not losses.lpips_available():
        return None
    pair = [torch.from_numpy(_unit(x).astype(np.float32)) for x in (image, truth)]
    with torch.no_grad():
        return float(losses.lpips(*pair))


def lmd(landmarks: NDArray, truth: NDArray, size: int) -> float:
    """Landmark distance of the mouth: mean pixels at 512 between lips brought to a common centre.

    Args:
        landmarks: [T, 478, 3] found in the rendered frames.
        truth: [T, 478, 3] found in the true frames.
        size: Edge of the frames in pixels.
    """
    a, b = (x[:, MOUTH_68, :2].astype(np.float64) for x in (landmarks, truth))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    distance = np.linalg.norm(a - b, axis=-1).mean(1)
    return _mean(distance) * REFERENCE_SIZE / size


def mouth_opening(landmarks: NDArray) -> NDArray[np.float64]:
    """Gap of the inner lips as a share of the distance of the outer eye corners [T]."""
    return _distance(landmarks, *LIP_INNER) / _distance(landmarks, *EYE_CORNERS)


def eye_opening(landmarks: NDArray) -> NDArray[np.float64]:
    """Gap of the lids as a share of the distance of the outer eye corners, mean of both eyes [T]."""
    gaps = [_distance(landmarks, upper, lower) for eye in LIDS for upper, lower in eye]
    return np.mean(gaps, 0) / _distance(landmarks, *EYE_CORNERS)


def correlation_with_lag(pred: NDArray, truth: NDArray, max_lag: int = 5) -> Correlation:
    """Pearson correlation of two signals [T], as they are and at the lag where it is highest.

    Frames where either is NaN are left out. A signal that does not move correlates with nothing: 0.
    """
    at_lag = {}
    n = len(truth)
    for lag in range(-max_lag, max_lag + 1):
        late, reference = pred[max(lag, 0) : n + min(lag, 0)], truth[max(-lag, 0) : n - max(lag, 0)]
        at_lag[lag] = _pearson(late, reference)
    # Ties go to the smallest shift.
    best = max(at_lag, key=lambda lag: (at_lag[lag], -abs(lag)))
    return Correlation(at_lag[best], best, at_lag[0])


def variation_ratio(pred: NDArray, truth: NDArray) -> float:
    """Standard deviation of one signal [T] as a share of the other's, over the frames both have."""
    both = np.isfinite(pred) & np.isfinite(truth)
    return float(np.std(pred[both]) / max(np.std(truth[both]), 1e-12)) if both.any() else float("nan")


def blink_recall(pred: NDArray, truth: NDArray, *, slack: int = 2) -> BlinkRecall:
    """Blinks of the true eye opening [T] during which the rendered one [T] closes at least half as far.

    Both are taken relative to their own open level, so that a different look of the eyes does not count. A
    blink is a dip by ``BLINK_DIP``; the rendered one may come ``slack`` frames early or late.
    """
    dips = []
    for signal in (pred, truth):
        opened = np.nanpercentile(signal, 80) if np.isfinite(signal).any() else np.nan
        dips.append(1 - signal / max(opened, 1e-9))
    rendered, real = (np.nan_to_num(dip, nan=0.0) for dip in dips)
    events = _events(real >= BLINK_DIP)
    done = 0
    for start, stop in events:
        depth = real[start:stop].max()
        done += bool(rendered[max(start - slack, 0) : stop + slack].max() >= depth / 2)
    return BlinkRecall(done / len(events) if events else float("nan"), len(events))


def jitter(landmarks: NDArray, size: int, *, head_motion: bool = False) -> float:
    """Trembling: root mean square second difference over time of rigid points, in pixels at 512.

    Args:
        landmarks: [T, 478, 3].
        size: Edge of the frames in pixels.
        head_motion: Keep the head's own motion in (to compare with a clip that moves alike). Otherwise every
            frame is first moved, turned and scaled onto the mean shape, and only swimming is left.
    """
    points = landmarks[:, RIGID, :2].astype(np.float64)
    if not head_motion:
        points = _aligned(points)
    return float(np.sqrt(_mean(_squared_bends(points))) * REFERENCE_SIZE / size)


def frame_jitter(landmarks: NDArray, size: int) -> NDArray[np.float64]:
    """``jitter`` frame by frame [T], head motion taken out: its root mean square over a take is ``jitter``.

    NaN in the first and last frame and beside frames without a face.
    """
    points = landmarks[:, RIGID, :2].astype(np.float64)
    seen = np.isfinite(points).all((1, 2))
    points[seen] = _aligned(points[seen])
    inner = np.sqrt(_squared_bends(points).mean(1)) * REFERENCE_SIZE / size
    return np.pad(inner, (1, 1), constant_values=np.nan)[: len(landmarks)]


def pixel_jitter(frames: NDArray) -> float:
    """Flicker of a region that should hold still [T, h, w, 3]: rms second difference in levels of 0..255."""
    values = frames.astype(np.float64) if frames.dtype == np.uint8 else frames.astype(np.float64) * 255
    second = values[2:] - 2 * values[1:-1] + values[:-2]
    return float(np.sqrt(_mean(second**2)))


def _unit(image: NDArray) -> NDArray[np.float64]:
    return image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)


def _mean(values: NDArray) -> float:
    """Mean of the finite ones; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _squared_bends(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared second differences over time [T - 2, P] of point sets [T, P, 2]."""
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return (second**2).sum(-1)


def _distance(landmarks: NDArray, a: int, b: int) -> NDArray[np.float64]:
    # In the picture: the mesh's depth is a guess, and it guesses differently on a rendered face.
    return np.linalg.norm(landmarks[:, a, :2].astype(np.float64) - landmarks[:, b, :2], axis=-1)


def _pearson(a: NDArray, b: NDArray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3:
        return 0.0
    a, b = a[both].astype(np.float64), b[both].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0


def _events(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs [start, stop) of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _aligned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Point sets [T, P, 2] moved, turned and scaled onto their mean shape (least squares, Umeyama 1991)."""
    z = points[..., 0] + 1j * points[..., 1]
    z = z - z.mean(1, keepdims=True)
    seen = np.isfinite(z).all(1)
    if not seen.any():
        return np.full_like(points, np.nan)
    shape = z[seen][0]
    for _ in range(3):  # the mean shape and the turns to it depend on each other
        # In the complex plane a turn with a scale is one factor, and least squares is one quotient.
        factor = (z.conj() * shape).sum(1) / (np.abs(z) ** 2).sum(1)
        shape = (z * factor[:, None])[seen].mean(0)
        shape *= np.sqrt((np.abs(z[seen]) ** 2).sum(1).mean() / (np.abs(shape) ** 2).sum())
    z = z * ((z.conj() * shape).sum(1) / (np.abs(z) ** 2).sum(1))[:, None]
    return np.stack((z.real, z.imag), -1)
