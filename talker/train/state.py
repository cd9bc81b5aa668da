"""Everything a training step changes, and how it survives a kill.

A checkpoint is a folder ``<stage>_<step>`` with ``state.safetensors`` (parameters, optimizer moments, density
statistics) and ``manifest.json``, written last: a folder with a manifest whose hash matches is complete. The two
newest are kept. Frames are drawn by a pure function of seed and step, so nothing else has to be saved and a
resumed run on a CPU computes the same bits.
"""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from talker.atomic import atomic_folder, sweep_temporaries
from talker.errors import CheckpointError
from talker.model.avatar import Avatar, Branch
from talker.safe_files import read_json, sha256_file, write_json
from talker.train.densify import DensityControl
from talker.train.refinement import CodeRefinement, PoseRefinement
from talker.train.schedule import LearningRates, Stage
from talker.train.static_heads import StaticHeads

log = logging.getLogger(__name__)

STATE_FILE, MANIFEST = "state.safetensors", "manifest.json"
KEEP = 2
_NAME = re.compile(r"(\d+)_.*_(\d+)")
STATE_VERSION = 2


@dataclass
class Position:
    """Where a run stands."""

    stage: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    stage_elapsed_s: float = 0.0


class TrainState:
    """Avatar, refinement of poses and codes, optimizers and density statistics of one run."""

    def __init__(self, avatar: Avatar, n_frames: int, rates: LearningRates) -> None:
        self.avatar = avatar
        self.refinement = PoseRefinement(n_frames).to(avatar.device)
        # Sound that drives a field by itself has no code.
        self.code_refinement: CodeRefinement | None = None
        code = None if avatar.motion is None else avatar.lip_code
        if code is not None and rates.code > 0:
            lengths = torch.from_numpy(code.std) / code.eye_distance
            self.code_refinement = CodeRefinement(n_frames, lengths).to(avatar.device)
        self.rates = rates
        self.position = Position()
        self.gaussians = {name: self._gaussian_optimizer(avatar.branch(name)) for name in avatar.branches}
        self.networks = torch.optim.Adam(self._network_groups(), eps=1e-15, fused=True)
        self.poses = torch.optim.SparseAdam(list(self.refinement.parameters()), lr=rates.pose)
        refined = [] if self.code_refinement is None else list(self.code_refinement.parameters())
        self.codes = torch.optim.SparseAdam(refined, lr=rates.code) if refined else None
        self.heads: StaticHeads | None = None
        self.head_steps: torch.optim.Adam | None = None
        self.density: dict[str, DensityControl] = {}
        self.average: dict[str, Tensor] = {}

    def _gaussian_optimizer(self, branch: Branch) -> torch.optim.Adam:
        groups = [
            {"params": [parameter], "lr": getattr(self.rates, name), "name": name}
            for name, parameter in branch.canonical.parameters_by_name().items()
        ]
        return torch.optim.Adam(groups, eps=1e-15, fused=branch.canonical.means.device.type == "cpu")

    def _network_groups(self) -> list[dict]:
        encoder, rest = [], []
        for name in self.avatar.branches:
            for key, parameter in self.avatar.branch(name).deformation.named_parameters():
                (encoder if key.startswith("encoder.") else rest).append(parameter)
        groups = [{"params": rest, "lr": self.rates.network, "name": "network"}]
        return groups + (
            [{"params": encoder, "lr": self.rates.encoder, "name": "encoder"}] if encoder else []
        )

    def optimizers(self, stage: Stage) -> list[torch.optim.Optimizer]:
        """The optimizers that step in ``stage``."""
        chosen: list[torch.optim.Optimizer] = [*self.gaussians.values(), self.poses]
        if stage.static:
            # The encoder learns with the heads that read it; the rest of the networks has no gradient yet.
            return chosen if self.head_steps is None else [*chosen, self.head_steps, self.networks]
        return [*chosen, self.networks, *self._code_optimizer()]

    def _code_optimizer(self) -> list[torch.optim.Optimizer]:
        return [] if self.codes is None else [self.codes]

    def refined_codes(self, codes: Tensor) -> np.ndarray | None:
        """Codes [T, K] of the clip with what was learnt of them; ``None`` where they were left as measured."""
        if self.code_refinement is None:
            return None
        return self.code_refinement.applied(codes).cpu().numpy()

    def set_rates(self, stage: Stage, progress: float) -> None:
        """Learning rates at ``progress`` 0..1 of a stage."""
        factor = stage.rates * stage.decay**progress
        for optimizer in self.gaussians.values():
            for group in optimizer.param_groups:
                frozen = not stage.geometry and group["name"] in ("means", "quats", "log_scales", "rig_logit")
                group["lr"] = 0.0 if frozen else getattr(self.rates, group["name"]) * factor
        for group in self.networks.param_groups:
            group["lr"] = getattr(self.rates, group["name"]) * factor
        for group in () if self.head_steps is None else self.head_steps.param_groups:
            group["lr"] = self.rates.network * factor
        for optimizer, rate in ((self.poses, self.rates.pose), (self.codes, self.rates.code)):
            for group in () if optimizer is None else optimizer.param_groups:
                group["lr"] = rate * factor

    def begin_stage(self, stage: Stage) -> None:
        """Fresh density statistics, average and heads for the branches of ``stage``."""
        camera = self.avatar.camera
        self.heads, self.head_steps = None, None
        if stage.heads:
            self.heads = StaticHeads(self.avatar).to(self.avatar.device)
            self.head_steps = torch.optim.Adam(self.heads.parameters(), eps=1e-15)
        self.average = self._parameters() if stage.average else {}
        self.density = {}
        if stage.density.kind != "none":
            for name in self.avatar.branches:
                extent = float(self.avatar.branch(name).deformation.extent)
                self.density[name] = DensityControl(stage.density, extent, camera.width, camera.height)

    @torch.no_grad()
    def update_average(self, stage: Stage) -> None:
        """Move the running average towards the parameters as they are after a step."""
        if not self.average:
            return
        step = self.position.step
        decay = min(stage.average, (1 + step) / (10 + step))  # the start is soon forgotten
        now = self.avatar.state_dict()
        for name, value in self.average.items():
            value.lerp_(now[name], 1 - decay)

    def end_stage(self) -> None:
        """Give the avatar its averaged parameters, if the stage kept an average, and what its heads read last."""
        if self.heads is not None:
            self.heads.write(self.avatar)
        self.avatar.load_state_dict(self.average, strict=False)
        self.average = {}

    def _parameters(self) -> dict[str, Tensor]:
        """A copy of what is learnt of the avatar."""
        return {name: value.detach().clone() for name, value in self.avatar.named_parameters()}

    def save(self, folder: Path, stage_name: str, fingerprint: str) -> Path:
        """Write a checkpoint under ``folder``; complete or absent, never half."""
        position = self.position
        target = folder / f"{position.stage}_{stage_name}_{position.step:06d}"
        with atomic_folder(target) as part:
            save_file(self._tensors(), part / STATE_FILE)
            manifest = {
                "version": STATE_VERSION,
                "fingerprint": fingerprint,
                "stage": position.stage,
                "step": position.step,
                "elapsed_s": position.elapsed_s,
                "stage_elapsed_s": position.stage_elapsed_s,
                "sha256": sha256_file(part / STATE_FILE),
                "n_gaussians": {n: len(self.avatar.branch(n).canonical) for n in self.avatar.branches},
            }
            write_json(part / MANIFEST, manifest)
        for old in _checkpoints(folder)[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load_newest(self, folder: Path, stages: tuple[Stage, ...], fingerprint: str) -> bool:
        """Continue from the newest intact checkpoint under ``folder``; false if there is none.

        Raises:
            CheckpointError: The checkpoints belong to another configuration.
        """
        sweep_temporaries(folder)
        for candidate in _checkpoints(folder):
            manifest = _manifest(candidate)
            if manifest is None:
                continue
            if manifest.get("fingerprint") != fingerprint or manifest.get("version") != STATE_VERSION:
                raise CheckpointError(
                    "resume.other_config",
                    "The saved training was made with other settings or by another version.",
                    todo="Choose the same settings as before, or start anew without --resume.",
                )
            self._restore(load_file(candidate / STATE_FILE, device=str(self.avatar.device)), manifest, stages)
            return True
        return False

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"avatar.{k}": v for k, v in self.avatar.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= {f"refine.{k}": v for k, v in self.refinement.state_dict().items()}
        if self.code_refinement is not None:
            tensors |= {f"refine_code.{k}": v for k, v in self.code_refinement.state_dict().items()}
        if self.heads is not None:
            tensors |= {f"heads.{k}": v for k, v in self.heads.state_dict().items()}
        for key, optimizer in self._named_optimizers():
            for index, entry in optimizer.state_dict()["state"].items():
                for name, value in entry.items():
                    tensors[f"optimizer.{key}.{index}.{name}"] = torch.as_tensor(value)
        for name, control in self.density.items():
            for key, value in control.state_dict().items():
                tensors[f"density.{name}.{key}"] = torch.as_tensor(value)
        return {k: v.detach().clone().contiguous() for k, v in tensors.items()}

    def _named_optimizers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        heads = [] if self.head_steps is None else [("heads", self.head_steps)]
        named = [*self.gaussians.items(), *heads, ("networks", self.networks), ("poses", self.poses)]
        return [*named, *(("codes", optimizer) for optimizer in self._code_optimizer())]

    def _restore(self, tensors: dict[str, Tensor], manifest: dict, stages: tuple[Stage, ...]) -> None:
        position = Position(
            manifest["stage"], manifest["step"], manifest["elapsed_s"], manifest["stage_elapsed_s"]
        )
        self.position = position
        self._resize(tensors)
        self.avatar.load_state_dict(_under(tensors, "avatar."))
        self.refinement.load_state_dict(_under(tensors, "refine."))
        if self.code_refinement is not None:
            self.code_refinement.load_state_dict(_under(tensors, "refine_code."))
        if under_way := position.stage < len(stages):
            self.begin_stage(stages[position.stage])
            if self.heads is not None:
                self.heads.load_state_dict(_under(tensors, "heads."))
        for key, optimizer in self._named_optimizers():
            state: dict[int, dict[str, Tensor | int]] = {}
            for path, value in _under(tensors, f"optimizer.{key}.").items():
                index, name = path.split(".", 1)
                sparse_step = isinstance(optimizer, torch.optim.SparseAdam) and name == "step"
                state.setdefault(int(index), {})[name] = int(value) if sparse_step else value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        if under_way:
            for name, value in _under(tensors, "average.").items():
                self.average[name].copy_(value)
            for name, control in self.density.items():
                # Between two stages the statistics are those of the last one, or absent: the next begins anew.
                if saved := _under(tensors, f"density.{name}."):
                    control.load_state_dict(saved)

    def _resize(self, tensors: dict[str, Tensor]) -> None:
        """Give every branch the number of Gaussians the checkpoint has, then fresh optimizers of that size."""
        for name in self.avatar.branches:
            canonical = self.avatar.branch(name).canonical
            prefix = f"avatar.branches.{name}.canonical."
            canonical.replace_parameters(
                {key: nn.Parameter(tensors[prefix + key].clone()) for key in canonical.parameters_by_name()}
            )
            self.gaussians[name] = self._gaussian_optimizer(self.avatar.branch(name))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _manifest(checkpoint: Path) -> dict | None:
    """The manifest of an intact checkpoint, or ``None`` if anything is missing or damaged: an older one is left."""
    try:
        manifest = read_json(checkpoint / MANIFEST, max_bytes=1 << 20)
        return manifest if sha256_file(checkpoint / STATE_FILE) == manifest.get("sha256") else None
    except CheckpointError as error:
        log.warning("Checkpoint %s is passed over: %s", checkpoint.name, error)
        return None


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoints under ``folder`` that have a manifest, newest first."""
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), int(match[2]), path)
        for path in folder.iterdir()
        if (match := _NAME.fullmatch(path.name)) and (path / MANIFEST).is_file()
    ]
    return [path for *_, path in sorted(found, reverse=True)]
