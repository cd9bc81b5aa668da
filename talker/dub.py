"""Dubbing: the avatar's face spoken into a given clip (protocol C).

The clip is prepared like one to learn from, its head motion is followed in its own camera, and only the face is
replaced: everything outside the oval stays the true picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from talker.dataset.prepare import PrepareConfig, prepare
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps.mesh import FACE_OVAL
from talker.drive import DriveConfig, follow, speech_signals
from talker.events import Event
from talker.frame import render_frame
from talker.model.avatar import Avatar
from talker.model.fusion import Prepared
from talker.render.compose import to_uint8
from talker.types import Driving, Speech

CHIN_ROOM = 0.07
"""How far the pasted face reaches below the clip's chin, in heights of the face: the new words may open wider."""

FEATHER = 0.035
"""Standard deviation of the soft edge, in heights of the face."""


Report = Callable[[Iterator[Event]], object]


def _in_silence(events: Iterator[Event]) -> None:
    deque(events, maxlen=0)


def dub(
    avatar: Avatar,
    speech: Speech,
    clip: Path,
    config: DriveConfig | None = None,
    *,
    report: Report = _in_silence,
) -> Iterator[np.ndarray]:
    """Frames [S, S, 3] uint8 of ``clip``, cropped to head and shoulders, whose face speaks ``speech``.

    The clip is prepared at once; frames are made one at a time. If the speech is longer than the clip its last
    frame is held. Where the clip shows no face its own frame is given.

    Args:
        avatar: The avatar; of the person in the clip, or the picture is of two people.
        speech: The sound; its length decides the number of frames.
        clip: The video.
        config: ``size`` and ``intensity`` are used; head motion, blinks and background are those of the clip.
        report: Takes the events of the preparation, all of them.

    Raises:
        VideoError: The clip cannot be read.
        TrackingError: Nobody can be followed in it.
    """
    config = config or DriveConfig()
    work = TemporaryDirectory(prefix="talker-dub-")
    folder = Path(work.name) / "clip.data"
    report(prepare(clip, folder, PrepareConfig(size=config.size or avatar.camera.width)))
    return _pasted(avatar, speech, TalkingHeadDataset(folder), config, work)


def _pasted(
    avatar: Avatar,
    speech: Speech,
    dataset: TalkingHeadDataset,
    config: DriveConfig,
    work: TemporaryDirectory[str],
) -> Iterator[np.ndarray]:
    with work:  # the prepared clip lives as long as frames are taken
        yield from over(avatar, speech, dataset, config)


def over(
    avatar: Avatar, speech: Speech, dataset: TalkingHeadDataset, config: DriveConfig | None = None
) -> Iterator[np.ndarray]:
    """``dub`` over a prepared clip: frames [S, S, 3] uint8 of its size."""
    signals = speech_signals(avatar, speech, config or DriveConfig())
    motion = follow(dataset.track, len(signals))
    with torch.inference_mode():
        prepared = avatar.prepare()
    for index, signal in enumerate(signals):
        driving = Driving(
            signal,
            torch.from_numpy(motion.expression[index]),
            torch.from_numpy(motion.T_cam_head[index]),
            torch.from_numpy(motion.T_cam_torso[index]),
        )
        # For each frame anew: a caller that takes frames must not compute under it between two of them.
        with torch.inference_mode():
            frame = _spoken(avatar, driving, dataset, min(index, dataset.n_frames - 1), prepared)
        yield frame


def _spoken(
    avatar: Avatar, driving: Driving, dataset: TalkingHeadDataset, at: int, prepared: dict[str, Prepared]
) -> np.ndarray:
    """Frame ``at`` of the clip with the avatar's face."""
    true = np.array(dataset.frames[at])
    if not dataset.valid[at]:
        return true
    plate = torch.from_numpy(true.astype(np.float32) / 255).to(avatar.device)
    frame = render_frame(
        avatar, driving.to(avatar.device), camera=dataset.camera, plate=plate, prepared=prepared
    )
    share = torch.from_numpy(face_mask(np.asarray(dataset.landmarks[at]), dataset.size))[..., None]
    share = share.to(avatar.device)
    return to_uint8(share * frame.rgb + (1 - share) * plate).cpu().numpy()


def face_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Share [S, S] float32 0..1 of the pasted face: 1 inside the face's oval, softly 0 outside.

    Args:
        landmarks: [478, 3] pixels.
        size: Edge of the picture.
    """
    oval = landmarks[FACE_OVAL, :2].astype(np.float64)
    top, bottom = oval[:, 1].min(), oval[:, 1].max()
    height = max(bottom - top, 1.0)
    # Nothing at the brow, all of the room at the chin.
    oval[:, 1] += CHIN_ROOM * height * np.clip((oval[:, 1] - top) / height * 2 - 1, 0, 1)
    mask = np.zeros((size, size), np.uint8)  # other types are drawn without a smooth edge
    shift = 4  # sixteenths of a pixel, so that the edge does not jump from frame to frame
    points = np.round((oval - 0.5) * (1 << shift)).astype(np.int32)
    cv2.fillPoly(mask, [points], (255,), lineType=cv2.LINE_AA, shift=shift)
    hard = mask.astype(np.float32) / 255
    # Soft towards the inside: what is soft outside would mix in the render's background.
    soft = cv2.GaussianBlur(hard, (0, 0), FEATHER * height, borderType=cv2.BORDER_REPLICATE)
    return np.clip(2 * soft - 1, 0, 1) * hard
