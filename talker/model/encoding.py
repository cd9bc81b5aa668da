"""Spatial encodings: what the networks know about a Gaussian from where it is.

All take positions normalised to -1..1 and return one row per Gaussian:

* ``HashTriplane``: three multi-resolution planes with hashed tables (EGSTalker's text, PGSTalker).
* ``DenseTriplane``: three dense planes, multiplied (EGSTalker as released).
* ``EmbeddingEncoding``: a learned vector per Gaussian and a positional code (EmbedTalk).

Planes are rows of one table, and a bilinear read is a weighted sum of four rows: one ``embedding_bag`` does
all planes and levels at once, which on a CPU is several times quicker than ``grid_sample`` per plane.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talker.errors import ConfigError

PLANES = ((0, 1), (0, 2), (1, 2))
"""Axes of the three planes: xy, xz, yz."""

_HASH_PRIME = 2_654_435_761  # Instant-NGP, eq. 4: the first axis is multiplied by one

EncoderKind = Literal["triplane_hash", "triplane_dense", "embedding"]


class Encoding(nn.Module):
    """Common face of the encodings.

    Attributes:
        out_dim: Length of the returned rows.
        embedding_dim: Length of the per-Gaussian vectors ``forward`` needs; 0 if it takes none.
    """

    out_dim: int
    embedding_dim: int = 0

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Encode positions ``x`` [N, 3] in -1..1 (and vectors [N, D]) as rows [N, out_dim]."""
        raise NotImplementedError


class HashTriplane(Encoding):
    """Multi-resolution hash encoding (Instant-NGP, section 3) on the planes xy, xz and yz.

    A level with more grid points than ``2 ** log2_table`` shares its rows by hash, collisions included; a
    smaller one is indexed directly. Features of planes and levels are concatenated.

    Args:
        levels: Number of resolutions.
        features: Features per plane and level.
        log2_table: Largest table of one plane and level, as a power of two.
        base: Cells along an axis at the coarsest level.
        finest: Cells along an axis at the finest level.
    """

    table: nn.Parameter
    resolution: Tensor
    offset: Tensor

    def __init__(
        self, levels: int = 12, features: int = 2, log2_table: int = 15, base: int = 16, finest: int = 256
    ) -> None:
        super().__init__()
        if levels < 1 or features < 1 or not 1 <= base <= finest:
            raise ConfigError(
                "encoder.levels",
                f"A hash tri-plane of {levels} levels, {features} features, {base} to {finest} cells.",
                expected="At least one level and feature, and a finest level not coarser than the base.",
            )
        growth = (finest / base) ** (1 / max(levels - 1, 1))
        resolutions = [math.floor(base * growth**level + 1e-6) for level in range(levels)]
        self.table_size = 2**log2_table
        sizes = [min((res + 1) ** 2, self.table_size) for res in resolutions]
        # Resolutions never fall, so the levels that fit without hashing come first.
        self.n_dense = sum((res + 1) ** 2 <= self.table_size for res in resolutions)
        self.levels, self.features = levels, features
        self.out_dim = len(PLANES) * levels * features
        plane_rows = sum(sizes)
        starts = [sum(sizes[:level]) for level in range(levels)]
        self.table = nn.Parameter(torch.empty(len(PLANES) * plane_rows, features).uniform_(-1e-4, 1e-4))
        self.register_buffer("resolution", torch.tensor(resolutions), persistent=False)
        offsets = [[plane * plane_rows + start for start in starts] for plane in range(len(PLANES))]
        self.register_buffer("offset", torch.tensor(offsets), persistent=False)

    def corners(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Table rows [N, planes, levels, 4] (int64) around ``x`` [N, 3], and their bilinear weights."""
        unit = ((x + 1) * 0.5).clamp(0, 1)[..., None] * self.resolution  # [N, 3, levels]
        cell = torch.minimum(unit.detach().floor().long(), self.resolution - 1)
        frac = unit - cell
        first, second = [a for a, _ in PLANES], [b for _, b in PLANES]
        rows = torch.cat(
            (
                self._dense_rows(cell[:, first, : self.n_dense], cell[:, second, : self.n_dense]),
                self._hashed_rows(cell[:, first, self.n_dense :], cell[:, second, self.n_dense :]),
            ),
            -2,
        )
        return rows + self.offset[..., None], _bilinear_weights(frac[:, first], frac[:, second])

    def _dense_rows(self, u: Tensor, v: Tensor) -> Tensor:
        stride = self.resolution[: self.n_dense] + 1
        low = u + v * stride
        return torch.stack((low, low + 1, low + stride, low + stride + 1), -1)

    def _hashed_rows(self, u: Tensor, v: Tensor) -> Tensor:
        mask = self.table_size - 1
        v_low, v_high = (v * _HASH_PRIME) & mask, ((v + 1) * _HASH_PRIME) & mask
        u_low, u_high = u & mask, (u + 1) & mask
        return torch.stack((u_low ^ v_low, u_high ^ v_low, u_low ^ v_high, u_high ^ v_high), -1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Encode ``x`` [N, 3] in -1..1 (clamped) as [N, planes * levels * features]."""
        rows, weights = self.corners(x)
        return _weighted_rows(self.table, rows, weights).reshape(x.shape[0], self.out_dim)


class DenseTriplane(Encoding):
    """Dense planes of rising resolution, multiplied over the planes, concatenated over the levels.

    EGSTalker as released: 64 x 64 and 128 x 128, 32 channels, so 64 numbers per Gaussian.

    Args:
        resolutions: Grid points along an axis, one per level.
        channels: Channels per level.
    """

    def __init__(self, resolutions: tuple[int, ...] = (64, 128), channels: int = 32) -> None:
        super().__init__()
        self.resolutions, self.channels = resolutions, channels
        self.out_dim = channels * len(resolutions)
        # U(0.1, 0.5), not around zero: a product of three factors near zero would have no gradient.
        self.planes = nn.ParameterList(
            nn.Parameter(torch.empty(len(PLANES) * res * res, channels).uniform_(0.1, 0.5))
            for res in resolutions
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Encode ``x`` [N, 3] in -1..1 (clamped: border padding) as [N, levels * channels]."""
        unit = ((x + 1) * 0.5).clamp(0, 1)
        first, second = [a for a, _ in PLANES], [b for _, b in PLANES]
        levels = []
        for res, plane in zip(self.resolutions, self.planes, strict=True):
            grid = unit * (res - 1)
            cell = grid.detach().floor().long().clamp_max(res - 2)
            frac = grid - cell
            low = cell[:, first] + cell[:, second] * res
            low = low + torch.arange(len(PLANES), device=x.device) * res * res
            rows = torch.stack((low, low + 1, low + res, low + res + 1), -1)
            values = _weighted_rows(plane, rows, _bilinear_weights(frac[:, first], frac[:, second]))
            levels.append(values.prod(1) if not values.requires_grad else _product(values))
        return torch.cat(levels, -1)


class EmbeddingEncoding(Encoding):
    """Per-Gaussian vectors, kept with the Gaussians, beside a sinusoidal code of the position (EmbedTalk).

    Args:
        dim: Length of the vectors.
        frequencies: Octaves of the positional code; 0 leaves it out.
    """

    octaves: Tensor

    def __init__(self, dim: int = 32, frequencies: int = 4) -> None:
        super().__init__()
        self.embedding_dim = dim
        self.register_buffer("octaves", math.pi * 2.0 ** torch.arange(frequencies), persistent=False)
        self.out_dim = dim + 2 * 3 * frequencies

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Vectors [N, dim] followed by sines and cosines of ``x`` [N, 3]."""
        if embedding is None or embedding.shape[-1] != self.embedding_dim:
            raise ConfigError(
                "encoder.embedding",
                "The Gaussians carry no vectors of the embedding encoder's length.",
                expected=f"One vector of {self.embedding_dim} numbers per Gaussian.",
            )
        phase = (x[..., None] * self.octaves).flatten(1)
        return torch.cat((embedding, phase.sin(), phase.cos()), -1)


def make_encoding(kind: str, **options: int) -> Encoding:
    """The encoding called ``kind`` (see ``EncoderKind``); ``options`` go to its constructor."""
    kinds = {
        "triplane_hash": HashTriplane,
        "triplane_dense": DenseTriplane,
        "embedding": EmbeddingEncoding,
    }
    if kind not in kinds:
        raise ConfigError(
            "encoder.unknown", f"There is no encoder {kind!r}.", expected=f"One of {', '.join(kinds)}."
        )
    return kinds[kind](**options)


def _bilinear_weights(u: Tensor, v: Tensor) -> Tensor:
    """Weights [..., 4] of the corners (0,0), (1,0), (0,1), (1,1) at fractions ``u``, ``v`` of a cell."""
    uv = u * v
    return torch.stack((1 - u - v + uv, u - uv, v - uv, uv), -1)


def _weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sum over the last axis of ``weights * table[rows]``: [..., 4] -> [..., features]."""
    bags = F.embedding_bag(rows.reshape(-1, 4), table, per_sample_weights=weights.reshape(-1, 4), mode="sum")
    return bags.reshape(*rows.shape[:-1], table.shape[-1])


def _product(values: Tensor) -> Tensor:
    """Product over the planes [N, 3, C] -> [N, C]; unlike ``prod`` its backward needs no search for zeros."""
    xy, xz, yz = values.unbind(1)
    return xy * xz * yz
