"""Poses of training frames: aligned to the avatar between two stages, and what it moves by in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from talker.alignment import PoseAligner
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps.smoothing import steady_poses
from talker.events import Event, Progress, StageStarted
from talker.geometry import corrected
from talker.threads import map_ahead
from talker.train.build import Conditioning
from talker.train.state import TrainState
from talker.types import MotionTrack


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


def learnt_track(state: TrainState, dataset: TalkingHeadDataset) -> MotionTrack:
    """Motion of the training part with its poses as they were trained with, without the trembling measuring leaves.

    It is what the avatar moves by on its own: head and shoulders as the neck between them was learnt. Frames that
    were not trained on take the corrections of their neighbours.
    """
    track, chosen = dataset.track[: dataset.n_train], dataset.train_indices()
    everywhere = np.arange(dataset.n_train)
    poses = []
    for T, table in (
        (track.T_cam_head, state.refinement.head),
        (track.T_cam_torso, state.refinement.torso),
    ):
        known = table.weight.detach().cpu().numpy()[chosen]
        delta = np.stack([np.interp(everywhere, chosen, column) for column in known.T], 1)
        exact = [
            corrected(torch.from_numpy(pose).float(), torch.from_numpy(d).float())
            for pose, d in zip(T, delta, strict=True)
        ]
        poses.append(steady_poses(torch.stack(exact).numpy(), track.segment))
    return replace(track, T_cam_head=poses[0], T_cam_torso=poses[1])
