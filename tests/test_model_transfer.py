"""Networks of one person in the terms of another: the same motion, place for place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from avatar_support import tiny_avatar

from talker.model.avatar import Branch
from talker.model.canonical import CanonicalGaussians
from talker.model.deformation import POSE_DIM, DeformationField, FieldConfig
from talker.model.motion import LIPS_AND_JAW, LipCode, MotionConfig, MotionModel
from talker.model.transfer import ControlChange, adopt, can_adopt, change_of_code, nearest, sound_prior
from talker.types import EXPRESSION_DIM

DIRECTIONS = np.random.default_rng(1).standard_normal((3, len(LIPS_AND_JAW), 2))
"""Three ways in which everybody's lips can move."""


def person(seed: int, *, size: float) -> np.ndarray:
    """A face [478, 3] with lips of its own, ``size`` pixels between the outer eye corners."""
    face = np.random.default_rng(0).uniform(-1, 1, (478, 3))
    face[[33, 263]] = [[-0.5, 0, 0], [0.5, 0, 0]]
    face[list(LIPS_AND_JAW), :2] += 0.1 * np.random.default_rng(seed).standard_normal((len(LIPS_AND_JAW), 2))
    return size * face


def speaking(face: np.ndarray, moves: np.ndarray, *, size: float) -> np.ndarray:
    """Landmarks [T, 478, 3] of a still head whose lips make ``moves`` [T, 3]."""
    landmarks = np.repeat(face[None], len(moves), 0)
    landmarks[:, LIPS_AND_JAW, :2] += 0.05 * size * np.einsum("tk,kpd->tpd", moves, DIRECTIONS)
    return landmarks


def moves(n: int, scales: tuple[float, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3)) * scales


@pytest.fixture
def codes() -> tuple[LipCode, LipCode]:
    """Of two persons who speak in other ways, one filmed twice as large."""
    pose, opening = np.zeros((200, 6), np.float32), np.zeros(200)
    old = LipCode.fit(speaking(person(2, size=60), moves(200, (3, 2, 1), 3), size=60), pose, opening, 3)
    new = LipCode.fit(speaking(person(5, size=120), moves(200, (1, 2, 4), 6), size=120), pose, opening, 3)
    return old, new


def test_the_same_motion_of_the_lips_has_one_code_in_each_basis(codes: tuple[LipCode, LipCode]) -> None:
    old, new = codes
    wanted = moves(20, (2, 2, 2), 7)
    still = np.zeros((20, 6), np.float32)
    there = old.encode(speaking(person(2, size=60), wanted, size=60), still)
    here = new.encode(speaking(person(5, size=120), wanted, size=120), still)
    change = change_of_code(old, new)
    assert np.abs(np.diff(there, axis=0) @ change.T - np.diff(here, axis=0)).max() < 1e-3
    assert np.abs(np.diff(there, axis=0) - np.diff(here, axis=0)).max() > 1, "they are counted in other ways"
    assert np.allclose(change @ change_of_code(new, old), np.eye(3), atol=1e-5)


def test_codes_may_differ_in_length(codes: tuple[LipCode, LipCode]) -> None:
    old, new = codes
    short = LipCode(new.reference, new.mean, new.slide, new.basis[:2], new.std[:2])
    assert np.allclose(change_of_code(old, short), change_of_code(old, new)[:2])


def test_the_prior_says_in_new_codes_what_the_model_says_in_old_ones(codes: tuple[LipCode, LipCode]) -> None:
    old, new = codes
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((50, 2, 5)).astype(np.float32)
    moving = (windows.reshape(50, -1) @ rng.standard_normal((10, 3))).astype(np.float32)
    config, nothing = MotionConfig(dim=3, penalties=(1.0,)), np.zeros(3)
    model = MotionModel.fit(windows, moving, rest=nothing, slope=nothing, config=config)
    prior = sound_prior(model, old, new)
    said = (model(torch.from_numpy(windows)) - model.bias).numpy() @ change_of_code(old, new).T
    X = windows.reshape(50, -1)
    assert np.abs((X - X.mean(0)) @ prior.weight - said).max() < 1e-4


def branch(config: FieldConfig, n: int, seed: int) -> Branch:
    """A branch as after training: every weight has a value."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    means = torch.rand(n, 3, generator=generator) * 2 - 1
    embedding = config.embedding_dim if config.encoder == "embedding" else 0
    canonical = CanonicalGaussians.from_points(
        means.numpy(),
        np.full((n, 3), 0.5),
        np.full(n, 0.1),
        np.full(n, 0.5),
        embedding_dim=embedding,
        generator=generator,
    )
    field = DeformationField(config, torch.rand(3, generator=generator), 1.0 + seed)
    with torch.no_grad():
        for value in field.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return Branch(canonical, field)


SMALL = {"width": 16, "hidden": 16, "hash_levels": 3, "hash_log2_table": 8, "hash_finest": 32}
FIELDS = (
    {},
    {"pose_token": False},
    {"extra": 3},
    {"deform": ("mu", "r", "s")},
    {"encoder": "triplane_hash"},
    {"fusion": "mgf", "encoder": "triplane_hash", "decoder": "kan"},
    {"fusion": "mgf", "pose_token": False},
    {"fusion": "cross_attention", "encoder": "triplane_dense"},
    {"fusion": "esaa", "agents": 4},
)


@pytest.mark.parametrize("switches", FIELDS, ids=str)
def test_a_warm_field_moves_the_old_places_as_the_old_field_does(switches: dict) -> None:
    """For a new control, at the old Gaussians: exactly what the old field does for the old control."""
    old = branch(FieldConfig(**SMALL, **switches, signal_dim=4), 30, seed=0)
    new = branch(FieldConfig(**SMALL, **switches, signal_dim=5), 30, seed=1)
    with torch.no_grad():
        new.canonical.means.copy_(old.canonical.means)
    change = ControlChange(torch.randn(4, 5), 0.5 + torch.rand(POSE_DIM))
    code, expression, pose = torch.randn(5), torch.rand(EXPRESSION_DIM), torch.randn(POSE_DIM)

    def moved(field_of: Branch, code: torch.Tensor, pose: torch.Tensor) -> list[torch.Tensor]:
        field = field_of.deformation
        return field(field_of.canonical, field.tokens(code, expression, pose)).present()

    wanted = moved(old, change.signal @ code, change.pose * pose)
    before = moved(new, code, pose)
    adopt(new, old, change)
    for was, now, there in zip(before, moved(new, code, pose), wanted, strict=True):
        assert torch.allclose(now, there, atol=1e-5)
        assert not torch.allclose(was, there, atol=1e-2)


def test_a_field_driven_by_sound_is_taken_as_it_is() -> None:
    switches = FieldConfig(**SMALL, fusion="mgf", signal="audio", signal_dim=6, window=8)
    old, new = branch(switches, 10, seed=0), branch(switches, 10, seed=1)
    adopt(new, old, ControlChange(None, torch.ones(POSE_DIM)))
    for name, value in new.deformation.state_dict().items():
        assert torch.equal(value, old.deformation.state_dict()[name]), name


def test_every_gaussian_takes_the_vector_of_its_neighbour_and_keeps_its_looks() -> None:
    old, new = branch(FieldConfig(**SMALL), 40, seed=0), branch(FieldConfig(**SMALL), 25, seed=1)
    looks = {name: value.detach().clone() for name, value in new.canonical.parameters_by_name().items()}
    adopt(new, old, ControlChange(torch.eye(8), torch.ones(POSE_DIM)))
    distance = torch.cdist(new.canonical.means, old.canonical.means)
    assert new.canonical.embedding is not None and old.canonical.embedding is not None
    assert torch.equal(new.canonical.embedding, old.canonical.embedding[distance.argmin(1)])
    for name, value in new.canonical.parameters_by_name().items():
        assert (name == "embedding") != torch.equal(value, looks[name]), name


def test_the_same_turn_of_the_head_is_the_same_turn() -> None:
    """A clip in which the head hardly moves counts the same turn as more deviations than a lively one."""
    new, old = tiny_avatar(0), tiny_avatar(1)
    new.pose_statistics.std.copy_(torch.rand(POSE_DIM) + 0.1)
    old.pose_statistics.std.copy_(torch.rand(POSE_DIM) + 0.1)
    new.lip_code = None
    change = ControlChange.between(new, old)
    turn = torch.randn(POSE_DIM)
    there = turn / old.pose_statistics.std
    assert torch.allclose(turn / new.pose_statistics.std * change.pose, there)
    assert change.signal is None, "a code without a basis cannot be changed"


def test_nearest_is_the_nearest() -> None:
    points, among = torch.rand(30, 3), torch.rand(50, 3)
    assert torch.equal(nearest(points, among), torch.cdist(points, among).argmin(1))


def test_what_can_be_taken_over() -> None:
    ours = FieldConfig()
    assert can_adopt(ours, FieldConfig(signal_dim=12, window=4)), "a code is changed, and needs no window"
    for other in ({"deform": ("mu",)}, {"width": 32}, {"encoder": "triplane_hash"}, {"pose_token": False}):
        assert not can_adopt(ours, FieldConfig(**other))
    heard = FieldConfig(fusion="mgf", signal="audio", signal_dim=40)
    assert can_adopt(heard, FieldConfig(fusion="mgf", signal="audio", signal_dim=40))
    assert not can_adopt(heard, FieldConfig(fusion="mgf", signal="audio", signal_dim=41))
    assert not can_adopt(heard, FieldConfig(fusion="mgf"))
