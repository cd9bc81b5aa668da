"""The synthetic speaker: what it says about itself is what can be measured in its pictures and its sound."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from talker.dataset.sample import RIGID_LANDMARKS, SampleTruth, make_sample
from talker.dataset.synthetic.character import Character
from talker.dataset.synthetic.head import Face, mouth_gap
from talker.dataset.synthetic.performance import camera_matrix, lips, perform
from talker.dataset.synthetic.raster import Mesh, rasterize
from talker.errors import ConfigError
from talker.types import FPS, SAMPLE_RATE
from talker.video.decode import decode

SECONDS, SIZE = 6, 256
# Forehead, bridge of the nose, temples and cheekbones of the face mesh: no expression moves them.
STILL = (
    10,
    151,
    9,
    8,
    168,
    6,
    197,
    109,
    338,
    67,
    297,
    103,
    332,
    54,
    284,
    133,
    362,
    33,
    263,
    116,
    345,
    123,
    352,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[Path, SampleTruth]:
    out = tmp_path_factory.mktemp("sample") / "speaker.mp4"
    return out, make_sample(out, seconds=SECONDS, size=SIZE, truth=out.with_suffix(".npz"))


@pytest.fixture(scope="module")
def decoded(clip, tmp_path_factory):
    return decode(clip[0], tmp_path_factory.mktemp("decoded"))


@pytest.fixture(scope="module")
def landmarks(decoded) -> np.ndarray:
    """[T, 478, 2] pixels, NaN where no face was found."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    rows = []
    with FaceMesh(refine_landmarks=True, max_num_faces=1) as mesh:
        for frame in decoded.frames:
            found = mesh.process(np.ascontiguousarray(frame))
            faces = found.multi_face_landmarks  # pyright: ignore[reportAttributeAccessIssue]
            points = [[p.x, p.y] for p in faces[0].landmark] if faces else np.full((478, 2), np.nan)
            rows.append(np.array(points) * SIZE)
    return np.stack(rows)


def distance(landmarks: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1)


def project(K: np.ndarray, T: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[T, P, 2] pixels of head-frame points [P, 3]."""
    in_camera = np.einsum("tij,pj->tpi", T[:, :3, :3], points) + T[:, None, :3, 3]
    return in_camera[..., :2] / in_camera[..., 2:] * np.diag(K)[:2] + K[:2, 2]


def test_clip_has_the_frames_and_the_sound_it_promises(clip, decoded) -> None:
    _, truth = clip
    assert decoded.frames.shape == (SECONDS * FPS, SIZE, SIZE, 3)
    assert len(decoded.waveform) == pytest.approx(SECONDS * SAMPLE_RATE, abs=SAMPLE_RATE * 0.1)
    jaw, _, _ = lips(decoded.waveform, SECONDS * FPS)
    # The encoded sound gives the same mouth: picture and sound are in step.
    assert np.corrcoef(jaw, truth.mouth_open)[0, 1] > 0.97
    late = [np.corrcoef(np.roll(jaw, lag), truth.mouth_open)[0, 1] for lag in (-2, 0, 2)]
    assert late[1] == max(late)


def test_truth_survives_saving(clip) -> None:
    path, truth = clip
    stored = SampleTruth.load(path.with_suffix(".npz"))
    for field in fields(SampleTruth):
        np.testing.assert_array_equal(getattr(stored, field.name), getattr(truth, field.name))
    n = SECONDS * FPS
    assert truth.K.shape == (3, 3) and truth.T_cam_head.shape == truth.T_cam_torso.shape == (n, 4, 4)
    assert truth.mouth_open.shape == truth.blink.shape == truth.brow.shape == (n,)
    R = truth.T_cam_head[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (n, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(truth.T_cam_torso[0], truth.T_cam_head[0], atol=1e-9)
    assert np.abs(truth.T_cam_torso - truth.T_cam_head).max() > 0.02


def test_face_is_found_in_every_frame(landmarks) -> None:
    assert np.isfinite(landmarks[:, 0, 0]).mean() >= 0.99


def test_measured_mouth_follows_truth(clip, landmarks) -> None:
    gap = distance(landmarks, 13, 14) / distance(landmarks, 33, 263)
    truth = clip[1].mouth_open
    assert np.corrcoef(gap, truth)[0, 1] >= 0.95
    assert truth.max() > 0.2
    assert np.abs(gap - truth).mean() < 0.03
    assert gap[truth < 0.002].max() < 0.05


def test_blinks_can_be_measured(clip, landmarks) -> None:
    eye = (distance(landmarks, 159, 145) + distance(landmarks, 386, 374)) / distance(landmarks, 33, 263) / 2
    blink = clip[1].blink
    is_open = np.median(eye[blink == 0])
    assert (blink >= 0.9).any()
    assert eye[blink >= 0.9].max() < 0.5 * is_open
    assert eye[blink == 0].min() > 0.75 * is_open


def test_landmarks_move_as_the_true_pose_says(clip, landmarks) -> None:
    """Points picked on the true surface, carried by the true poses, stay on the landmarks."""
    truth = clip[1]
    person = Character(0, SIZE)
    picked = [surface_points(person, truth, t, landmarks[t, STILL]) for t in range(0, len(landmarks), 8)]
    points = np.mean(picked, 0)
    error = np.linalg.norm(project(truth.K, truth.T_cam_head, points) - landmarks[:, STILL], axis=-1)
    assert np.median(error) < 0.8
    assert np.percentile(error, 95) < 2.0
    measured = []
    for seen in np.ascontiguousarray(landmarks[:, STILL]):
        ok, rotation, _ = cv2.solvePnP(points, seen, truth.K, np.zeros(4), flags=cv2.SOLVEPNP_SQPNP)
        assert ok
        measured.append(cv2.Rodrigues(rotation)[0])
    true = angles(truth.T_cam_head[:, :3, :3])
    off = angles(np.stack(measured)) - true
    # The tracker's own noise is largest about the x axis.
    assert (off.std(0) < (3.5, 1.5, 0.8)).all()
    assert np.corrcoef(off[:, 1] + true[:, 1], true[:, 1])[0, 1] > 0.95
    assert (np.ptp(true, axis=0) > (3, 5, 2)).all()


def angles(R: np.ndarray) -> np.ndarray:
    """Rotation vectors [T, 3] in degrees of [T, 3, 3]."""
    return np.degrees([cv2.Rodrigues(r)[0][:, 0] for r in R])


def surface_points(person: Character, truth: SampleTruth, t: int, pixels: np.ndarray) -> np.ndarray:
    """Head-frame points [P, 3] of the closed face seen at [P, 2] pixels in frame ``t``."""
    shape = person.shape
    grid = shape.points.reshape(-1, 3)
    image = project(truth.K, truth.T_cam_head[t : t + 1], grid)[0]
    facing = (shape.normals.reshape(-1, 3) @ truth.T_cam_head[t, :3, :3].T)[:, 2] < 0
    found = []
    for pixel in pixels:
        off = np.where(facing, np.linalg.norm(image - pixel, axis=1), np.inf)
        nearest = np.argsort(off)[:4]
        weight = 1 / (off[nearest] + 1e-3)
        found.append((grid[nearest] * weight[:, None]).sum(0) / weight.sum())
    return np.stack(found)


def test_rigid_points_are_where_the_tracker_sees_them(clip, landmarks) -> None:
    truth = clip[1]
    assert truth.rigid_points.shape == (len(RIGID_LANDMARKS), 3)
    outer = [RIGID_LANDMARKS.index(i) for i in (33, 263)]
    apart = np.linalg.norm(np.subtract(*truth.rigid_points[outer]))
    assert apart == pytest.approx(1, abs=0.03)  # the head unit
    error = project(truth.K, truth.T_cam_head, truth.rigid_points) - landmarks[:, RIGID_LANDMARKS]
    assert np.abs(error.mean(0)).max() < 5
    assert error.std(0).max() < 1.5


def test_same_seed_same_frames_other_seed_other_person() -> None:
    T = np.eye(4)
    T[:3, 3] = 0, -0.4, 10.8
    K = camera_matrix(128)
    face = Face(jaw=0.4, blink=(0.3, 0.3))
    first, again, other = (Character(seed, 128).draw(face, K, T, T) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 10
    sound = np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE).astype(np.float32) * 0.1
    a, b, c = (perform(sound, 75, seed) for seed in (3, 3, 4))
    for field in fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))
    assert np.abs(a.T_cam_head - c.T_cam_head).max() > 0.01


def vowel(first: float, second: float) -> np.ndarray:
    """One second of harmonics of 120 Hz under two formants."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    hertz = 120.0 * np.arange(1, 40)
    gain = np.exp(-0.5 * ((hertz - first) / 110) ** 2) + np.exp(-0.5 * ((hertz - second) / 110) ** 2) + 0.002
    wave = (gain[:, None] * np.sin(2 * np.pi * hertz[:, None] * time)).sum(0)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def test_open_vowels_open_and_murmurs_and_silence_close() -> None:
    pause = np.zeros(SAMPLE_RATE, np.float32)
    sounds = {"a": vowel(780, 1250), "i": vowel(280, 2300), "u": vowel(300, 700), "m": vowel(220, 240)}
    waveform = np.concatenate([piece for sound in sounds.values() for piece in (sound, pause)])
    jaw, spread, _ = lips(waveform, 8 * FPS)
    middle = {name: slice((2 * i) * FPS + 8, (2 * i + 1) * FPS - 8) for i, name in enumerate(sounds)}
    opening = {name: jaw[at].mean() for name, at in middle.items()}
    assert opening["a"] > 0.6 and 0.4 > opening["i"] > opening["m"]
    assert opening["a"] > opening["u"] and opening["m"] < 0.03
    assert spread[middle["i"]].mean() > 0.3 and spread[middle["u"]].mean() < -0.1
    for i in range(len(sounds)):
        assert jaw[(2 * i + 1) * FPS + 5 : (2 * i + 2) * FPS - 5].max() < 0.01
    assert lips(np.zeros(2 * SAMPLE_RATE, np.float32), 50)[0].max() == 0
    shape = Character(0, 128).shape
    assert mouth_gap(shape, Face()) == 0
    assert mouth_gap(shape, Face(jaw=0.5)) > 0.1 > mouth_gap(shape, Face(jaw=0.2)) > 0.02


def test_blinks_and_motion_are_natural() -> None:
    n = 120 * FPS
    performance = perform(np.zeros(n * SAMPLE_RATE // FPS, np.float32), n, 7)
    closing = np.flatnonzero(np.diff((performance.blink > 0).astype(int)) == 1)
    lasts = np.flatnonzero(np.diff((performance.blink > 0).astype(int)) == -1) - closing
    apart = np.diff(closing) / FPS
    assert set(lasts) <= {4, 5, 6} and apart.min() >= 3 and apart.max() <= 5
    R = performance.T_cam_head[:, :3, :3]
    step = np.degrees(np.arccos(np.clip((np.einsum("tij,tij->t", R[1:], R[:-1]) - 1) / 2, -1, 1)))
    turned = np.degrees(np.arccos(np.clip(R[:, 2, 2], -1, 1)))
    assert step.max() < 1.5 and 3 < turned.max() < 20
    head, body = performance.T_cam_head[:, :3, 3], performance.T_cam_body[:, :3, 3]
    assert (body - body.mean(0)).std() > 0.005
    assert np.abs(np.corrcoef(head[:, 1] - body[:, 1], body[:, 1])[0, 1]) < 0.9


def test_rasteriser_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    size, count = 48, 60
    centre = rng.uniform(-5, 53, (count, 1, 2))
    xy = (centre + rng.uniform(-14, 14, (count, 3, 2)) * rng.uniform(0.05, 1, (count, 1, 1))).reshape(-1, 2)
    xy = xy.astype(np.float32)
    depth = rng.uniform(1, 2, 3 * count).astype(np.float32)
    uv = rng.uniform(0, 7, (3 * count, 2)).astype(np.float32)
    corner = np.arange(3 * count, dtype=np.int32).reshape(count, 3).T
    cut = np.full((8, 8), 255, np.uint8)
    cut[3] = 0
    two_sided = np.arange(count) % 2 == 0
    mesh = Mesh((corner[0], corner[1], corner[2]), uv, two_sided, np.ones(count, bool), cut, 1.0)
    seen = rasterize(mesh, xy, depth, size)
    picture = np.full((size * size, 2), -1.0)
    picture[seen.pixel] = seen.uv
    expected, best = np.full((size, size, 2), -1.0), np.full((size, size), np.inf)
    margin = np.full(
        (size, size), np.inf
    )  # how clear each decision is: pixels near an edge may go either way
    for t in range(count):
        a, b, c = xy[3 * t : 3 * t + 3].astype(float)
        area = np.cross(b - a, c - a)
        if area < 0 and not two_sided[t]:
            continue
        for row, column in np.ndindex(size, size):
            p = np.array([column + 0.5, row + 0.5])
            l0, l1 = np.cross(b - p, c - p) / area, np.cross(c - p, a - p) / area
            weights = np.array([l0, l1, 1 - l0 - l1])
            margin[row, column] = min(margin[row, column], abs(weights.min()))
            if weights.min() < 0:
                continue
            at, z = weights @ uv[3 * t : 3 * t + 3], weights @ depth[3 * t : 3 * t + 3]
            margin[row, column] = min(margin[row, column], np.abs(at[1] - np.array([3, 4])).min())
            if cut[int(at[1]), int(at[0])] and z < best[row, column]:
                best[row, column], expected[row, column] = z, at
    clear = margin > 1e-3
    assert clear.mean() > 0.95 and (expected[clear] >= 0).any() and (expected[clear] < 0).any()
    np.testing.assert_allclose(picture.reshape(size, size, 2)[clear], expected[clear], atol=1e-3)


def test_given_text_is_spoken_and_then_silence(tmp_path) -> None:
    truth = make_sample(tmp_path / "short.mp4", seconds=3, size=128, text="Papa.")
    assert truth.mouth_open[: 2 * FPS].max() > 0.1
    assert truth.mouth_open[2 * FPS :].max() < 0.005


@pytest.mark.parametrize("wrong", [{"seconds": 0.2}, {"size": 64}, {"size": 257}])
def test_impossible_wishes_are_refused_in_words(tmp_path, wrong) -> None:
    with pytest.raises(ConfigError, match=r"expected|1 to 600"):
        make_sample(tmp_path / "x.mp4", **wrong)
