"""Linear regression of one short clip: what sound tells of lips, judged on stretches it was not fitted to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


def time_bumps(window: int, count: int, taper: float) -> np.ndarray:
    """Gaussian bumps [W, B] over the rows of a window, narrow at the frame and wide far from it.

    Lips follow the sound of the moment closely and that of a quarter of a second ago roughly; a weight of its own for
    every row is more than a short clip can tell. Far bumps are scaled down, so that the penalty holds them back more.
    """
    middle = (window - 1) / 2
    if middle == 0 or count == 1:
        return np.ones((window, 1)) / window
    centre = np.sinh(np.linspace(-1.5, 1.5, count))
    centre *= 0.85 * middle / centre.max()
    width = 0.8 * np.maximum(np.gradient(centre), 1.0)
    bumps = np.exp(-0.5 * ((np.arange(window)[:, None] - middle - centre) / width) ** 2)
    return bumps / np.linalg.norm(bumps, axis=0) * np.exp(-0.5 * (centre / taper) ** 2)


def ridge(X: np.ndarray, Y: np.ndarray, penalty: float) -> np.ndarray:
    """Weights [F, K] of centred X [T, F], Y [T, K]; solved in the smaller of the two spaces."""
    return _solved(X, *_normal(X, Y), penalty)


def _normal(X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The products the weights are solved from: of frames [T, T] and [T, K] if they are fewer, or of features."""
    return (X @ X.T, Y) if len(X) <= X.shape[1] else (X.T @ X, X.T @ Y)


def _solved(X: np.ndarray, small: np.ndarray, side: np.ndarray, penalty: float) -> np.ndarray:
    found = np.linalg.solve(small + penalty * np.eye(len(small)), side)
    return X.T @ found if len(X) <= X.shape[1] else found


def choose_penalties(
    X: np.ndarray, Y: np.ndarray, penalties: tuple[float, ...], folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each component the penalty [K] with the least out-of-block error, and those predictions [T, K].

    Sound tells the opening of a mouth well and the rest of the code hardly: each needs holding back differently.
    Blocks are contiguous: neighbouring frames are nearly equal, so shuffled folds would pick no penalty at all.
    """
    predicted = np.zeros((len(penalties), *Y.shape))
    for block, rest in blocks(len(X), folds):
        # What costs is the product of X with itself: once a block, not once a penalty.
        small, side = _normal(X[rest], Y[rest])
        for of_one, penalty in zip(predicted, penalties, strict=True):
            of_one[block] = X[block] @ _solved(X[rest], small, side, penalty)
    best = ((predicted - Y) ** 2).mean(1).argmin(0)
    return np.asarray(penalties)[best], predicted[best, :, range(Y.shape[1])].T


def blocks(n: int, folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each of ``folds`` contiguous blocks of ``n`` frames, and the numbers of all others."""
    for start, stop in itertools.pairwise(np.linspace(0, n, folds + 1).astype(int)):
        yield np.arange(start, stop), np.r_[0:start, stop:n]
