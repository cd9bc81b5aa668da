"""Which frame next. A pure function of seed and step, so a resumed run draws the same frames."""

from __future__ import annotations

import numpy as np

from talker.types import BLINK_LEFT, BLINK_RIGHT


class FrameSampler:
    """Draws training frames, rare ones more often.

    Blinks are 1-2 % of the frames and wide-open mouths not many more; uniform sampling learns neither
    (DESIGN, section 5).

    Args:
        frames: [F] usable training frames.
        expression: [T, E] of the clip.
        opening: [T] mouth opening of the clip.
        seed: Of the run.
    """

    def __init__(self, frames: np.ndarray, expression: np.ndarray, opening: np.ndarray, seed: int) -> None:
        self.frames = frames
        self.seed = seed
        blink = expression[frames][:, [BLINK_LEFT, BLINK_RIGHT]].mean(1)
        wide = opening[frames]
        weight = np.ones(len(frames))
        # A sixth of the draws go to blinks, a sixth to the widest tenth of the openings.
        for chosen in (blink > 0.4, wide >= np.percentile(wide, 90)):
            if chosen.any():
                weight[chosen] += len(frames) / (4.0 * chosen.sum())
        self.cumulative = np.cumsum(weight / weight.sum())

    def __call__(self, stage: int, step: int) -> int:
        """Frame for ``step`` of the ``stage``-th stage."""
        draw = np.random.default_rng((self.seed, stage, step)).random()
        return int(self.frames[min(np.searchsorted(self.cumulative, draw), len(self.frames) - 1)])
