"""How much the features know about the lips: a linear probe from 400 ms of sound to mouth opening, on real footage."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from talker.audio.features import get_encoder
from talker.audio.windows import windows
from talker.video.decode import decode

CLIPS = Path(os.environ.get("TALKER_CLIPS", Path(__file__).parents[2] / "shared" / "clips"))
FOLDS, RIDGE = 11, 1000.0


def mouth_opening(frames: np.ndarray) -> np.ndarray:
    """[T] inner-lip gap over the distance of the outer eye corners."""
    import mediapipe

    rows = []
    with mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True, max_num_faces=1) as mesh:
        for frame in frames:
            marks = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks[0].landmark
            points = np.array([(marks[k].x, marks[k].y) for k in (13, 14, 33, 263)]) * frame.shape[1::-1]
            gaps = np.linalg.norm(points[::2] - points[1::2], axis=1)
            rows.append(gaps[0] / gaps[1])
    return np.array(rows)


def ridge(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Dual ridge regression on standardised columns."""
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-3
    x, x_new = (x - mean) / scale, (x_new - mean) / scale
    weights = np.linalg.solve(x @ x.T + RIDGE * np.eye(len(x)), y - y.mean())
    return x_new @ (x.T @ weights) + y.mean()


@pytest.mark.real
def test_features_predict_the_mouth(tmp_path: Path, record_property) -> None:
    path = CLIPS / "selfie_en_full24s.mp4"
    if not path.exists():
        pytest.skip(f"no {path.name} in TALKER_CLIPS")
    clip = decode(path, tmp_path)
    assert clip.waveform is not None
    opening = mouth_opening(clip.frames)
    fold = np.arange(len(opening)) * FOLDS // len(opening)
    found = {}
    for name in ("mel", "phones", "mel+phones", "mel+moonshine"):
        x = windows(get_encoder(name).encode(clip.waveform), len(opening)).reshape(len(opening), -1)
        predicted = np.empty_like(opening)
        for k in range(FOLDS):
            predicted[fold == k] = ridge(x[fold != k], opening[fold != k], x[fold == k])
        found[name] = float(np.corrcoef(predicted, opening)[0, 1])
        record_property(f"r {name}", round(found[name], 3))
    assert found["mel"] > 0.5
    assert found["phones"] > 0.58
    assert found["mel+phones"] > max(0.62, found["mel"])
    assert found["mel+moonshine"] > found["mel+phones"] + 0.02
