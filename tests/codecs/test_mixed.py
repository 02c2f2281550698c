"""A table of columns of every kind, seen through one codec."""

import json
import math

import numpy as np
import pytest
import torch

from ebbtide import memory
from ebbtide.codecs import Mixed, codec_from_config, fit_codec, fit_table, volume
from ebbtide.errors import InputError

G = np.random.default_rng(0)
N = 400
TABLE = torch.tensor(
    np.stack(
        [
            G.integers(0, 3, N),  # 0: levels, one number each
            G.normal(size=N).round(2),
            np.where(G.random(N) < 0.1, np.nan, G.poisson(2, N)),
            G.integers(0, 20, N),  # 3: more levels, by ranks
            np.where(G.random(N) < 0.1, np.nan, G.integers(0, 2, N)),  # 4: levels with gaps
            np.full(N, 3.0),
            G.integers(0, 4, N),  # 6: levels in order, by ranks
            np.full(N, np.nan),
        ],
        1,
    ).astype(np.float32)
)
LEVELS, ORDERED = [3, 0, 0, 20, 2, 0, 4, 0], [k == 6 for k in range(8)]


def test_each_column_is_seen_as_its_kind_and_comes_back():
    codec = fit_table(TABLE, LEVELS, ORDERED)
    assert codec.columns == ((1, 3, 5, 6), (2, 7), (0, 4))
    assert codec.shape((8,)) == (4 + 4 + 3 + 3,)
    assert [seen.split(" ")[0] + " " + seen.split(" ")[1] for seen in codec.seen] == [
        "unit vectors", "ranks, as", "ranks and", "ranks, as", "unit vectors", "ranks, as", "ranks, as", "ranks and",
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for v in (0.5, torch.rand(N, 14, generator=generator), torch.rand(N, 14, generator=generator)):
        torch.testing.assert_close(codec.decode(codec.encode_with(TABLE, v)), TABLE, rtol=0, atol=0, equal_nan=True)
    assert codec.encode(TABLE).isfinite().all()
    drawn = codec.decode(torch.randn(2000, 14, generator=generator))
    assert bool(drawn[:, 7].isnan().all())
    assert drawn[:, 5].unique().tolist() == [3]
    for k, count in enumerate(LEVELS):
        if count:
            assert set(drawn[~drawn[:, k].isnan(), k].tolist()) <= set(range(count))
    assert codec.about.startswith("4 columns by ranks, as a normal distribution; 2 columns by ranks and an indicator")


def test_the_order_of_columns_changes_only_their_order():
    order = [4, 2, 7, 0, 6, 5, 3, 1]
    one = fit_table(TABLE, LEVELS, ORDERED)
    other = fit_table(TABLE[:, order], [LEVELS[k] for k in order], [ORDERED[k] for k in order])
    assert sorted(one.encode(TABLE)[0].tolist()) == sorted(other.encode(TABLE[:, order])[0].tolist())
    rows = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    again = fit_table(TABLE[rows], LEVELS, ORDERED)
    assert all(torch.allclose(part, again.weights()[name]) for name, part in one.weights().items())


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows(rows):
    codec = fit_table(TABLE[:rows], LEVELS, ORDERED)
    torch.testing.assert_close(codec.decode(codec.encode(TABLE[:rows])), TABLE[:rows], equal_nan=True)


def test_many_levels_and_many_columns(monkeypatch):
    """500 levels take one number; 10,000 columns are served, or refused where there is no memory for them."""
    codes = torch.arange(1000.0)[:, None] % 500
    codec = fit_table(codes, [500])
    assert codec.shape((1,)) == (1,)
    assert torch.equal(codec.decode(codec.encode_with(codes, torch.rand(1000, 1))), codes)
    wide = torch.randn(20, 10_000, generator=torch.Generator().manual_seed(0))
    codec = fit_table(wide)
    torch.testing.assert_close(codec.decode(codec.encode(wide)), wide, rtol=1e-3, atol=2e-3)
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    with pytest.raises(InputError, match="ranks of 10,000 columns would take about"):
        fit_table(wide)


@pytest.mark.unchecked
def test_config_and_weights_come_back_and_others_are_refused():
    codec = fit_table(TABLE, LEVELS, ORDERED)
    config, weights = json.loads(json.dumps(codec.to_config())), codec.weights()
    again = codec_from_config(config, weights)
    assert isinstance(again, Mixed)
    assert torch.equal(again.encode(TABLE), codec.encode(TABLE))
    for bad in (
        (config | {"columns": [[0], [1], [2]]}, weights),
        (config | {"columns": config["columns"][:2]}, weights),
        (config | {"columns": 3}, weights),
        (config | {"columns": [[0.0], [1], [2]]}, weights),
        (config | {"columns": [1, 2, 3]}, weights),
        (config | {"parts": [{"name": "mixed"}] * 3}, weights),
        (config | {"more": 1}, weights),
        (config, {}),
        (config, weights | {"9.low": weights["0.low"]}),
    ):
        with pytest.raises(InputError):
            codec_from_config(*bad)
    with pytest.raises(InputError, match="fewer numbers than the data has, or ranks"):
        volume(codec, (8,))
    plain = fit_codec("mixed", lambda: [torch.tensor([[1.0, math.nan], [2, 5]])])
    assert plain.columns == ((0,), (1,))


def test_every_z_lies_between_its_ends_and_levels_reach_them():
    codec = fit_table(TABLE, LEVELS, ORDERED)
    low, high = codec.ends()
    z = torch.cat([codec.encode_with(TABLE, v) for v in (0.0, 0.5, 1.0)])
    assert low.shape == high.shape == (z.shape[1],)
    assert bool(((z >= low - 1e-6) & (z <= high + 1e-6)).all())
    direct = codec.direct
    torch.testing.assert_close(z.amin(0)[direct], low[direct].float())
    torch.testing.assert_close(z.amax(0)[direct], high[direct].float())
