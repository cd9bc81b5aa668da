"""The field starts as identity, stays bounded, and gives the same with and without what is kept between frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from talker.errors import ConfigError
from talker.model.blendshapes import Blendshapes
from talker.model.canonical import CanonicalGaussians, activate
from talker.model.deformation import POSE_DIM, DeformationField, FieldConfig
from talker.types import EXPRESSION_DIM

N, SIGNAL, WINDOW = 40, 6, 12
LIMITS = {"means": 0.4, "logit_opacities": 5.0, "rgb": 0.3, "quats": 0.5, "log_scales": 0.7}
SMALL: dict = {"width": 16, "hidden": 16, "signal_dim": SIGNAL, "window": WINDOW, "hash_levels": 2}
SMALL |= {"hash_log2_table": 8, "hash_finest": 32, "agents": 5}
ALL = ("mu", "alpha", "rgb", "r", "s")

EVERY = list(
    itertools.product(
        ("triplane_hash", "triplane_dense", "embedding"),
        ("mlp", "kan"),
        ("mgf", "sum", "esaa", "cross_attention"),
    )
)
EVERY += [(encoder, "mlp", "blendshapes") for encoder in ("triplane_hash", "triplane_dense", "embedding")]


def canonical(config: FieldConfig) -> CanonicalGaussians:
    rng = np.random.default_rng(0)
    dim = config.embedding_dim if config.encoder == "embedding" else 0
    return CanonicalGaussians.from_points(
        rng.uniform(-1, 1, (N, 3)),
        rng.random((N, 3)),
        rng.random(N) + 0.05,
        rng.random(N),
        embedding_dim=dim,
        generator=torch.Generator().manual_seed(3),
    )


def field_of(config: FieldConfig) -> DeformationField:
    torch.manual_seed(0)
    return DeformationField(config, torch.zeros(3), 1.0)


def control(config: FieldConfig, size: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    shape = (SIGNAL,) if config.signal == "motion" else (WINDOW, SIGNAL)
    return (
        size * torch.randn(shape, generator=g),
        size * torch.randn(EXPRESSION_DIM, generator=g),
        size * torch.randn(POSE_DIM, generator=g),
    )


def stirred(field: DeformationField, amount: float) -> DeformationField:
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in field.parameters():
            value.add_(amount * torch.randn(value.shape, generator=g))
    return field


@pytest.mark.parametrize(("encoder", "decoder", "fusion"), EVERY)
def test_untrained_field_changes_nothing(encoder: str, decoder: str, fusion: str) -> None:
    config = FieldConfig(**SMALL, encoder=encoder, decoder=decoder, fusion=fusion, deform=ALL)
    gaussians, field = canonical(config), field_of(config)
    offsets = field(gaussians, field.tokens(*control(config, 3.0)))
    for name in LIMITS:
        assert torch.count_nonzero(getattr(offsets, name)) == 0, name
    plain, deformed = activate(gaussians), activate(gaussians, offsets)
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert torch.equal(getattr(plain, name), getattr(deformed, name))


@pytest.mark.parametrize(("encoder", "decoder", "fusion"), EVERY)
def test_it_can_learn_from_the_first_step(encoder: str, decoder: str, fusion: str) -> None:
    """Zero at the start must not mean dead: the last layer has a gradient, and then all others have one."""
    config = FieldConfig(**SMALL, encoder=encoder, decoder=decoder, fusion=fusion, deform=ALL)
    gaussians, field = canonical(config), field_of(config)
    optimizer = torch.optim.Adam(field.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        offsets = field(gaussians, field.tokens(*control(config)))
        (offsets.means - 0.05).square().mean().backward()
        optimizer.step()
    first = field.inlet.weight.grad
    assert first is not None and first.abs().sum() > 0, "the first layer learns, too"
    assert offsets.means.abs().sum() > 0


@pytest.mark.parametrize(
    ("signal", "decoder", "fusion"),
    [
        ("motion", "mlp", "blendshapes"),
        ("motion", "kan", "mgf"),
        ("motion", "mlp", "cross_attention"),
        ("audio", "mlp", "mgf"),
        ("audio", "kan", "esaa"),
    ],
)
def test_no_control_tears_the_face(signal: str, decoder: str, fusion: str) -> None:
    config = FieldConfig(**SMALL, signal=signal, decoder=decoder, deform=ALL, fusion=fusion)
    gaussians, field = canonical(config), stirred(field_of(config), 3.0)
    for size in (0.0, 1.0, 100.0, 1e6):
        offsets = field(gaussians, field.tokens(*control(config, size)))
        for name, limit in LIMITS.items():
            value = getattr(offsets, name)
            assert torch.isfinite(value).all(), (name, size)
            assert value.abs().max() <= limit * (1 + 1e-6), (name, size)
        assert torch.isfinite(activate(gaussians, offsets).quats).all()


def test_only_the_chosen_attributes_move() -> None:
    config = FieldConfig(**SMALL, encoder="triplane_hash", fusion="mgf", deform=("mu", "s"))
    assert config.out_dim == 6
    offsets = stirred(field_of(config), 0.5)(canonical(config), field_of(config).tokens(*control(config)))
    assert offsets.means is not None and offsets.means.shape == (N, 3)
    assert offsets.log_scales is not None and offsets.log_scales.shape == (N, 3)
    assert offsets.quats is None and offsets.rgb is None and offsets.logit_opacities is None


@pytest.mark.parametrize("pose_token", [True, False])
def test_shade_follows_head_and_lids_and_never_the_lips(pose_token: bool) -> None:
    config = FieldConfig(
        **SMALL,
        fusion="blendshapes",
        deform=("mu", "shade", "alpha"),
        pose_token=pose_token,
        follows_lips=True,
    )
    gaussians, field = canonical(config), stirred(field_of(config), 0.3)
    signal, expression, pose = control(config)
    lips = torch.tensor([0.0, 0.1, 0.0])

    def colours(*driven: torch.Tensor) -> torch.Tensor:
        return field(gaussians, field.tokens(*driven)).rgb

    start = colours(signal, expression, pose, lips)
    assert start.shape == (N, 3) and start.abs().min() > 0
    assert torch.equal(colours(signal + 1, expression, pose, lips), start)
    assert torch.equal(colours(signal, expression, pose, 2 * lips), start)
    assert not torch.equal(colours(signal, expression + 1, pose, lips), start), (
        "a lid that closes gets darker"
    )
    assert torch.equal(colours(signal, expression, pose + 1, lips), start) != pose_token
    moved = (field(gaussians, field.tokens(s, expression, pose, lips)).means for s in (signal, signal + 1))
    assert not torch.equal(*moved), "what is not colour follows the lips as ever"


@pytest.mark.parametrize("fusion", ["blendshapes", "mgf", "sum", "esaa", "cross_attention"])
def test_what_is_kept_between_frames_gives_the_same(fusion: str) -> None:
    config = FieldConfig(**SMALL, fusion=fusion, deform=ALL)
    gaussians, field = canonical(config), stirred(field_of(config), 0.3)
    prepared = field.prepare(gaussians)
    for size in (0.5, 2.0):
        tokens = field.tokens(*control(config, size))
        kept, anew = field.offsets(prepared, tokens), field(gaussians, tokens)
        for name in LIMITS:
            assert torch.equal(getattr(kept, name), getattr(anew, name))


@pytest.mark.parametrize("fusion", ["blendshapes", "mgf", "sum", "esaa", "cross_attention"])
def test_each_control_moves_something(fusion: str) -> None:
    config = FieldConfig(**SMALL, fusion=fusion, deform=ALL)
    gaussians, field = canonical(config), stirred(field_of(config), 0.3)
    signal, expression, pose = control(config)
    start = field(gaussians, field.tokens(signal, expression, pose)).means
    for changed in (
        (signal + 1, expression, pose),
        (signal, expression + 1, pose),
        (signal, expression, pose + 1),
    ):
        assert not torch.equal(field(gaussians, field.tokens(*changed)).means, start)
    without = FieldConfig(**SMALL, fusion=fusion, deform=ALL, pose_token=False)
    blind = stirred(field_of(without), 0.3)
    first, second = (blind(canonical(without), blind.tokens(signal, expression, p)) for p in (pose, pose + 1))
    assert torch.equal(first.means, second.means)


def test_blendshapes_are_linear_in_the_condition() -> None:
    """Before the bound: twice the condition, twice the offset; that is what keeps new lip codes sane."""
    config = FieldConfig(**SMALL, fusion="blendshapes", deform=ALL)
    gaussians, field = canonical(config), stirred(field_of(config), 0.3)
    (rows,) = prepared = field.prepare(gaussians)
    tokens = field.tokens(*control(config))
    assert isinstance(field.fusion, Blendshapes)
    basis = field.fusion.basis(rows).view(N, config.out_dim, len(tokens))
    raw = field.fusion.fuse(prepared, tokens)
    assert torch.allclose(field.fusion.fuse(prepared, 2 * tokens), 2 * raw, rtol=1e-4, atol=1e-5)
    assert torch.allclose(raw, torch.einsum("nom,m->no", basis, tokens), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError):
        FieldConfig(fusion="blendshapes", signal="audio")
    with pytest.raises(ConfigError):
        FieldConfig(fusion="mgf", deform=("mu", "shade"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deform", ()),
        ("deform", ("mu", "shape")),
        ("deform", ("mu", "rgb", "shade")),
        ("width", 4),
        ("hash_log2_table", 30),
        ("agents", 0),
    ],
)
def test_impossible_sizes_are_refused_in_words(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        FieldConfig(**{name: value})
    assert caught.value.code == f"model.{name}" and caught.value.expected
