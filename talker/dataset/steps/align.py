"""Direct alignment of a clip to the median picture of one of its rigid parts.

Landmarks and flow of single corners jump or slide with what does not belong to the part (hair, folds, lips,
outlines). The temporal median of the roughly stabilised clip keeps only what moves together; every frame is
then aligned to it photometrically, each pixel weighing by how constant it is. Inverse-compositional
Gauss-Newton (Baker and Matthews 2004) with robust weights, gain and bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from talker.dataset.steps.gauss_newton import normal_equations
from talker.threads import map_ahead

SIDE = 256
"""Largest side of the pictures that are aligned; answers are fractions of a pixel."""

SAMPLES = 60
"""Frames the template is made of."""

PIXELS = 4000
"""Pixels that are compared at most: those with the strongest constant edges."""

STEPS = 8
NOISE = 3.0
"""Grey values of camera and coding noise, below which a pixel is not trusted more."""


class Warp(Protocol):
    """How a rigid part moves from the reference picture into another; a state is an array."""

    def lift(self, points: np.ndarray) -> np.ndarray:
        """What a state moves [P, ...]: the places on the part that reference pixels [P, 2] show."""
        ...

    def pixels(self, state: np.ndarray, lifted: np.ndarray) -> np.ndarray:
        """Where these places are in a frame of ``state``: [P, 2]."""
        ...

    def jacobian(self, points: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Change [P, D] of the template's values by small motions of the part in the reference."""
        ...

    def undo(self, state: np.ndarray, step: np.ndarray) -> np.ndarray:
        """The state after the inverse of the small motion ``step`` [D], applied in the reference."""
        ...


@dataclass(frozen=True)
class Alignment:
    """The answer for one frame."""

    state: np.ndarray
    error: float
    """Median residual in deviations of the template's pixels; infinite if the part left the picture."""
    information: np.ndarray  # [D, D] of a small motion in the reference, for independent pixels


def pictures(frames: np.ndarray) -> Callable[[int], np.ndarray]:
    """Function from frame number to a grey float32 picture of side at most ``SIDE``."""
    size = frames.shape[1]

    def gray(t: int) -> np.ndarray:
        picture = cv2.cvtColor(np.ascontiguousarray(frames[t]), cv2.COLOR_RGB2GRAY).astype(np.float32)
        if size > SIDE:
            picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return picture

    return gray


class TemplateAligner:
    """Aligns frames to the median picture of a part.

    Args:
        gray: See ``pictures``; side S.
        warp: How the part moves.
        states: [T, ...] first guesses.
        index: Frames to build the template from.
        region: [S, S] bool, the part in the reference.
        blur: Standard deviation in pixels; larger finds the way from farther off.
        flatten: Standard deviation of a local mean that is taken away, against shading; None to keep it.
    """

    def __init__(
        self,
        gray: Callable[[int], np.ndarray],
        warp: Warp,
        states: np.ndarray,
        index: np.ndarray,
        region: np.ndarray,
        blur: float,
        *,
        flatten: float | None = None,
    ) -> None:
        self.gray, self.warp, self.blur, self.flatten = gray, warp, blur, flatten
        side = region.shape[0]
        rows, columns = np.mgrid[:side, :side]
        grid = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64)
        index = index[np.unique(np.linspace(0, len(index) - 1, min(SAMPLES, len(index))).round().astype(int))]
        lifted = warp.lift(grid)

        def stabilised(t: int) -> np.ndarray:
            at = warp.pixels(states[t], lifted).astype(np.float32).reshape(side, side, 2)
            picture, border = self._filtered(t), cv2.BORDER_REPLICATE
            return cv2.remap(picture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=border)

        stack = np.stack(list(map_ahead(stabilised, (int(t) for t in index))))
        template = np.median(stack, 0)
        spread = np.sqrt((1.48 * np.median(np.abs(stack - template), 0)) ** 2 + NOISE**2)
        self._choose(template, cv2.GaussianBlur(spread, (0, 0), 1.0), region)

    def _filtered(self, t: int) -> np.ndarray:
        picture = self.gray(t)
        smooth = cv2.GaussianBlur(picture, (0, 0), self.blur)
        if self.flatten is None:
            return smooth
        return smooth - cv2.GaussianBlur(picture, (0, 0), self.flatten)

    def _choose(self, template: np.ndarray, spread: np.ndarray, region: np.ndarray) -> None:
        """Keep the pixels with the strongest constant edges, and what an alignment step needs of them."""
        dy, dx = np.gradient(template)
        inside = np.zeros_like(region)
        inside[3:-3, 3:-3] = True
        score = np.where(region & inside, (dx**2 + dy**2) / spread**2, 0.0)
        order = np.argsort(score, axis=None)[::-1][:PIXELS]
        y, x = np.unravel_index(order[score.flat[order] > 0], score.shape)
        self.points = np.stack([x, y], 1).astype(np.float64)
        self.lifted = self.warp.lift(self.points)
        self.value = template[y, x].astype(np.float64)
        self.weight = 1.0 / spread[y, x].astype(np.float64) ** 2
        gradient = np.stack([dx[y, x], dy[y, x]], 1).astype(np.float64)
        self.jacobian = np.ascontiguousarray(self.warp.jacobian(self.points, gradient).T)  # [D, P]

    @property
    def usable(self) -> bool:
        """The part has enough structure."""
        return len(self.points) > 100

    def align_all(self, index: np.ndarray, states: np.ndarray) -> Iterator[tuple[int, Alignment]]:
        """Refine the states [T, ...] of the frames ``index``, side by side; (frame, answer) in their order."""
        frames = [int(t) for t in index]
        return zip(frames, map_ahead(lambda t: self.align(t, states[t]), frames), strict=True)

    def align(self, t: int, guess: np.ndarray) -> Alignment:
        """Refine the state of frame ``t``."""
        picture = self._filtered(t)
        motions = len(self.jacobian)
        H, g = np.zeros((motions, motions)), np.zeros(motions)
        answer = Alignment(guess, np.inf, H)
        for _ in range(STEPS):
            at = self.warp.pixels(answer.state, self.lifted).astype(np.float32)
            error = normal_equations(picture, at, self.value, self.weight, self.jacobian, H, g)
            if not np.isfinite(error):
                return Alignment(guess, np.inf, answer.information)
            step = np.linalg.solve(H + 1e-9 * np.trace(H) * np.eye(motions), g)
            answer = Alignment(self.warp.undo(answer.state, step), error, H / max(error, 0.3) ** 2)
            if np.abs(step @ self.jacobian[:, ::16]).max() < 0.1:
                break
        return answer
