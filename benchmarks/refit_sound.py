"""An avatar with another map from sound to lips: what its training would have made of other sound features.

    python -m benchmarks.refit_sound AVATAR --data AVATAR.data --out NEW [--features mel+moonshine]

Fields learn from the true motion of the lips and never hear the sound, so the map can be fitted anew in seconds and its
features compared on the very same fields with ``talker evaluate``. It is fitted to lips as measured: what training
learnt of them besides is not kept with an avatar, so compare with another fit of this kind and not with the avatar.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from talker.card import read_card
from talker.checkpoint import load_avatar, save_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.model.motion import MotionConfig
from talker.train.build import build


def main() -> None:
    """Load, fit, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", default=MotionConfig().features)
    a = parser.parse_args()
    avatar = load_avatar(a.avatar)
    if avatar.motion is None:
        parser.error(f"{a.avatar} has no map from sound to lips: the sound drives its fields directly")
    config = replace(avatar.config, motion=replace(MotionConfig(), features=a.features))
    fresh, _ = build(TalkingHeadDataset(a.data), config, seed=0)
    avatar.config, avatar.motion, avatar.audio_encoder = config, fresh.motion, fresh.audio_encoder
    save_avatar(avatar, a.out, read_card(a.avatar))


if __name__ == "__main__":
    main()
