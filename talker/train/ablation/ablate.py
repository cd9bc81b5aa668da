"""``talker ablate``: train what is missing, then write table and plot of each experiment."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.events import Event, Finished, Note
from talker.safe_files import write_atomic, write_json
from talker.train.ablation.catalogue import ALL, EXPERIMENTS, IDENTITIES, SPEAKERS
from talker.train.ablation.identities import Pair, partner, work_together
from talker.train.ablation.plots import write_plot
from talker.train.ablation.run import Run, clip_of, work
from talker.train.ablation.speakers import listen
from talker.train.ablation.table import markdown, row
from talker.train.ablation.variants import chosen, variants
from talker.train.ablation.worker import work_apart
from talker.train.presets import get_preset, scaled

TABLE_JSON, TABLE_MD, PLOT_PNG = "table.json", "table.md", "plot.png"
MAX_SEEDS = 20


def ablate(
    data: Path,
    experiment: str,
    out: Path,
    *,
    seeds: int = 3,
    steps_scale: float = 1.0,
    others: Sequence[Path] = (),
    own_process: bool = True,
) -> Iterator[Event]:
    """Train and measure every variant of ``experiment``; ends with ``Finished``.

    What is done is never done again: a run that was interrupted goes on where it stopped, and what two experiments
    have in common is trained once.

    Args:
        data: A prepared clip.
        experiment: A key of ``catalogue.EXPERIMENTS``, or ``all``.
        out: Folder of avatars and runs; tables and plots go to its subfolder of the experiment's name.
        seeds: Runs of each variant.
        steps_scale: Factor on the steps of ``preview``.
        others: Recordings, clips or prepared clips of other people, for ``speakers``; one prepared clip of somebody
            else at the same size, for ``identities``, which ``all`` leaves out without it.
        own_process: Give each run a process, as its figure of memory needs; otherwise that figure is of this one.

    Raises:
        ConfigError: There is no such experiment, the seeds are out of range, or there is no second speaker.
        DatasetError: The dataset cannot be used.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError("ablate.seeds", f"An experiment with {seeds} seeds.", expected=f"1 to {MAX_SEEDS}.")
    names = chosen(experiment)
    dataset = TalkingHeadDataset(data)
    tables = {}
    for name in names:
        if name == IDENTITIES and experiment == ALL and not others:
            yield Note(f"{name}: left out, there is no second speaker (--other).")
            continue
        rows = {
            variant.name: [
                Run(variant.preset, seed, steps_scale, data, clip_of(dataset), out) for seed in range(seeds)
            ]
            for variant in variants(name, dataset)
        }
        if name == IDENTITIES:
            (alone,) = rows.values()
            found = yield from _shared(alone, partner(dataset, others), own_process)
        else:
            yield from _trained(name, rows, own_process)
            found = {variant: [run.read() for run in runs] for variant, runs in rows.items()}
        if name == SPEAKERS:
            yield Note("Driving by every source.")
            found = _heard(rows, dataset, others)
        tables[name] = _write(out / name, _table(name, found, dataset, seeds, steps_scale))
    yield Finished(out, tables)


def _trained(name: str, rows: dict[str, list[Run]], own_process: bool) -> Iterator[Event]:
    """Do the runs that are not done, seed by seed: stopped early, everything has been compared a little."""
    order = [(variant, run) for same_seed in zip(*rows.values(), strict=True)
             for variant, run in zip(rows, same_seed, strict=True)]  # fmt: skip
    for number, (variant, run) in enumerate(order, 1):
        about = f"{name}: {variant}, seed {run.seed} ({number} of {len(order)})"
        if run.result.is_file() and (name != SPEAKERS or run.avatar.is_dir()):
            yield Note(f"{about}: done before.")
            continue
        yield Note(f"{about}.")
        doing = work_apart(run) if own_process else work(run)
        yield from (event for event in doing if not isinstance(event, Finished))


def _shared(
    alone: list[Run], second: Path, own_process: bool
) -> Generator[Event, None, dict[str, list[dict]]]:
    """Results of both speakers, each alone and both with one field."""
    pairs = [Pair.of(run, second) for run in alone]
    rows = {pairs[0].names[k]: [pair.runs[k] for pair in pairs] for k in (0, 1)}
    yield from _trained(IDENTITIES, rows, own_process)
    for number, pair in enumerate(pairs, 1):
        about = f"{IDENTITIES}: together, seed {pair.runs[0].seed} ({number} of {len(pairs)})"
        if pair.done:
            yield Note(f"{about}: done before.")
            continue
        yield Note(f"{about}.")
        doing = work_apart(pair, work_together) if own_process else work_together(pair)
        yield from (event for event in doing if not isinstance(event, Finished))
    found = {}
    for k, name in enumerate(pairs[0].names):
        found[f"{name}, alone"] = [pair.runs[k].read() for pair in pairs]
        found[f"{name}, one field for both"] = [pair.read()[k] for pair in pairs]
    return found


def _heard(
    rows: dict[str, list[Run]], dataset: TalkingHeadDataset, others: Sequence[Path]
) -> dict[str, list[dict]]:
    """Results by source, not by variant."""
    found: dict[str, list[dict]] = {}
    for source, result in listen([run for runs in rows.values() for run in runs], dataset, others):
        found.setdefault(source, []).append(result)
    return found


def _table(
    name: str, results: dict[str, list[dict]], dataset: TalkingHeadDataset, seeds: int, steps_scale: float
) -> dict:
    return {
        "experiment": name,
        "question": EXPERIMENTS[name].question,
        "protocol": "B",
        "dataset": dataset.header.get("name", ""),
        "size": dataset.size,
        "held_out_frames": len(dataset.held_out_indices()),
        "seeds": seeds,
        "steps_scale": steps_scale,
        "steps": {stage.name: stage.steps for stage in scaled(get_preset("preview"), steps_scale).stages},
        "rows": [row(variant, found) for variant, found in results.items()],
    }


def _write(folder: Path, table: dict) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TABLE_JSON, table)
    write_atomic(folder / TABLE_MD, markdown(table).encode())
    write_plot(folder / PLOT_PNG, table, EXPERIMENTS[table["experiment"]].plot)
    return table
