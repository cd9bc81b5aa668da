"""From a prepared clip to the untrained avatar and the signals that will drive it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from talker.audio.activity import speech_activity
from talker.audio.features import AudioEncoder, get_encoder
from talker.audio.windows import windows
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.schema import REGION_MOUTH
from talker.errors import TrackingError
from talker.model.avatar import FACE, MOUTH, Avatar, Branch, ModelConfig, PoseStatistics
from talker.model.canonical import CanonicalGaussians
from talker.model.deformation import DeformationField, FieldConfig
from talker.model.motion import LipCode, MotionConfig, MotionModel, opening_slope, rest_code, told
from talker.train.av_offset import av_offset
from talker.train.warm_start import WarmStart
from talker.types import Driving

MIN_TRAIN_FRAMES = 50


@dataclass(frozen=True)
class Conditioning:
    """What drives every frame of the clip while training; rows of untracked frames are never read.

    Attributes:
        signal: [T, K] true motion codes, or [T, W, A] audio windows.
        expression: [T, E].
        T_cam_head: [T, 4, 4].
        T_cam_torso: [T, 4, 4].
    """

    signal: Tensor
    expression: Tensor
    T_cam_head: Tensor
    T_cam_torso: Tensor

    def to(self, device: torch.device) -> Conditioning:
        """A copy on ``device``."""
        return Conditioning(
            self.signal.to(device),
            self.expression.to(device),
            self.T_cam_head.to(device),
            self.T_cam_torso.to(device),
        )

    def driving(self, index: int) -> Driving:
        """The control of one frame."""
        return Driving(
            self.signal[index], self.expression[index], self.T_cam_head[index], self.T_cam_torso[index]
        )


def build(
    dataset: TalkingHeadDataset,
    model: ModelConfig,
    seed: int,
    *,
    warm: WarmStart | None = None,
    like: LipCode | None = None,
) -> tuple[Avatar, Conditioning]:
    """The avatar at step 0 and the conditioning of its clip. Deterministic for a seed.

    Args:
        dataset: The prepared clip.
        model: The switches; sizes only the data knows are filled in.
        seed: Of everything random.
        warm: The avatar whose map from sound to lips the new one's starts from. Its fields are given separately.
        like: Another speaker's lip code, whose numbers the new one's are to mean the same as.

    Raises:
        TrackingError: Fewer usable training frames than a face can be learnt from.
    """
    torch.manual_seed(seed)
    train = dataset.train_indices()
    if len(train) < MIN_TRAIN_FRAMES:
        raise TrackingError(
            "train.too_few_frames",
            f"Only {len(train)} frames of the clip show a face that could be followed.",
            expected=f"At least {MIN_TRAIN_FRAMES} are needed.",
            todo="Use a longer clip in which the speaker faces the camera.",
        )
    encoder = get_encoder(model.motion.features)
    audio = _windows(dataset, model.motion, encoder)
    T_cam_head = torch.from_numpy(np.asarray(dataset.T_cam_head, np.float32))
    pose_statistics = PoseStatistics()
    pose_statistics.fit(T_cam_head[torch.from_numpy(train)])
    pose = pose_statistics(T_cam_head).numpy()
    lip_code, codes, motion = _fit_motion(dataset, model, audio, train, pose, warm, like)
    model = _fit_dimensions(model, encoder, len(codes[0]))
    signal = codes if model.face.signal == "motion" else audio
    avatar = Avatar(
        model,
        _branches(dataset, model, seed),
        motion if model.face.signal == "motion" else None,
        camera=dataset.camera,
        # That of the last seconds it learns from: sharper than the median of a whole moving background.
        plate=torch.from_numpy(np.asarray(dataset.plate_at(int(train[-1])), np.float32) / 255),
        track=dataset.track,
        audio_encoder=encoder.name,
        lip_code=lip_code,
    )
    avatar.pose_statistics = pose_statistics
    conditioning = Conditioning(
        torch.from_numpy(np.asarray(signal, np.float32)),
        torch.from_numpy(np.asarray(dataset.expression, np.float32)),
        T_cam_head,
        torch.from_numpy(np.asarray(dataset.T_cam_torso, np.float32)),
    )
    return avatar, conditioning


def refit_motion(
    avatar: Avatar, dataset: TalkingHeadDataset, codes: np.ndarray, *, warm: WarmStart | None = None
) -> MotionModel:
    """The map from sound to lips for codes [T, K] that training has refined, as ``build`` fits it to measured ones.

    Args:
        avatar: Trained, with a lip code.
        dataset: The prepared clip it was trained on.
        codes: Those of the training frames count.
        warm: The avatar whose map it starts from, as in ``build``.
    """
    assert avatar.lip_code is not None, "only what has a motion code has a map to it"
    config = avatar.config.motion
    audio = _windows(dataset, config, get_encoder(config.features))
    return _fitted(dataset, avatar.lip_code, codes, audio, config, warm)


def _windows(dataset: TalkingHeadDataset, config: MotionConfig, encoder: AudioEncoder) -> np.ndarray:
    """What is heard around every frame [T, W, A], where the sound of the clip is late or early moved by that."""
    features = encoder.encode(dataset.waveform)
    offset = av_offset(features, dataset.mouth_open, dataset.train_indices(), config)
    return windows(features, dataset.n_frames, width=config.window, offset=offset)


def _fit_motion(
    dataset: TalkingHeadDataset,
    model: ModelConfig,
    audio: np.ndarray,
    train: np.ndarray,
    pose: np.ndarray,
    warm: WarmStart | None,
    like: LipCode | None,
) -> tuple[LipCode, np.ndarray, MotionModel]:
    """Lip code of the training frames, codes of all tracked frames [T, K], and the model from sound to code."""
    lip_code = _lip_code(dataset, train, pose, audio, model.motion, like)
    codes = np.zeros((dataset.n_frames, model.motion.dim), np.float32)
    tracked = np.flatnonzero(dataset.valid)
    codes[tracked] = lip_code.encode(
        np.asarray(dataset.landmarks[tracked], np.float32),
        pose[tracked],
        np.asarray(dataset.T_cam_head[tracked], np.float32),
    )
    return lip_code, codes, _fitted(dataset, lip_code, codes, audio, model.motion, warm)


def _fitted(
    dataset: TalkingHeadDataset,
    lip_code: LipCode,
    codes: np.ndarray,
    audio: np.ndarray,
    config: MotionConfig,
    warm: WarmStart | None,
) -> MotionModel:
    """The map from ``audio`` [T, W, A] to ``codes`` [T, K] of the training frames."""
    train = dataset.train_indices()
    opening = np.asarray(dataset.mouth_open)[train]
    activity = speech_activity(dataset.waveform, dataset.n_frames)[train]
    return MotionModel.fit(
        audio[train],
        codes[train],
        rest=rest_code(codes[train], opening, activity),
        slope=opening_slope(codes[train], opening),
        config=config,
        prior=None if warm is None else warm.motion_prior(lip_code),
    )


def _lip_code(
    dataset: TalkingHeadDataset,
    train: np.ndarray,
    pose: np.ndarray,
    audio: np.ndarray,
    config: MotionConfig,
    like: LipCode | None,
) -> LipCode:
    """The code by rigid points or by tracked heads: whichever puts the lips nearer to where sound alone says they are.

    Clips differ in what is followed better. A code ``like`` another is made as that one.
    """
    landmarks, pose = np.asarray(dataset.landmarks[train], np.float32), pose[train]
    heads, opening = np.asarray(dataset.T_cam_head[train], np.float32), np.asarray(dataset.mouth_open)[train]

    def made(by_heads: bool) -> LipCode:
        seen = {"heads": heads, "K": dataset.camera.K.numpy()} if by_heads else {}
        return LipCode.fit(landmarks, pose, opening, config.dim, like=like, **seen)

    if like is not None:
        return made(by_heads=like.view is not None)
    both = made(by_heads=False), made(by_heads=True)
    codes = np.concatenate([code.encode(landmarks, pose, heads) for code in both], 1)
    # Each component is predicted for itself: one fit does for both codes.
    said = np.split(told(audio[train], codes, config), 2, axis=1)
    missed = [code.missed(landmarks, pose, of_it, heads) for code, of_it in zip(both, said, strict=True)]
    return both[int(np.argmin(missed))]


def _fit_dimensions(model: ModelConfig, encoder: AudioEncoder, code_dim: int) -> ModelConfig:
    """The config with the sizes only the data knows."""

    def fit(field: FieldConfig) -> FieldConfig:
        dim = code_dim if field.signal == "motion" else encoder.dim
        return replace(field, signal_dim=dim, window=model.motion.window)

    return replace(model, face=fit(model.face), mouth=None if model.mouth is None else fit(model.mouth))


def _branches(dataset: TalkingHeadDataset, model: ModelConfig, seed: int) -> dict[str, Branch]:
    inside = dataset.cloud.region == REGION_MOUTH
    if model.mouth is None:
        return {FACE: _branch(dataset, model.face, np.ones_like(inside), seed)}
    return {
        FACE: _branch(dataset, model.face, ~inside, seed),
        MOUTH: _branch(dataset, model.mouth, inside, seed + 1),
    }


def _branch(dataset: TalkingHeadDataset, config: FieldConfig, chosen: np.ndarray, seed: int) -> Branch:
    cloud = dataset.cloud
    means = cloud.means[chosen]
    canonical = CanonicalGaussians.from_points(
        means,
        cloud.colors[chosen],
        cloud.scales[chosen],
        cloud.rig[chosen],
        embedding_dim=config.embedding_dim if config.encoder == "embedding" else 0,
        generator=torch.Generator().manual_seed(seed),
    )
    # The encoder's box: the cloud without its outliers, fixed from here on and independent of head motion.
    low, high = np.percentile(means, 1, axis=0), np.percentile(means, 99, axis=0)
    center, extent = (low + high) / 2, float((high - low).max() / 2 * 1.05)
    return Branch(canonical, DeformationField(config, torch.from_numpy(center), extent))
