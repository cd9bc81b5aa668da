"""A real, tiny avatar that can speak: it listens to the product's own log-mel features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from talker.audio.features import get_encoder
from talker.card import read_card
from talker.checkpoint import save_avatar
from talker.model.motion import MotionModel
from tests.avatar_support import DIM, tiny_avatar, tiny_avatar_folder


def speaking_avatar_folder(folder: Path, name: str = "Zoë") -> Path:
    """Like ``tiny_avatar_folder``, with a motion model whose input fits the encoder."""
    tiny_avatar_folder(folder, name=name)
    card = read_card(folder)
    avatar = tiny_avatar()
    window = avatar.config.motion.window
    avatar.motion = MotionModel(window, get_encoder("mel").dim, DIM)
    save_avatar(avatar, folder, dataclasses.replace(card, bytes=0))
    return folder
