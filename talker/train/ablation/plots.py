"""The plot of an experiment's table: every seed a point, their mean a larger one; curves for convergence."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from talker.safe_files import write_atomic
from talker.train.ablation.catalogue import COLUMNS, Plot
from talker.train.ablation.table import seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c")
"""Okabe and Ito's: told apart by everybody, also in print."""

DPI = 120
CURVE_POINTS = 100
CHARACTERS_PER_INCH = 13
"""Of the title's small print."""


def write_plot(path: Path, table: dict, plot: Plot) -> bool:
    """Draw ``table`` (as ``table.json`` holds it) as PNG at ``path``.

    Returns:
        Whether there was anything to draw: no file is made of figures that no variant has.
    """
    figure = draw(table, plot)
    if figure is None:
        return False
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    write_atomic(path, picture.getvalue())
    return True


def draw(table: dict, plot: Plot) -> Figure | None:
    """The figure of ``table``; ``None`` if no variant has what ``plot`` shows."""
    shown = [key for key in plot.figures if any(key in row["figures"] for row in table["rows"])]
    if plot.kind == "curves":
        figure = _curves(table) if any(row["curves"] for row in table["rows"]) else None
    elif plot.kind == "scatter":
        figure = _scatter(table, *shown) if len(shown) == 2 else None
    else:
        figure = _dots(table, shown) if shown else None
    if figure is not None:
        width = round(CHARACTERS_PER_INCH * figure.get_figwidth())
        about = (
            f"{table['dataset']}, {table['size']} px, {seeds(table)}, {sum(table['steps'].values()):,} steps"
        )
        title = f"{table['experiment']}: {table['question']}"
        figure.suptitle("\n".join(fill(line, width) for line in (title, about)), fontsize=9)
    return figure


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """An empty figure of inches, without pyplot: nothing is kept, no screen is asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, list(panels)


def _scatter(table: dict, across: str, up: str) -> Figure:
    """Two figures against each other, every variant named at its mean."""
    figure, (panel,) = _figure(6.4, 4.6, 1)
    for index, row in enumerate(table["rows"]):
        if across not in row["figures"] or up not in row["figures"]:
            continue
        x, y, colour = row["figures"][across], row["figures"][up], COLOURS[index % len(COLOURS)]
        panel.scatter(x["values"], y["values"], s=18, color=colour, alpha=0.45)
        panel.scatter(x["mean"], y["mean"], s=80, color=colour, label=row["variant"])
        panel.annotate(
            row["variant"], (x["mean"], y["mean"]), xytext=(7, 5), textcoords="offset points", fontsize=8
        )
    panel.margins(x=0.15, y=0.1)  # room for the names
    panel.set_xlabel(COLUMNS[across])
    panel.set_ylabel(COLUMNS[up])
    return figure


def _dots(table: dict, keys: list[str]) -> Figure:
    """A panel for each figure, the variants from top to bottom."""
    rows = table["rows"]
    figure, panels = _figure(2.2 + 2.9 * len(keys), 1.3 + 0.42 * len(rows), len(keys))
    for panel, key in zip(panels, keys, strict=True):
        for height, row in enumerate(rows):
            found = row["figures"].get(key)
            if found is None:
                continue
            colour = COLOURS[height % len(COLOURS)]
            panel.scatter(found["values"], [height] * len(found["values"]), s=18, color=colour, alpha=0.45)
            panel.scatter(found["mean"], height, s=80, color=colour)
        panel.set_xlabel(COLUMNS[key])
        panel.set_yticks(range(len(rows)), [row["variant"] for row in rows] if panel is panels[0] else [])
        panel.set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _curves(table: dict) -> Figure:
    """Training PSNR over steps, the mean of the seeds in the band they lie in, and over seconds, every seed alone.

    Over seconds a mean would mix runs that the machine had time for with runs it had not.
    """
    figure, (steps, seconds) = _figure(9.6, 4.2, 2)
    for index, row in enumerate(table["rows"]):
        if not row["curves"]:
            continue
        colour = COLOURS[index % len(COLOURS)]
        at, values = _aligned(row["curves"])
        steps.plot(at, values.mean(0), color=colour, label=row["variant"])
        steps.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        for curve in row["curves"]:
            _, clock, psnr = zip(*curve, strict=True)
            seconds.plot(clock, psnr, color=colour, linewidth=0.8)
    steps.set_xlabel("step")
    seconds.set_xlabel("seconds of training")
    steps.set_ylabel("PSNR of training frames, running mean, dB")
    steps.legend(fontsize=8, frameon=False)
    return figure


def _aligned(curves: list[list[list[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps [P] all curves have, and the PSNR of each curve there [S, P]."""
    points = [np.asarray(curve, float) for curve in curves]
    start, stop = max(p[0, 0] for p in points), min(p[-1, 0] for p in points)
    at = np.linspace(start, stop, CURVE_POINTS)
    return at, np.stack([np.interp(at, p[:, 0], p[:, 2]) for p in points])
