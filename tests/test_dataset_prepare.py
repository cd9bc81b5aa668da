"""From a film of the synthetic speaker to a dataset: true poses, promised shapes, resumable, clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_support import SECONDS, SIZE, film, noise, speaker, speaker_arrays
from media_support import tone

from benchmarks.bench_pose import angles_off, reprojection
from talker.dataset import schema
from talker.dataset.pipeline import STEPS
from talker.dataset.prepare import PrepareConfig, prepare
from talker.dataset.reader import TalkingHeadDataset
from talker.errors import DatasetError, TrackingError, VideoError
from talker.events import Event, Finished, StageStarted
from talker.types import EXPRESSION_DIM, FPS, SAMPLE_RATE

CONFIG = PrepareConfig(size=SIZE)


def stages(events: list[Event]) -> list[str]:
    return [e.stage.removeprefix("prepare/") for e in events if isinstance(e, StageStarted)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, list[Event], list[Event]]:
    """The dataset, made in two runs of which the first was interrupted when poses had begun."""
    out = tmp_path_factory.mktemp("prepare") / "data"
    first: list[Event] = []
    running = prepare(speaker()[0], out, CONFIG)
    for event in running:
        first.append(event)
        if isinstance(event, StageStarted) and event.stage == "prepare/pose":
            running.close()  # type: ignore[attr-defined]
            break
    with pytest.raises(DatasetError) as caught:
        TalkingHeadDataset(out)
    assert caught.value.code == "dataset.incomplete"
    return out, first, list(prepare(speaker()[0], out, CONFIG))


@pytest.fixture(scope="module")
def dataset(runs) -> TalkingHeadDataset:
    return TalkingHeadDataset(runs[0])


def test_an_interrupted_run_goes_on_where_it_was(runs) -> None:
    out, first, second = runs
    names = [step.name for step in STEPS]
    at = names.index("pose")
    assert stages(first) == names[: at + 1]
    assert stages(second) == names[at:]
    assert isinstance(second[-1], Finished)
    assert not (out / schema.WORK).exists()
    assert not list(out.rglob("*part*"))


def test_a_finished_dataset_is_left_alone(runs) -> None:
    out = runs[0]
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    events = list(prepare(speaker()[0], out, CONFIG))
    assert len(events) == 1 and isinstance(events[0], Finished)
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before


def test_shapes(dataset) -> None:
    n = round(SECONDS * FPS)
    assert len(dataset) == dataset.n_frames == n and dataset.size == SIZE and dataset.fps == FPS
    assert dataset.n_train == n - n // 11
    expected = {
        "frames": ((n, SIZE, SIZE, 3), np.uint8),
        "masks": ((n, SIZE, SIZE), np.uint8),
        "landmarks": ((n, 478, 3), np.float32),
        "expression": ((n, EXPRESSION_DIM), np.float32),
        "mouth_open": ((n,), np.float32),
        "valid": ((n,), np.bool_),
        "segment": ((n,), np.int32),
        "plate": ((SIZE, SIZE, 3), np.uint8),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(dataset, name)
        assert array.shape == shape and array.dtype == dtype, name
    assert dataset.T_cam_head.shape == dataset.T_cam_torso.shape == (n, 4, 4)
    assert dataset.shape.shape == (478, 3) and dataset.K.shape == (3, 3)
    assert len(dataset.waveform) == pytest.approx(n * SAMPLE_RATE // FPS, abs=SAMPLE_RATE // FPS)
    points = len(dataset.cloud.means)
    assert points > 1000
    for name in ("means", "colors", "normals"):
        assert getattr(dataset.cloud, name).shape == (points, 3), name
    assert set(dataset.train_indices()) & set(dataset.held_out_indices()) == set()
    assert len(dataset.train_indices()) + len(dataset.held_out_indices()) == dataset.valid.sum()


def test_the_torso_is_described_in_the_reference_frame(dataset) -> None:
    at = dataset.reference
    assert at < dataset.n_train
    np.testing.assert_allclose(dataset.T_cam_torso[at], dataset.T_cam_head[at], atol=1e-4)


def test_head_poses_are_the_true_ones(dataset) -> None:
    true = speaker()[1].T_cam_head[dataset.valid]
    error = angles_off(dataset.T_cam_head[dataset.valid][:, :3, :3], true[:, :3, :3])
    moved = angles_off(np.repeat(true[:1, :3, :3], len(true), axis=0), true[:, :3, :3])
    assert np.median(moved) > 1.0, "a head that keeps still would prove nothing"
    assert np.median(error) < 1.0


def test_the_fitted_face_is_projected_onto_its_landmarks(dataset) -> None:
    assert dataset.valid.mean() > 0.9
    assert np.median(reprojection(dataset)) < 1.5


def test_mouth_opening_follows_the_truth(dataset) -> None:
    true = speaker()[1].mouth_open[dataset.valid]
    assert np.corrcoef(dataset.mouth_open[dataset.valid], true)[0, 1] > 0.8


def test_hopeless_clips_are_refused_and_leave_no_dataset(tmp_path) -> None:
    frames, _ = speaker_arrays()
    blots = film(tmp_path / "blots.mp4", noise(60), tone(60 / FPS))
    mute = film(tmp_path / "mute.mp4", frames[:60], None)
    for clip, kind, code in (
        (blots, TrackingError, "track.no_face"),
        (mute, VideoError, "video.no_audio"),
    ):
        out = tmp_path / f"{clip.stem}.data"
        with pytest.raises(kind) as caught:
            list(prepare(clip, out, CONFIG))
        assert caught.value.code == code
        assert str(tmp_path) not in str(caught.value)
        assert not (out / schema.FRAMES).exists() and not (out / schema.CLOUD).exists()
        assert not [p for p in out.iterdir() if p.is_file() and "part" in p.name]
        with pytest.raises(DatasetError):
            TalkingHeadDataset(out)


def test_a_part_of_the_clip_is_prepared_and_known_as_such(tmp_path) -> None:
    def first_steps(**part: float | None) -> list[str]:
        running = prepare(speaker()[0], tmp_path / "data", PrepareConfig(size=SIZE, **part))  # type: ignore[arg-type]
        begun = []
        for event in running:
            begun += stages([event])
            if begun[-1:] == ["landmarks"]:
                running.close()  # type: ignore[attr-defined]
        return begun

    assert first_steps(start_s=1.0, end_s=3.4) == ["decode", "frames", "landmarks"]
    header = schema.read_header(tmp_path / "data")
    assert header["n_frames"] == 60
    assert (header["source"]["start_s"], header["source"]["end_s"]) == (1.0, 3.4)
    frames = np.load(tmp_path / "data" / schema.FRAMES)
    # The square is planned from the part alone, so the pictures are like, not the same.
    assert frames.shape == (60, SIZE, SIZE, 3)
    assert first_steps(start_s=1.0, end_s=3.4) == ["landmarks"]
    assert first_steps(start_s=1.0) == ["decode", "frames", "landmarks"], "another part is another clip"
    assert schema.read_header(tmp_path / "data")["n_frames"] == 75
