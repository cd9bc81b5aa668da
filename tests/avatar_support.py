"""A real but tiny avatar folder, made by the product's own code in a fraction of a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from talker import card as manifest
from talker import provenance
from talker.checkpoint import save_avatar
from talker.model.avatar import FACE, Avatar, Branch, ModelConfig
from talker.model.canonical import FIELDS, CanonicalGaussians
from talker.model.deformation import DeformationField, FieldConfig
from talker.model.motion import LIPS_AND_JAW, RIGID, LipCode, MotionConfig, MotionModel
from talker.safe_files import write_json
from talker.types import EXPRESSION_DIM, Camera, MotionTrack

SIZE, N, T, DIM = 32, 40, 30, 4


def tiny_avatar(seed: int = 0) -> Avatar:
    """40 Gaussians at 32 x 32 pixels."""
    torch.manual_seed(seed)
    field = FieldConfig(
        encoder="triplane_hash",
        fusion="mgf",
        signal_dim=DIM,
        width=16,
        hidden=16,
        hash_levels=2,
        hash_log2_table=10,
        hash_finest=32,
    )
    config = ModelConfig(face=field, motion=MotionConfig(dim=DIM))
    values = {
        "means": torch.randn(N, 3) * 0.3,
        "quats": torch.randn(N, 4),
        "log_scales": torch.full((N, 3), -3.0),
        "logit_opacities": torch.zeros(N),
        "sh0": torch.randn(N, 3) * 0.3,
        "rig_logit": torch.zeros(N),
    }
    assert set(values) == set(FIELDS)
    eye = np.tile(np.eye(4, dtype=np.float32), (T, 1, 1))
    eye[:, 2, 3] = 6.0
    points = 2 * len(LIPS_AND_JAW)
    return Avatar(
        config,
        {FACE: Branch(CanonicalGaussians(values), DeformationField(field, torch.zeros(3), 1.0))},
        MotionModel(1, 40, DIM),
        camera=Camera(torch.tensor([[64.0, 0, 16], [0, 64, 16], [0, 0, 1]]), SIZE, SIZE),
        plate=torch.rand(SIZE, SIZE, 3),
        track=MotionTrack(
            eye,
            eye.copy(),
            np.zeros((T, EXPRESSION_DIM), np.float32),
            np.ones(T, bool),
            np.zeros(T, np.int32),
        ),
        audio_encoder="mel",
        lip_code=LipCode(
            np.zeros((len(RIGID), 3), np.float32),
            np.zeros(points, np.float32),
            np.zeros((6, points), np.float32),
            np.ones((DIM, points), np.float32),
            np.ones(DIM, np.float32),
        ),
    )


def tiny_avatar_folder(folder: Path, *, name: str = "Zoë", seed: int = 0, extras: bool = True) -> Path:
    """A complete avatar folder; ``extras`` adds what is for people (training.json, poster, preview)."""
    consent = provenance.new_consent("Zoë Doe")
    avatar = tiny_avatar(seed)
    metrics = {"psnr": 28.25, "mouth_r": 0.61}
    card = manifest.AvatarCard(
        name,
        f"2026-11-20T12:00:{seed:02d}+00:00",
        "preview",
        SIZE,
        N,
        "mel",
        dataclasses.asdict(consent),
        metrics,
    )
    save_avatar(avatar, folder, card)
    if extras:
        write_json(folder / manifest.TRAINING, {"talker": "0.1.0", "protocol": "B", "metrics": metrics})
        _pictures(folder, seed)
    return folder


def _pictures(folder: Path, seed: int) -> None:
    import av
    from PIL import Image

    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(frame).save(folder / manifest.POSTER, format="JPEG")
    with av.open(str(folder / manifest.PREVIEW), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
