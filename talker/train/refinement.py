"""What measuring got wrong by a pixel, frame by frame: corrections of poses and lips that are learnt with the images.

Only training frames have them; a held-out or new frame is drawn with what was measured, or told by sound.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talker.geometry import corrected

LEAST_LENGTH = 0.005
"""Outer-eye distances: components of the code that do less are not worth correcting by many times themselves."""


class PoseRefinement(nn.Module):
    """Small corrections of head and torso pose, frame by frame."""

    def __init__(self, n_frames: int) -> None:
        super().__init__()
        # Sparse: a dense Adam would go on moving frames that were not drawn.
        self.head = nn.Embedding(n_frames, 6, sparse=True)
        self.torso = nn.Embedding(n_frames, 6, sparse=True)
        for table in (self.head, self.torso):
            nn.init.zeros_(table.weight)

    @torch.no_grad()
    def place(self, indices: Tensor, deltas: Tensor) -> None:
        """Set the corrections of frames ``indices`` [M] to ``deltas`` [M, 2, 6], head and torso."""
        for table, values in zip((self.head, self.torso), deltas.unbind(1), strict=True):
            table.weight[indices.to(table.weight.device)] = values.to(table.weight)

    def forward(self, index: int, T_cam_head: Tensor, T_cam_torso: Tensor) -> tuple[Tensor, Tensor]:
        """Corrected poses [4, 4] of frame ``index``."""
        row = torch.tensor([index], device=self.head.weight.device)
        return corrected(T_cam_head, self.head(row)[0]), corrected(T_cam_torso, self.torso(row)[0])


class CodeRefinement(nn.Module):
    """Small corrections of the motion code, frame by frame: where the lips are by the picture.

    The landmarks a code is measured from are off by a pixel or so, and sound cannot know how. A correction takes up
    such errors, and also what so few numbers do not say of a face: those of neighbouring frames agree at r 0.2 to 0.5.

    A pixel is the same for every component of the code, whose standard deviations are not: corrections are learnt in
    one unit of length. The opening is then corrected by a seventh of its deviation and what hardly moves by all of it.
    Learnt in deviations they led the opening of one speaker astray (docs/LOG.md).

    Source: our own; latent codes that are learnt with what they are codes of are Bojanowski et al. (GLO, 2018).

    Args:
        n_frames: T of the clip.
        lengths: [K] standard deviations of the code's components, outer-eye distances.
    """

    lengths: Tensor

    def __init__(self, n_frames: int, lengths: Tensor) -> None:
        super().__init__()
        self.register_buffer("lengths", lengths.float().clamp_min(LEAST_LENGTH), persistent=False)
        self.table = nn.Embedding(n_frames, len(lengths), sparse=True)
        nn.init.zeros_(self.table.weight)

    def forward(self, index: int, code: Tensor) -> Tensor:
        """Corrected code [K] of frame ``index``."""
        return code + self.table(torch.tensor([index], device=self.lengths.device))[0] / self.lengths

    def applied(self, codes: Tensor) -> Tensor:
        """Corrected codes [T, K] of the clip; those of frames that were not trained on are as they were."""
        return codes + self.table.weight.detach() / self.lengths

    @torch.no_grad()
    def centre(self, codes: Tensor, frames: Tensor) -> None:
        """Take out of the corrections of ``frames`` [M] whatever is linear in their codes.

        That would only rename the codes, for the field could learn it as well; then lips whose code was measured, or
        is another speaker's, would be drawn too small or elsewhere.

        Args:
            codes: [T, K] as measured.
            frames: Numbers of the training frames.
        """
        frames = frames.to(codes.device)
        known = torch.cat((codes[frames], codes.new_ones(len(frames), 1)), 1)
        # One frame more of evidence that nothing is linear: few frames can be solved for, too.
        evidence = known.T @ known + torch.eye(known.shape[1], device=codes.device)
        found = torch.linalg.solve(evidence, known.T @ self.table.weight[frames])
        self.table.weight[frames] -= known @ found
