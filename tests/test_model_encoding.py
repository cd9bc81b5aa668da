from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from talker.errors import ConfigError
from talker.model.encoding import (
    PLANES,
    DenseTriplane,
    EmbeddingEncoding,
    HashTriplane,
    make_encoding,
)

TRIPLANES = [
    pytest.param(lambda: HashTriplane(levels=5, log2_table=8, base=4, finest=40), id="hash"),
    pytest.param(lambda: DenseTriplane((5, 12), channels=3), id="dense"),
]


def points(n: int, *, reach: float = 1.0) -> torch.Tensor:
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1) * reach


@pytest.mark.parametrize("make", TRIPLANES)
def test_kernels_agree_with_the_definition_in_float64(make) -> None:
    fast = make()
    nn.init.normal_(fast.table, generator=torch.Generator().manual_seed(0))
    exact = make().double()
    exact.load_state_dict(fast.state_dict())
    x = points(500, reach=1.2)  # some lie outside and are held at the border
    # A float32 rounding can put a point on the other side of a grid line, where the slope jumps.
    cells = fast.groups[:, 2].unique()
    away = ((x[..., None].double() + 1) / 2 * cells).frac().sub(0.5).abs().amax((1, 2)) < 0.4999
    x = x[away]
    assert len(x) > 300
    x_fast, x_exact = x.clone().requires_grad_(), x.double().requires_grad_()
    y_fast, y_exact = fast(x_fast), exact(x_exact)
    torch.testing.assert_close(y_fast.double(), y_exact, rtol=0, atol=2e-4)
    weight = torch.randn(y_fast.shape, generator=torch.Generator().manual_seed(1))
    (y_fast * weight).sum().backward()
    (y_exact * weight).sum().backward()
    torch.testing.assert_close(x_fast.grad.double(), x_exact.grad, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(fast.table.grad.double(), exact.table.grad, rtol=1e-3, atol=1e-3)
    outside = x.abs() > 1
    assert outside.any() and (x_fast.grad[outside] == 0).all()


@pytest.mark.parametrize("make", TRIPLANES)
def test_gradients_match_finite_differences(make) -> None:
    encoding = make().double()
    nn.init.normal_(encoding.table, generator=torch.Generator().manual_seed(0))
    x = points(6).double().requires_grad_()
    assert torch.autograd.gradcheck(encoding, (x,))


def test_the_number_of_threads_does_not_change_a_bit() -> None:
    encoding = HashTriplane(levels=4, log2_table=8)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        encoding.zero_grad()
        x = points(1001).requires_grad_()
        (y := encoding(x)).square().sum().backward()
        results.append((y.detach(), x.grad, encoding.table.grad.clone()))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_dense_triplane_is_the_product_of_bilinear_planes() -> None:
    encoding = DenseTriplane((64, 128))
    assert encoding.out_dim == 64
    assert sum(p.numel() for p in encoding.parameters()) == 1_966_080
    assert encoding.table.min() >= 0.1 and encoding.table.max() <= 0.5
    x = points(200, reach=1.1)
    first, expected = 0, []
    for res in (64, 128):
        product = 1
        for a, b in PLANES:
            plane = encoding.table[first : first + res * res].view(1, res, res, 32).permute(0, 3, 1, 2)
            grid = x[None, :, None, [a, b]]
            read = F.grid_sample(plane, grid, mode="bilinear", padding_mode="border", align_corners=True)
            product = product * read[0, :, :, 0].T
            first += res * res
        expected.append(product)
    torch.testing.assert_close(encoding(x), torch.cat(expected, -1), rtol=1e-4, atol=1e-6)


def test_hashing_begins_where_a_level_outgrows_its_table() -> None:
    encoding = HashTriplane(levels=12, features=2, log2_table=15, base=16, finest=256)
    cells, mask = encoding.groups[:12, 2], encoding.groups[:12, 5]
    assert cells[0] == 16 and cells[-1] == 256
    assert torch.equal(mask > 0, (cells + 1) ** 2 > 2**15)
    assert (mask > 0).any() and (mask == 0).any()
    assert encoding.out_dim == 72 == encoding(points(4)).shape[1]


def test_levels_grow_by_one_factor_and_no_table_is_larger_than_allowed() -> None:
    """Instant-NGP, eq. 2 and 3: resolutions ``floor(base * b^l)``, at most 2^log2_table rows each."""
    encoding = HashTriplane(levels=7, features=2, log2_table=10, base=8, finest=200)
    growth = (200 / 8) ** (1 / 6)
    cells = encoding.groups[:7, 2].tolist()
    assert cells == [int(8 * growth**level + 1e-6) for level in range(7)]
    rows = [min((c + 1) ** 2, 2**10) for c in cells]
    assert 2**10 in rows and rows[0] == 81
    assert encoding.table.shape == (3 * sum(rows), 2)
    assert encoding.groups.shape == (3 * 7, 6) and encoding.out_dim == 3 * 7 * 2


def test_hashed_grid_points_collide_and_direct_ones_do_not() -> None:
    encoding = HashTriplane(levels=2, features=1, log2_table=8, base=8, finest=32)
    shares = []
    for level, cells in enumerate((8, 32)):
        corners = torch.tensor(list(itertools.product(range(cells), repeat=2))) / cells * 2 - 1
        x = torch.cat((corners, torch.zeros(len(corners), 1)), 1)
        rows, weights = encoding.corners(x)
        rows, weights = rows[:, level], weights[:, level]  # the xy plane comes first
        own = rows[torch.arange(len(rows)), weights.argmax(-1)]
        shares.append(len(own.unique()) / len(own))
        assert rows.min() >= encoding.groups[level, 3]
        assert rows.max() < encoding.groups[level, 3] + ((cells + 1) ** 2 if level == 0 else 256)
    assert shares[0] == 1.0
    assert shares[1] <= 256 / 1024  # 1,024 points in 256 rows


def test_planes_own_disjoint_rows_of_one_table() -> None:
    encoding = HashTriplane(levels=3, log2_table=6, base=4, finest=16)
    rows, _ = encoding.corners(points(20_000))
    used = [set(rows[:, g].unique().tolist()) for g in range(rows.shape[1])]
    assert all(not a & b for a, b in itertools.combinations(used, 2))
    assert set().union(*used) <= set(range(len(encoding.table)))
    assert sum(map(len, used)) > 0.8 * len(encoding.table)  # a hash need not reach every row


def test_hash_triplane_learns_a_function_finer_than_its_coarsest_grid() -> None:
    torch.manual_seed(0)
    encoding, head = HashTriplane(levels=6, base=4, finest=64), nn.Linear(36, 1)
    x = points(4000)
    target = torch.sin(12 * x[:, :1]) * torch.cos(9 * x[:, 1:2]) + torch.sin(15 * x[:, 2:])
    optimizer = torch.optim.Adam([*encoding.parameters(), *head.parameters()], lr=2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = F.mse_loss(head(encoding(x)), target)
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * target.var()


def test_points_that_are_not_numbers_stay_visible_and_harm_nothing() -> None:
    encoding = HashTriplane(levels=2)
    x = points(4)
    x[1, 2] = float("nan")
    y = encoding(x)
    assert y[1].isnan().any() and not y[[0, 2, 3]].isnan().any()


def test_embedding_encoding_is_vector_then_position_code() -> None:
    encoding = EmbeddingEncoding(dim=5, frequencies=3)
    x, z = points(7), torch.randn(7, 5)
    y = encoding(x, z)
    assert y.shape == (7, encoding.out_dim) == (7, 5 + 18)
    assert torch.equal(y[:, :5], z)
    torch.testing.assert_close(y[:, 5 + 2], torch.sin(4 * torch.pi * x[:, 0]))
    with pytest.raises(ConfigError) as error:
        encoding(x, None)
    assert error.value.code == "encoder.embedding"


def test_encodings_are_made_by_name_and_bad_options_are_refused() -> None:
    for kind in ("triplane_hash", "triplane_dense", "embedding"):
        encoding = make_encoding(kind)
        y = encoding(points(3), torch.zeros(3, encoding.embedding_dim))
        assert y.shape == (3, encoding.out_dim)
    with pytest.raises(ConfigError):
        make_encoding("octree")
    with pytest.raises(ConfigError):
        HashTriplane(base=64, finest=16)
    with pytest.raises(ConfigError):
        DenseTriplane((1,))
