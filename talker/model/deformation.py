"""From one frame's control to per-Gaussian offsets: encoder, tokens, fusion, decoder. Starts as identity.

The parts are split so that whatever depends only on position is computed once per avatar: ``prepare`` (once),
``tokens`` (once a frame, a few rows), ``offsets`` (per Gaussian and frame).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talker.errors import ConfigError
from talker.model.blendshapes import Blendshapes, Condition
from talker.model.canonical import CanonicalGaussians, Offsets
from talker.model.encoding import DenseTriplane, EmbeddingEncoding, Encoding, HashTriplane
from talker.model.fusion import ESAA, MGF, CrossAttention, Fusion, PlainSum, Prepared, morton_order
from talker.model.kan import KAN
from talker.types import EXPRESSION_DIM

DEFORM_SIZES = {"mu": 3, "alpha": 1, "rgb": 3, "shade": 3, "r": 4, "s": 3}
"""Attributes the field may move and how many numbers each takes.

``shade`` is colour that follows the head and the lids and not the lips. Where ``rgb`` follows everything, a lip can
take on the colour of teeth in its place instead of moving off them, and how far the mouth is open is hard to see.
"""

POSE_DIM = 6
"""Head pose relative to the clip's mean: axis-angle and translation, in standard deviations."""

LIPS_DIM = 3
"""Mean motion of the face's Gaussians around the mouth."""

_RANGES = {
    "signal_dim": (1, 2048),
    "window": (1, 64),
    "width": (8, 256),
    "hidden": (8, 256),
    "extra": (0, 64),
    "agents": (0.0005, 4096),
    "embedding_dim": (1, 64),
    "hash_levels": (1, 16),
    "hash_features": (1, 8),
    "hash_log2_table": (4, 19),
    "hash_finest": (16, 2048),
}
"""Sizes an avatar from a stranger may ask for; none allocates more than some tens of MB."""


POSE_SCALE = 0.25
"""Blendshapes: the pose counts a quarter, so that appearance leans on the lips and lids first."""

LIPS_SCALE = 10.0
"""Lips move by about a tenth of a head unit; as a control that is about one."""

MOUTH_REACH = (0.2, 1.0, 0.2)
"""A mouth that follows the lips moves down and up; sideways and in depth a fifth as far (TalkingGaussian)."""


@dataclass(frozen=True)
class FieldConfig:
    """Every switch of one deformation field. Defaults are near the best we know (``presets``), not a paper's."""

    encoder: Literal["triplane_hash", "triplane_dense", "embedding"] = "embedding"
    decoder: Literal["mlp", "kan"] = "mlp"
    fusion: Literal["blendshapes", "mgf", "sum", "esaa", "cross_attention"] = "blendshapes"
    deform: tuple[str, ...] = ("mu", "alpha", "rgb")
    signal: Literal["motion", "audio"] = "motion"
    """What drives: the motion code a small model predicts from sound, or the sound itself, end to end."""
    signal_dim: int = 8
    """Length of the motion code, or channels of the audio features."""
    window: int = 16
    """Rows of audio features around a frame; only for ``signal = audio``."""
    width: int = 64
    hidden: int = 64
    extra: int = 8
    """Blendshapes: functions of the control learnt beside the control itself."""
    agents: float = 16
    """ESAA: number of agents, or their share of N if below 1."""
    ppe: Literal["none", "add", "bias"] = "none"
    embedding_dim: int = 16
    hash_levels: int = 10
    hash_features: int = 2
    hash_log2_table: int = 14
    hash_finest: int = 192
    pose_token: bool = True
    """Whether appearance may depend on the head pose (shading, neck)."""
    follows_lips: bool = False
    """Inside-mouth branch: the motion of the face's lips is one more control, and nothing moves far sideways."""

    def __post_init__(self) -> None:
        unknown = set(self.deform) - set(DEFORM_SIZES)
        if unknown or not self.deform:
            raise ConfigError(
                "model.deform",
                f"The deformation set {self.deform} is not known.",
                expected=f"Some of {', '.join(DEFORM_SIZES)}.",
            )
        if "shade" in self.deform and (self.fusion != "blendshapes" or "rgb" in self.deform):
            raise ConfigError(
                "model.deform",
                f"Colour that does not follow the lips, with {self.fusion} and {', '.join(self.deform)}.",
                expected="Blendshapes, which keep lips and head apart, and no rgb beside it.",
            )
        if self.fusion == "blendshapes" and self.signal != "motion":
            raise ConfigError(
                "model.fusion", "Blendshapes of raw sound.", expected="Blendshapes take a motion code."
            )
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"model.{name}",
                    f"{name} is {getattr(self, name)}.",
                    expected=f"It must be between {low} and {high}.",
                )

    @property
    def out_dim(self) -> int:
        """Numbers predicted per Gaussian."""
        return sum(DEFORM_SIZES[name] for name in self.deform)


def build_encoder(config: FieldConfig) -> Encoding:
    """The encoder the config names."""
    if config.encoder == "triplane_dense":
        return DenseTriplane()
    if config.encoder == "embedding":
        return EmbeddingEncoding(config.embedding_dim)
    return HashTriplane(
        levels=config.hash_levels,
        features=config.hash_features,
        log2_table=config.hash_log2_table,
        finest=config.hash_finest,
    )


class AudioNet(nn.Module):
    """A window of audio features [..., W, A] to one row [..., d] (AD-NeRF's audio net, re-proportioned)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inlet = nn.Linear(features, 32)
        self.convs = nn.ModuleList(nn.Conv1d(32, 32, 3, stride=2, padding=1) for _ in range(3))
        self.attention = nn.Linear(32, 1)
        self.outlet = nn.Linear(32, width)

    def forward(self, window: Tensor) -> Tensor:
        """Rows [B, d] of windows [B, W, A]."""
        x = F.leaky_relu(self.inlet(window), 0.02).transpose(1, 2)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.02)
        x = x.transpose(1, 2)  # [B, W', 32]
        weights = torch.softmax(self.attention(x), dim=1)
        return self.outlet((weights * x).sum(1))


class DeformationField(nn.Module):
    """One branch's field.

    Args:
        config: The switches.
        center: [3] middle of the box the encoder covers, head units.
        extent: Half the edge of that box.
    """

    center: Tensor
    extent: Tensor
    reach: Tensor

    def __init__(self, config: FieldConfig, center: Tensor, extent: float) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("center", center.float())
        self.register_buffer("reach", torch.tensor(MOUTH_REACH), persistent=False)
        self.register_buffer("extent", torch.tensor(float(extent)))
        d = config.width
        self.encoder = build_encoder(config)
        self.inlet = nn.Linear(self.encoder.out_dim, d)
        self.blendshapes = config.fusion == "blendshapes"
        if self.blendshapes:
            self.condition = Condition(
                config.signal_dim
                + EXPRESSION_DIM
                + config.pose_token * POSE_DIM
                + config.follows_lips * LIPS_DIM,
                config.extra,
            )
        else:
            self._build_tokens(config)
        self.fusion = self._build_fusion(config)
        self.decoder = nn.Identity() if self.blendshapes else build_decoder(config, config.out_dim)

    def _build_tokens(self, config: FieldConfig) -> None:
        d = config.width
        motion = config.signal == "motion"
        self.signal = nn.Linear(config.signal_dim, d) if motion else AudioNet(config.signal_dim, d)
        self.expression = nn.Linear(EXPRESSION_DIM, d)
        self.pose = nn.Linear(POSE_DIM, d) if config.pose_token else None
        self.lips = nn.Linear(LIPS_DIM, d) if config.follows_lips else None
        self.null = nn.Parameter(torch.zeros(d))

    def _build_fusion(self, config: FieldConfig) -> Fusion:
        if config.fusion == "blendshapes":
            return Blendshapes(config.width, config.hidden, self._followed(config))
        if config.fusion == "esaa":
            return ESAA(config.width, config.agents, ppe=config.ppe)
        if config.fusion == "cross_attention":
            return CrossAttention(config.width)
        return PlainSum(config.width) if config.fusion == "sum" else MGF(config.width)

    def _followed(self, config: FieldConfig) -> Tensor:
        """Which entries of the condition each number of the offsets follows, [out, M] of 0 and 1."""
        followed = {name: torch.ones(size, self.condition.dim) for name, size in DEFORM_SIZES.items()}
        head_and_lids = EXPRESSION_DIM + config.pose_token * POSE_DIM
        followed["shade"][:, : config.signal_dim] = 0
        followed["shade"][:, config.signal_dim + head_and_lids :] = 0  # learnt functions see the lips, too
        return torch.cat([followed[name] for name in config.deform])

    def spatial(self, canonical: CanonicalGaussians) -> Tensor:
        """What the encoder knows of every Gaussian's place, [N, width]."""
        x = (canonical.means - self.center) / self.extent
        return self.inlet(self.encoder(x, canonical.embedding))

    def prepare(self, canonical: CanonicalGaussians) -> Prepared:
        """What depends on the Gaussians alone; worked out once while driving, every step while training."""
        spatial = self.spatial(canonical)
        # Only agents are pooled over neighbours; the curve is the same whatever order density control left.
        order = morton_order(canonical.means) if isinstance(self.fusion, ESAA) else None
        return self.fusion.prepare(spatial, order)

    def tokens(self, signal: Tensor, expression: Tensor, pose: Tensor, lips: Tensor | None = None) -> Tensor:
        """Condition tokens [K, d]: sound, expression, pose and lips (if on), null; for blendshapes one row [M].

        Args:
            signal: [A] motion code, or [W, A] audio window.
            expression: [E].
            pose: [POSE_DIM] standardised head pose.
            lips: [3] motion of the lips in head units, for a field that follows them; at rest if absent.
        """
        moved = (signal.new_zeros(LIPS_DIM) if lips is None else lips) * LIPS_SCALE
        if self.blendshapes:
            control = [signal, expression]
            control += [pose * POSE_SCALE] if self.config.pose_token else []
            control += [moved] if self.config.follows_lips else []
            return self.condition(torch.cat(control))
        rows = [self.signal(signal[None])[0], self.expression(expression)]
        if self.pose is not None:
            rows.append(self.pose(pose))
        if self.lips is not None:
            rows.append(self.lips(moved))
        return torch.stack([*rows, self.null])

    def offsets(self, prepared: Prepared, tokens: Tensor) -> Offsets:
        """Offsets of every Gaussian for one frame."""
        raw = self.decoder(self.fusion.fuse(prepared, tokens))
        sizes = [DEFORM_SIZES[name] for name in self.config.deform]
        parts = zip(self.config.deform, raw.split(sizes, -1), strict=True)
        values = {_FIELD_OF[name]: _BOUND[name](value) for name, value in parts}
        if self.config.follows_lips and "means" in values:
            values["means"] = values["means"] * self.reach
        return Offsets(**values)

    def forward(self, canonical: CanonicalGaussians, tokens: Tensor) -> Offsets:
        """Offsets of every Gaussian for one frame, nothing cached."""
        return self.offsets(self.prepare(canonical), tokens)


_FIELD_OF = {
    "mu": "means",
    "alpha": "logit_opacities",
    "rgb": "rgb",
    "shade": "rgb",
    "r": "quats",
    "s": "log_scales",
}


def _bounded(slope: float, limit: float):
    """``slope`` near zero, never beyond ``limit``: no setting of the control can tear the face."""

    def bound(raw: Tensor) -> Tensor:
        return limit * torch.tanh(raw * (slope / limit))

    return bound


_BOUND = {
    "mu": _bounded(0.1, 0.4),  # head units: 0.4 is about 4 cm
    "alpha": lambda raw: _bounded(1.0, 5.0)(raw)[:, 0],
    "rgb": _bounded(0.2, 0.3),
    "shade": _bounded(0.2, 0.3),
    "r": _bounded(0.1, 0.5),
    "s": _bounded(0.2, 0.7),
}


def build_decoder(config: FieldConfig, out_dim: int) -> nn.Module:
    """Rows [N, width] to [N, out_dim] in two layers; the last starts at zero: step 0 renders the canonical avatar."""
    if config.decoder == "kan":
        return KAN((config.width, config.hidden, out_dim), zero_last=True, grid_range=(-3.0, 3.0))
    last = nn.Linear(config.hidden, out_dim)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(config.width, config.hidden), nn.ReLU(), last)
