"""Ranks: exact on every row, normal in the middle, and right in proportion on the way back."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from ebbtide.codecs import codec_from_config
from ebbtide.codecs.ranks import KNOTS, Ranks, normal_scores
from ebbtide.errors import InputError
from problems import FALSE_POSITIVE

G = np.random.default_rng(0)
# name: a column, as everyday ones are
COLUMNS = {
    "smooth": G.normal(size=800),
    "two decimals": G.normal(50, 9, 800).round(2),
    "counts": G.poisson(3, 800),
    "zero-inflated": np.where(G.random(800) < 0.6, 0, G.lognormal(3, 1, 800)).round(3),
    "few values": G.choice([1.0, 2.5, 7.0], 800, p=[0.7, 0.25, 0.05]),
    "a long tail": G.standard_cauchy(800).round(1),
    "more values than knots": G.normal(size=6000).round(3),
    "constant": np.full(800, 7.25),
    "two rows": np.array([3.0, 5.0]),
    "one row": np.array([3.0]),
    "a value seen once": np.array([0.0] * 799 + [1.0]),
}


def fitted(column):
    x = torch.tensor(np.asarray(column, np.float32))[:, None]
    return x, Ranks.fit(x)


def test_every_row_comes_back_for_every_v():
    for name, column in COLUMNS.items():
        x, codec = fitted(column)
        for v in (0.0, 0.01, 0.5, 0.99, 1.0):
            back = codec.decode(codec.encode_with(x, v))
            tolerance = 0 if codec.decimals[0] >= 0 else 2e-4
            torch.testing.assert_close(
                back, x, rtol=0, atol=tolerance, msg=lambda text, name=name, v=v: f"{name}, V = {v}: {text}"
            )
        assert torch.equal(codec.encode(x), codec.encode_with(x, 0.5)), name
        assert codec.values.shape[1] <= KNOTS, name


def test_margins_are_normal_and_draws_come_back_in_proportion():
    """KS of z against N(0, 1), and χ² of values made of draws of N(0, 1), against the shares of the rows.

    z's distance is at most half a row's mass, and EDGE, from that of independent draws.
    """
    v = torch.rand(200, 800, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, column in COLUMNS.items():
        x, codec = fitted(column)
        n = len(x)
        if n == 800:
            z = np.sort(np.concatenate([codec.encode_with(x, row[:, None]).double().numpy()[:, 0] for row in v]))
            distance = np.abs(stats.norm.cdf(z) - (np.arange(len(z)) + 0.5) / len(z)).max()
            bound = 1 / (2 * n) + codec_edge(codec) + math.sqrt(math.log(2 / FALSE_POSITIVE) / 2 / len(z))
            assert distance < bound, (name, distance, bound)
        draws = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))
        back = codec.decode(draws)[:, 0].numpy()
        assert back.min() >= x.min()
        assert back.max() <= x.max()
        values, counts = np.unique(x, return_counts=True)
        if codec.decimals[0] >= 0 and len(values) <= 30:
            assert np.isin(back, values).all(), name
            got = np.array([(back == value).sum() for value in values])
            chi = ((got - 20_000 * counts / n) ** 2 / (20_000 * counts / n)).sum()
            assert stats.chi2.sf(chi, max(1, len(values) - 1)) > FALSE_POSITIVE, (name, chi)
        if name == "zero-inflated":  # a mass among others is exact, too
            share = (x == 0).float().mean().item()
            assert abs((back == 0).mean() - share) < 6 * math.sqrt(share * (1 - share) / 20_000)


def codec_edge(codec):
    """What EDGE takes from the largest step."""
    return 2**-10 * float((codec.high - codec.low).max())


def test_by_hand():
    """0, 0, 0, 4 repeats, so F(0−) = 0, F(0) = 3/4; 1, 2, …, 20 does not, so F is (k - 1/2)/20, linear between."""
    _, steps = fitted([0, 0, 0, 4])
    assert (steps.values.tolist(), steps.low.tolist(), steps.high.tolist()) == ([[0, 4]], [[0, 0.75]], [[0.75, 1]])
    x = torch.tensor([[0.0], [4.0]])
    torch.testing.assert_close(
        steps.encode(x)[:, 0].double(), torch.special.ndtri(torch.tensor([0.375, 0.875]).double()), rtol=0, atol=1e-6
    )
    smooth = Ranks.fit(torch.arange(1.0, 21)[:, None] + torch.tensor([[0.0, 0.5]])[:, :1])
    assert smooth.high[0, 2].item() == pytest.approx(2.5 / 20)
    between = Ranks.fit((torch.arange(1.0, 21) / 3)[:, None])
    z = between.encode(torch.tensor([[3.5 / 3]]))  # between the third and fourth
    assert float(torch.special.ndtr(z.double())) == pytest.approx(3 / 20, abs=1e-6)
    assert steps.decimals == (0,)
    assert fitted([0.25, 1.5])[1].decimals == (2,)
    assert math.isinf(float(steps.decode(torch.tensor([[math.nan]]))))
    assert math.isnan(float(steps.encode(torch.tensor([[math.inf]]))))
    assert normal_scores(torch.tensor([0.0, 1.0], dtype=torch.float64)).isfinite().all()


def test_columns_are_side_by_side():
    """Each is encoded as alone, whatever the others have of knots."""
    x = torch.stack([fitted(COLUMNS[name])[0][:, 0] for name in ("smooth", "counts", "few values", "constant")], 1)
    both = Ranks.fit(x)
    v = torch.rand(800, 4, generator=torch.Generator().manual_seed(0))
    for k in range(4):
        alone = Ranks.fit(x[:, k : k + 1])
        torch.testing.assert_close(
            both.encode_with(x, v)[:, k : k + 1], alone.encode_with(x[:, k : k + 1], v[:, k : k + 1])
        )
    assert torch.equal(both.encode(x.reshape(2, 400, 4)), both.encode(x).reshape(2, 400, 4))


@pytest.mark.unchecked
def test_config_and_weights_come_back_and_others_are_refused():
    _, codec = fitted(COLUMNS["zero-inflated"])
    again = codec_from_config(json.loads(json.dumps(codec.to_config())), codec.weights())
    assert all(torch.equal(part, again.weights()[name]) for name, part in codec.weights().items())
    config, weights = codec.to_config(), codec.weights()
    for bad in (
        ({"name": "ranks"}, weights),
        (config, {}),
        (config | {"decimals": [0, 0]}, weights),
        (config | {"decimals": "0"}, weights),
        (config, weights | {"low": weights["low"].float()}),
        (config, weights | {"low": weights["low"].flip(1)}),
        (config, weights | {"high": weights["high"] + 1}),
        (config, weights | {"high": weights["high"][:, :-1]}),
        (config, weights | {"values": weights["values"] * math.nan}),
    ):
        with pytest.raises(InputError):
            codec_from_config(*bad)
    for x in (torch.tensor([[math.inf]]), torch.zeros(0, 1), torch.zeros(3)):
        with pytest.raises(InputError):
            Ranks.fit(x)
    with pytest.raises(InputError, match="expects 1 columns"):
        codec.encode(torch.zeros(3, 2))
    with pytest.raises(InputError, match="1,500 levels; at most 1,000"):
        Ranks.fit(torch.arange(1500.0)[:, None], (True,))
