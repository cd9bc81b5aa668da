"""From raw parameters to camera-frame Gaussians in one pass: activation and linear blend skinning, fused on the CPU.

``canonical.activate`` and ``canonical.pose`` are the definition; written with tensors their fifty small operations
and as many gradients take a third of a training step. Here a Gaussian is read once, and so is its gradient.
Anything but float32 on a CPU goes through the definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from talker.fused import SHARES, applies, share_out
from talker.geometry import matrix_to_quat
from talker.jit.compile import inlined_sum, sum_kernel
from talker.model.canonical import CanonicalGaussians, Offsets, activate, pose, raw_values
from talker.types import Gaussians

_SUMS = 32
"""Per share of the work: gradients of two bones, each a matrix [3, 4] and a quaternion."""


def carry(
    canonical: CanonicalGaussians, offsets: Offsets | None, T_cam_head: Tensor, T_cam_torso: Tensor
) -> Gaussians:
    """Camera-frame Gaussians of a branch, deformed by ``offsets`` and carried by head and torso.

    Args:
        canonical: The branch at rest.
        offsets: Of this frame, or none.
        T_cam_head: [4, 4] pose of the head.
        T_cam_torso: [4, 4] pose of the torso, in the same coordinates.
    """
    raw = raw_values(canonical, offsets)
    if not applies(*raw.values(), canonical.rig_logit, T_cam_head, T_cam_torso):
        return pose(activate(canonical, offsets), canonical.rig(), T_cam_head, T_cam_torso)
    bones = [T[:3] for T in (T_cam_head, T_cam_torso)]
    turns = [matrix_to_quat(bone[:, :3]) for bone in bones]
    return Gaussians(*_Carry.apply(*raw.values(), canonical.rig_logit, *bones, *turns))


@inlined_sum
def _sigmoid(x):
    return np.float32(1) / (np.float32(1) + np.exp(-x))


@inlined_sum
def _bone(share, head, torso):
    """Blended quaternion of the two bones, unit length, and one over the length it had."""
    one = np.float32(1)
    w = share * head[0] + (one - share) * torso[0]
    x = share * head[1] + (one - share) * torso[1]
    y = share * head[2] + (one - share) * torso[2]
    z = share * head[3] + (one - share) * torso[3]
    scale = one / np.sqrt(w * w + x * x + y * y + z * z)
    return w * scale, x * scale, y * scale, z * scale, scale


@sum_kernel
def _forward(means, quats, log_scales, logits, colors, rig, head, torso, q_head, q_torso, out, start, stop):  # noqa: PLR0913, PLR0917
    one, zero = np.float32(1), np.float32(0)
    o_means, o_quats, o_scales, o_opacities, o_colors = out
    for n in range(start, stop):
        share = _sigmoid(rig[n])
        x, y, z = means[n, 0], means[n, 1], means[n, 2]
        for k in range(3):
            by_head = head[k, 0] * x + head[k, 1] * y + head[k, 2] * z + head[k, 3]
            by_torso = torso[k, 0] * x + torso[k, 1] * y + torso[k, 2] * z + torso[k, 3]
            o_means[n, k] = share * by_head + (one - share) * by_torso
            o_scales[n, k] = np.exp(log_scales[n, k])
            o_colors[n, k] = max(colors[n, k], zero)
        o_opacities[n] = _sigmoid(logits[n])
        bw, bx, by, bz, _ = _bone(share, q_head, q_torso)
        w, x, y, z = quats[n, 0], quats[n, 1], quats[n, 2], quats[n, 3]
        scale = one / np.sqrt(w * w + x * x + y * y + z * z)
        w, x, y, z = w * scale, x * scale, y * scale, z * scale
        o_quats[n, 0] = bw * w - bx * x - by * y - bz * z
        o_quats[n, 1] = bw * x + bx * w + by * z - bz * y
        o_quats[n, 2] = bw * y - bx * z + by * w + bz * x
        o_quats[n, 3] = bw * z + bx * y - by * x + bz * w


@sum_kernel
def _backward(means, quats, rig, head, torso, q_head, q_torso, made, grads, out, sums, start, stop):  # noqa: PLR0913, PLR0915, PLR0917
    one, zero = np.float32(1), np.float32(0)
    scales, opacities, colors = made
    g_means, g_quats, g_scales, g_opacities, g_colors = grads
    o_means, o_quats, o_scales, o_logits, o_colors, o_rig = out
    for n in range(start, stop):
        share = _sigmoid(rig[n])
        x, y, z = means[n, 0], means[n, 1], means[n, 2]
        to_share = zero
        mx, my, mz = zero, zero, zero
        for k in range(3):
            g = g_means[n, k]
            gh, gt = share * g, (one - share) * g
            by_head = head[k, 0] * x + head[k, 1] * y + head[k, 2] * z + head[k, 3]
            by_torso = torso[k, 0] * x + torso[k, 1] * y + torso[k, 2] * z + torso[k, 3]
            to_share += g * (by_head - by_torso)
            mx += gh * head[k, 0] + gt * torso[k, 0]
            my += gh * head[k, 1] + gt * torso[k, 1]
            mz += gh * head[k, 2] + gt * torso[k, 2]
            sums[4 * k] += gh * x
            sums[4 * k + 1] += gh * y
            sums[4 * k + 2] += gh * z
            sums[4 * k + 3] += gh
            sums[12 + 4 * k] += gt * x
            sums[12 + 4 * k + 1] += gt * y
            sums[12 + 4 * k + 2] += gt * z
            sums[12 + 4 * k + 3] += gt
            o_scales[n, k] = g_scales[n, k] * scales[n, k]
            o_colors[n, k] = g_colors[n, k] if colors[n, k] > zero else zero
        o_means[n, 0], o_means[n, 1], o_means[n, 2] = mx, my, mz
        o_logits[n] = g_opacities[n] * opacities[n] * (one - opacities[n])

        bw, bx, by, bz, b_scale = _bone(share, q_head, q_torso)
        w, x, y, z = quats[n, 0], quats[n, 1], quats[n, 2], quats[n, 3]
        scale = one / np.sqrt(w * w + x * x + y * y + z * z)
        w, x, y, z = w * scale, x * scale, y * scale, z * scale
        gw, gx, gy, gz = g_quats[n, 0], g_quats[n, 1], g_quats[n, 2], g_quats[n, 3]
        # The product is linear in both factors: conjugate(bone) * g for one, g * conjugate(quat) for the other.
        uw = bw * gw + bx * gx + by * gy + bz * gz
        ux = bw * gx - bx * gw - by * gz + bz * gy
        uy = bw * gy + bx * gz - by * gw - bz * gx
        uz = bw * gz - bx * gy + by * gx - bz * gw
        along = w * uw + x * ux + y * uy + z * uz
        o_quats[n, 0] = (uw - w * along) * scale
        o_quats[n, 1] = (ux - x * along) * scale
        o_quats[n, 2] = (uy - y * along) * scale
        o_quats[n, 3] = (uz - z * along) * scale
        cw = gw * w + gx * x + gy * y + gz * z
        cx = -gw * x + gx * w - gy * z + gz * y
        cy = -gw * y + gx * z + gy * w - gz * x
        cz = -gw * z - gx * y + gy * x + gz * w
        along = bw * cw + bx * cx + by * cy + bz * cz
        cw, cx = (cw - bw * along) * b_scale, (cx - bx * along) * b_scale
        cy, cz = (cy - by * along) * b_scale, (cz - bz * along) * b_scale
        to_share += cw * (q_head[0] - q_torso[0]) + cx * (q_head[1] - q_torso[1])
        to_share += cy * (q_head[2] - q_torso[2]) + cz * (q_head[3] - q_torso[3])
        sums[24] += share * cw
        sums[25] += share * cx
        sums[26] += share * cy
        sums[27] += share * cz
        sums[28] += (one - share) * cw
        sums[29] += (one - share) * cx
        sums[30] += (one - share) * cy
        sums[31] += (one - share) * cz
        o_rig[n] = to_share * share * (one - share)


class _Carry(torch.autograd.Function):
    """Arguments as ``raw_values`` orders them, then rig, two bones [3, 4] and their quaternions [4]."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        held = [value.detach().contiguous() for value in inputs]
        means, quats, log_scales, logits, colors = held[:5]
        out = tuple(torch.empty_like(value) for value in (means, quats, log_scales, logits, colors))
        arrays = [value.numpy() for value in held]
        made = tuple(value.numpy() for value in out)
        share_out(lambda _, start, stop: _forward(*arrays, made, start, stop), len(means))
        ctx.save_for_backward(means, quats, *held[5:], *out[2:])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        means, quats, rig, head, torso, q_head, q_torso, *made = ctx.saved_tensors
        out = [torch.empty_like(v) for v in (means, quats, made[0], made[1], made[2], rig)]
        sums = np.zeros((SHARES, _SUMS), np.float32)
        given = [value.numpy() for value in (means, quats, rig, head, torso, q_head, q_torso)]
        arrays = (
            *given,
            tuple(value.numpy() for value in made),
            tuple(grad.contiguous().numpy() for grad in grads),
            tuple(value.numpy() for value in out),
        )
        share_out(lambda i, start, stop: _backward(*arrays, sums[i], start, stop), len(means))
        total = torch.from_numpy(sums.sum(0))
        bones = total[:12].view(3, 4), total[12:24].view(3, 4), total[24:28], total[28:]
        return (*out, *bones)
