"""The avatar folder: written atomically, read as a stranger's.

avatar.json          format, card, model configuration, camera     (the manifest: written last)
model.safetensors    canonical Gaussians, fields, motion model, pose statistics
motion.safetensors   the clip's head, torso and face motion, the basis of the lip code
background.png       the plate
neutral.ply          the avatar at rest, standard 3DGS PLY
poster.jpg, preview.mp4, training.json, README.md     for people; nothing here reads them
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talker.card import (
    AVATAR_JSON,
    FORMAT,
    MODEL,
    MOTION,
    NEUTRAL_PLY,
    PLATE,
    AvatarCard,
    damaged,
    read_header,
)
from talker.errors import CheckpointError, ConfigError
from talker.model.avatar import FACE, MOUTH, Avatar, Branch, ModelConfig
from talker.model.canonical import FIELDS, CanonicalGaussians, raw_values, rgb_to_sh0
from talker.model.deformation import LIPS_DIM, POSE_DIM, DeformationField, FieldConfig
from talker.model.motion import LIPS_AND_JAW, RIGID, LipCode, MotionConfig, MotionModel
from talker.safe_files import write_json
from talker.tensor_files import TensorRule, read_tensors, write_tensors
from talker.types import EXPRESSION_DIM, FPS, Camera, MotionTrack

MAX_GAUSSIANS = 500_000
MAX_SIZE = 1024
MAX_MODEL_BYTES = 512 << 20
MAX_TRACK_FRAMES = 5 * 60 * FPS + FPS
MAX_TABLE = 1 << 22
"""Numbers in the hash tables of one plane: 16 MB."""
MAX_ROWS = 1 << 27
"""Numbers in the largest matrix a frame needs, Gaussians by channels or by agents: 512 MB."""


def save_avatar(avatar: Avatar, folder: Path, card: AvatarCard) -> None:
    """Write ``avatar`` into ``folder`` (made if absent); ``avatar.json`` last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / MODEL, avatar.state_dict())
    write_tensors(folder / MOTION, _motion_tensors(avatar))
    _write_png(folder / PLATE, avatar.plate)
    write_neutral_ply(avatar, folder / NEUTRAL_PLY)
    header = {
        "format": FORMAT,
        "card": dataclasses.asdict(card),
        "model": dataclasses.asdict(avatar.config),
        "branches": {name: len(avatar.branch(name).canonical) for name in avatar.branches},
        "embedding": {
            name: 0 if (e := avatar.branch(name).canonical.embedding) is None else e.shape[1]
            for name in avatar.branches
        },
        "motion": None
        if avatar.motion is None
        else {"features": avatar.motion.mean.shape[0], "dim": avatar.motion.dim},
        "lip_code": avatar.lip_code is not None,
        "audio_encoder": avatar.audio_encoder,
        "camera": {
            "K": avatar.camera.K.tolist(),
            "width": avatar.camera.width,
            "height": avatar.camera.height,
        },
    }
    write_json(folder / AVATAR_JSON, header)


def load_avatar(folder: Path, *, device: torch.device | str = "cpu") -> Avatar:
    """The avatar in ``folder``, ready to be driven.

    Nothing is trusted: sizes are capped before anything is allocated, tensors must have exactly the names, types
    and shapes the configuration implies, numbers must be finite.

    Raises:
        CheckpointError: Missing, damaged, foreign or of another version.
    """
    header = read_header(folder)
    config = _config(header)
    _check_signal(header, config)
    camera = _camera(header)
    track, lip_code = _read_motion(folder, header, config.motion)
    avatar = Avatar(
        config,
        {name: _empty_branch(header, config, name) for name in _branch_names(header, config)},
        _empty_motion(header, config.motion),
        camera=camera,
        plate=_read_png(folder / PLATE, camera),
        track=track,
        audio_encoder=str(header.get("audio_encoder", "")),
        lip_code=lip_code,
    )
    schema = {name: TensorRule.like(value) for name, value in avatar.state_dict().items()}
    avatar.load_state_dict(read_tensors(folder / MODEL, schema=schema, max_bytes=MAX_MODEL_BYTES))
    return avatar.place(device).eval().requires_grad_(False)


def write_neutral_ply(avatar: Avatar, path: Path) -> None:
    """The resting Gaussians of all branches as a standard 3DGS PLY (y up, so that viewers show it upright).

    Lips closed, eyes open, in the clip's mean pose: the canonical Gaussians themselves are no face, once the
    deformation has learnt its part of every expression.
    """
    import plyfile

    from talker.geometry import quat_multiply
    from talker.safe_files import atomic_path

    resting = _at_rest(avatar)

    def gathered(name: str) -> Tensor:
        return torch.cat([values[name].detach().cpu() for values in resting])

    flip = torch.tensor([1.0, -1.0, -1.0])  # OpenCV axes to y up: half a turn about x
    means = gathered("means") * flip
    quats = torch.nn.functional.normalize(gathered("quats"), dim=-1)
    quats = quat_multiply(torch.tensor([0.0, 1.0, 0.0, 0.0]).expand_as(quats), quats)
    sh0 = rgb_to_sh0(gathered("colors"))
    columns = {
        **{axis: means[:, i] for i, axis in enumerate("xyz")},
        **{axis: torch.zeros(len(means)) for axis in ("nx", "ny", "nz")},
        **{f"f_dc_{i}": sh0[:, i] for i in range(3)},
        "opacity": gathered("logit_opacities"),
        **{f"scale_{i}": gathered("log_scales")[:, i] for i in range(3)},
        **{f"rot_{i}": quats[:, i] for i in range(4)},
    }
    table = np.empty(len(means), dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        table[name] = values.numpy()
    with atomic_path(path) as part:
        plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")], byte_order="<").write(str(part))


@torch.no_grad()
def _at_rest(avatar: Avatar) -> list[dict[str, Tensor]]:
    """Raw values of every branch, deformed as in silence."""
    driving, face, found = avatar.resting(), None, []
    for name in avatar.branches:  # the face first: the mouth may follow its lips
        _, offsets = avatar.gaussians(name, driving, face=face)
        face = face or offsets
        found.append(raw_values(avatar.branch(name).canonical, offsets))
    return found


def _config(header: dict[str, Any]) -> ModelConfig:
    from pydantic import TypeAdapter, ValidationError

    model = header["model"]
    for part, kind in (
        (model, ModelConfig),
        (model.get("face"), FieldConfig),
        (model.get("motion"), MotionConfig),
        *([(model["mouth"], FieldConfig)] if model.get("mouth") is not None else []),
    ):
        known = {f.name for f in dataclasses.fields(kind)}
        if not isinstance(part, dict) or set(part) - known:
            raise damaged(f"its {kind.__name__} has unknown entries")
    try:
        return TypeAdapter(ModelConfig).validate_python(model)
    except (ValidationError, ConfigError) as error:
        raise damaged("its model configuration is not one this version knows") from error


def _check_signal(header: dict[str, Any], config: ModelConfig) -> None:
    """What is predicted from sound must be what the fields take."""
    fields = [config.face, *([] if config.mouth is None else [config.mouth])]
    if {field.signal for field in fields} != {config.face.signal}:
        raise damaged("its fields are driven by different signals")
    if (config.face.signal == "motion") != (header.get("motion") is not None):
        raise damaged("its motion model does not fit its configuration")
    if config.face.signal == "motion" and any(f.signal_dim != config.motion.dim for f in fields):
        raise damaged("its motion code has another length than its fields take")


def _camera(header: dict[str, Any]) -> Camera:
    value = header["camera"]
    K, width, height = value.get("K"), value.get("width"), value.get("height")
    sizes_ok = type(width) is int and 16 <= width <= MAX_SIZE and height == width
    shaped = isinstance(K, list) and len(K) == 3 and all(isinstance(r, list) and len(r) == 3 for r in K)
    if not sizes_ok or not shaped or not all(type(v) in (int, float) and abs(v) < 1e5 for r in K for v in r):
        raise damaged(f"its camera is not a square view of 16 to {MAX_SIZE} pixels")
    matrix = torch.tensor(K, dtype=torch.float32)
    if not (matrix[0, 0] > 1.0 and matrix[1, 1] > 1.0):
        raise damaged("its focal length is out of range")
    return Camera(matrix, width, height)


def _branch_names(header: dict[str, Any], config: ModelConfig) -> tuple[str, ...]:
    names = (FACE,) if config.mouth is None else (FACE, MOUTH)
    if set(header["branches"]) != set(names):
        raise damaged("its branches do not fit its configuration")
    return names


def _empty_branch(header: dict[str, Any], config: ModelConfig, name: str) -> Branch:
    n = header["branches"][name]
    if type(n) is not int or not 1 <= n <= MAX_GAUSSIANS:
        raise CheckpointError(
            "avatar.too_many_gaussians",
            f"The avatar declares {n!r} Gaussians.",
            expected=f"At most {MAX_GAUSSIANS:,}.",
        )
    field_config = config.face if name == FACE else config.mouth
    assert field_config is not None
    embedding = field_config.embedding_dim if field_config.encoder == "embedding" else 0
    if header["embedding"].get(name) != embedding:
        raise damaged("its embedding does not fit its configuration")
    _check_cost(field_config, n)
    shapes = {"means": (n, 3), "quats": (n, 4), "log_scales": (n, 3), "sh0": (n, 3)}
    values = {key: torch.zeros(shapes.get(key, (n,))) for key in FIELDS}
    if embedding:
        values["embedding"] = torch.zeros(n, embedding)
    try:
        deformation = DeformationField(field_config, torch.zeros(3), 1.0)
    except ConfigError as error:  # sizes that are possible one by one, but not together
        raise damaged("its model configuration is not one this version knows") from error
    return Branch(CanonicalGaussians(values), deformation)


def _check_cost(config: FieldConfig, n: int) -> None:
    """Each size is in its range; all at their largest together would still fill any memory."""
    table = config.hash_levels * config.hash_features << config.hash_log2_table
    agents = config.agents if config.agents >= 1 else config.agents * n
    columns = max(config.width, config.hidden, agents if config.fusion == "esaa" else 0)
    if config.fusion == "blendshapes":
        condition = config.signal_dim + EXPRESSION_DIM + POSE_DIM + LIPS_DIM + config.extra
        columns = max(columns, config.out_dim * condition)
    if table > MAX_TABLE or n * columns > MAX_ROWS:
        raise CheckpointError(
            "avatar.too_large",
            f"The networks of this avatar are too large for its {n:,} Gaussians.",
            expected=f"At most {MAX_ROWS:,} numbers a frame.",
            todo="Use a smaller avatar, or one from another source.",
        )


def _empty_motion(header: dict[str, Any], config: MotionConfig) -> MotionModel | None:
    motion = header.get("motion")
    if motion is None:
        return None
    features, dim = (motion.get("features"), motion.get("dim")) if isinstance(motion, dict) else (None, None)
    if type(features) is not int or not 1 <= features <= 1 << 16 or dim != config.dim:
        raise damaged("the size of its motion model is out of range")
    return MotionModel(1, features, config.dim)


def _motion_tensors(avatar: Avatar) -> dict[str, Tensor]:
    track = avatar.track
    tensors = {
        "T_cam_head": torch.from_numpy(np.asarray(track.T_cam_head, np.float32)),
        "T_cam_torso": torch.from_numpy(np.asarray(track.T_cam_torso, np.float32)),
        "expression": torch.from_numpy(np.asarray(track.expression, np.float32)),
        "valid": torch.from_numpy(np.asarray(track.valid, np.uint8)),
        "segment": torch.from_numpy(np.asarray(track.segment, np.int32)),
    }
    if avatar.lip_code is not None:
        for name in ("reference", "mean", "slide", "basis", "std", "view"):
            value = getattr(avatar.lip_code, name)
            if value is not None:
                tensors[f"lip_code.{name}"] = torch.from_numpy(np.asarray(value, np.float32))
    return {name: value.clone() for name, value in tensors.items()}


def _read_motion(
    folder: Path, header: dict[str, Any], motion: MotionConfig
) -> tuple[MotionTrack, LipCode | None]:
    def track(dtype: torch.dtype, *shape: int) -> TensorRule:
        limits = (MAX_TRACK_FRAMES, *shape)
        exact = (None, *shape)
        return TensorRule(
            dtype, len(limits), max_shape=limits, shape=exact, same_first_dim="track", low=-1e4, high=1e4
        )

    schema = {
        "T_cam_head": track(torch.float32, 4, 4),
        "T_cam_torso": track(torch.float32, 4, 4),
        "expression": track(torch.float32, EXPRESSION_DIM),
        "valid": track(torch.uint8),
        "segment": track(torch.int32),
    }
    points = 2 * len(LIPS_AND_JAW)
    if header.get("lip_code"):
        for name, shape in (
            ("reference", (len(RIGID), 3)),
            ("mean", (points,)),
            ("slide", (POSE_DIM, points)),
            ("basis", (motion.dim, points)),
            ("std", (motion.dim,)),
        ):
            schema[f"lip_code.{name}"] = TensorRule(torch.float32, len(shape), shape=shape)
        schema["lip_code.view"] = TensorRule(torch.float32, 1, shape=(4,), optional=True, low=-1e4, high=1e6)
    tensors = {
        k: v.numpy() for k, v in read_tensors(folder / MOTION, schema=schema, max_bytes=64 << 20).items()
    }
    code = {k.removeprefix("lip_code."): tensors.pop(k) for k in list(tensors) if k.startswith("lip_code.")}
    tensors["valid"] = tensors["valid"].astype(bool)
    return MotionTrack(**tensors), LipCode(**code) if code else None


def _write_png(path: Path, plate: Tensor) -> None:
    from PIL import Image

    from talker.safe_files import atomic_path

    pixels = (plate.detach().cpu().clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
    with atomic_path(path) as part:
        Image.fromarray(pixels).save(part, format="PNG")


def _read_png(path: Path, camera: Camera) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != (camera.width, camera.height):
                raise damaged("its background has another size than its camera")
            pixels = np.asarray(image.convert("RGB"), np.float32)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise damaged("its background cannot be read") from error
    return torch.from_numpy(pixels / 255)
