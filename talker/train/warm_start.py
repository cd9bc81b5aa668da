"""A new avatar that starts from another one: what is reused, what starts cold, and what must agree."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from talker.audio.features import get_encoder
from talker.card import MODEL, MOTION, damaged, read_card, read_header
from talker.checkpoint import load_avatar
from talker.errors import ConfigError
from talker.events import Note
from talker.model.avatar import FACE, Avatar, ModelConfig
from talker.model.motion import LipCode, MotionPrior
from talker.model.transfer import ControlChange, adopt, can_adopt, sound_prior
from talker.safe_files import sha256_file


@dataclass(frozen=True)
class WarmStart:
    """The avatar a new one starts from.

    Attributes:
        name: As on its card.
        sha256: Of what it has learnt; the same after it was renamed, measured or published.
        avatar: The avatar itself, on the CPU.
    """

    name: str
    sha256: str
    avatar: Avatar

    @classmethod
    def load(cls, folder: Path, model: ModelConfig) -> WarmStart:
        """The avatar in ``folder``, for starting one of ``model``.

        Raises:
            CheckpointError: There is no avatar, or it is damaged, foreign or of another version.
            ConfigError: ``init_from.sound``: it hears other features.
        """
        avatar = load_avatar(folder)
        _check_units(avatar)
        _check_hearing(avatar, model)
        return cls(read_card(folder).name, _content_hash(folder), avatar)

    def motion_prior(self, lip_code: LipCode) -> MotionPrior | None:
        """What the avatar says about codes of ``lip_code`` from sound; ``None`` if it does not use codes."""
        old = self.avatar
        if old.motion is None or old.lip_code is None:
            return None
        return sound_prior(old.motion, old.lip_code, lip_code)

    def give_fields(self, avatar: Avatar) -> Note:
        """Give ``avatar`` the deformation networks that fit it.

        Its pose statistics must be fitted, and it must still be on the CPU.

        Returns:
            What ``avatar`` starts with, its model from sound to lips included, and what starts cold and why.
        """
        change = ControlChange.between(avatar, self.avatar)
        obstacles = {name: self._obstacle(avatar, name, change) for name in avatar.branches}
        for name, reason in obstacles.items():
            if not reason:
                adopt(avatar.branch(name), self.avatar.branch(name), change)
        warm = [f"the {name} field" for name, reason in obstacles.items() if not reason]
        cold = [f"the {name} field ({reason})" for name, reason in obstacles.items() if reason]
        if avatar.motion is not None:
            share = avatar.motion.prior_share
            if share:
                warm.append(f"{share:.0%} of its map from sound to lips")
            else:
                cold.append("the map from sound to lips (no better with that avatar's)")
        said = f"From {self.name}: {', '.join(warm) or 'nothing'}."
        said += f" Starting cold: {', '.join(cold)}." if cold else ""
        return Note(said, "info" if warm else "warning")

    def provenance(self, avatar: Avatar) -> dict[str, str | float]:
        """How ``avatar`` was started, for its ``training.json``."""
        share = 0.0 if avatar.motion is None else avatar.motion.prior_share
        return {"name": self.name, "sha256": self.sha256, "sound_share": share}

    def _obstacle(self, avatar: Avatar, name: str, change: ControlChange) -> str:
        """Why ``avatar`` cannot take over the field called ``name``; empty if it can."""
        if name not in self.avatar.branches:
            return "that avatar has none"
        new, old = (a.branch(name).deformation.config for a in (avatar, self.avatar))
        if not can_adopt(new, old):
            return "that avatar's has other switches"
        if new.signal == "motion" and change.signal is None:
            return "that avatar's motion code has no basis"
        return ""


def _check_units(avatar: Avatar) -> None:
    """What its numbers are counted in, which driving it never divides by, is something."""
    units = [avatar.pose_statistics.std.min().item()]
    if avatar.lip_code is not None:
        units += [float(avatar.lip_code.std.min()), avatar.lip_code.eye_distance]
    if min(units) <= 0:
        raise damaged("its motion has no size")


def _check_hearing(avatar: Avatar, model: ModelConfig) -> None:
    """Networks that were trained on other features, or on another stretch of them, are of no use."""
    encoder = get_encoder(model.motion.features)
    window = model.motion.window
    expected = (encoder.name, window, window * encoder.dim)
    found = (avatar.audio_encoder, avatar.config.motion.window, _numbers_heard(avatar))
    if found != expected:
        raise ConfigError(
            "init_from.sound",
            f"The avatar to start from hears {_hearing(*found)}.",
            expected=f"The chosen preset hears {_hearing(*expected)}.",
            todo="Choose the preset that avatar was made with, or start from another one or from none.",
        )


def _numbers_heard(avatar: Avatar) -> int:
    """How many numbers of sound ``avatar`` takes for one frame."""
    if avatar.motion is not None:
        return len(avatar.motion.mean)
    field = avatar.branch(FACE).deformation.config
    return field.window * field.signal_dim


def _hearing(name: str, window: int, numbers: int) -> str:
    return f"{numbers} numbers of {name[:20]!a} in {window} rows"


def _content_hash(folder: Path) -> str:
    """SHA-256 of what the avatar in ``folder`` has learnt and how it is built; its card does not count."""
    header = read_header(folder)
    parts = {name: sha256_file(folder / name) for name in (MODEL, MOTION)}
    parts |= {"model": header["model"], "audio_encoder": header["audio_encoder"]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
