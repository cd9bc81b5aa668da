"""Spatial encodings: what the networks know about a Gaussian from where it is.

All take positions normalised to -1..1 and return one row per Gaussian:

* ``HashTriplane``: three multi-resolution planes with hashed tables (EGSTalker's text, PGSTalker).
* ``DenseTriplane``: three dense planes, multiplied (EGSTalker as released).
* ``EmbeddingEncoding``: a learned vector per Gaussian and a positional code (EmbedTalk).

The grids of all planes and levels are rows of one table, and a bilinear read is a weighted sum of four rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talker.errors import ConfigError
from talker.fused import applies
from talker.model import kernels

PLANES = ((0, 1), (0, 2), (1, 2))
"""Axes of the three planes: xy, xz, yz."""

_HASH_PRIME = 2_654_435_761  # Instant-NGP, eq. 4: the first axis is multiplied by one

EncoderKind = Literal["triplane_hash", "triplane_dense", "embedding"]


class Encoding(nn.Module, ABC):
    """Common face of the encodings.

    Attributes:
        out_dim: Length of the returned rows.
        embedding_dim: Length of the per-Gaussian vectors ``forward`` needs; 0 if it takes none.
    """

    out_dim: int
    embedding_dim: int = 0

    @abstractmethod
    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Encode positions ``x`` [N, 3] in -1..1 (and vectors [N, D]) as rows [N, out_dim]."""


class _Planes(Encoding):
    """Bilinear reads of several grids on the planes, all kept as rows of one ``table``.

    ``groups`` [G, 6] says for every grid: its two axes, cells along an axis, first row, stride of the second
    axis, and the hash mask (0: rows are counted directly).
    """

    table: nn.Parameter
    groups: Tensor

    def _build(self, grids: list[tuple[int, int, int]], features: int) -> None:
        """Lay out ``grids``, each (plane, cells, largest number of rows), as one table; set ``table``."""
        rows, first = [], 0
        for plane, cells, limit in grids:
            hashed = (cells + 1) ** 2 > limit
            stride, mask = (_HASH_PRIME, limit - 1) if hashed else (cells + 1, 0)
            rows.append((*PLANES[plane], cells, first, stride, mask))
            first += limit if hashed else (cells + 1) ** 2
        self.register_buffer("groups", torch.tensor(rows), persistent=False)
        self.table = nn.Parameter(torch.empty(first, features))

    def corners(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [N, G, 4] (int64) of the table around ``x`` [N, 3], and their bilinear weights [N, G, 4]."""
        axis_u, axis_v, cells, first, stride, mask = self.groups.unbind(-1)
        grid = ((x + 1) * 0.5).clamp(0, 1)
        u, v = grid[:, axis_u] * cells, grid[:, axis_v] * cells
        cu = torch.minimum(u.detach().long(), cells - 1)
        cv = torch.minimum(v.detach().long(), cells - 1)
        corners = [(cu + du, (cv + dv) * stride) for dv in (0, 1) for du in (0, 1)]
        rows = [torch.where(mask > 0, (a ^ b) & mask, a + b) + first for a, b in corners]
        u, v = u - cu, v - cv
        weights = ((1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v)
        return torch.stack(rows, -1), torch.stack(weights, -1)

    def read(self, x: Tensor) -> Tensor:
        """Features [N, G, C] at ``x`` [N, 3] in -1..1; outside the border's."""
        if applies(x, self.table):
            return cast(Tensor, kernels.Planes.apply(x, self.table, self.groups))
        rows, weights = self.corners(x)
        weights = weights.reshape(-1, 4)
        bags = F.embedding_bag(rows.reshape(-1, 4), self.table, per_sample_weights=weights, mode="sum")
        return bags.reshape(x.shape[0], len(self.groups), -1)


class HashTriplane(_Planes):
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
        cells = [math.floor(base * growth**level + 1e-6) for level in range(levels)]
        self._build([(plane, c, 2**log2_table) for plane in range(len(PLANES)) for c in cells], features)
        nn.init.uniform_(self.table, -1e-4, 1e-4)
        self.out_dim = len(PLANES) * levels * features

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Encode ``x`` [N, 3] in -1..1 as [N, planes * levels * features]."""
        return self.read(x).flatten(1)


class DenseTriplane(_Planes):
    """Dense planes of rising resolution, multiplied over the planes, concatenated over the levels.

    EGSTalker as released: 64 x 64 and 128 x 128, 32 channels, so 64 numbers per Gaussian.

    Args:
        resolutions: Grid points along an axis, one per level.
        channels: Channels per level.
    """

    def __init__(self, resolutions: tuple[int, ...] = (64, 128), channels: int = 32) -> None:
        super().__init__()
        if not resolutions or min(resolutions) < 2 or channels < 1:
            raise ConfigError(
                "encoder.resolutions",
                f"A dense tri-plane of {resolutions} grid points and {channels} channels.",
                expected="At least one level of 2 x 2 points, and one channel.",
            )
        planes = range(len(PLANES))
        self._build([(plane, res - 1, res * res) for res in resolutions for plane in planes], channels)
        # U(0.1, 0.5), not around zero: a product of three factors near zero would have no gradient.
        nn.init.uniform_(self.table, 0.1, 0.5)
        self.out_dim = channels * len(resolutions)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Encode ``x`` [N, 3] in -1..1 as [N, levels * channels]."""
        xy, xz, yz = self.read(x).unflatten(1, (-1, len(PLANES))).unbind(2)
        return (xy * xz * yz).flatten(1)


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
