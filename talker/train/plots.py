"""The held-out frames as curves: what the means of an evaluation hide."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talker import metrics
from talker.atomic import atomic_path
from talker.events import FrameSeries
from talker.types import FPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRUTH, _AVATAR, _MOUTH = "#8a8f98", "#1f5fbf", "#c2571a"
_WIDTH_IN, _PANEL_IN, _DPI = 9.0, 2.4, 150


def write_plots(series: FrameSeries, folder: Path, *, title: str) -> list[Path]:
    """Draw the curves of an evaluation over the time of the clip.

    Args:
        series: What was measured frame by frame.
        folder: Receives ``mouth.png``, ``psnr.png``, ``jitter.png`` and ``eyes.png``; made if absent.
        title: Heads every picture: the avatar and the protocol.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = (series.first_frame + np.arange(len(series))) / FPS
    pictures = {
        "mouth": _mouth(series, seconds, title),
        "psnr": _psnr(series, seconds, title),
        "jitter": _jitter(series, seconds, title),
        "eyes": _eyes(series, seconds, title),
    }
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"{name}.png")
        with atomic_path(paths[-1]) as part:
            picture.savefig(part, format="png", dpi=_DPI)
    return paths


def _mouth(series: FrameSeries, seconds: np.ndarray, title: str) -> Figure:
    """One panel for each way of driving, the truth behind it."""
    takes = {
        "driven by the held-out sound": series.mouth,
        "driven by other sound (control)": series.mouth_swapped,
        "driven by the true motion of the lips": series.mouth_true_motion,
    }
    measured = {name: opening for name, opening in takes.items() if opening is not None}
    figure, panels = _panels(len(measured), f"{title}: mouth opening", "share of the distance of the eyes")
    for axes, (name, opening) in zip(panels, measured.items(), strict=True):
        axes.fill_between(seconds, series.mouth_truth, color=_TRUTH, alpha=0.45, linewidth=0, label="truth")
        axes.plot(seconds, opening, color=_AVATAR, linewidth=1.4, label="avatar")
        lips = metrics.correlation_with_lag(opening, series.mouth_truth)
        axes.set_title(f"{name}: r {lips.r0:.2f}, {_lag(lips)}", fontsize=9, loc="left")
    return _finished(figure, panels, seconds)


def _lag(lips: metrics.Correlation) -> str:
    if lips.lag == 0:
        return "no lag"
    frames = f"{abs(lips.lag)} frame{'s' if abs(lips.lag) > 1 else ''}"
    return f"best {lips.r:.2f} ({frames} {'late' if lips.lag > 0 else 'early'})"


def _psnr(series: FrameSeries, seconds: np.ndarray, title: str) -> Figure:
    frame, mouth = (_mean(values) for values in (series.psnr, series.psnr_mouth))
    figure, panels = _panels(1, f"{title}: PSNR of every frame", "dB")
    panels[0].plot(seconds, series.psnr, color=_AVATAR, linewidth=1.4, label=f"frame, mean {frame:.1f}")
    panels[0].plot(seconds, series.psnr_mouth, color=_MOUTH, linewidth=1.4, label=f"mouth, mean {mouth:.1f}")
    return _finished(figure, panels, seconds)


def _jitter(series: FrameSeries, seconds: np.ndarray, title: str) -> Figure:
    figure, panels = _panels(1, f"{title}: trembling of the forehead", "px at 512")
    for name, values, color in (("truth", series.jitter_truth, _TRUTH), ("avatar", series.jitter, _AVATAR)):
        label = f"{name}, rms {np.sqrt(_mean(values**2)):.2f}"
        panels[0].plot(seconds, values, color=color, linewidth=1.4, label=label)
    panels[0].set_ylim(bottom=0)
    return _finished(figure, panels, seconds)


def _eyes(series: FrameSeries, seconds: np.ndarray, title: str) -> Figure:
    blinks = metrics.blink_recall(series.eyes, series.eyes_truth)
    done = f"{round(blinks.recall * blinks.n_blinks)} of {blinks.n_blinks}" if blinks.n_blinks else "none"
    heading = f"{title}: opening of the eyes, held-out blinks performed: {done}"
    figure, panels = _panels(1, heading, "share of the\ndistance of the eyes")
    panels[0].plot(seconds, series.eyes_truth, color=_TRUTH, linewidth=1.4, label="truth")
    panels[0].plot(seconds, series.eyes, color=_AVATAR, linewidth=1.4, label="avatar")
    panels[0].set_ylim(bottom=0)
    return _finished(figure, panels, seconds)


def _panels(n: int, title: str, unit: str) -> tuple[Figure, list[Axes]]:
    """An empty picture of ``n`` panels above each other, drawn without any window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, 0.6 + _PANEL_IN * n), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", fontweight="bold")
    grid = figure.subplots(n, 1, sharex=True, sharey=True, squeeze=False)
    panels: list[Axes] = list(grid[:, 0])
    figure.supylabel(unit, fontsize=9)
    return figure, panels


def _finished(figure: Figure, panels: Iterable[Axes], seconds: np.ndarray) -> Figure:
    """Legends, grids and the axis of time."""
    for axes in panels:
        axes.set_xlim(seconds[0], seconds[-1])
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        # Above the curves: inside it would cover some.
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
        axes.legend(fontsize=8, frameon=False, ncols=2, **above)
    figure.supxlabel("time in the clip, s", fontsize=9)
    return figure


def _mean(values: np.ndarray) -> float:
    """Mean of the finite ones; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
