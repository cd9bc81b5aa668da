"""What experiments measure beside ``evaluate``, and how it is drawn."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core_support import tiny_avatar, write_dataset

from talker.audio.waveform import save_wav
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import ConfigError
from talker.events import Progress, StageStarted
from talker.frame import FrameDrawer
from talker.train.ablation import figures
from talker.train.ablation.catalogue import Plot
from talker.train.ablation.curve import Curve
from talker.train.ablation.plots import draw, write_plot
from talker.train.ablation.speakers import SECONDS, Probe, Source, listening_figures, sources
from talker.train.ablation.table import row
from talker.train.regions import face_boxes
from talker.train.schedule import Stage
from talker.types import FPS, SAMPLE_RATE

STAGES = (Stage("static", 10, static=True), Stage("deform", 30))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TalkingHeadDataset:
    return TalkingHeadDataset(write_dataset(tmp_path_factory.mktemp("core") / "tiny.data"))


def test_shares_count_visible_gaussians_that_project_into_the_boxes(dataset: TalkingHeadDataset) -> None:
    avatar, _ = tiny_avatar(dataset)
    boxes = face_boxes(dataset.landmarks[dataset.reference], dataset.size)
    pose = torch.from_numpy(np.asarray(dataset.T_cam_head[dataset.reference]))
    canonical = avatar.branch("face").canonical
    n = len(canonical)

    def put(box, rows: slice) -> None:
        """Move Gaussians to the middle of a box, seen from the reference frame."""
        pixel = torch.tensor([(box.left + box.right) / 2, (box.top + box.bottom) / 2, 1.0])
        camera = torch.linalg.solve(dataset.K, pixel) * pose[2, 3]
        canonical.means[rows] = (camera - pose[:3, 3]) @ pose[:3, :3]

    with torch.no_grad():
        canonical.means[:] = torch.tensor([0.0, -3.0, 0.0])  # above everything
        put(boxes.mouth, slice(0, n // 10))
        put(boxes.eyes[0], slice(n // 10, n // 10 + 20))
        put(boxes.eyes[1], slice(n // 10 + 20, n // 10 + 41))
        found = figures.region_shares(avatar, dataset)
        assert found["lips_share"] == pytest.approx(100 * (n // 10) / n, abs=1e-3)
        assert found["eyes_share"] == pytest.approx(100 * 41 / n, abs=1e-3)
        canonical.logit_opacities[: n // 10] = -9.0  # nothing to see: nobody counts them
        assert figures.region_shares(avatar, dataset)["lips_share"] == 0


def test_frames_per_second_is_the_median_and_ignores_the_first(
    dataset: TalkingHeadDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    avatar, _ = tiny_avatar(dataset)
    clock, cpu, drawn = [0.0], [0.0], []

    def slow(drawer: FrameDrawer, driving: object) -> torch.Tensor:
        drawn.append(drawer)
        cpu[0] += 0.5
        clock[0] += 9.0 if len(drawn) <= figures.WARM_FRAMES else 0.25 if len(drawn) % 5 else 3.0
        return torch.zeros(1)

    monkeypatch.setattr(FrameDrawer, "__call__", slow)
    monkeypatch.setattr(figures.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(figures.time, "process_time", lambda: cpu[0])
    assert figures.drawing_speed(avatar, dataset) == {"fps": 4.0, "frame_cpu_ms": 500.0}
    assert len(drawn) == figures.WARM_FRAMES + figures.TIMED_FRAMES
    assert all(drawer is drawn[0] for drawer in drawn), "what frames share is worked out once"


def report(curve: Curve, stage: str, step: int, psnr: float = 20.0) -> None:
    total = next(s.steps for s in STAGES if s.name == stage)
    curve.observe(Progress(stage, step, total, values={"psnr": psnr}))


def test_a_curve_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: 2 * now[0])  # two threads
    first = Curve(tmp_path / "curve.json", STAGES)
    first.observe(StageStarted("build", 0))
    first.observe(Progress("evaluate", 3, 10))  # not training
    first.observe(StageStarted("static", 10))
    for step in (5, 10):
        now[0] += 5
        report(first, "static", step, 20 + step)
    first.observe(StageStarted("deform", 30))
    for step in (8, 16):
        now[0] += 5
        report(first, "deform", step)
    assert [point[:2] for point in first.points] == [[5, 5.0], [10, 10.0], [18, 15.0], [26, 20.0]]
    assert [point[2] for point in first.points[:2]] == [25.0, 30.0]
    # A new process goes on from a checkpoint at step 10 of the second stage, an hour later.
    now[0] += 3600
    second = Curve(tmp_path / "curve.json", STAGES)
    second.observe(StageStarted("deform", 30))
    now[0] += 2
    report(second, "deform", 12)
    now[0] += 2
    report(second, "deform", 30)
    assert [point[:2] for point in second.points] == [
        [5, 5.0],
        [10, 10.0],
        [18, 15.0],
        [22, 17.0],
        [40, 19.0],
    ]
    assert Curve(tmp_path / "curve.json", STAGES).points == second.points
    assert second.peak_memory_mb > 50 and (first.cpu_s, second.cpu_s) == (40.0, 48.0)


def test_a_curve_is_thin_and_ends_with_the_stage(tmp_path: Path) -> None:
    stages = (Stage("deform", 3000),)
    curve = Curve(tmp_path / "curve.json", stages)
    curve.observe(StageStarted("deform", 3000))
    for step in range(1, 3001):
        curve.observe(Progress("deform", step, 3000, values={"psnr": 1.0}))
    assert 55 < len(curve.points) < 65 and curve.points[-1][0] == 3000


def table_of(*names: str) -> dict:
    def result(seed: int, height: float) -> dict:
        return {
            "commit": "abc",
            "machine": {"processor": "P", "gpu": ""},
            "metrics": {"fps": 10 * height + seed, "mouth_r": 0.1 * height + 0.01 * seed},
            "curve": [[1, 0.1, 20.0 + height], [50, 5.0 + seed, 25.0 + height], [100, 9.0, 30.0 + height]],
        }

    rows = [row(name, [result(seed, height) for seed in range(3)]) for height, name in enumerate(names)]
    return {
        "experiment": "agents", "question": "How many?", "dataset": "clip.mp4", "size": 128, "seeds": 3,
        "steps": {"static": 10, "deform": 90}, "rows": rows,
    }  # fmt: skip


def test_a_scatter_shows_every_seed_the_mean_and_the_name() -> None:
    figure = draw(table_of("cross attention", "ESAA, 1 %"), Plot("scatter", ("fps", "mouth_r")))
    assert figure is not None
    (panel,) = figure.axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("frames/s", "lips r")
    assert {text.get_text() for text in panel.texts} == {"cross attention", "ESAA, 1 %"}
    sizes = [len(points.get_offsets()) for points in panel.collections]
    assert sorted(sizes) == [1, 1, 3, 3]
    means = [points.get_offsets()[0] for points in panel.collections if len(points.get_offsets()) == 1]
    np.testing.assert_allclose(means, [[1.0, 0.01], [11.0, 0.11]])


def test_dots_have_a_panel_for_each_figure_there_is() -> None:
    figure = draw(table_of("a", "b", "c"), Plot("dots", ("mouth_r", "lpips", "fps")))
    assert figure is not None
    assert [panel.get_xlabel() for panel in figure.axes] == ["lips r", "frames/s"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]


def test_curves_are_means_over_steps_and_seeds_over_seconds() -> None:
    figure = draw(table_of("MLP", "KAN"), Plot("curves"))
    assert figure is not None
    steps, seconds = figure.axes
    assert (steps.get_xlabel(), seconds.get_xlabel()) == ("step", "seconds of training")
    mlp, kan = steps.get_lines()
    assert kan.get_label() == "KAN"
    np.testing.assert_allclose(np.asarray(kan.get_ydata()) - np.asarray(mlp.get_ydata()), 1.0)
    assert (mlp.get_xdata()[0], mlp.get_xdata()[-1], mlp.get_ydata()[-1]) == (1, 100, 30.0)
    assert len(seconds.get_lines()) == 6, "every seed alone"
    assert list(seconds.get_lines()[2].get_xdata()) == [0.1, 7.0, 9.0]


def test_nothing_to_draw_leaves_no_file(tmp_path: Path) -> None:
    table = table_of("a")
    assert write_plot(tmp_path / "plot.png", table, Plot("dots", ("lpips",))) is False
    assert write_plot(tmp_path / "plot.png", table, Plot("scatter", ("fps", "lpips"))) is False
    for found in table["rows"]:
        found["curves"] = []
    assert write_plot(tmp_path / "plot.png", table, Plot("curves")) is False
    assert not (tmp_path / "plot.png").exists()
    assert write_plot(tmp_path / "plot.png", table, Plot("dots", ("fps",)))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_sources_are_other_people_or_parts_of_the_clip(dataset: TalkingHeadDataset, tmp_path: Path) -> None:
    own = sources(dataset, ())
    assert [source.name for source in own] == ["own voice, held out", "own voice, start", "own voice, middle"]
    for source, start in zip(own, (dataset.n_train, 0, dataset.n_train // 2), strict=True):
        assert source.opening is not None
        np.testing.assert_array_equal(source.opening[:5], dataset.mouth_open[start : start + 5])
        assert len(source.waveform) == len(source.opening) * SAMPLE_RATE // FPS
    long = np.random.default_rng(0).standard_normal(20 * SAMPLE_RATE).astype(np.float32) * 0.1
    save_wav(tmp_path / "aunt.wav", long)
    held_out, aunt, prepared = sources(dataset, [tmp_path / "aunt.wav", dataset.root])
    assert (held_out.name, aunt.name, prepared.name) == ("own voice, held out", "aunt", "tiny")
    assert aunt.opening is None and len(aunt.waveform) == SECONDS * SAMPLE_RATE
    assert prepared.opening is not None and len(prepared.opening) == len(dataset)
    with pytest.raises(ConfigError):
        sources(dataset, [tmp_path / "aunt.wav", tmp_path / "aunt.wav"])


def test_the_probe_hears_how_far_lips_open(dataset: TalkingHeadDataset) -> None:
    avatar, _ = tiny_avatar(dataset)
    probe = Probe(dataset, replace(avatar.config.motion, dim=1))
    source = sources(dataset, ())[0]
    predicted = probe(source.speech)
    assert predicted.shape == (8,)
    whole = Source("all", dataset.waveform)
    assert np.corrcoef(probe(whole.speech)[:88], dataset.mouth_open)[0, 1] > 0.8


def test_lips_are_compared_with_the_sound_and_with_another_moment_of_it(
    dataset: TalkingHeadDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from talker.train.ablation import speakers

    n = 60
    opening = 0.2 + 0.1 * np.sin(np.arange(n) / 3.0) * np.linspace(0.2, 1, n)
    landmarks = np.zeros((n, 478, 3), np.float32)
    landmarks[:, 263, 0] = 1.0  # the eye corners, a unit apart
    landmarks[:, 14, 1] = opening
    monkeypatch.setattr(speakers, "drive", lambda avatar, speech: iter(range(n)))
    monkeypatch.setattr(speakers, "find_landmarks", lambda frames, segment: iter(landmarks))
    true = np.r_[opening, [0.3, 0.3]]
    true[4] = np.nan
    source = Source("x", np.zeros(n * SAMPLE_RATE // FPS, np.float32), true)
    found = listening_figures(tiny_avatar(dataset)[0], source, 2 * opening - 1)
    assert found["probe_r"] == 1.0 and found["own_lips_r"] == 1.0 and found["probe_own_lips_r"] == 1.0
    assert found["probe_r_swapped"] < 0.9
    recording = replace(source, opening=None)
    assert set(listening_figures(tiny_avatar(dataset)[0], recording, opening)) == {
        "probe_r",
        "probe_r_swapped",
    }
