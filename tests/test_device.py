"""The choice of a device, and that nothing on the way to the renderer stays behind on the CPU.

Without a GPU the second is shown on PyTorch's ``meta`` device: its tensors have no numbers, and mixing them with
CPU tensors is an error as it is with CUDA tensors. What gsplat's kernels and real numbers do is not shown by it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talker import device
from talker.dataset.reader import TalkingHeadDataset
from talker.device import chosen_device
from talker.errors import ConfigError
from talker.losses import dssim, weighted_l1
from talker.model.avatar import FACE, MOUTH
from talker.render.compose import compose, compose_uint8
from talker.train.build import build
from talker.train.presets import PRESETS
from talker.train.schedule import LearningRates
from talker.train.state import TrainState
from talker.types import Camera, Gaussians, RenderOutput

ELSEWHERE = torch.device("meta")


def test_the_variable_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device.VARIABLE, "cpu")
    assert chosen_device().type == "cpu"
    monkeypatch.setenv(device.VARIABLE, "quantum")
    with pytest.raises(ConfigError, match="quantum"):
        chosen_device()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(device.VARIABLE, raising=False)
    assert chosen_device().type == "cpu"
    monkeypatch.setenv(device.VARIABLE, "cuda")
    with pytest.raises(ConfigError, match="no CUDA device"):
        chosen_device()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_deformation_and_losses_stay_on_the_device(dataset: TalkingHeadDataset, preset: str) -> None:
    avatar, conditioning = build(dataset, PRESETS[preset].model, seed=0)
    avatar.place(ELSEWHERE)
    driving = conditioning.to(ELSEWHERE).driving(3)
    assert driving.to(ELSEWHERE).audio.device == ELSEWHERE
    prepared, outputs = avatar.prepare(), {}
    for name in avatar.branches:
        gaussians, offsets = avatar.gaussians(name, driving, prepared=prepared[name])
        assert {value.device for value in vars(gaussians).values()} == {ELSEWHERE}
        assert offsets is not None
        outputs[name] = _drawn(gaussians, avatar.camera)
    frame = compose(outputs[FACE], outputs.get(MOUTH), avatar.plate)
    weights = np.ones(frame.shape[:2], np.float32)
    loss = weighted_l1(frame, avatar.plate, weights)[0] + dssim(frame, avatar.plate)
    loss.backward()
    canonical = avatar.branch(FACE).canonical
    assert canonical.means.grad is not None and canonical.means.grad.device == ELSEWHERE
    assert compose_uint8(outputs[FACE], outputs.get(MOUTH), avatar.plate).device == ELSEWHERE


def _drawn(gaussians: Gaussians, camera: Camera) -> RenderOutput:
    """A picture that depends on every Gaussian; the renderers themselves have devices of their own."""
    g = gaussians
    value = sum(v.mean() for v in (g.means, g.quats, g.scales, g.opacities, g.colors))
    rgb = value * torch.ones(camera.height, camera.width, 3, device=ELSEWHERE)
    return RenderOutput(rgb, rgb[..., :1], g.means[:, :2], g.opacities, None)


def test_poses_are_refined_on_the_device(dataset: TalkingHeadDataset) -> None:
    avatar, conditioning = build(dataset, PRESETS["preview"].model, seed=0)
    conditioning = conditioning.to(ELSEWHERE)
    state = TrainState(avatar.place(ELSEWHERE), dataset.n_frames, LearningRates())
    poses = state.refinement(3, conditioning.T_cam_head[3], conditioning.T_cam_torso[3])
    assert {pose.device for pose in poses} == {ELSEWHERE}
    assert state.code_refinement is not None
    state.code_refinement.centre(conditioning.signal, torch.from_numpy(dataset.train_indices()))
    assert state.code_refinement(3, conditioning.signal[3]).device == ELSEWHERE
