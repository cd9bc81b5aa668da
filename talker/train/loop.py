"""The training loop, top to bottom. Stages, rates and weights are data (``schedule``); events are all it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import TrainingError
from talker.events import CheckpointSaved, Event, Preview, Progress, StageStarted
from talker.frame import Frame, render_frame
from talker.losses import (
    dssim,
    l1,
    lpips,
    lpips_available,
    offset_size,
    temporal_difference,
    weighted_l1,
)
from talker.memory import keep_freed_memory
from talker.model.deformation import POSE_DIM
from talker.render.compose import to_uint8
from talker.train.align import align_poses
from talker.train.build import Conditioning
from talker.train.regions import FaceBoxes, face_boxes
from talker.train.sampling import FrameSampler
from talker.train.schedule import LossWeights, Stage
from talker.train.state import TrainState
from talker.types import Driving

SMOOTH_EVERY = 8
"""Steps between two looks at the neighbouring frame, which costs a second pass of the field."""

CENTRE_EVERY = 100
"""Steps between two looks at what the corrections of the codes have in common."""

MAX_BAD_STEPS = 20
"""Steps in a row with a loss that is not finite before the run gives up."""


@dataclass(frozen=True)
class LoopConfig:
    """How a run draws, reports and protects itself."""

    folder: Path
    """Where checkpoints go."""
    fingerprint: str
    """What must agree for a checkpoint to be continued."""
    seed: int = 0
    checkpoint_every_s: float = 30.0
    progress_every_s: float = 0.5
    preview_every_s: float = 8.0
    max_minutes: float | None = None
    """Wall time for all stages together; the stages shrink to fit (and then depend on the machine)."""


def train(
    state: TrainState,
    conditioning: Conditioning,
    dataset: TalkingHeadDataset,
    stages: tuple[Stage, ...],
    *,
    config: LoopConfig,
    should_stop: Callable[[], bool],
) -> Iterator[Event]:
    """Run the stages from where ``state`` stands. Stops early, with a checkpoint, when ``should_stop()``.

    Raises:
        TrainingError: The loss stopped being finite.
    """
    keep_freed_memory()
    sampler = FrameSampler(dataset.train_indices(), dataset.expression, dataset.mouth_open, config.seed)
    while state.position.stage < len(stages):
        stage = stages[state.position.stage]
        if state.position.step == 0:
            if stage.align and state.position.stage > 0:
                static = stages[state.position.stage - 1].static
                yield from align_poses(state, conditioning, dataset, should_stop, static=static)
                if should_stop():
                    return  # the checkpoint before this stage is the newest; it is aligned again from there
            state.begin_stage(stage)
        yield StageStarted(stage.name, stage.steps)
        run = StageRun(state, conditioning, dataset, stages, sampler, config)
        yield from run.steps(should_stop)
        if run.stopped:
            return
        state.end_stage()
        state.position.stage += 1
        state.position.step = 0
        state.position.stage_elapsed_s = 0.0
        name = stages[state.position.stage].name if state.position.stage < len(stages) else "done"
        # Written before the next stage's first step: a kill from here on never repeats this stage.
        path = state.save(config.folder, name, config.fingerprint)
        yield CheckpointSaved(stage.name, stage.steps, path)


class StageRun:
    """One stage of one run, from its current step to its end or to a stop."""

    def __init__(
        self,
        state: TrainState,
        conditioning: Conditioning,
        dataset: TalkingHeadDataset,
        stages: tuple[Stage, ...],
        sampler: FrameSampler,
        config: LoopConfig,
    ) -> None:
        self.state, self.conditioning, self.dataset = state, conditioning, dataset
        self.stages, self.sampler, self.config = stages, sampler, config
        self.stage = stages[state.position.stage]
        self.stopped = False
        self.psnr = 0.0
        self.bad_steps = 0

    def steps(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        """Optimise until the stage ends, reporting and saving on the way."""
        position, config = self.state.position, self.config
        saved = told = shown = clock = time.monotonic()
        while position.step < self.stage.steps and not self._out_of_time():
            frame, loss = self.step()
            now = time.monotonic()
            position.elapsed_s += now - clock
            position.stage_elapsed_s += now - clock
            clock = now
            if now - told >= config.progress_every_s or position.step == self.stage.steps:
                told = now
                yield self._progress(loss)
            if now - shown >= config.preview_every_s:
                shown = now
                yield Preview(self.stage.name, position.step, to_uint8(frame.rgb).cpu().numpy())
            self.stopped = should_stop()
            if self.stopped or now - saved >= config.checkpoint_every_s:
                saved = now
                path = self.state.save(config.folder, self.stage.name, config.fingerprint)
                yield CheckpointSaved(self.stage.name, position.step, path)
            if self.stopped:
                return

    def step(self) -> tuple[Frame, float]:
        """One step of the optimizers; what was drawn, and its loss."""
        frame, loss = self._optimised()
        self.state.position.step += 1
        return frame, loss

    def _optimised(self) -> tuple[Frame, float]:
        stage, state = self.stage, self.state
        state.set_rates(stage, self._stage_progress())
        index = self.sampler(state.position.stage, state.position.step)
        optimizers = state.optimizers(stage)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        if state.heads is not None:
            state.heads.write(state.avatar)
        frame = self._render(index)
        loss = self._objective(frame, index, stage.weights)
        if not torch.isfinite(loss):
            self._skip(index)
            return frame, float("nan")
        self.bad_steps = 0
        loss.backward()
        if state.heads is not None:
            state.heads.learn(state.avatar)
        region = self._favoured(index)
        for name, control in state.density.items():
            control.observe(frame.outputs[name], region)
        for optimizer in optimizers:
            optimizer.step()
        state.update_average(stage)
        self._centre_codes()
        self._control_density()
        return frame, float(loss.detach())

    def _render(self, index: int) -> Frame:
        cond = self.conditioning
        T_head, T_torso = self.state.refinement(index, cond.T_cam_head[index], cond.T_cam_torso[index])
        signal, jitter = cond.signal[index], None
        if not self.stage.static:
            generator = self._generator()
            jitter = self.stage.pose_jitter * torch.randn(POSE_DIM, generator=generator).to(signal)
            signal = self._varied(signal, index, generator)
        driving = Driving(signal, cond.expression[index], T_head, T_torso)
        counts = any(control.wants_pixel_counts for control in self.state.density.values())
        # The plate of these seconds, or a camera that drifts teaches the hair to paint the wall.
        plate = _image(self.dataset.plate_at(index), self.state.avatar.device)
        return render_frame(
            self.state.avatar,
            driving,
            plate=plate,
            static=self.stage.static,
            pose_jitter=jitter,
            pixel_counts=counts,
        )

    def _varied(self, signal: Tensor, index: int, generator: torch.Generator) -> Tensor:
        """What this step gives the field for ``signal``: a code is refined or as measured, and a little noisy."""
        refinement = self.state.code_refinement
        if refinement is not None and torch.rand((), generator=generator) >= self.stage.measured_codes:
            signal = refinement(index, signal)
        if self.state.avatar.motion is not None:
            noise = torch.randn(signal.shape, generator=generator).to(signal)
            signal = signal + self.stage.signal_jitter * noise
        return signal

    def _generator(self) -> torch.Generator:
        """Random numbers of this step: a function of seed, stage and step, so a resumed run draws the same."""
        position = self.state.position
        return torch.Generator().manual_seed(hash((self.config.seed, position.stage, position.step)) % 2**31)

    def _objective(self, frame: Frame, index: int, weights: LossWeights) -> Tensor:
        truth = _image(self.dataset.frames[index], frame.rgb.device)
        boxes = face_boxes(self.dataset.landmarks[index], self.dataset.size)
        loss, mse = weighted_l1(frame.rgb, truth, _pixel_weights(self.dataset.size, boxes, weights))
        psnr = float(-10 * torch.log10(mse.clamp_min(1e-10)))
        self.psnr = psnr if self.psnr == 0 else 0.97 * self.psnr + 0.03 * psnr
        if weights.dssim:
            loss = loss + weights.dssim * dssim(frame.rgb, truth)
        if weights.mask:
            mask = torch.from_numpy(np.asarray(self.dataset.masks[index], np.float32))[..., None] / 255
            mask = mask.to(frame.rgb.device)
            loss = loss + weights.mask * l1(_alpha(frame), mask).mean()
        if weights.offset:
            sizes = [offset_size(o.present()) for o in frame.offsets.values() if o is not None]
            loss = loss + weights.offset * sum(sizes)
        if weights.lpips and lpips_available():
            loss = loss + weights.lpips * lpips(boxes.mouth.crop(frame.rgb), boxes.mouth.crop(truth))
        if weights.smooth and self.state.position.step % SMOOTH_EVERY == 0:
            loss = loss + weights.smooth * self._flicker(frame, index)
        return loss

    def _flicker(self, frame: Frame, index: int) -> Tensor:
        """Mean squared change of the offsets to the next frame of the same shot; 0 where there is none."""
        following = min(index + 1, self.dataset.n_train - 1)
        valid, segment = self.dataset.valid, self.dataset.segment
        total = frame.rgb.new_zeros(())
        if not valid[following] or segment[following] != segment[index]:
            return total
        driving = self.conditioning.driving(following)
        for name, offsets in frame.offsets.items():
            _, later = self.state.avatar.gaussians(name, driving)
            if offsets is not None and later is not None:
                total = total + temporal_difference(offsets.present(), later.present())
        return total

    def _favoured(self, index: int) -> Tensor | None:
        """Lips and eyes of a frame [S, S] (bool), where density control wants more of them."""
        if all(control.config.region_weight == 1 for control in self.state.density.values()):
            return None
        boxes = face_boxes(self.dataset.landmarks[index], self.dataset.size)
        region = torch.zeros(self.dataset.size, self.dataset.size, dtype=torch.bool)
        for box in (boxes.mouth, *boxes.eyes):
            box.crop(region)[:] = True
        return region

    def _skip(self, index: int) -> None:
        self.bad_steps += 1
        if self.bad_steps > MAX_BAD_STEPS:
            raise TrainingError(
                "train.not_finite",
                f"The loss stopped being a number in the {self.stage.name} stage (frame {index}).",
                todo="Resume from the last checkpoint, or train again with another seed.",
            )

    def _centre_codes(self) -> None:
        refinement, step = self.state.code_refinement, self.state.position.step
        if refinement is not None and not self.stage.static and step % CENTRE_EVERY == 0:
            refinement.centre(self.conditioning.signal, torch.from_numpy(self.sampler.frames))

    def _control_density(self) -> None:
        position = self.state.position
        for name, control in self.state.density.items():
            canonical = self.state.avatar.branch(name).canonical
            params = canonical.parameters_by_name()
            change = control.step(
                params, self.state.gaussians[name], position.step, generator=self._generator()
            )
            if change:
                canonical.replace_parameters(params)

    def _stage_progress(self) -> float:
        position = self.state.position
        by_steps = position.step / max(self.stage.steps, 1)
        budget = self._stage_budget_s()
        return by_steps if budget is None else min(1.0, max(by_steps, position.stage_elapsed_s / budget))

    def _stage_budget_s(self) -> float | None:
        if self.config.max_minutes is None:
            return None
        total = sum(stage.steps for stage in self.stages)
        return 60 * self.config.max_minutes * self.stage.steps / total

    def _out_of_time(self) -> bool:
        budget = self._stage_budget_s()
        return budget is not None and self.state.position.stage_elapsed_s >= budget

    def _progress(self, loss: float) -> Progress:
        position = self.state.position
        total = sum(stage.steps for stage in self.stages)
        done = sum(stage.steps for stage in self.stages[: position.stage]) + position.step
        left = position.stage_elapsed_s / max(position.step, 1) * (total - done)
        if self.config.max_minutes is not None:
            left = min(left, max(0.0, 60 * self.config.max_minutes - position.elapsed_s))
        values = {"loss": loss, "psnr": self.psnr, "gaussians": float(self.state.avatar.n_gaussians)}
        return Progress(self.stage.name, position.step, self.stage.steps, left, values)


def _image(pixels: np.ndarray, device: torch.device) -> Tensor:
    """Floats 0..1 [H, W, 3] of bytes."""
    return torch.from_numpy(np.array(pixels)).to(device).float().mul_(1 / 255)


def _pixel_weights(size: int, boxes: FaceBoxes, weights: LossWeights) -> np.ndarray:
    """What an absolute difference counts at each pixel [S, S]: means over the frame, the lips and each eye."""
    weight = np.full((size, size), weights.l1 / (3 * size**2), np.float32)
    for share, box in ((weights.mouth, boxes.mouth), *((weights.eyes, eye) for eye in boxes.eyes)):
        area = box.crop(weight)
        area += share / (3 * area.size)
    return weight


def _alpha(frame: Frame) -> Tensor:
    """Alpha [H, W, 1] of all branches together."""
    through = torch.ones_like(frame.rgb[..., :1])
    for output in frame.outputs.values():
        through = through * (1 - output.alpha)
    return 1 - through
