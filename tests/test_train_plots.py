"""Curves of an evaluation: every picture is there, says what it shows, and bears gaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talker.events import FrameSeries
from talker.train import plots
from talker.train.plots import write_plots

T = 75


@pytest.fixture
def series() -> FrameSeries:
    """Lips two frames late, one blink of two performed."""
    rng = np.random.default_rng(0)
    mouth = 0.05 + 0.03 * np.sin(np.arange(T) / 3) + 0.01 * rng.normal(size=T)
    eyes = np.full((2, T), 0.1)
    eyes[0, 20:25] = eyes[0, 50:55] = eyes[1, 20:25] = 0.02
    jitter = np.r_[np.nan, np.full(T - 2, 0.5), np.nan]
    return FrameSeries(
        first_frame=750,
        psnr=np.full(T, 30.0),
        psnr_mouth=np.full(T, 28.0),
        mouth_truth=mouth,
        mouth=np.roll(mouth, 2),
        mouth_swapped=rng.uniform(0, 0.1, T),
        mouth_true_motion=mouth,
        eyes_truth=eyes[0],
        eyes=eyes[1],
        jitter_truth=jitter,
        jitter=2 * jitter,
    )


def seconds(series: FrameSeries) -> np.ndarray:
    return (series.first_frame + np.arange(len(series))) / 25


def test_every_picture_is_written(series: FrameSeries, tmp_path: Path) -> None:
    paths = write_plots(series, tmp_path / "new" / "plots", title="Zoë, held-out frames, protocol B")
    assert sorted(p.name for p in paths) == ["eyes.png", "jitter.png", "mouth.png", "psnr.png"]
    assert sorted(p.name for p in paths[0].parent.iterdir()) == sorted(p.name for p in paths)
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.width > 1000 and np.asarray(picture).std() > 5


def test_mouth_says_r_and_lag_of_every_take(series: FrameSeries) -> None:
    figure = plots._mouth(series, seconds(series), "Zoë, protocol B")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert len(titles) == 3
    assert "held-out sound" in titles[0] and "(2 frames late)" in titles[0]
    assert "other sound" in titles[1]
    assert "true motion" in titles[2] and "r 1.00, no lag" in titles[2]
    assert figure._suptitle.get_text() == "Zoë, protocol B: mouth opening"  # type: ignore[attr-defined]
    one = plots._mouth(
        replace(series, mouth_swapped=None, mouth_true_motion=None), seconds(series), "Zoë"
    ).axes
    assert len(one) == 1, "controls that were not measured have no panel"


def test_curves_lie_over_the_time_of_the_clip(series: FrameSeries) -> None:
    axes = plots._psnr(series, seconds(series), "Zoë").axes[0]
    assert axes.get_xlim() == (30.0, 30.0 + (T - 1) / 25)
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["frame, mean 30.0", "mouth, mean 28.0"]


def test_jitter_and_blinks_are_counted(series: FrameSeries) -> None:
    labels = plots._jitter(series, seconds(series), "Zoë").axes[0].get_legend_handles_labels()[1]
    assert labels == ["truth, rms 0.50", "avatar, rms 1.00"]
    heading = plots._eyes(series, seconds(series), "Zoë")._suptitle.get_text()  # type: ignore[attr-defined]
    assert heading.endswith("performed: 1 of 2")
    still = replace(series, eyes_truth=np.full(T, 0.1))
    assert plots._eyes(still, seconds(series), "Zoë")._suptitle.get_text().endswith("none")  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", [slice(0, 0), slice(20, 40), slice(None)])
def test_missing_faces_are_gaps(series: FrameSeries, tmp_path: Path, part: slice) -> None:
    measured = {k: v.copy() for k, v in vars(series).items() if isinstance(v, np.ndarray)}
    for values in measured.values():
        values[part] = np.nan
    write_plots(replace(series, **measured), tmp_path, title="Zoë")
    assert len(list(tmp_path.iterdir())) == 4
