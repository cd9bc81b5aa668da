"""Do altered copies of a clip's sound make its map from sound to lips hear other voices better? Landmarks alone.

    python -m benchmarks.audio_augmentation ANCHOR.data SELFIE.data WH.data

The map is fitted to the mouth opening with the training part's sound, and with altered copies of it beside it: noise,
another loudness, faster and slower (pitch and formants move too), another pitch. Every copy says what the same lips
did. Judged by r of the predicted with the true opening:

* ``own``: out of block, each of six contiguous blocks predicted from the other five, for the sound as it is and for
  alterations stronger than any that was fitted: the same lips under another voice, or in a bad room.
* ``others``: all frames of every other clip, which has another speaker whose lips are known.

Writes ``benchmarks/results/audio_augmentation.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from imageio_ffmpeg import get_ffmpeg_exe

from talker.audio.features import get_encoder
from talker.audio.windows import windows
from talker.dataset.reader import TalkingHeadDataset
from talker.model.motion import MotionConfig, MotionModel
from talker.train.origin import commit, machine
from talker.types import SAMPLE_RATE

OUT = Path(__file__).parent / "results" / "audio_augmentation.json"
BLOCKS = 6
CONFIG = MotionConfig(dim=1, variation=0.0)
"""The opening alone, not stretched: that is for lively lips, not for the best prediction."""


@dataclass(frozen=True)
class Alteration:
    """Another sound of the same lips.

    Attributes:
        change: Of a waveform [S].
        speed: How much sooner everything is said.
    """

    change: Callable[[np.ndarray], np.ndarray]
    speed: float = 1.0


def noise(snr_db: float) -> Alteration:
    """White noise so far below the speech."""

    def change(waveform: np.ndarray) -> np.ndarray:
        loud = float(np.sqrt(np.mean(waveform**2)))
        hiss = np.random.default_rng(0).standard_normal(len(waveform)).astype(np.float32)
        return waveform + loud * 10 ** (-snr_db / 20) * hiss

    return Alteration(change)


def gain(db: float) -> Alteration:
    """Louder or quieter, and clipped as a recorder clips."""
    return Alteration(lambda waveform: np.clip(waveform * 10 ** (db / 20), -1, 1).astype(np.float32))


def speed(factor: float) -> Alteration:
    """Played faster: earlier and higher."""
    return Alteration(lambda waveform: filtered(waveform, _played(factor)), factor)


def pitch(semitones: float) -> Alteration:
    """Higher or lower at the same speed."""
    factor = 2 ** (semitones / 12)
    return Alteration(lambda waveform: filtered(waveform, f"{_played(factor)},atempo={1 / factor:.6f}"))


def _played(factor: float) -> str:
    return f"asetrate={round(SAMPLE_RATE * factor)},aresample={SAMPLE_RATE}"


def filtered(waveform: np.ndarray, filters: str) -> np.ndarray:
    """A waveform through filters of FFmpeg."""
    raw = ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1"]
    command = [get_ffmpeg_exe(), "-v", "error", *raw, "-i", "-", "-af", filters, *raw, "-"]
    done = subprocess.run(command, input=waveform.astype("<f4").tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<f4").copy()


AS_IT_IS = Alteration(lambda waveform: waveform)
FITTED = {
    "nothing": (),
    "noise": (noise(20),),
    "gain": (gain(-6), gain(6)),
    "speed": (speed(0.94), speed(1.06)),
    "pitch": (pitch(-2), pitch(2)),
    "all": (noise(20), gain(-6), speed(0.94), speed(1.06), pitch(-2), pitch(2)),
}
"""What is heard beside the sound as it is."""
JUDGED = {
    "as it is": AS_IT_IS,
    "noise at 10 dB": noise(10),
    "20 dB quieter": gain(-20),
    "12 % slower": speed(0.88),
    "12 % faster": speed(1.12),
    "4 semitones lower": pitch(-4),
    "4 semitones higher": pitch(4),
}


class Clip:
    """A prepared clip: what its lips did, and every sound of them."""

    def __init__(self, folder: Path) -> None:
        dataset = TalkingHeadDataset(folder)
        self.name = folder.name.split(".")[0]
        self._dataset = dataset
        self.train = dataset.train_indices()
        self.all = np.flatnonzero(dataset.valid)
        self.opening = np.asarray(dataset.mouth_open, np.float64)
        self._sounds: dict[int, np.ndarray] = {}

    def sound(self, alteration: Alteration) -> np.ndarray:
        """Windows [T, W, A] of every frame."""
        key = id(alteration)
        if key not in self._sounds:
            frames = np.arange(self._dataset.n_frames)
            features = get_encoder(CONFIG.features).encode(alteration.change(self._dataset.waveform))
            sooner = frames / alteration.speed - frames
            self._sounds[key] = windows(features, len(frames), width=CONFIG.window, offset=sooner)
        return self._sounds[key]

    def fit(self, frames: np.ndarray, beside: tuple[Alteration, ...]) -> MotionModel:
        """The map of some frames, heard as they are and altered."""
        heard = [self.sound(alteration)[frames] for alteration in (AS_IT_IS, *beside)]
        # Copies of a frame stay side by side: blocks of the cross-validation never hold half of them.
        rows = np.stack(heard, 1).reshape(-1, *heard[0].shape[1:])
        opening = self.opening[frames]
        told = np.repeat(opening / opening.std(), len(heard))[:, None].astype(np.float32)
        return MotionModel.fit(rows, told, rest=np.zeros(1), slope=np.ones(1), config=CONFIG)

    def predicted(self, model: MotionModel, frames: np.ndarray, alteration: Alteration) -> np.ndarray:
        """Openings [N] of some frames."""
        return model(torch.from_numpy(self.sound(alteration)[frames]))[:, 0].numpy()


def own_voice(clip: Clip, beside: tuple[Alteration, ...]) -> dict[str, float]:
    """r out of block, by how the sound that is judged was altered."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in JUDGED}
    for start, stop in itertools.pairwise(np.linspace(0, len(clip.train), BLOCKS + 1).astype(int)):
        model = clip.fit(np.r_[clip.train[:start], clip.train[stop:]], beside)
        for name, alteration in JUDGED.items():
            found[name].append(clip.predicted(model, clip.train[start:stop], alteration))
    true = clip.opening[clip.train]
    return {name: agreement(np.concatenate(parts), true) for name, parts in found.items()}


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return round(float(np.corrcoef(a, b)[0, 1]), 4)


def measure(clip: Clip, others: list[Clip]) -> dict:
    """All figures of the map of one speaker, by what was fitted beside the sound as it is."""
    figures = {}
    for name, beside in FITTED.items():
        model = clip.fit(clip.train, beside)
        heard = {o.name: agreement(o.predicted(model, o.all, AS_IT_IS), o.opening[o.all]) for o in others}
        figures[name] = {"own": own_voice(clip, beside), "others": heard}
        print(clip.name, name, json.dumps(figures[name]), file=sys.stderr, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    a = parser.parse_args()
    clips = [Clip(folder) for folder in a.data]
    results = {clip.name: measure(clip, [o for o in clips if o is not clip]) for clip in clips}
    names = " ".join(folder.name for folder in a.data)
    record = {"command": f"python -m benchmarks.audio_augmentation {names}"}
    record |= {"commit": commit(), "machine": machine(), "fitted_beside": results}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
