"""Missing cells: exact on every row, fresh noise for the value, and as frequent as in training."""

import json
import math

import pytest
import torch
from scipy import stats

from ebbtide.codecs import Missing, codec_from_config, fit_codec
from ebbtide.errors import InputError
from problems import FALSE_POSITIVE

G = torch.Generator().manual_seed(0)
X = torch.stack([torch.randn(500, generator=G), (10 * torch.rand(500, generator=G)).round()], 1).round(decimals=2)
X[torch.rand(500, 2, generator=G) < torch.tensor([0.2, 0.02])] = math.nan


def test_every_row_comes_back_and_empty_cells_have_fresh_noise():
    codec = Missing.fit(X)
    v = torch.rand(500, 4, generator=G)
    z = codec.encode_with(X, v)
    assert z.shape == (500, 4) == (500, *codec.shape((2,)))
    torch.testing.assert_close(codec.decode(z), X, rtol=0, atol=0, equal_nan=True)
    gap = X[:, 0].isnan()
    torch.testing.assert_close(torch.special.ndtr(z[gap, 0]), v[gap, 0], atol=2e-3, rtol=0)
    assert not bool(codec.encode(X)[gap, 0].any())  # without V in the middle


def test_draws_have_as_many_missing_cells():
    codec = Missing.fit(X)
    back = codec.decode(torch.randn(20_000, 4, generator=G))
    for k in range(2):
        share = X[:, k].isnan().double().mean().item()
        got = int(back[:, k].isnan().sum())
        assert stats.binomtest(got, 20_000, share).pvalue > FALSE_POSITIVE
    assert bool(codec.decode(torch.full((1, 4), math.nan)).isinf().all())  # no sample, which NaN would hide


def test_an_all_empty_column_and_a_full_one():
    x = torch.tensor([[math.nan, 1.0], [math.nan, 2.0]])
    codec = Missing.fit(x)
    back = codec.decode(torch.randn(50, 4, generator=G))
    assert bool(back[:, 0].isnan().all())
    assert not bool(back[:, 1].isnan().any())
    torch.testing.assert_close(codec.decode(codec.encode(x)), x, equal_nan=True)


@pytest.mark.unchecked
def test_config_and_weights_come_back_and_others_are_refused():
    codec = fit_codec("missing", lambda: X.split(100))
    config, weights = json.loads(json.dumps(codec.to_config())), codec.weights()
    assert torch.equal(codec_from_config(config, weights).encode(X), codec.encode(X))
    for bad in (
        (config, {}),
        ({"name": "missing"}, weights),
        (config | {"decimals": 2}, weights),
        (config, weights | {"more.low": weights["empty.low"]}),
        (config, {name: part for name, part in weights.items() if name != "empty.low"}),
        (config, {name: part[:1] if name.startswith("empty") else part for name, part in weights.items()}),
    ):
        with pytest.raises(InputError):
            codec_from_config(*bad)
    with pytest.raises(InputError, match="two numbers per column"):
        codec.decode(torch.zeros(3, 3))
