"""Holes and floaters in frames of an avatar: 200 by default, while it says something it never learnt.

    python -m benchmarks.check_frames AVATAR [--frames 200] [--text "..."] [--json F] [--sheet F.png]

Every n-th frame of a sentence, spoken under the avatar's own head motion, is drawn and its opacity looked at. A *hole*
is a patch inside the person through which the plate is seen; a *floater* is a patch of the person that hangs in the
air apart from it. Patches under a thousandth of a percent of the frame (two pixels at 512) do not count: nobody sees
them. ``--sheet`` draws the worst frames, with what was found in red, to be looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from talker.audio.tts import speak
from talker.checkpoint import load_avatar
from talker.drive import DriveConfig, own_motion, speech_signals
from talker.frame import render_frame
from talker.render.compose import to_uint8
from talker.train.origin import commit, machine
from talker.types import Driving

TEXT = (
    "The quick brown fox jumps over the lazy dog while five big wizards box. Peter Piper picked a peck of pickled "
    "peppers, and she sells sea shells by the sea shore. How much wood would a woodchuck chuck? "
)
SOLID, FAINT = 0.5, 0.15
"""Opacity below which the plate shows through; opacity above which a patch in the air is seen."""
LEAST = 1e-5
"""Share of the frame under which a patch is not counted."""


@dataclass(frozen=True)
class Found:
    """One frame and the area, in pixels, of what is wrong in it."""

    index: int
    holes: int
    floaters: int
    picture: np.ndarray  # [H, W, 3] uint8
    wrong: np.ndarray  # [H, W] bool


def main() -> None:
    """Draw, count, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--text", default=TEXT * 3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    a = parser.parse_args()
    found = list(check(a.avatar, a.frames, a.text))
    report = {
        "command": f"python -m benchmarks.check_frames {a.avatar.name} --frames {a.frames}",
        "commit": commit(),
        "machine": machine(),
        "frames": len(found),
        "with_holes": sum(f.holes > 0 for f in found),
        "with_floaters": sum(f.floaters > 0 for f in found),
        "largest_hole_px": max(f.holes for f in found),
        "largest_floater_px": max(f.floaters for f in found),
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if a.json is not None:
        a.json.write_text(text)
    if a.sheet is not None:
        cv2.imwrite(str(a.sheet), cv2.cvtColor(_sheet(found), cv2.COLOR_RGB2BGR))


def check(folder: Path, n_frames: int, text: str) -> Iterator[Found]:
    """Yields what was found in ``n_frames`` evenly spaced frames of ``text``."""
    avatar = load_avatar(folder)
    speech = speak(text)
    signals, motion = speech_signals(avatar, speech), own_motion(avatar.track, speech.n_frames, DriveConfig())
    chosen = np.unique(np.linspace(0, speech.n_frames - 1, n_frames).round().astype(int))
    with torch.inference_mode():
        prepared = avatar.prepare()
        for index in chosen:
            driving = Driving(
                signals[index],
                torch.from_numpy(motion.expression[index]),
                torch.from_numpy(motion.T_cam_head[index]),
                torch.from_numpy(motion.T_cam_torso[index]),
            )
            frame = render_frame(avatar, driving, prepared=prepared)
            through = torch.ones_like(frame.rgb[..., 0])
            for output in frame.outputs.values():
                through = through * (1 - output.alpha[..., 0])
            yield _look(int(index), to_uint8(frame.rgb).numpy(), 1 - through.numpy())


def _look(index: int, picture: np.ndarray, alpha: np.ndarray) -> Found:
    least = LEAST * alpha.size
    person = _largest(alpha > SOLID)
    # What is seen through and cannot be reached from outside the frame's upper edge is enclosed by the person.
    holes = _patches((alpha <= SOLID) & ~_outside(person), least)
    floaters = _patches((alpha > FAINT) & ~_touching(alpha > FAINT, person), least)
    return Found(index, int(holes.sum()), int(floaters.sum()), picture, holes | floaters)


def _largest(mask: np.ndarray) -> np.ndarray:
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if n > 1 else mask


def _outside(person: np.ndarray) -> np.ndarray:
    """What of the air is connected with the frame's edge."""
    air = np.pad((~person).astype(np.uint8), 1, constant_values=1)
    air[-1] = 0  # the person is cut off by the lower edge: nothing leaks in from there
    _, labels = cv2.connectedComponents(air, connectivity=4)
    return (labels == labels[0, 0])[1:-1, 1:-1]


def _touching(mask: np.ndarray, person: np.ndarray) -> np.ndarray:
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.isin(labels, np.unique(labels[person & mask])) & mask


def _patches(mask: np.ndarray, least: float) -> np.ndarray:
    """The patches of ``mask`` that are large enough to be seen."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = [i for i in range(1, n) if stats[i, cv2.CC_STAT_AREA] > least]
    return np.isin(labels, large)


def _sheet(found: list[Found], columns: int = 5, rows: int = 4) -> np.ndarray:
    """The worst frames, then evenly spaced ones."""
    worst = sorted(found, key=lambda f: -(f.holes + f.floaters))[: columns * rows]
    tiles = []
    for one in worst:
        picture = one.picture.copy()
        edge = cv2.dilate(one.wrong.astype(np.uint8), np.ones((5, 5))) - one.wrong
        picture[edge > 0] = (255, 0, 0)
        tiles.append(cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA))
    tiles += [np.zeros_like(tiles[0])] * (columns * rows - len(tiles))
    return np.vstack([np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)])


if __name__ == "__main__":
    main()
