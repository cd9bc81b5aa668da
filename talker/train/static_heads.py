"""Stage 1 as EGSTalker has it: opacity and colour of the static head are read off places, not learnt point by point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talker.model.avatar import Avatar, Branch
from talker.model.deformation import build_decoder

OUT_DIM = 4
"""Raw opacity and colour: ``logit_opacities`` and ``sh0``."""


class StaticHead(nn.Module):
    """Opacity and colour of one branch's Gaussians from what its field knows of their places.

    Args:
        branch: Its decoder's kind and width are the head's, and the mean of its Gaussians is where the head starts.
    """

    start: Tensor

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.head = build_decoder(branch.deformation.config, OUT_DIM)
        canonical = branch.canonical
        mean = torch.cat((canonical.logit_opacities.detach()[:, None], canonical.sh0.detach()), -1).mean(0)
        self.register_buffer("start", mean)

    def forward(self, branch: Branch) -> Tensor:
        """Raw opacity and colour [N, 4]."""
        return self.start + self.head(branch.deformation.spatial(branch.canonical))


class StaticHeads(nn.Module):
    """The heads of all branches of an avatar, for one stage.

    What they read is written into the Gaussians before they are drawn; what their picture asks of the Gaussians is
    then asked of the heads and the encoders. After the stage the Gaussians keep what was written last and the heads
    are gone, so a finished avatar is made of the same parts with or without them.

    Source: EGSTalker, stage 1. As released, which predicts these two; position, rotation and size are free.
    """

    def __init__(self, avatar: Avatar) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({name: StaticHead(avatar.branch(name)) for name in avatar.branches})
        self._written: dict[str, Tensor] = {}

    def write(self, avatar: Avatar) -> None:
        """Give the Gaussians what is read off their places as they are now."""
        self._written = {name: head(avatar.branch(name)) for name, head in self.branches.items()}
        with torch.no_grad():
            for name, values in self._written.items():
                canonical = avatar.branch(name).canonical
                canonical.logit_opacities.copy_(values[:, 0])
                canonical.sh0.copy_(values[:, 1:])

    def learn(self, avatar: Avatar) -> None:
        """Hand the gradients of what was written on to the heads and encoders; the Gaussians keep none of them."""
        for name, values in self._written.items():
            opacities, colours = (
                avatar.branch(name).canonical.logit_opacities,
                avatar.branch(name).canonical.sh0,
            )
            assert opacities.grad is not None and colours.grad is not None, "backward comes first"
            values.backward(torch.cat((opacities.grad[:, None], colours.grad), -1))
            opacities.grad = colours.grad = None
        self._written = {}
