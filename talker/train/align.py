"""Poses of training frames aligned to the avatar as it is between two stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from talker.alignment import PoseAligner
from talker.dataset.reader import TalkingHeadDataset
from talker.events import Event, Progress, StageStarted
from talker.threads import map_ahead
from talker.train.build import Conditioning
from talker.train.state import TrainState


def align_poses(
    state: TrainState,
    conditioning: Conditioning,
    dataset: TalkingHeadDataset,
    should_stop: Callable[[], bool],
    *,
    static: bool,
) -> Iterator[Event]:
    """Align every training frame's head and torso to the avatar; ``state.refinement`` keeps the corrections.

    Stopped early it changes nothing.
    """
    chosen = dataset.train_indices()
    aligner = PoseAligner(state.avatar, static=static)

    def aligned(index: int) -> np.ndarray:
        plate = dataset.plate_at(index).astype(np.float32) / 255
        return aligner(np.asarray(dataset.frames[index]), plate, conditioning.driving(index))

    yield StageStarted("align", len(chosen))
    found: list[np.ndarray] = []
    for delta in map_ahead(aligned, chosen.tolist()):
        found.append(delta)
        if should_stop():
            return
        if len(found) % 25 == 0 or len(found) == len(chosen):
            yield Progress("align", len(found), len(chosen))
    state.refinement.place(torch.from_numpy(chosen), torch.from_numpy(np.stack(found)))
