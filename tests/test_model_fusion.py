from __future__ import annotations

import pytest
import torch

from talker.errors import ConfigError
from talker.model.fusion import ESAA, MGF, CrossAttention, PlainSum, make_fusion, morton_order

DIM, N, K = 16, 203, 4


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions [N, 3], spatial rows [N, DIM], tokens [K, DIM]."""
    return torch.randn(N, 3), torch.randn(N, DIM), torch.randn(K, DIM)


ALL = [
    pytest.param(lambda: ESAA(DIM, 16), id="esaa"),
    pytest.param(lambda: ESAA(DIM, 0.05, ppe="add"), id="esaa-share"),
    pytest.param(lambda: ESAA(DIM, 8, ppe="bias"), id="esaa-bias"),
    pytest.param(lambda: MGF(DIM), id="mgf"),
    pytest.param(lambda: MGF(DIM, kind="residual"), id="mgf-residual"),
    pytest.param(lambda: PlainSum(DIM), id="sum"),
    pytest.param(lambda: CrossAttention(DIM), id="cross"),
]


@pytest.mark.parametrize("make", ALL)
def test_order_in_memory_does_not_matter(make) -> None:
    means, spatial, tokens = scene()
    fusion = make()
    shuffle = torch.randperm(N)
    straight = fusion(spatial, tokens, morton_order(means))
    shuffled = fusion(spatial[shuffle], tokens, morton_order(means[shuffle]))
    torch.testing.assert_close(shuffled, straight[shuffle], rtol=0, atol=2e-6)


@pytest.mark.parametrize("make", ALL)
def test_prepared_part_is_reusable_and_gradients_reach_everything(make) -> None:
    means, spatial, tokens = scene()
    spatial.requires_grad_()
    tokens.requires_grad_()
    fusion = make()
    order = morton_order(means)
    out = fusion(spatial, tokens, order)
    assert out.shape == (N, DIM)
    prepared = fusion.prepare(spatial, order)
    fusion.fuse(prepared, torch.randn(K, DIM))  # another frame leaves nothing behind
    assert torch.equal(fusion.fuse(prepared, tokens), out)
    (out * torch.randn(N, DIM)).sum().backward()
    for tensor in (spatial, tokens, *fusion.parameters()):
        if tensor is getattr(getattr(fusion, "key", None), "bias", None):
            continue  # the same for every token: softmax does not see it
        assert tensor.grad is not None and tensor.grad.abs().max() > 1e-7


@pytest.mark.parametrize("make", ALL)
def test_every_token_is_heard(make) -> None:
    means, spatial, tokens = scene()
    fusion, order = make(), morton_order(means)
    base = fusion(spatial, tokens, order)
    for k in range(K):
        changed = tokens.clone()
        changed[k] += 1
        assert (fusion(spatial, changed, order) - base).abs().max() > 1e-3


@pytest.mark.parametrize("ppe", ["none", "add", "bias"])
def test_esaa_rows_are_convex_combinations_of_the_tokens(ppe) -> None:
    means, spatial, tokens = scene()
    esaa = ESAA(DIM, 12, ppe=ppe)
    prepared = esaa.prepare(spatial, morton_order(means))
    weights = esaa.weights(prepared, tokens)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(N))
    attended = weights @ esaa.encode_tokens(tokens)
    torch.testing.assert_close(esaa.residual(spatial, attended), esaa.fuse(prepared, tokens))


def test_esaa_follows_its_equations() -> None:
    means, spatial, tokens = scene()
    esaa = ESAA(DIM, 7, head_dim=4).double()
    x, c, order = spatial.double(), tokens.double(), morton_order(means)
    runs = torch.tensor([i * 7 // N for i in range(N)])
    pooled = torch.stack([x[order][runs == r].mean(0) for r in range(7)])
    a = pooled @ esaa.to_agents.weight.T + esaa.to_agents.bias
    v = torch.softmax(a @ c.T / 2, -1) @ c
    o = torch.softmax(x @ a.T / 2, -1) @ v
    h = torch.nn.functional.layer_norm(x + o, (DIM,))
    expected = torch.nn.functional.layer_norm(h + esaa.residual.ffn(h), (DIM,))
    torch.testing.assert_close(esaa(x, c, order), expected)


def test_agents_smooth_the_conditioning() -> None:
    """Going through agents is a low pass over the Gaussians, compared with attending directly."""
    means, spatial, tokens = scene()
    esaa = ESAA(DIM, 8)
    through = esaa.weights(esaa.prepare(spatial, morton_order(means)), tokens)
    direct = torch.softmax(spatial @ tokens.T * esaa.scale, -1)
    assert through.std(0).mean() < 0.7 * direct.std(0).mean()


def test_number_of_agents_is_absolute_or_a_share() -> None:
    assert ESAA(DIM, 16).n_agents(30_000) == 16 == ESAA(DIM, 16.0).n_agents(30_000)
    assert ESAA(DIM, 0.01).n_agents(30_000) == 300
    assert ESAA(DIM, 0.01).n_agents(20) == 1
    assert ESAA(DIM, 200).n_agents(50) == 50
    for bad in (0, -3, 1.5, 0.0):
        with pytest.raises(ConfigError):
            ESAA(DIM, bad)


def test_released_agents_are_the_first_rows_and_depend_on_memory_order() -> None:
    _, spatial, tokens = scene()
    esaa = ESAA(DIM, 5, agents_from="first")
    torch.testing.assert_close(esaa.prepare(spatial)[1], esaa.to_agents(spatial[:5]))
    shuffle = torch.randperm(N)
    assert (esaa(spatial[shuffle], tokens) - esaa(spatial, tokens)[shuffle]).abs().max() > 1e-3


def test_position_code_tells_equal_tokens_apart_only_when_on() -> None:
    _, spatial, tokens = scene()
    swapped = tokens[[1, 0, 2, 3]]
    for ppe, differs in (("none", False), ("add", True), ("bias", True)):
        esaa = ESAA(DIM, 6, ppe=ppe)
        change = (esaa(spatial, swapped) - esaa(spatial, tokens)).abs().max()
        assert (change > 1e-3) == differs, ppe


def test_position_code_repeats_with_its_period() -> None:
    esaa = ESAA(DIM, 6, ppe="add", period=3)
    code = esaa.encode_tokens(torch.zeros(7, DIM))
    assert torch.equal(code[0], code[3]) and torch.equal(code[1], code[4])
    assert not torch.equal(code[0], code[1])
    bias = ESAA(DIM, 6, ppe="bias", period=2)
    same = torch.ones(5, DIM)  # only the bias decides
    weights = bias.weights(bias.prepare(torch.randn(N, DIM)), same)[0]
    torch.testing.assert_close(weights[[1, 3]], weights[[2, 2]])
    assert weights[0] < 0.5 * weights[2] and weights[4] < 0.5 * weights[2]


def test_mgf_gate_stays_between_its_two_sides() -> None:
    _, spatial, tokens = scene()
    mgf = MGF(DIM)
    prepared = mgf.prepare(spatial * 20)
    gate = mgf.gate(prepared, tokens)
    assert gate.min() >= 0 and gate.max() <= 1 and gate.std() > 0.1
    both = torch.cat((prepared[0], mgf.to_audio(tokens.mean(0)).expand(N, -1)), 1)
    joined = torch.cat((mgf.gate_spatial.weight, mgf.gate_audio.weight), 1)
    expected = torch.sigmoid(both @ joined.T + mgf.gate_spatial.bias)
    torch.testing.assert_close(gate, expected)
    blend = gate * prepared[0] + (1 - gate) * both[:, DIM:]
    torch.testing.assert_close(mgf.fuse(prepared, tokens), mgf.norm(blend), rtol=1e-4, atol=1e-5)
    low = torch.minimum(prepared[0], both[:, DIM:])
    high = torch.maximum(prepared[0], both[:, DIM:])
    assert ((blend >= low - 1e-5) & (blend <= high + 1e-5)).all()


def test_mgf_gate_shut_ignores_the_sound_and_open_the_place() -> None:
    _, spatial, tokens = scene()
    mgf = MGF(DIM)
    with torch.no_grad():
        mgf.gate_spatial.bias.fill_(100.0)
    torch.testing.assert_close(mgf(spatial, tokens), mgf(spatial, tokens + 3))
    with torch.no_grad():
        mgf.gate_spatial.bias.fill_(-100.0)
    torch.testing.assert_close(mgf(spatial, tokens), mgf(spatial.flip(0), tokens))


def test_plain_sum_is_mgf_with_its_gate_held_at_one_half() -> None:
    _, spatial, tokens = scene()
    mgf, plain = MGF(DIM), PlainSum(DIM)
    plain.load_state_dict({k: v for k, v in mgf.state_dict().items() if not k.startswith("gate_")})
    gated = mgf(spatial, tokens)
    assert (plain(spatial, tokens) - gated).abs().max() > 0.1, "an untrained gate is not one half yet"
    with torch.no_grad():
        for value in (*mgf.gate_spatial.parameters(), *mgf.gate_audio.parameters()):
            value.zero_()
    assert (mgf.gate(mgf.prepare(spatial), tokens) == 0.5).all()
    torch.testing.assert_close(plain(spatial, tokens), mgf(spatial, tokens), rtol=0, atol=1e-3)


def test_cross_attention_equals_torch_multihead() -> None:
    _, spatial, tokens = scene()
    ours = CrossAttention(DIM, heads=2)
    theirs = torch.nn.MultiheadAttention(DIM, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key.weight, ours.value.weight)))
        theirs.in_proj_bias.copy_(torch.cat((ours.query.bias, ours.key.bias, ours.value.bias)))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    attended, _ = theirs(spatial, tokens, tokens)
    torch.testing.assert_close(ours(spatial, tokens), ours.residual(spatial, attended), rtol=1e-4, atol=1e-5)


def test_morton_order_keeps_neighbours_together() -> None:
    grid = torch.cartesian_prod(*[torch.arange(8.0)] * 3)
    ordered = grid[morton_order(grid)]
    step = (ordered[1:] - ordered[:-1]).norm(dim=-1)
    shuffled = grid[torch.randperm(len(grid))]
    assert step.mean() < 0.5 * (shuffled[1:] - shuffled[:-1]).norm(dim=-1).mean()
    for corner in range(8):  # each eighth of the curve is one octant
        octant = ordered[corner * 64 : (corner + 1) * 64]
        assert (octant.amax(0) - octant.amin(0) == 3).all()
    assert torch.equal(morton_order(torch.ones(5, 3)), torch.arange(5))


def test_fusions_are_made_by_name() -> None:
    _, spatial, tokens = scene()
    for kind in ("esaa", "mgf", "sum", "cross_attention"):
        assert make_fusion(kind, DIM)(spatial, tokens).shape == (N, DIM)
    with pytest.raises(ConfigError):
        make_fusion("product", DIM)
