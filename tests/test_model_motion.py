"""Lips as a few numbers, and the linear model that hears them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from core_support import PAUSE, SIZE, mesh_points, motion, project_mesh

from talker.errors import ConfigError
from talker.geometry import rotvec_to_matrix
from talker.model.motion import (
    LIPS_AND_JAW,
    PRESSED,
    RIGID,
    LipCode,
    MotionConfig,
    MotionModel,
    MotionPrior,
    align_rigidly,
    opening_slope,
    rest_code,
)

K = np.array([[2.2 * SIZE, 0, SIZE / 2], [0, 2.2 * SIZE, SIZE / 2], [0, 0, 1]], np.float32)


STILL = np.zeros((1, 6), np.float32)
"""Pose of a head that does not move, for any number of frames."""


def fitted(windows: np.ndarray, codes: np.ndarray, config: MotionConfig, **given: Any) -> MotionModel:
    """A model with nothing at rest and no opening, unless given."""
    nothing = np.zeros(codes.shape[1])
    return MotionModel.fit(windows, codes, config=config, **{"rest": nothing, "slope": nothing, **given})


def faces(openings: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 3] of a still head."""
    T = np.eye(4)
    T[2, 3] = 12
    return np.stack([project_mesh(mesh_points(o, 0.0), K, T) for o in openings])


def moved(landmarks: np.ndarray, seed: int = 0, angle: float = 0.4) -> np.ndarray:
    """Every frame turned and shifted by another rigid motion."""
    rng = np.random.default_rng(seed)
    R = rotvec_to_matrix(torch.from_numpy(rng.uniform(-angle, angle, (len(landmarks), 3)))).numpy()
    return landmarks @ R.transpose(0, 2, 1) + rng.uniform(-30, 30, (len(landmarks), 1, 3))


def test_alignment_removes_every_rigid_motion() -> None:
    still = faces(np.linspace(0, 0.3, 20))
    reference = still[:, RIGID].mean(0)
    aligned = align_rigidly(moved(still), reference)
    assert np.abs(aligned - still).max() < 1e-3
    assert np.abs(aligned - moved(still)).max() > 10, "the motion was there before"


def test_alignment_never_mirrors() -> None:
    """Flat or noisy points must not be matched by a reflection, which would swap left and right."""
    still = faces(np.zeros(1))
    reference = still[0, RIGID].copy()
    mirrored = still.copy()
    mirrored[..., 2] *= -1  # a mesh that guessed the depth the wrong way round
    aligned = align_rigidly(mirrored, reference)
    left, right = aligned[0, 33, 0], aligned[0, 263, 0]
    assert left < right
    a, b = mirrored[0, RIGID], aligned[0, RIGID]
    a, b = a - a.mean(0), b - b.mean(0)
    turn = np.linalg.lstsq(a, b, rcond=None)[0]
    assert np.linalg.det(turn) > 0


def test_code_is_blind_to_head_motion_and_sees_the_lips() -> None:
    openings = 0.3 * np.abs(np.sin(np.arange(60) / 5))
    still = faces(openings)
    code = LipCode.fit(still, np.repeat(STILL, 60, 0), openings, 4)
    assert np.abs(code.encode(moved(still, angle=0.2), STILL) - code.encode(still, STILL)).max() < 1e-2
    first = code.encode(still, STILL)[:, 0]
    assert abs(np.corrcoef(first, openings)[0, 1]) > 0.99


def heads_at(n: int, seed: int = 0) -> np.ndarray:
    """Poses [n, 4, 4] of a head that shifts, comes nearer and leans sideways."""
    rng = np.random.default_rng(seed)
    T = np.repeat(np.eye(4)[None], n, 0)
    lean = np.zeros((n, 3))
    lean[:, 2] = rng.uniform(-0.2, 0.2, n)
    T[:, :3, :3] = rotvec_to_matrix(torch.from_numpy(lean)).numpy()
    T[:, :3, 3] = rng.uniform([-0.3, -0.3, 11.5], [0.3, 0.3, 12.5], (n, 3))
    return T


def test_code_by_tracked_heads_is_blind_to_where_the_head_is_and_to_its_rigid_points() -> None:
    openings = 0.3 * np.abs(np.sin(np.arange(60) / 5))
    heads, still = heads_at(60), heads_at(1)
    shown = np.stack([project_mesh(mesh_points(o, 0.0), K, T) for o, T in zip(openings, heads, strict=True)])
    calm = np.stack([project_mesh(mesh_points(o, 0.0), K, still[0]) for o in openings])
    none = np.repeat(STILL, 60, 0)
    code = LipCode.fit(shown, none, openings, 4, heads=heads, K=K)
    first = code.encode(shown, none, heads)[:, 0]
    assert abs(np.corrcoef(first, openings)[0, 1]) > 0.99
    # Perspective is left: what lies nearer moves a little more.
    assert np.abs(first - code.encode(calm, none, np.repeat(still, 60, 0))[:, 0]).max() < 0.1
    trembling = shown.copy()
    trembling[:, RIGID] += np.random.default_rng(1).normal(0, 2, (60, len(RIGID), 3))
    assert np.array_equal(code.encode(trembling, none, heads), code.encode(shown, none, heads))
    by_points = LipCode.fit(shown, none, openings, 4)
    assert not np.allclose(by_points.encode(trembling, none), by_points.encode(shown, none), atol=0.1)


def test_what_a_code_misses_is_in_pixels() -> None:
    openings = 0.3 * np.abs(np.sin(np.arange(60) / 5))
    still = faces(openings)
    none = np.repeat(STILL, 60, 0)
    code = LipCode.fit(still, none, openings, 4)
    codes = code.encode(still, none)
    assert code.missed(still, none, codes) < 1e-2
    moved_on = still.copy()
    moved_on[:, LIPS_AND_JAW, 0] += 3.0
    assert code.missed(moved_on, none, codes) == pytest.approx(3.0, abs=0.05)


def test_codes_are_standardised_and_rebuild_the_lips() -> None:
    rng = np.random.default_rng(0)
    landmarks = faces(np.full(80, 0.1))
    directions = rng.standard_normal((3, len(LIPS_AND_JAW), 2))
    weights = rng.standard_normal((80, 3)) * [3.0, 2.0, 1.0]
    landmarks[:, LIPS_AND_JAW, :2] += np.einsum("tk,kpd->tpd", weights, directions)
    code = LipCode.fit(landmarks, np.repeat(STILL, 80, 0), np.zeros(80), 3)
    encoded = code.encode(landmarks, STILL)
    assert np.allclose(encoded.mean(0), 0, atol=1e-3)
    assert np.allclose(encoded.std(0), 1, atol=1e-3)
    # Three directions went in: three numbers hold everything.
    points = (encoded * code.std) @ code.basis + code.mean
    truth = align_rigidly(landmarks, code.reference)[:, LIPS_AND_JAW, :2].reshape(80, -1)
    assert np.abs(points - truth).max() < 1e-2


def test_code_leaves_out_what_slides_with_the_head() -> None:
    """Lips that slide with the pose and open by themselves: the code is the opening, whatever the pose."""
    rng = np.random.default_rng(1)
    openings = 0.3 * np.abs(np.sin(np.arange(300) / 5))
    pose = rng.standard_normal((300, 6)).astype(np.float32)
    landmarks = faces(openings)
    slid = landmarks.copy()
    slid[:, LIPS_AND_JAW, :2] += (pose @ rng.uniform(-3, 3, (6, 2)))[:, None]
    code = LipCode.fit(slid, pose, openings, 4)
    first = code.encode(slid, pose)[:, 0]
    assert abs(np.corrcoef(first, openings)[0, 1]) > 0.97
    assert np.abs(np.corrcoef(np.c_[first, pose].T)[0, 1:]).max() < 0.25
    blind = LipCode.fit(slid, 0 * pose, openings, 4).encode(slid, 0 * pose)[:, 0]
    assert abs(np.corrcoef(blind, openings)[0, 1]) < 0.5, "without the pose, sliding is what varies most"


def test_codes_of_two_speakers_can_mean_the_same() -> None:
    """The same motion on a face of another size has the same numbers, if one code is like the other."""
    openings = 0.3 * np.abs(np.sin(np.arange(90) / 5))
    still = np.repeat(STILL, 90, 0)
    first, larger = faces(openings), 1.3 * faces(openings[::-1])
    larger[:, LIPS_AND_JAW, 0] += 4  # other lips
    one = LipCode.fit(first, still, openings, 4)
    other = LipCode.fit(larger, still, openings[::-1], 4, like=one)
    assert other.eye_distance == pytest.approx(1.3 * one.eye_distance, rel=1e-3)
    codes = one.encode(first, still), other.encode(larger, still)[::-1]
    assert np.abs(codes[0] - codes[1])[:, 0].max() < 0.02
    half = faces(0.5 * openings)
    alone, like = (
        LipCode.fit(half, still, openings, 4, like=code).encode(half, still) for code in (None, one)
    )
    assert np.ptp(alone[:, 0]) > 1.8 * np.ptp(like[:, 0]), "by itself half the motion counts as much"


def test_a_speaker_who_nods_while_opening_the_mouth_keeps_the_opening() -> None:
    openings = 0.3 * np.abs(np.sin(np.arange(300) / 5))
    pose = np.random.default_rng(2).standard_normal((300, 6)).astype(np.float32)
    pose[:, 0] += (openings - openings.mean()) / openings.std()
    landmarks = faces(openings)
    code = LipCode.fit(landmarks, pose, openings, 4)
    codes = code.encode(landmarks, pose)
    told = (codes - codes.mean(0)) @ opening_slope(codes, openings)
    assert np.corrcoef(told, openings)[0, 1] > 0.99
    assert told.std() > 0.95 * openings.std()
    assert np.abs(code.slide).max() < 0.1


def relation(n: int, noise: float, seed: int = 0, dim: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smooth windows [n, 5, 8], codes that follow them linearly, and the true weights."""
    rng = np.random.default_rng(seed)
    kernel = np.hanning(9)[:, None, None]
    raw = rng.standard_normal((n + 8, 5, 8))
    windows = sum(kernel[k] * raw[k : k + n] for k in range(9))
    truth = rng.standard_normal((40, dim)) / np.sqrt(40)
    codes = windows.reshape(n, -1) @ truth + 0.7 + noise * rng.standard_normal((n, dim))
    return windows.astype(np.float32), codes.astype(np.float32), truth


def test_ridge_finds_a_known_relation_and_predicts_frames_it_never_saw() -> None:
    windows, codes, truth = relation(900, noise=0.05)
    config = MotionConfig(dim=4, bumps=5, penalties=(1e-4, 1e-2, 1.0, 1e6))
    model = fitted(windows[:700], codes[:700], config)
    predicted = model(torch.from_numpy(windows[700:])).numpy()
    for k in range(4):
        assert np.corrcoef(predicted[:, k], codes[700:, k])[0, 1] > 0.99
    assert np.abs(model.weight.numpy() - truth).max() < 0.05


def test_penalty_is_chosen_on_blocks_not_seen() -> None:
    """Sound that says nothing about the lips: the largest penalty wins, and the prediction is the mean."""
    rng = np.random.default_rng(3)
    windows = relation(300, 0.0)[0]
    codes = np.cumsum(rng.standard_normal((300, 4)), 0).astype(np.float32)  # smooth, unrelated
    codes = (codes - codes.mean(0)) / codes.std(0)
    config = MotionConfig(dim=4, penalties=(0.01, 1e7), variation=0.0)
    model = fitted(windows, codes, config)
    assert model(torch.from_numpy(windows)).std() < 0.1
    shuffled = fitted(windows, codes, MotionConfig(dim=4, penalties=(0.01,), variation=0.0))
    assert shuffled(torch.from_numpy(windows)).std() > 0.3, "a small penalty alone would have fitted noise"


def test_taper_leans_on_the_sound_at_the_frame() -> None:
    """Only the middle of a window tells something, all rows are alike: a narrow taper finds it sooner."""
    rng = np.random.default_rng(3)
    windows = rng.standard_normal((300, 31, 3)).astype(np.float32)
    heard = windows[:, 14:17].sum(1) @ rng.standard_normal((3, 4))
    codes = (heard + 4.0 * rng.standard_normal((300, 4))).astype(np.float32)
    errors = {}
    for taper in (2.0, 1e6):
        model = fitted(windows, codes, MotionConfig(dim=4, bumps=31, taper=taper))
        errors[taper] = np.square(model(torch.from_numpy(windows)).numpy() - heard).mean()
        norms = model.weight.view(31, 3, 4).norm(dim=(1, 2))
        assert norms.argmax() in (14, 15, 16)
        assert (norms[3] < 0.03 * norms.max()) == (taper == 2.0)
    assert errors[2.0] < 0.7 * errors[1e6]


def test_sound_of_a_moment_shared_by_few_weights_needs_fewer_frames() -> None:
    """Smooth weights and few noisy frames: bumps find them better than a weight for every row does."""
    rng = np.random.default_rng(5)
    truth = np.exp(-0.5 * ((np.arange(32) - 15.5) / 3) ** 2)[:, None] * rng.standard_normal((1, 6))
    windows = rng.standard_normal((500, 32, 6)).astype(np.float32)
    codes = np.einsum("twa,wa->t", windows, truth)[:, None] + 12 * rng.standard_normal((500, 1))
    errors = [
        np.square(
            fitted(windows, codes, MotionConfig(dim=1, bumps=bumps)).weight.view(32, 6).numpy() - truth
        ).sum()
        for bumps in (9, 32)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_opening_gets_its_variation_back_up_to_a_limit_and_nothing_else_changes() -> None:
    windows, codes, _ = relation(600, noise=1.5)
    slope = np.array([2.0, 0.0, 1.0, 0.0])
    across = np.array([1.0, 0.0, -2.0, 0.0])
    x = torch.from_numpy(windows)

    def said(variation: float) -> tuple[np.ndarray, np.ndarray]:
        config = MotionConfig(dim=4, variation=variation, max_gain=1.6)
        spoken = fitted(windows, codes, config, slope=slope)(x).numpy() - codes.mean(0)
        return spoken @ slope, spoken @ np.c_[across, np.eye(4)[:, [1, 3]]]

    (safe, safe_rest), (true, true_rest), (lively, _) = said(0.0), said(1.0), said(9.0)
    wanted = ((codes - codes.mean(0)) @ slope).std()
    assert safe.std() < 0.85 * wanted
    assert true.std() == pytest.approx(wanted, rel=0.2), "that of the truth, but for blocks against the whole"
    assert np.allclose(lively, 1.6 * safe, atol=1e-4), "never more than the limit"
    assert np.allclose(true_rest, safe_rest, atol=1e-4)


def test_silence_is_exactly_rest() -> None:
    windows, codes, _ = relation(200, noise=0.1)
    rest = np.array([1.5, -0.5, 0.25, 3.0])
    model = fitted(windows, codes, MotionConfig(dim=4), rest=rest)
    activity = torch.ones(200)
    activity[50:120] = 0
    activity[120] = 0.5
    out = model(torch.from_numpy(windows), activity)
    assert torch.equal(out[50:120], model.rest.expand(70, 4))
    spoken = model(torch.from_numpy(windows))
    assert torch.equal(out[:50], spoken[:50])
    assert torch.allclose(out[120], (spoken[120] + model.rest) / 2)


def test_rest_is_the_closed_quiet_mouth() -> None:
    openings = 0.3 * np.abs(np.sin(np.arange(88) / 3.1))
    openings[PAUSE] = 0
    still = np.repeat(STILL, 88, 0)
    codes = LipCode.fit(faces(openings), still, openings, 4).encode(faces(openings), still)
    activity = (openings > 0).astype(np.float32)
    rest = rest_code(codes, openings, activity)
    slope = opening_slope(codes, openings)
    assert (rest - codes.mean(0)) @ slope + openings.mean() == pytest.approx(-PRESSED, abs=1e-3), (
        "pressed, not just touching"
    )
    pressing = rest - codes[0]
    assert np.linalg.norm(pressing) < 0.4, "and otherwise the closed mouth as it was seen"
    # Lips that never meet are pressed as far beyond the most closed ones, and no further.
    parted = openings + 0.1
    assert np.allclose(rest_code(codes, parted, activity), rest, atol=1e-6)
    # Without any quiet frame with closed lips, closed lips decide.
    loud = rest_code(codes, openings, np.where(openings <= np.percentile(openings, 20), 1.0, 0.0))
    assert np.allclose(loud, codes[0], atol=0.4)


def test_code_of_a_real_track_survives_head_motion() -> None:
    """Perspective and turning together, as in a clip: the first component still is the opening."""
    openings = 0.3 * np.abs(np.sin(np.arange(88) / 3.1))
    head, _ = motion(88)
    landmarks = np.stack(
        [project_mesh(mesh_points(o, 0.0), K, T) for o, T in zip(openings, head, strict=True)]
    )
    still = np.repeat(STILL, 88, 0)
    first = LipCode.fit(landmarks, still, openings, 4).encode(landmarks, still)[:, 0]
    assert abs(np.corrcoef(first, openings)[0, 1]) > 0.97


@pytest.mark.parametrize(
    "bad",
    [{"dim": 0}, {"dim": 65}, {"window": 0}, {"bumps": 0}, {"taper": 0.0}, {"folds": 1}, {"penalties": ()}],
)
def test_impossible_configurations_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError):
        MotionConfig(**bad)


def prior_of(weight: np.ndarray) -> MotionPrior:
    return MotionPrior(weight.astype(np.float64))


@pytest.mark.parametrize("seed", range(4))
def test_a_prior_that_tells_nothing_leaves_the_fit_as_it_was(seed: int) -> None:
    windows, codes, truth = relation(400, noise=0.5)
    unrelated = np.random.default_rng(100 + seed).standard_normal(truth.shape) / np.sqrt(len(truth))
    cold = fitted(windows, codes, MotionConfig(dim=4))
    warm = fitted(windows, codes, MotionConfig(dim=4), prior=prior_of(unrelated))
    assert warm.prior_share == 0
    assert all(torch.equal(value, cold.state_dict()[name]) for name, value in warm.state_dict().items())


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_as_much_of_a_prior_is_kept_as_is_true(share: float) -> None:
    windows, codes, truth = relation(300, noise=0.3)
    config = MotionConfig(dim=4, penalties=(1e5,))  # the rest cannot make up for a wrong share
    model = fitted(windows, codes, config, prior=prior_of(truth / share))
    assert model.prior_share == share


def test_a_prior_helps_where_there_is_little_speech() -> None:
    windows, codes, truth = relation(560, noise=0.5)
    rng = np.random.default_rng(9)
    near = (
        truth + 0.5 * rng.standard_normal(truth.shape) * truth.std()
    )  # another speaker: alike, not the same
    config = MotionConfig(dim=4, penalties=(10.0, 100.0, 1000.0), variation=0.0)
    errors = {}
    for name, prior in (("cold", None), ("warm", prior_of(near))):
        model = fitted(windows[:60], codes[:60], config, prior=prior)
        predicted = model(torch.from_numpy(windows[60:])).numpy()
        errors[name] = np.square(predicted - codes[60:]).mean()
    assert errors["warm"] < 0.8 * errors["cold"]


def test_the_stretch_counts_what_the_prior_says() -> None:
    """All of the variation is in the prior: nothing was lost, so nothing is stretched."""
    windows, codes, truth = relation(300, noise=0.05)
    config = MotionConfig(dim=4, penalties=(1e9,), variation=1.0)
    slope = np.array([1.0, 0.0, 0.0, 0.0])
    warm = fitted(windows, codes, config, prior=prior_of(truth), slope=slope)
    assert warm.prior_share == 1
    assert np.abs(warm.weight.numpy() - truth).max() < 0.03 * np.abs(truth).max()
