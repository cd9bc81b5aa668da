"""Blendshapes: each Gaussian's offsets are linear in a short condition vector, with a basis its place predicts.

``offset_i = B(x_i) c``. A network that mixes place and control freely (MGF, attention) fits a minute of frames to
33 dB at the lips and draws new lip codes badly; a linear basis has nothing to memorise frames with. The basis
[N, out, M] itself is never built: its last layer is contracted with the condition first, which costs M times less.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talker.model.fusion import Fusion, Prepared


class Blendshapes(Fusion):
    """Offsets [N, out] as a basis [N, out, M], predicted from spatial rows, times the condition [M].

    Args:
        dim: Width d of the spatial rows.
        hidden: Width of the network that predicts the basis.
        followed: [out, M] of 0 and 1: which entries of the condition each number of a Gaussian follows.
    """

    followed: Tensor

    def __init__(self, dim: int, hidden: int, followed: Tensor) -> None:
        super().__init__()
        self.register_buffer("followed", followed, persistent=False)
        self.hidden = nn.Linear(dim, hidden)
        self.basis = nn.Linear(hidden, followed.numel())
        nn.init.zeros_(self.basis.weight)
        nn.init.zeros_(self.basis.bias)

    def prepare(self, spatial: Tensor, order: Tensor | None = None) -> Prepared:
        """Rows [N, h] from which the basis is one linear layer away."""
        return (F.relu(self.hidden(spatial)),)

    def fuse(self, prepared: Prepared, tokens: Tensor) -> Tensor:
        """Offsets [N, out] for the condition ``tokens`` [M]."""
        condition = (self.followed * tokens)[:, None]  # [out, 1, M]
        weight = self.basis.weight.view(*self.followed.shape, -1)  # [out, M, h]
        bias = self.basis.bias.view(*self.followed.shape, 1)
        return F.linear(prepared[0], (condition @ weight)[:, 0], (condition @ bias)[:, 0, 0])


class Condition(nn.Module):
    """The condition vector: the control itself, a few smooth functions of it, and a constant.

    Args:
        control: Length of the control (motion code, expression, pose).
        extra: How many functions of it are learnt.
    """

    def __init__(self, control: int, extra: int) -> None:
        super().__init__()
        self.extra = nn.Linear(control, extra)
        self.dim = control + extra

    def forward(self, control: Tensor) -> Tensor:
        """Condition [M] of a control [C]."""
        return torch.cat((control, torch.tanh(self.extra(control))))
