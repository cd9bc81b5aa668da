"""Events on a terminal: one bar a stage, notes above it."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from talker.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    Note,
    Preview,
    PreviewClip,
    Progress,
    StageStarted,
)

Result = TypeVar("Result")


def show(events: Iterable[Event]) -> Finished | None:
    """Draw a run on stderr as it goes; returns its end."""
    from tqdm import tqdm

    bar = finished = None
    try:
        for event in events:
            match event:
                case StageStarted(stage, total):
                    if bar is not None:
                        bar.close()
                    bar = _bar(stage, total)
                case Progress():
                    if bar is not None:
                        bar.update(event.step - bar.n)
                        bar.set_postfix_str(_figures(event), refresh=False)
                case Note(message, level):
                    tqdm.write(message if level == "info" else f"{level}: {message}", file=sys.stderr)
                case Evaluated(protocol, metrics):
                    tqdm.write(table(f"Held-out frames, protocol {protocol}", metrics), file=sys.stderr)
                case Finished():
                    finished = event
                case Preview() | PreviewClip() | CheckpointSaved():
                    pass
    finally:
        if bar is not None:  # also before an error's message, or the bar is drawn over it
            bar.close()
    return finished


def show_result(events: Generator[Event, None, Result]) -> Result:
    """Draw a run on stderr as it goes; returns what it returns."""
    found: list[Result] = []

    def drawn() -> Iterator[Event]:
        found.append((yield from events))

    show(drawn())
    return found[0]


def _bar(stage: str, total: int):
    from tqdm import tqdm

    return tqdm(
        total=total or None, desc=stage, file=sys.stderr, unit="", dynamic_ncols=True, mininterval=0.5
    )


def _figures(event: Progress) -> str:
    parts = [f"{name} {value:.4g}" for name, value in event.values.items()]
    if event.eta_s is not None:
        minutes, seconds = divmod(round(event.eta_s), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(parts)


def table(title: str, values: Mapping[str, object]) -> str:
    """Two columns of names and figures under a title."""
    width = max((len(name) for name in values), default=0)
    lines = [title, *(f"  {name:<{width}}  {_text(value)}" for name, value in values.items())]
    return "\n".join(lines)


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def say(text: str) -> None:
    """One line of result on stdout."""
    sys.stdout.write(text + "\n")


def write_report(path: Path | None, report: dict) -> None:
    """``report`` as JSON at ``path``, if one was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
