"""Two speakers, each with a field of their own and both with one: what sharing costs, or brings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from talker.dataset.reader import TalkingHeadDataset
from talker.dataset.schema import HEADER
from talker.errors import ConfigError
from talker.events import Evaluated, Event, Finished
from talker.safe_files import read_json, write_json
from talker.train.ablation.figures import trained_figures
from talker.train.ablation.run import MAX_RESULT_BYTES, Run, clip_of
from talker.train.evaluate import EvaluateConfig, evaluate
from talker.train.origin import commit, machine
from talker.train.presets import scaled
from talker.train.together import Speaker, build_together, train_together


@dataclass(frozen=True)
class Pair:
    """Two runs that differ in the clip alone, as one with a shared field.

    Attributes:
        runs: What each would be by itself.
    """

    runs: tuple[Run, Run]

    @classmethod
    def of(cls, run: Run, second: Path) -> Pair:
        """``run`` with the prepared clip ``second``."""
        return cls((run, replace(run, data=second, clip=clip_of(TalkingHeadDataset(second)))))

    @property
    def names(self) -> tuple[str, str]:
        """What the clips are called, without what their files are."""
        one, other = (run.clip[0].split(".", maxsplit=1)[0] for run in self.runs)
        return (one, other) if one != other else ("first", "second")

    @property
    def results(self) -> tuple[Path, Path]:
        """Figures of each speaker."""
        one, other = self.runs
        return (
            one.result.with_name(f"{one.name}-with-{other.name}.json"),
            other.result.with_name(f"{other.name}-with-{one.name}.json"),
        )

    @property
    def done(self) -> bool:
        """Both were measured."""
        return all(path.is_file() for path in self.results)

    def read(self) -> tuple[dict, dict]:
        """What ``work_together`` has written."""
        one, other = (read_json(path, max_bytes=MAX_RESULT_BYTES) for path in self.results)
        return one, other


def partner(dataset: TalkingHeadDataset, others: Sequence[Path]) -> Path:
    """The prepared clip of the second speaker.

    Raises:
        ConfigError: There is none, or it has another size.
        DatasetError: It is not complete.
    """
    prepared = [path for path in others if (path / HEADER).is_file()]
    if len(prepared) != 1:
        raise ConfigError(
            "ablate.identities",
            f"{len(prepared)} prepared clips of other people.",
            expected="One, given with --other.",
            todo="Prepare a clip of somebody else at the same size.",
        )
    size = TalkingHeadDataset(prepared[0]).size
    if size != dataset.size:
        raise ConfigError(
            "ablate.identities",
            f"The clips have {dataset.size} and {size} pixels.",
            expected="The same size for both.",
        )
    return prepared[0]


def work_together(pair: Pair) -> Iterator[Event]:
    """Train and measure both speakers of ``pair`` in this process; ends with ``Finished``."""
    run = pair.runs[0]
    preset = scaled(run.preset, run.steps_scale)
    speakers = build_together([TalkingHeadDataset(r.data) for r in pair.runs], preset.model, run.seed)
    started, cpu_started = time.monotonic(), time.process_time()
    yield from train_together(speakers, preset, run.seed)
    spent = {
        "train_s": round(time.monotonic() - started, 2),
        "train_cpu_s": round(time.process_time() - cpu_started, 2),
    }
    found = []
    for speaker in speakers:
        found.append((yield from _measured(speaker)))
    run.result.parent.mkdir(parents=True, exist_ok=True)
    for one, path, figures in zip(pair.runs, pair.results, found, strict=True):
        about = {"preset": preset.name, "settings": one.settings, "commit": commit(), "machine": machine()}
        write_json(path, {**about, "metrics": {**figures, **spent}, "curve": []})
    yield Finished(run.out, {})


def _measured(speaker: Speaker) -> Iterator[Event]:
    figures: dict[str, float] = {}
    for event in evaluate(speaker.avatar, speaker.dataset, EvaluateConfig()):
        if isinstance(event, Evaluated):
            figures = event.metrics
        yield event
    return {**figures, **trained_figures(speaker.avatar, speaker.dataset)}
