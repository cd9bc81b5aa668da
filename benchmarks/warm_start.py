"""What another avatar's map from sound to lips is worth: cold against warm fits, on landmarks alone, in minutes.

    python -m benchmarks.warm_start --data WH.data SELFIE.data --init-from ANCHOR SELFIE WH [--seconds 3 5 8 12]

Writes ``benchmarks/results/warm_start.json``. Every prepared clip is fitted cold, and warm from every avatar of
somebody else's (one whose name is not the clip's):

* ``out_of_block``: each of six contiguous blocks of the training frames predicted from the other five, penalty and
  share of the prior chosen inside those five.
* ``held_out``: the clip's last 1/11 predicted from all training frames.
* ``short``: only so many seconds fitted, code included, and the rest of the clip predicted; mean over four places.
  ``same speaker`` is a control: the prior is fitted on the other half of the same clip.

Figures: correlation of the predicted with the true mouth opening, and with the code (mean over its leading
components); share of the leading components left unexplained; share of the prior that was kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from talker.audio.features import get_encoder
from talker.audio.windows import windows
from talker.dataset.reader import TalkingHeadDataset
from talker.metrics import LIP_INNER
from talker.model.avatar import ModelConfig, PoseStatistics
from talker.model.motion import LIPS_AND_JAW, LipCode, MotionModel
from talker.model.transfer import sound_prior
from talker.train.origin import commit, machine
from talker.train.warm_start import WarmStart
from talker.types import FPS

OUT = Path(__file__).parent / "results" / "warm_start.json"
BLOCKS, PLACES = 6, 4
LEADING = 3
"""Components of the code that count; the others hardly move a pixel."""
GAP = 16
"""Frames between what is fitted and what is predicted: half a window of sound."""
CONFIG = replace(ModelConfig().motion, variation=0.0)
"""The opening is not stretched: that is for lively lips, not for the best prediction."""


@dataclass(frozen=True)
class Source:
    """Whose map from sound to lips a fit starts from."""

    name: str
    motion: MotionModel
    code: LipCode


@dataclass(frozen=True)
class Clip:
    """A prepared clip as the fit sees it: tracked frames only."""

    name: str
    sound: np.ndarray  # [T, W, A]
    landmarks: np.ndarray  # [T, 478, 3]
    pose: np.ndarray  # [T, 6] standardised
    opening: np.ndarray  # [T]
    n_train: int

    @classmethod
    def read(cls, folder: Path) -> Clip:
        dataset = TalkingHeadDataset(folder)
        features = get_encoder(CONFIG.features).encode(dataset.waveform)
        sound = windows(features, dataset.n_frames, width=CONFIG.window)
        seen = dataset.valid
        heads, statistics = torch.from_numpy(dataset.T_cam_head), PoseStatistics()
        statistics.fit(heads[torch.from_numpy(dataset.train_indices())])
        return cls(
            folder.name.split(".")[0],
            sound[seen],
            np.asarray(dataset.landmarks, np.float32)[seen],
            statistics(heads).numpy()[seen],
            np.asarray(dataset.mouth_open)[seen],
            int(seen[: dataset.n_train].sum()),
        )

    def fit(self, frames: np.ndarray, code: LipCode, source: Source | None = None) -> MotionModel:
        """The model of some frames."""
        prior = None if source is None else sound_prior(source.motion, source.code, code)
        codes, nothing = self.codes(frames, code), np.zeros(CONFIG.dim)
        return MotionModel.fit(
            self.sound[frames], codes, rest=nothing, slope=nothing, config=CONFIG, prior=prior
        )

    def codes(self, frames: np.ndarray, code: LipCode) -> np.ndarray:
        """True codes [N, K] of some frames."""
        return code.encode(self.landmarks[frames], self.pose[frames])

    def predict(self, frames: np.ndarray, model: MotionModel) -> np.ndarray:
        """Codes [N, K] of some frames."""
        return model(torch.from_numpy(self.sound[frames])).numpy()

    def own_code(self, frames: np.ndarray) -> LipCode:
        """The code fitted on some frames."""
        return LipCode.fit(self.landmarks[frames], self.pose[frames], self.opening[frames], CONFIG.dim)


def figures(clip: Clip, frames: np.ndarray, code: LipCode, predicted: np.ndarray) -> dict[str, float]:
    """How predicted codes [N, K] of ``frames`` agree with the truth."""
    true = clip.codes(frames, code)
    by_component = [correlation(predicted[:, k], true[:, k]) for k in range(LEADING)]
    # The mean pose of the lips drifts over a clip and is in nobody's sound: taken out.
    true, missed = ((x - x.mean(0))[:, :LEADING] for x in (true, true - predicted))
    return {
        "opening_r": correlation(opening_of(predicted, code), clip.opening[frames]),
        "code_r": float(np.mean(by_component)),
        "unexplained": float((missed**2).mean() / (true**2).mean()),
    }


def opening_of(codes: np.ndarray, code: LipCode) -> np.ndarray:
    """Gap of the inner lips [N], in pixels, of codes [N, K]."""
    points = ((codes * code.std) @ code.basis + code.mean).reshape(len(codes), -1, 2)
    upper, lower = (LIPS_AND_JAW.index(point) for point in LIP_INNER)
    return points[:, lower, 1] - points[:, upper, 1]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def out_of_block(clip: Clip, source: Source | None) -> dict[str, float]:
    frames = np.arange(clip.n_train)
    code = clip.own_code(frames)
    predicted, shares = [], []
    for start, stop in itertools.pairwise(np.linspace(0, clip.n_train, BLOCKS + 1).astype(int)):
        model = clip.fit(np.r_[0:start, stop : clip.n_train], code, source)
        predicted.append(clip.predict(frames[start:stop], model))
        shares.append(model.prior_share)
    return figures(clip, frames, code, np.concatenate(predicted)) | {"share": float(np.mean(shares))}


def part(clip: Clip, fitted: np.ndarray, wanted: np.ndarray, source: Source | None) -> dict[str, float]:
    """Code and model of the frames ``fitted``, judged on the frames ``wanted``."""
    code = clip.own_code(fitted)
    model = clip.fit(fitted, code, source)
    return figures(clip, wanted, code, clip.predict(wanted, model)) | {"share": model.prior_share}


def short(clip: Clip, n: int, source: Source | None, inside: range) -> list[dict[str, float]]:
    """``n`` frames fitted at several places ``inside`` the clip, everything else there predicted."""
    found = []
    for start in np.unique(np.linspace(inside.start, inside.stop - n, PLACES).astype(int)):
        before = np.arange(inside.start, max(inside.start, start - GAP))
        after = np.arange(min(inside.stop, start + n + GAP), inside.stop)
        found.append(part(clip, np.arange(start, start + n), np.r_[before, after], source))
    return found


def mean(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}


def measure(clip: Clip, source: Source | None, seconds: list[float]) -> dict:
    """All figures of one clip, cold or warm."""
    whole = range(len(clip.sound))
    lengths = [round(s * FPS) for s in seconds if s * FPS < 0.6 * len(whole)]
    ends = np.arange(clip.n_train), np.arange(clip.n_train, len(whole))
    return {
        "clip": clip.name,
        "from": "" if source is None else source.name,
        "out_of_block": mean([out_of_block(clip, source)]),
        "held_out": mean([part(clip, *ends, source)]) | {"frames": len(ends[1])},
        "short": {f"{n / FPS:g} s": mean(short(clip, n, source, whole)) for n in lengths},
    }


def same_speaker(clip: Clip, seconds: list[float]) -> list[dict]:
    """Short fits inside either half of a clip, cold and warm from the other half."""
    half = len(clip.sound) // 2
    halves = range(half - GAP), range(half + GAP, len(clip.sound))
    lengths = [round(s * FPS) for s in seconds if s * FPS < 0.6 * len(halves[0])]
    if not lengths:
        return []
    results = []
    for warm in (False, True):
        found: dict[int, list] = {n: [] for n in lengths}
        for here, there in (halves, halves[::-1]):
            source = None
            if warm:
                code = clip.own_code(np.array(there))
                source = Source("", clip.fit(np.array(there), code), code)
            for n in lengths:
                found[n] += short(clip, n, source, here)
        by_length = {f"{n / FPS:g} s": mean(one) for n, one in found.items()}
        results.append({"clip": clip.name, "from": "same speaker" if warm else "", "short": by_length})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--init-from", type=Path, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, nargs="*", default=[3.0, 5.0, 8.0, 12.0])
    a = parser.parse_args()
    sources = []
    for folder in a.init_from:
        warm = WarmStart.load(folder, ModelConfig())
        assert warm.avatar.motion is not None and warm.avatar.lip_code is not None
        sources.append(Source(warm.name, warm.avatar.motion, warm.avatar.lip_code))
    results = []
    for folder in a.data:
        clip = Clip.read(folder)
        for source in (None, *(s for s in sources if s.name != clip.name)):
            results.append(measure(clip, source, a.seconds))
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
        control = same_speaker(clip, a.seconds)
        print(json.dumps(control), file=sys.stderr, flush=True)
        results += control
    names = {str(folder): folder.name for folder in (*a.data, *a.init_from)}
    words = [names.get(word.rstrip("/"), word) for word in sys.argv[1:]]
    record = {"command": " ".join(["python -m benchmarks.warm_start", *words])}
    record |= {"commit": commit(), "machine": machine(), "results": results}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
