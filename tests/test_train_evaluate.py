"""Measuring: series and files are those of the very frames the figures come from, and what is missing is said."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from core_support import stir, tiny_avatar
from PIL import Image
from syncnet_support import save_weights

from talker import metrics
from talker.card import AvatarCard
from talker.checkpoint import save_avatar
from talker.cli import main
from talker.dataset.reader import TalkingHeadDataset
from talker.drive import drive
from talker.errors import CheckpointError, ConfigError
from talker.events import Evaluated, Event, FrameSeries, Note
from talker.model.avatar import Avatar
from talker.provenance import inspect, label_visible, new_consent
from talker.train import controls, lip_sync
from talker.train import evaluate as module
from talker.train.comparison import comparison
from talker.train.evaluate import EvaluateConfig, evaluate
from talker.types import FPS, SAMPLE_RATE
from talker.video.decode import decode

LIKE_A_FACE = 0.3
"""Pixels of noise on the landmarks of the stand-in tracker."""


@pytest.fixture(scope="module")
def avatar(dataset: TalkingHeadDataset) -> Avatar:
    return stir(tiny_avatar(dataset)[0]).eval()


@pytest.fixture(autouse=True)
def tracker(dataset: TalkingHeadDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The speaker of the tests is too plain for a real face tracker: this one knows where the mesh is."""
    rng = np.random.default_rng(0)

    def find(frames: Iterable[np.ndarray], segment: np.ndarray) -> Iterator[np.ndarray]:
        for index, _ in enumerate(zip(frames, segment, strict=True)):
            known = dataset.landmarks[dataset.n_train + index % (dataset.n_frames - dataset.n_train)]
            yield known + rng.normal(0, LIKE_A_FACE, known.shape).astype(np.float32)

    monkeypatch.setattr(module, "find_landmarks", find)
    monkeypatch.setattr(controls, "find_landmarks", find)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("syncnet") / "random.model")


def measured(events: Iterable[Event]) -> tuple[Evaluated, list[str]]:
    seen = list(events)
    assert isinstance(seen[-1], Evaluated)
    return seen[-1], [event.message for event in seen if isinstance(event, Note)]


def series_of(result: Evaluated) -> FrameSeries:
    assert result.series is not None
    return result.series


def test_series_are_what_the_figures_are_means_of(dataset: TalkingHeadDataset, avatar: Avatar) -> None:
    result, _ = measured(evaluate(avatar, dataset, EvaluateConfig()))
    series, figures = series_of(result), result.metrics
    n = dataset.n_frames - dataset.n_train
    assert len(series) == n == figures["frames"] and series.first_frame == dataset.n_train
    assert all(len(v) == n for v in vars(series).values() if isinstance(v, np.ndarray))
    assert figures["psnr"] == pytest.approx(series.psnr.mean(), abs=1e-4)
    assert figures["psnr_mouth"] == pytest.approx(series.psnr_mouth.mean(), abs=1e-4)
    follows = metrics.correlation_with_lag
    assert figures["mouth_r"] == pytest.approx(follows(series.mouth, series.mouth_truth).r0, abs=1e-4)
    assert series.mouth_swapped is not None and series.mouth_true_motion is not None
    for name, opening in (("swapped", series.mouth_swapped), ("true_motion", series.mouth_true_motion)):
        assert figures[f"mouth_r_{name}"] == pytest.approx(follows(opening, series.mouth_truth).r0, abs=1e-4)
    rms = np.sqrt(np.nanmean(series.jitter**2))
    assert figures["jitter_px"] == pytest.approx(rms, abs=1e-4)
    assert not np.array_equal(series.eyes, series.eyes_truth)


def test_figures_as_tracked_are_of_frames_drawn_with_the_poses_as_tracked(
    dataset: TalkingHeadDataset, avatar: Avatar
) -> None:
    figures = measured(evaluate(avatar, dataset, EvaluateConfig()))[0].metrics
    start, n = dataset.n_train, dataset.n_frames - dataset.n_train
    heard = dataset.waveform[round((start + figures["av_offset_frames"]) * SAMPLE_RATE / FPS) :]
    frames = drive(avatar, controls.exact_sound(heard, n), track=dataset.track[start:])
    true = (dataset.frames[start + k] for k in range(n))
    psnr = [metrics.psnr(frame, np.asarray(real)) for frame, real in zip(frames, true, strict=True)]
    assert figures["psnr_as_tracked"] == pytest.approx(np.mean(psnr), abs=1e-4) != figures["psnr"]
    # The stand-in tracker finds the same trembling in every take; what rigid alignment takes out is left in here.
    assert figures["head_jitter_px"] > figures["jitter_px"]
    for name in ("head_jitter_px_truth", "head_jitter_px_as_tracked"):
        assert figures[name] == pytest.approx(figures["head_jitter_px"], rel=0.3)


def test_frames_without_a_tracked_face_have_no_picture_figures(
    dataset: TalkingHeadDataset, avatar: Avatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = dataset.valid.copy()
    valid[dataset.n_train + 2] = False
    monkeypatch.setattr(dataset, "valid", valid)
    result, _ = measured(evaluate(avatar, dataset, EvaluateConfig(controls=False)))
    series = series_of(result)
    assert np.flatnonzero(np.isnan(series.psnr)).tolist() == [2]
    assert result.metrics["psnr"] == pytest.approx(np.nanmean(series.psnr), abs=1e-4)
    assert series.mouth_swapped is None and series.mouth_true_motion is None
    plain = series.to_dict()
    assert plain["psnr"][2] is None and "mouth_swapped" not in plain  # type: ignore[index]
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_video_gets_the_measured_frames_and_draws_none_anew(
    dataset: TalkingHeadDataset, avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, pairs = [], []

    def counted(*args, **kwargs):
        calls.append(1)
        return drive(*args, **kwargs)

    @contextmanager
    def watched(*args, **kwargs):
        with comparison(*args, **kwargs) as write:
            yield lambda index, *pair: (pairs.append(pair), write(index, *pair))

    monkeypatch.setattr(module, "drive", counted)
    monkeypatch.setattr(module, "comparison", watched)
    config = EvaluateConfig(frames_dir=tmp_path / "png", video=tmp_path / "v.mp4", controls=False)
    result, _ = measured(evaluate(avatar, dataset, config))
    assert len(calls) == 1, "one rendering"
    assert len(pairs) == len(series_of(result)) == 8
    for t, (truth, frame) in enumerate(pairs):
        np.testing.assert_array_equal(truth, dataset.frames[dataset.n_train + t])
        np.testing.assert_array_equal(frame, Image.open(tmp_path / "png" / f"{t:05d}.png"))
        assert metrics.psnr(frame, truth) == series_of(result).psnr[t], "the frame that was measured"
    clip = decode(tmp_path / "v.mp4", tmp_path / "raw")
    assert len(clip) == 8 and label_visible(np.asarray(clip.frames[0])[: dataset.size, dataset.size :])
    assert clip.waveform is not None
    heard = clip.waveform[: 8 * 640]
    spoken = dataset.waveform[dataset.n_train * 640 :][: len(heard)]
    assert np.corrcoef(heard, spoken)[0, 1] > 0.9, "the sound of the held-out part"


def test_what_could_not_be_measured_is_said(
    dataset: TalkingHeadDataset, avatar: Avatar, weights: Path
) -> None:
    result, notes = measured(evaluate(avatar, dataset, EvaluateConfig(controls=False)))
    assert any("LSE-C and LSE-D are unavailable" in note and "--syncnet" in note for note in notes)
    assert not [name for name in result.metrics if name.startswith("lse")]
    result, notes = measured(evaluate(avatar, dataset, EvaluateConfig(controls=False, syncnet=weights)))
    assert any("8 held-out frames are too few" in note and "36" in note for note in notes)
    assert not [name for name in result.metrics if name.startswith("lse")]


def test_lse_comes_with_the_truth_and_other_sound_beside_it(
    dataset: TalkingHeadDataset, avatar: Avatar, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_FRAMES", 8)
    runs = [measured(evaluate(avatar, dataset, EvaluateConfig(syncnet=weights))) for _ in range(2)]
    first, second = (run[0].metrics for run in runs)
    names = {name for name in first if name.startswith("lse")}
    assert names == {
        "lse_c", "lse_d", "lse_offset_frames", "lse_c_truth", "lse_d_truth", "lse_offset_frames_truth",
        "lse_c_swapped", "lse_d_swapped",
    }  # fmt: skip
    assert {n: first[n] for n in names} == {n: second[n] for n in names}
    assert first["lse_d"] != first["lse_d_truth"] and first["lse_d"] > 0 <= first["lse_c"]
    assert not any("LSE" in note for note in runs[0][1])
    assert lip_sync.MIN_FRAMES == 36


def test_bad_wishes_end_before_anything_is_rendered(
    dataset: TalkingHeadDataset, avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as wrong:
        EvaluateConfig(video=tmp_path / "side.gif")
    assert wrong.value.code == "evaluate.video" and "side.gif" in wrong.value.found
    with pytest.raises(ConfigError, match="'C'"):
        EvaluateConfig(protocol="C")
    monkeypatch.setattr(module, "drive", None)
    events = evaluate(avatar, dataset, EvaluateConfig(syncnet=tmp_path / "none.model"))
    with pytest.raises(CheckpointError, match=re.escape("none.model")):
        next(events)


def test_a_stopped_measurement_leaves_no_video(
    dataset: TalkingHeadDataset, avatar: Avatar, tmp_path: Path
) -> None:
    events = evaluate(avatar, dataset, EvaluateConfig(video=tmp_path / "v.mp4"))
    for _ in range(4):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_the_command_writes_everything_beside_its_table(
    dataset: TalkingHeadDataset, avatar: Avatar, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    card = AvatarCard(
        name="Zoë",
        created="2026-11-20T12:00:00+00:00",
        preset="preview",
        size=dataset.size,
        n_gaussians=avatar.n_gaussians,
        audio_encoder=avatar.audio_encoder,
        consent=dataclasses.asdict(new_consent("nobody")),
    )
    save_avatar(avatar, tmp_path / "zoe", card)
    written = [str(tmp_path / name) for name in ("report.json", "side.mp4", "curves")]
    options = ["--json", written[0], "--video", written[1], "--plots", written[2]]
    assert main(["evaluate", str(tmp_path / "zoe"), "--data", str(dataset.root), *options]) == 0
    said, noted = capsys.readouterr()
    assert "zoe, held-out frames, protocol B" in said and "psnr_mouth" in said and "side.mp4" in said
    assert "LSE-C and LSE-D are unavailable" in noted and "protocol B" not in noted
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"avatar", "protocol", "metrics", "series"}
    assert (report["avatar"], report["protocol"]) == ("zoe", "B") and report["metrics"]["frames"] == 8
    assert len(report["series"]["psnr"]) == 8 and report["series"]["first_frame"] == dataset.n_train
    assert len(list((tmp_path / "curves").glob("*.png"))) == 4
    assert inspect(tmp_path / "side.mp4")["c2pa"]["intact"]
