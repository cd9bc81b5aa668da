"""The steps of ``prepare``: what each reads from and writes to the dataset folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talker.atomic import atomic_path
from talker.audio.waveform import save_wav
from talker.dataset import schema
from talker.dataset.steps import background, cloud, expression, framing, gauss_newton, landmarks, pose, torso
from talker.dataset.steps.pose_align import PoseAlignConfig, align_poses
from talker.dataset.steps.reference import choose_reference, sharpness
from talker.dataset.steps.smoothing import steady_poses
from talker.errors import TrackingError, VideoError
from talker.events import Event, Note, Preview, Progress
from talker.types import BLINK_LEFT, BLINK_RIGHT, FPS
from talker.video.decode import DecodeLimits, decode
from talker.video.probe import probe

RAW_BYTES = 8 << 30
"""Most disk the decoded frames may take while a clip is prepared."""

MESH_SIDE = 640
"""Largest side of the pictures the face mesh sees."""

MIN_TRACKED = 50
"""Frames with a face below which there is nothing to learn from."""

REPORT_EVERY = 25


@dataclass(frozen=True)
class PrepareConfig:
    """How a clip becomes a dataset.

    Attributes:
        size: Side of the stored frames in pixels.
        max_seconds: Longest clip accepted, or part of one.
        start_s: Where the part of the clip that is used begins, seconds.
        end_s: Where it ends; None is the end of the clip.
        probe_every_s: How often faces are looked for to frame the person.
        pose: Noise levels of the bundle adjustment.
        align: Weights of the alignment of poses to the pictures.
        cloud: Amounts of initial points.
    """

    size: int = 512
    max_seconds: float = 300.0
    start_s: float = 0.0
    end_s: float | None = None
    probe_every_s: float = 0.4
    pose: pose.PoseConfig = field(default_factory=pose.PoseConfig)
    align: PoseAlignConfig = field(default_factory=PoseAlignConfig)
    cloud: cloud.CloudConfig = field(default_factory=cloud.CloudConfig)


@dataclass
class Folder:
    """The dataset folder under construction."""

    root: Path
    clip: Path
    name: str
    config: PrepareConfig
    header: dict[str, Any]

    def path(self, name: str) -> Path:
        """A file of the dataset."""
        return self.root / name

    def array(self, name: str) -> np.ndarray:
        """A finished ``.npy``, memory-mapped."""
        return np.load(self.root / name, mmap_mode="r")

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """A finished ``.npz``."""
        return schema.load_arrays(self.root / name)

    @property
    def raw(self) -> Path:
        """Decoded frames [T, H, W, 3]; gone once the dataset is complete."""
        return self.root / schema.WORK / "raw_frames.npy"


@dataclass(frozen=True)
class Step:
    """One resumable step."""

    name: str
    run: Callable[[Folder], Iterator[Event]]
    files: tuple[str, ...]
    settings: Callable[[PrepareConfig], dict[str, Any]]
    version: int = 1
    """Raised when the algorithm changes, so that older results are made anew."""
    needs_raw: bool = False


def _warm() -> None:
    landmarks.warm()
    gauss_newton.warm()


def run_decode(folder: Folder) -> Iterator[Event]:
    """Clip to raw frames and ``audio.wav``; meanwhile the later steps' tools are made ready."""
    info = probe(folder.clip, name=folder.name)
    longest = max(info.width, info.height)
    n_frames = min(max(1, info.n_frames_estimate), round(folder.config.max_seconds * FPS))
    per_pixel = 3 * n_frames * info.width * info.height / longest**2
    limit = 960 if folder.config.size <= 256 else 1280
    max_side = int(min(limit, (RAW_BYTES / per_pixel) ** 0.5))
    warming = threading.Thread(target=_warm)
    warming.start()  # a child does the decoding
    try:
        decoded = decode(
            folder.clip,
            folder.root / schema.WORK,
            max_side=max_side,
            limits=DecodeLimits(max_seconds=folder.config.max_seconds),
            name=folder.name,
            start_s=folder.config.start_s,
            end_s=folder.config.end_s,
        )
    finally:
        warming.join()
    if decoded.waveform is None:
        raise VideoError(
            "video.no_audio",
            f"{folder.name} has no sound.",
            expected="A clip of somebody talking, with its sound track: the lips are learnt from it.",
            todo="Export the video again with its sound.",
        )
    with atomic_path(folder.path(schema.AUDIO)) as part:
        save_wav(part, decoded.waveform)
    folder.header.update(
        name=folder.name,
        fps=FPS,
        size=folder.config.size,
        n_frames=len(decoded),
        n_train=schema.n_train_frames(len(decoded)),
        head_unit="distance between the outer eye corners",
        source={
            "width": info.width,
            "height": info.height,
            "fps": float(info.fps),
            "codec": info.video_codec,
            **_part(folder.config),
        },
    )
    yield Progress("prepare/decode", len(decoded), len(decoded))


def _part(config: PrepareConfig) -> dict[str, Any]:
    """Which part of the clip is used; empty for all of it."""
    whole = not config.start_s and config.end_s is None
    return {} if whole else {"start_s": config.start_s, "end_s": config.end_s}


def run_frames(folder: Folder) -> Iterator[Event]:
    """Find the person, choose the square, store the frames, find the cuts."""
    raw = np.load(folder.raw, mmap_mode="r")
    stride = max(1, round(folder.config.probe_every_s * FPS))
    index = np.arange(0, len(raw), stride)
    faces = framing.main_speaker(list(framing.detect_faces(raw, index)))
    crop = framing.plan_crop(faces, raw.shape[1], raw.shape[2])
    side = folder.config.size
    shots = framing.ShotCounter()
    yield from _write(
        "prepare/frames",
        folder.path(schema.FRAMES),
        _seen(framing.crop_frames(raw, crop, side), shots),
        (len(raw), side, side, 3),
        np.uint8,
    )
    schema.save_arrays(
        folder.path(schema.SHOTS), segment=shots.segments(), crop=np.array([*crop, crop[2]], np.int32)
    )
    if crop[2] < 0.7 * side:
        yield Note(
            f"The person fills only {crop[2]} x {crop[2]} pixels of the clip; a closer shot looks sharper.",
            "warning",
        )


def _seen(frames: Iterable[np.ndarray], shots: framing.ShotCounter) -> Iterator[np.ndarray]:
    for frame in frames:
        shots.add(frame)
        yield frame


def run_landmarks(folder: Folder) -> Iterator[Event]:
    """Face mesh of every frame, from the decoded frames: they may be sharper than the stored ones."""
    raw = np.load(folder.raw, mmap_mode="r")
    shots = folder.arrays(schema.SHOTS)
    x, y, extent = (int(v) for v in shots["crop"][:3])
    side = max(landmarks.MIN_SIDE, min(MESH_SIDE, extent))
    factor = np.float32(folder.config.size / side)
    found = landmarks.find_landmarks(framing.crop_frames(raw, (x, y, extent), side), shots["segment"])
    yield from _write(
        "prepare/landmarks",
        folder.path(schema.LANDMARKS),
        (points * factor for points in found),
        (len(raw), landmarks.N_LANDMARKS, 3),
        np.float32,
    )
    tracked = int(np.isfinite(folder.array(schema.LANDMARKS)[:, 0, 0]).sum())
    if tracked < MIN_TRACKED:
        raise TrackingError(
            "track.too_few_frames",
            f"A face was followed in only {tracked} of {len(raw)} frames.",
            expected=f"At least {MIN_TRACKED} frames ({MIN_TRACKED / FPS:.0f} seconds) are needed.",
            todo="Use a clip in which the speaker faces the camera.",
        )
    if tracked < 0.9 * len(raw):
        yield Note(f"No face in {len(raw) - tracked} of {len(raw)} frames; they are left out.", "warning")


def run_masks(folder: Folder) -> Iterator[Event]:
    """Person probability of every frame."""
    frames = folder.array(schema.FRAMES)
    masks = (
        (np.clip(mask, 0, 1) * 255).round().astype(np.uint8) for mask in landmarks.find_masks(iter(frames))
    )
    yield from _write("prepare/masks", folder.path(schema.MASKS), masks, frames.shape[:3], np.uint8)


def run_pose(folder: Folder) -> Iterator[Event]:
    """Bundle adjustment of focal length, shape and poses; the reference frame; alignment of the pictures."""
    frames, points = folder.array(schema.FRAMES), np.asarray(folder.array(schema.LANDMARKS))
    segment = framing.split_on_jumps(folder.arrays(schema.SHOTS)["segment"], points)
    size, n_train = folder.config.size, folder.header["n_train"]
    track = pose.adjust_pose(points, segment, size, folder.config.pose)
    adjusted = float(np.nanmedian(track.error)) * 512 / size
    yield Progress("prepare/pose", 1, 2)
    usable = _plausible(track, size)
    usable[n_train:] = False
    if not usable.any():
        raise TrackingError(
            "track.too_few_frames",
            "No face was followed in the part of the clip the avatar is learnt from.",
            todo="Use a clip in which the speaker faces the camera from the beginning.",
        )
    signals = expression.track_expression(points, track.K, track.T_cam_head)
    reference = choose_reference(
        track.T_cam_head,
        signals.mouth_open,
        signals.expression[:, [BLINK_LEFT, BLINK_RIGHT]].max(1),
        sharpness(frames, points),
        usable,
    )
    T_cam_head, aligned = align_poses(
        frames, folder.array(schema.MASKS), points, track, segment, reference, folder.config.align
    )
    track = pose.with_poses(track, steady_poses(T_cam_head, segment), points, size)
    valid = _plausible(track, size)
    schema.save_arrays(
        folder.path(schema.POSE),
        K=track.K,
        T_cam_head=track.T_cam_head,
        shape=track.shape,
        error=track.error,
        valid=valid,
        segment=segment,
        reference=np.array(reference),
    )
    usual = float(np.nanmedian(track.error)) * 512 / size
    folder.header["report"] |= {
        "adjusted_reprojection_px_at_512": round(adjusted, 3),
        "reprojection_px_at_512": round(usual, 3),
        "focal_sides": round(float(track.K[0, 0]) / size, 3),
        "tracked_share": round(float(valid.mean()), 4),
        "aligned_share": round(float(aligned.mean()), 4),
        "shots": int(segment[-1]) + 1,
        "reference_frame": reference,
    }
    if segment[-1]:
        times = ", ".join(f"{t / FPS:.1f} s" for t in np.flatnonzero(np.diff(segment))[:8] + 1)
        yield Note(f"The clip is cut at {times}; motion is not smoothed over cuts.")
    yield Progress("prepare/pose", 2, 2, values={"reprojection_px_at_512": usual, "adjusted": adjusted})
    yield Preview("prepare/pose", reference, np.array(frames[reference]))


def _plausible(track: pose.PoseTrack, size: int) -> np.ndarray:
    """Frames [T] whose landmarks fit a rigid head as well as usual."""
    limit = max(4.0 * float(np.nanmedian(track.error)), 4.0 * size / 512)
    return track.seen & (np.nan_to_num(track.error, nan=np.inf) < limit)


def run_expression(folder: Folder) -> Iterator[Event]:
    """Blinks, brows, mouth opening."""
    poses = folder.arrays(schema.POSE)
    points = np.where(poses["valid"][:, None, None], folder.array(schema.LANDMARKS), np.nan)
    track = expression.track_expression(points, poses["K"], poses["T_cam_head"])
    schema.save_arrays(
        folder.path(schema.EXPRESSION), expression=track.expression, mouth_open=track.mouth_open
    )
    folder.header["report"]["blinks"] = track.n_blinks
    yield Progress("prepare/expression", 1, 1, values={"blinks": float(track.n_blinks)})


def run_torso(folder: Folder) -> Iterator[Event]:
    """Follow collar and shoulders from the reference frame."""
    poses = folder.arrays(schema.POSE)
    track = torso.track_torso(
        folder.array(schema.FRAMES),
        folder.array(schema.MASKS),
        folder.array(schema.LANDMARKS),
        poses["K"],
        poses["T_cam_head"],
        poses["segment"],
        int(poses["reference"]),
    )
    reference = int(poses["reference"])
    T_cam_torso = steady_poses(track.T_cam_torso, poses["segment"])
    # Head and torso are one body in the reference frame; the smoothing has moved either by a hair.
    T_cam_torso = T_cam_torso @ np.linalg.inv(T_cam_torso[reference]) @ poses["T_cam_head"][reference]
    schema.save_arrays(folder.path(schema.TORSO), T_cam_torso=T_cam_torso, tracked=track.tracked)
    share = float(track.tracked.mean())
    folder.header["report"] |= {
        "torso_tracked_share": round(share, 4),
        "torso_residual": round(track.residual, 3),
    }
    if share < 0.8:
        yield Note("Collar and shoulders could be followed in only part of the clip.", "warning")
    yield Progress("prepare/torso", 1, 1, values={"tracked": share})


MOVING = 9.0
"""Deviation of background pixels over time (0..255) from which the plate is a compromise."""


def run_background(folder: Folder) -> Iterator[Event]:
    """The plates, from training frames."""
    frames, masks = folder.array(schema.FRAMES), folder.array(schema.MASKS)
    poses = folder.arrays(schema.POSE)
    index = np.flatnonzero(poses["valid"][: folder.header["n_train"]])
    plates = background.make_plates(frames, masks, index, poses["segment"])
    plate = plates.main
    schema.save_arrays(folder.path(schema.PLATES), local=plates.local, of_frame=plates.of_frame)
    with atomic_path(folder.path(schema.PLATE)) as part:
        cv2.imwrite(str(part), cv2.cvtColor(plate.rgb, cv2.COLOR_RGB2BGR))
    folder.header["report"] |= {
        "background_motion": round(plate.motion, 2),
        "background_known_share": round(float(plate.known.mean()), 4),
    }
    if plate.motion > MOVING:
        yield Note("The background moves; the avatar gets its average as a still picture.", "warning")
    yield Preview("prepare/background", 0, plate.rgb)


def run_cloud(folder: Folder) -> Iterator[Event]:
    """Initial points from the reference frame."""
    poses = folder.arrays(schema.POSE)
    reference = int(poses["reference"])
    made = cloud.make_cloud(
        folder.array(schema.FRAMES)[reference],
        folder.array(schema.MASKS)[reference],
        folder.array(schema.LANDMARKS)[reference],
        poses["K"],
        poses["T_cam_head"][reference],
        poses["shape"],
        folder.config.cloud,
    )
    schema.save_arrays(folder.path(schema.CLOUD), **vars(made))
    folder.header["report"]["points"] = len(made.means)
    yield Progress("prepare/cloud", 1, 1, values={"points": float(len(made.means))})


def _write(
    stage: str, path: Path, rows: Iterable[np.ndarray], shape: tuple[int, ...], dtype: type
) -> Iterator[Event]:
    """Fill an ``.npy`` row by row without holding it in memory; it appears when complete."""
    with atomic_path(path) as part:
        out = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        for t, row in enumerate(rows):
            out[t] = row
            if t % REPORT_EVERY == REPORT_EVERY - 1:
                yield Progress(stage, t + 1, shape[0])
        out.flush()
        del out
    yield Progress(stage, shape[0], shape[0])


STEPS = (
    Step(
        "decode",
        run_decode,
        (schema.AUDIO,),
        lambda c: {"size": c.size, "max_seconds": c.max_seconds, **_part(c)},
    ),
    Step(
        "frames",
        run_frames,
        (schema.FRAMES, schema.SHOTS),
        lambda c: {"probe_every_s": c.probe_every_s},
        needs_raw=True,
    ),
    Step("landmarks", run_landmarks, (schema.LANDMARKS,), lambda c: {"side": MESH_SIDE}, needs_raw=True),
    Step("masks", run_masks, (schema.MASKS,), lambda c: {}),
    Step(
        "pose",
        run_pose,
        (schema.POSE,),
        lambda c: {"adjust": asdict(c.pose), "align": asdict(c.align)},
        version=4,
    ),
    Step("expression", run_expression, (schema.EXPRESSION,), lambda c: {}),
    Step("torso", run_torso, (schema.TORSO,), lambda c: {}, version=4),
    Step("background", run_background, (schema.PLATE, schema.PLATES), lambda c: {}, version=3),
    Step("cloud", run_cloud, (schema.CLOUD,), lambda c: asdict(c.cloud), version=4),
)
