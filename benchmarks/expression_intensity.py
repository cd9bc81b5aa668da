"""What the control beyond audio does: lips drawn at several intensities, with the held-out sound.

    python -m benchmarks.expression_intensity AVATAR --data DATA [--json F]

``variation`` is that of the drawn opening against the true one, ``of_asked`` the same against the intensity times that
at 1: below 1 where lips cannot follow. ``r`` is with the true opening, at no lag: what is asked for must not cost the
timing. ``jitter_px`` shows what strong lips do to the forehead, which should be nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from talker import metrics
from talker.checkpoint import load_avatar
from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.steps.landmarks import find_landmarks
from talker.drive import DriveConfig, drive
from talker.model.avatar import Avatar
from talker.train.controls import exact_sound
from talker.train.origin import commit, machine
from talker.types import FPS, SAMPLE_RATE

INTENSITIES = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def take(avatar: Avatar, dataset: TalkingHeadDataset, intensity: float) -> np.ndarray:
    """Landmarks [T, 478, 3] of the held-out frames as the avatar speaks them."""
    start, n = dataset.n_train, dataset.n_frames - dataset.n_train
    speech = exact_sound(dataset.waveform[start * SAMPLE_RATE // FPS :], n)
    frames = drive(avatar, speech, track=dataset.track[start:], config=DriveConfig(intensity=intensity))
    return np.stack(list(find_landmarks(frames, np.zeros(n, np.int32))))


def main() -> None:
    """Draw, track, compare, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("avatar", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    avatar, dataset = load_avatar(a.avatar), TalkingHeadDataset(a.data)
    true = (np.asarray(dataset.frames[i]) for i in range(dataset.n_train, dataset.n_frames))
    real = np.stack(list(find_landmarks(true, np.zeros(dataset.n_frames - dataset.n_train, np.int32))))
    drawn = {intensity: take(avatar, dataset, intensity) for intensity in INTENSITIES}
    opening = {intensity: metrics.mouth_opening(landmarks) for intensity, landmarks in drawn.items()}
    plain = opening[1.0].std()
    rows = {}
    for intensity, lips in opening.items():
        rows[f"{intensity:g}"] = {
            "variation": metrics.variation_ratio(lips, metrics.mouth_opening(real)),
            "of_asked": lips.std() / (intensity * plain) if intensity else float("nan"),
            "r": metrics.correlation_with_lag(lips, metrics.mouth_opening(real)).r0,
            "jitter_px": metrics.jitter(drawn[intensity], dataset.size),
        }
    report = {
        "command": f"python -m benchmarks.expression_intensity {a.avatar.name} --data {a.data.name}",
        "commit": commit(),
        "machine": machine(),
        "rows": {
            name: {key: round(float(value), 4) for key, value in row.items() if np.isfinite(value)}
            for name, row in rows.items()
        },
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if a.json is not None:
        a.json.write_text(text)


if __name__ == "__main__":
    main()
