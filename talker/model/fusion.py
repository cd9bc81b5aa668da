"""Bringing sound and place together: one spatial row per Gaussian, a few condition tokens per frame.

* ``ESAA``: efficient spatial-audio attention through agents (EGSTalker, section 3).
* ``MGF``: multimodal gated fusion (PGSTalker; the gate is reconstructed, the paper's formula is not public).
* ``PlainSum``: MGF switched off, both sides simply added.
* ``CrossAttention``: ordinary multi-head attention of every Gaussian to the tokens (GaussianTalker).

All map spatial [N, d] and tokens [K, d] to [N, d]. What depends on the spatial rows alone is returned by
``prepare`` and can be kept while the avatar is driven: ``forward`` is ``fuse(prepare(spatial), tokens)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talker.errors import ConfigError

Prepared = tuple[Tensor, ...]
PositionCode = Literal["none", "add", "bias"]

_MORTON_BITS = 20  # per axis: 60 bits fit an int64, and only (nearly) equal points share a code


def morton_order(points: Tensor) -> Tensor:
    """Indices [N] that sort ``points`` [N, 3] along a space-filling Z curve, whatever order they are in."""
    low = points.detach().amin(0)
    span = (points.detach().amax(0) - low).amax().clamp_min(1e-12)
    cells = ((points.detach() - low) / span * (2**_MORTON_BITS - 1)).long()
    code = torch.zeros_like(cells[:, 0])
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(stable=True)


class Fusion(nn.Module, ABC):
    """Common face of the ways."""

    @abstractmethod
    def prepare(self, spatial: Tensor, order: Tensor | None = None) -> Prepared:
        """Everything that depends on ``spatial`` [N, d] (and its spatial ``order`` [N]) alone."""

    @abstractmethod
    def fuse(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Finish for one frame's ``tokens`` [K, d]: rows [N, d]."""

    def forward(self, spatial: Tensor, tokens: Tensor, order: Tensor | None = None) -> Tensor:
        """Fuse ``spatial`` [N, d] with ``tokens`` [K, d]; ``order`` [N] as from ``morton_order``."""
        return self.fuse(self.prepare(spatial, order), tokens)


class _Residual(nn.Module):
    """``H = LN(X + O); Z = LN(H + FFN(H))``."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attended: Tensor) -> Tensor:
        h = self.norm1(x + self.dropout(attended))
        return self.norm2(h + self.dropout(self.ffn(h)))


class ESAA(Fusion):
    """Agent attention: a few agents made from spatial rows attend to the tokens, Gaussians to the agents.

    ``A = W_A pool(X)``, ``V = softmax(A C^T / sqrt(h)) C``, ``O = softmax(X A^T / sqrt(h)) V``, then
    residual, LayerNorm and a feed-forward block. The tokens are not projected: before the residual each row
    is a convex combination of them (``weights``).

    An agent is the mean of a run of Gaussians along ``order``, so it does not depend on how densification
    has left them in memory. ``agents_from="first"`` takes the first rows instead, as the authors' code does.

    Args:
        dim: Length d of the rows.
        agents: Their number, or as a float below 1 their share of N.
        ppe: Periodic positional encoding of the tokens: ``add`` adds sinusoids, ``bias`` lowers the agents'
            logits with a token's distance from the middle one, in steps of ``period``.
        period: Period of the encoding in tokens; by default 25 (``add``, as released) or 1 (``bias``).
        head_dim: ``h`` above; the released code has 4, the width of 16 heads it never splits into.
        hidden: Width of the feed-forward block; by default twice ``dim``.
        agents_from: ``order`` or ``first``.
        dropout: Probability, while training only.
    """

    def __init__(
        self,
        dim: int,
        agents: int | float = 16,
        *,
        ppe: PositionCode = "none",
        period: int | None = None,
        head_dim: int = 4,
        hidden: int | None = None,
        agents_from: Literal["order", "first"] = "order",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < agents < 1 and (agents < 1 or agents != int(agents)):
            raise ConfigError(
                "fusion.agents", f"{agents} agents.", expected="A whole number, or a share of N below 1."
            )
        if ppe not in ("none", "add", "bias"):
            raise ConfigError("fusion.ppe", f"There is no ppe {ppe!r}.", expected="One of none, add, bias.")
        self.agents, self.ppe, self.agents_from = agents, ppe, agents_from
        self.period = period or {"none": 1, "add": 25, "bias": 1}[ppe]
        self.scale = 1 / math.sqrt(head_dim)
        self.to_agents = nn.Linear(dim, dim)
        self.residual = _Residual(dim, hidden or 2 * dim, dropout)

    def n_agents(self, n: int) -> int:
        """Number of agents for ``n`` Gaussians."""
        return max(1, min(n, round(self.agents if self.agents >= 1 else self.agents * n)))

    def prepare(self, spatial: Tensor, order: Tensor | None = None) -> Prepared:
        """The rows, the agents [n, d] and each Gaussian's attention to them [N, n].

        Without ``order`` the rows are taken to lie in a spatial order already.
        """
        n = self.n_agents(spatial.shape[0])
        pooled = spatial[:n] if self.agents_from == "first" else _pool_runs(spatial, order, n)
        agents = self.to_agents(pooled)
        return spatial, agents, torch.softmax(spatial @ agents.T * self.scale, -1)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens [K, d] with the sinusoids of ``ppe="add"``."""
        if self.ppe != "add":
            return tokens
        return tokens + _sinusoids(tokens.shape[0], tokens.shape[1], self.period, tokens.device)

    def _token_attention(self, agents: Tensor, tokens: Tensor) -> Tensor:
        logits = agents @ tokens.T * self.scale
        if self.ppe == "bias":
            k = torch.arange(tokens.shape[0], device=tokens.device)
            logits = logits - torch.div((k - tokens.shape[0] // 2).abs(), self.period, rounding_mode="floor")
        return torch.softmax(logits, -1)

    def weights(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Share [N, K] of every token in every Gaussian's row, before residual and norm; rows sum to one."""
        return prepared[2] @ self._token_attention(prepared[1], self.encode_tokens(tokens))

    def fuse(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Attend to ``tokens`` [K, d] through the agents."""
        # From the agents' shares of the few tokens to the Gaussians', then to rows: 16 times fewer products than
        # giving every agent its row first.
        return self.residual(prepared[0], self.weights(prepared, tokens) @ self.encode_tokens(tokens))


class MGF(Fusion):
    """Gated fusion of each spatial row with the tokens' mean: ``g = sigmoid(W_g [s ; a] + b)``.

    ``kind="blend"``: ``LN(g * s + (1 - g) * a)``; ``kind="residual"``: ``LN(s + g * a)``.
    """

    def __init__(self, dim: int, *, kind: Literal["blend", "residual"] = "blend") -> None:
        super().__init__()
        self.kind = kind
        self.to_spatial, self.to_audio = nn.Linear(dim, dim), nn.Linear(dim, dim)
        # W_g [s ; a] as two matrices: the half of s is worked out once, that of a is a single row.
        self.gate_spatial, self.gate_audio = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def prepare(self, spatial: Tensor, order: Tensor | None = None) -> Prepared:
        """The projected rows and their half of the gate's logits, each [N, d]."""
        s = self.to_spatial(spatial)
        return s, self.gate_spatial(s)

    def gate(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Share [N, d] the spatial side keeps, 0..1."""
        return torch.sigmoid(prepared[1] + self.gate_audio(self._audio(tokens)))

    def _audio(self, tokens: Tensor) -> Tensor:
        return self.to_audio(tokens.mean(0, keepdim=True))

    def fuse(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Blend with the mean of ``tokens`` [K, d]."""
        s, a, g = prepared[0], self._audio(tokens), self.gate(prepared, tokens)
        return self.norm(torch.lerp(a.expand_as(s), s, g) if self.kind == "blend" else s + g * a)


class PlainSum(Fusion):
    """MGF switched off: ``LN(s + a)``, every channel of both sides counted alike.

    It is ``MGF`` with its gate held at one half, which the norm scales back to the plain sum.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_spatial, self.to_audio = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def prepare(self, spatial: Tensor, order: Tensor | None = None) -> Prepared:
        """The projected rows [N, d]."""
        return (self.to_spatial(spatial),)

    def fuse(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Add the mean of ``tokens`` [K, d]."""
        return self.norm(prepared[0] + self.to_audio(tokens.mean(0, keepdim=True)))


class CrossAttention(Fusion):
    """Multi-head attention of every Gaussian to the tokens, residual and feed-forward (GaussianTalker)."""

    def __init__(self, dim: int, heads: int = 2, *, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError("fusion.heads", f"{heads} heads over {dim} numbers.", expected="A divisor.")
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.residual = _Residual(dim, hidden or 2 * dim, dropout)

    def prepare(self, spatial: Tensor, order: Tensor | None = None) -> Prepared:
        """The rows and their queries, each [N, d]."""
        return spatial, self.query(spatial)

    def fuse(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Attend to ``tokens`` [K, d]."""
        spatial, query = prepared
        q, k, v = (
            rows.unflatten(-1, (self.heads, -1)).transpose(0, 1)
            for rows in (query, self.key(tokens), self.value(tokens))
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        return self.residual(spatial, self.out(attended))


def make_fusion(kind: str, dim: int, **options: object) -> Fusion:
    """The fusion called ``kind``: ``esaa``, ``mgf``, ``sum`` or ``cross_attention``."""
    kinds = {"esaa": ESAA, "mgf": MGF, "sum": PlainSum, "cross_attention": CrossAttention}
    if kind not in kinds:
        raise ConfigError(
            "fusion.unknown", f"There is no fusion {kind!r}.", expected=f"One of {', '.join(kinds)}."
        )
    return kinds[kind](dim, **options)


def _pool_runs(spatial: Tensor, order: Tensor | None, n: int) -> Tensor:
    """Means [n, d] of ``n`` runs of (nearly) equal length of the rows taken in ``order``."""
    rows = spatial.shape[0]
    rank = torch.arange(rows, device=spatial.device)
    if order is not None:
        rank = torch.empty_like(rank).scatter_(0, order, rank)
    run = torch.div(rank * n, rows, rounding_mode="floor")
    size = spatial.new_zeros(n).index_add(0, run, spatial.new_ones(rows))
    return spatial.new_zeros(n, spatial.shape[1]).index_add(0, run, spatial) / size[:, None]


def _sinusoids(length: int, dim: int, period: int, device: torch.device) -> Tensor:
    """Sines and cosines [length, dim] of the position within a period."""
    position = (torch.arange(length, device=device) % period)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    code = torch.zeros(length, dim, device=device)
    code[:, 0::2] = torch.sin(position * rate)
    code[:, 1::2] = torch.cos(position * rate)[:, : dim // 2]
    return code
