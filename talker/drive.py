"""Speech in, frames out: any length, a few frames in memory at a time.

Head motion comes from the clip's own track, walked back and forth so that it never jumps; blinks are made at natural
intervals; where nobody speaks the mouth rests closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import torch

from talker.audio.activity import speech_activity
from talker.audio.features import get_encoder
from talker.audio.windows import window_blocks
from talker.captured import fetched
from talker.cutout import CLIP, TRANSPARENT, CutoutDrawer, check_background, coloured_plate
from talker.errors import AudioError, CheckpointError, ConfigError
from talker.frame import FrameDrawer
from talker.geometry import matrix_to_rotvec, rotvec_to_matrix
from talker.model.avatar import Avatar
from talker.render import Backend
from talker.threads import map_ahead
from talker.types import BLINK_LEFT, BLINK_RIGHT, FPS, Camera, Driving, MotionTrack, Speech

MIN_WALK_FRAMES = 2

Item = TypeVar("Item")


@dataclass(frozen=True)
class DriveConfig:
    """How an avatar moves beside its lips."""

    size: int | None = None
    """Edge of the frames in pixels; the avatar's own if absent."""
    seed: int = 0
    blink: bool = True
    head_motion: float = 1.0
    """Share of the clip's head motion: 0 holds still, 1 moves like the clip."""
    intensity: float = 1.0
    """Factor on the lips' distance from rest: 0 keeps them there."""
    background: str = CLIP
    """``clip``, ``transparent`` (frames with alpha), or a colour like ``#00b140``."""
    batch: int = 1
    """Frames a GPU draws in one call; more is faster and comes later."""

    def __post_init__(self) -> None:
        check_background(self.background)
        if not 0 <= self.head_motion <= 1.5 or not 0 <= self.intensity <= 2:
            raise ConfigError(
                "drive.range",
                f"Head motion {self.head_motion} and intensity {self.intensity}.",
                expected="Head motion is 0 to 1.5, intensity 0 to 2.",
            )
        if not 1 <= self.batch <= 256:
            raise ConfigError("drive.batch", f"{self.batch} frames in one call.", expected="1 to 256.")
        if self.size is not None and not 64 <= self.size <= 1024:
            raise ConfigError("drive.size", f"Frames of {self.size} pixels.", expected="64 to 1024.")


def drive(
    avatar: Avatar,
    speech: Speech,
    *,
    track: MotionTrack | None = None,
    config: DriveConfig = DriveConfig(),
    signals: torch.Tensor | None = None,
    backend: Backend = "auto",
) -> Iterator[np.ndarray]:
    """Frames [H, W, 3] uint8 of ``avatar`` speaking ``speech``, made a few ahead of the caller.

    With a transparent background they are [H, W, 4], alpha straight.

    Args:
        avatar: The avatar.
        speech: The sound; its length decides the number of frames.
        track: Head, torso and face motion to follow exactly (its last frame is held); the avatar's own if absent.
        config: See ``DriveConfig``.
        signals: Drive by these motion codes [T, K] (another take of the same face) instead of by sound.
        backend: See ``talker.render.rasterize``.

    Raises:
        AudioError: There is no sound.
        ConfigError: An intensity other than 1 for an avatar whose lips have no rest to be measured from.
    """
    if len(speech.waveform) == 0:
        raise AudioError("audio.empty", "There is no sound to speak.", todo="Choose another recording.")
    n_frames = speech.n_frames if signals is None else len(signals)
    blocks = signal_blocks(avatar, speech, config) if signals is None else iter([signals])
    motion = follow(track, n_frames) if track is not None else own_motion(avatar.track, n_frames, config)
    factor = 1.0 if config.size is None else config.size / avatar.camera.width
    camera = avatar.camera if factor == 1.0 else avatar.camera.scaled(factor)
    drawer = _drawer(avatar, camera, config.background, backend)

    def control(moment: tuple[int, torch.Tensor]) -> Driving:
        index, signal = moment
        return Driving(
            signal,
            torch.from_numpy(motion.expression[index]),
            torch.from_numpy(motion.T_cam_head[index]),
            torch.from_numpy(motion.T_cam_torso[index]),
        ).to(avatar.device)

    controls = map(control, enumerate(chain.from_iterable(blocks)))
    if avatar.device.type == "cpu":  # whole frames side by side keep every core busy
        yield from map_ahead(lambda driving: drawer(driving).numpy(), controls)
    else:  # a GPU works through frames in order; the next ones are on their way while one is fetched
        groups = map(drawer.together, batched(controls, config.batch))
        yield from fetched(chain.from_iterable(groups))


def _drawer(avatar: Avatar, camera: Camera, background: str, backend: Backend) -> FrameDrawer | CutoutDrawer:
    if background == TRANSPARENT:
        return CutoutDrawer(avatar, camera, backend)
    same = (camera.height, camera.width) == avatar.plate.shape[:2]
    plate = avatar.plate if same else _resized(avatar.plate, camera.height, camera.width)
    return FrameDrawer(
        avatar, camera, plate if background == CLIP else coloured_plate(background, plate), backend
    )


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items in order, the last one shorter."""
    waiting = iter(items)
    while group := list(islice(waiting, size)):
        yield group


def speech_signals(avatar: Avatar, speech: Speech, config: DriveConfig = DriveConfig()) -> torch.Tensor:
    """What drives the lips, frame by frame: codes [T, K], or audio windows [T, W, A] for end-to-end avatars.

    Raises:
        CheckpointError: The avatar was made for other audio features than this version computes.
    """
    return torch.cat(list(signal_blocks(avatar, speech, config)))


def signal_blocks(
    avatar: Avatar, speech: Speech, config: DriveConfig = DriveConfig()
) -> Iterator[torch.Tensor]:
    """``speech_signals`` a block of frames at a time, while later sound is still being listened to."""
    if avatar.motion is None and config.intensity != 1.0:
        raise ConfigError(
            "drive.intensity",
            "The lips of this avatar follow the sound directly: how far they move cannot be set.",
            expected="An intensity of 1, or an avatar of the presets preview or standard.",
        )
    encoder = get_encoder(avatar.audio_encoder)
    width = avatar.config.motion.window
    known = encoder.dim if avatar.motion is None else encoder.dim * width
    if known != (avatar.config.face.signal_dim if avatar.motion is None else len(avatar.motion.mean)):
        raise CheckpointError(
            "avatar.sound",
            f"This avatar listens to other features than {encoder.name} gives.",
            todo="Fetch or create it again.",
        )
    activity = speech_activity(speech.waveform, speech.n_frames)
    done = 0
    for block in window_blocks(encoder.parts(speech.waveform), speech.n_frames, width=width):
        rows = avatar.signals(block, activity[done : done + len(block)])
        done += len(block)
        if avatar.motion is not None and config.intensity != 1.0:
            rows = avatar.motion.rest + config.intensity * (rows - avatar.motion.rest)
        yield rows


def follow(track: MotionTrack, n_frames: int) -> MotionTrack:
    """Exactly ``track``, its last frame held if the speech is longer."""
    index = np.minimum(np.arange(n_frames), len(track) - 1)
    return take_frames(track, index)


def own_motion(track: MotionTrack, n_frames: int, config: DriveConfig) -> MotionTrack:
    """Motion of any length from the clip's longest unbroken take.

    The take is walked to its end and back. Near the turns the walk slows down to a halt, so neither position nor
    velocity jumps. Eyes are opened first and then blink on their own.
    """
    take = longest_take(track)
    position = walk(len(take), n_frames)
    motion = _interpolate(take, position)
    rng = np.random.default_rng(config.seed)
    expression = motion.expression.copy()
    lids = [BLINK_LEFT, BLINK_RIGHT]
    blinks = blink_track(n_frames, rng) if config.blink else np.zeros(n_frames, np.float32)
    opened = np.minimum(expression[:, lids], 0.15)
    expression[:, lids] = opened + (1 - opened) * blinks[:, None]
    motion = replace(motion, expression=np.clip(expression, -1, 1).astype(np.float32))
    return motion if config.head_motion == 1.0 else _calmed(motion, take, config.head_motion)


def longest_take(track: MotionTrack) -> MotionTrack:
    """The longest run of tracked frames of one shot."""
    breaks = np.flatnonzero(~track.valid[1:] | ~track.valid[:-1] | (np.diff(track.segment) != 0)) + 1
    bounds = np.r_[0, breaks, len(track)]
    lengths = np.diff(bounds)
    start = bounds[int(np.argmax(lengths))]
    return track[start : start + int(lengths.max())]


def walk(length: int, n_frames: int) -> np.ndarray:
    """Positions [n_frames] on a take of ``length`` frames, to and fro, easing over a second at each turn."""
    if length < MIN_WALK_FRAMES:
        return np.zeros(n_frames)
    ease = min(FPS, (length - 1) / 2)
    # Distance covered while the speed falls linearly from 1 to 0 over `ease` frames is half of `ease`.
    leg = (length - 1) + ease
    time = np.arange(n_frames) % (2 * leg)
    time = np.where(time > leg, 2 * leg - time, time)  # the way back is the way out, mirrored
    speeding = time**2 / (2 * ease)
    slowing = (length - 1) - (leg - time) ** 2 / (2 * ease)
    return np.where(time < ease, speeding, np.where(time > leg - ease, slowing, time - ease / 2))


def blink_track(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Blinks [n_frames] in 0..1: every 2 to 6 s, closing in 3 frames, opening in 4."""
    shape = np.array([0.35, 0.85, 1.0, 0.85, 0.5, 0.2], np.float32)
    track = np.zeros(n_frames + len(shape), np.float32)
    start = int(rng.uniform(1.0, 3.0) * FPS)
    while start < n_frames:
        track[start : start + len(shape)] = np.maximum(track[start : start + len(shape)], shape)
        start += int(rng.uniform(2.0, 6.0) * FPS)
    return track[:n_frames]


def take_frames(track: MotionTrack, index: np.ndarray) -> MotionTrack:
    """The frames ``index`` [F] of a track, in that order."""
    return MotionTrack(
        T_cam_head=np.ascontiguousarray(track.T_cam_head[index], np.float32),
        T_cam_torso=np.ascontiguousarray(track.T_cam_torso[index], np.float32),
        expression=np.ascontiguousarray(track.expression[index], np.float32),
        valid=track.valid[index],
        segment=track.segment[index],
    )


def _interpolate(track: MotionTrack, position: np.ndarray) -> MotionTrack:
    """The track at fractional frames."""
    low = np.clip(np.floor(position).astype(int), 0, len(track) - 1)
    high = np.minimum(low + 1, len(track) - 1)
    share = (position - low).astype(np.float32)
    first, second = take_frames(track, low), take_frames(track, high)
    return replace(
        first,
        T_cam_head=_blend(first.T_cam_head, second.T_cam_head, share),
        T_cam_torso=_blend(first.T_cam_torso, second.T_cam_torso, share),
        expression=(1 - share)[:, None] * first.expression + share[:, None] * second.expression,
    )


def _blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Rigid transforms [T, 4, 4] between two, geodesically: ``share`` [T] 0 gives the first."""
    a, b = torch.from_numpy(first), torch.from_numpy(second)
    weight = torch.from_numpy(np.asarray(share, np.float32))[:, None]
    turn = matrix_to_rotvec(b[:, :3, :3] @ a[:, :3, :3].transpose(1, 2))
    out = a.clone()
    out[:, :3, :3] = rotvec_to_matrix(weight * turn) @ a[:, :3, :3]
    out[:, :3, 3] = (1 - weight) * a[:, :3, 3] + weight * b[:, :3, 3]
    return out.numpy()


def _calmed(motion: MotionTrack, take: MotionTrack, share: float) -> MotionTrack:
    """Motion reduced to ``share`` of its distance from the middle frame of the take, however long the speech."""
    still = take_frames(take, np.full(len(motion), len(take) // 2))
    weight = np.full(len(motion), share, np.float32)
    return replace(
        motion,
        T_cam_head=_blend(still.T_cam_head, motion.T_cam_head, weight),
        T_cam_torso=_blend(still.T_cam_torso, motion.T_cam_torso, weight),
    )


def _resized(plate: torch.Tensor, height: int, width: int) -> torch.Tensor:
    channels_first = plate.permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        channels_first, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )
    return resized[0].permute(1, 2, 0).clamp(0, 1)
