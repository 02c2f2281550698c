"""Levels as unit vectors: exact on every row, centred, and of variance 1 together."""

import json
import math

import pytest
import torch

from ebbtide.codecs import Category, codec_from_config, fit_codec
from ebbtide.errors import InputError

X = torch.tensor([[0, 1.0], [2, 0], [1, 0], [0, math.nan], [0, 0], [0, 1]])


def test_every_row_comes_back_and_groups_weigh_as_one_column():
    codec = Category.fit(X, [3, 2])
    z = codec.encode(X)
    assert z.shape == (6, 6) == (6, *codec.shape((2,)))
    torch.testing.assert_close(codec.decode(z), X, equal_nan=True)
    torch.testing.assert_close(z.mean(0), torch.zeros(6), atol=1e-6, rtol=0)
    for group in z.split(3, 1):
        assert float(group.square().sum(1).mean()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(codec.encode_with(X, torch.rand(6, 6)), z)


def test_by_hand():
    """Two levels, seen 3 : 1: p = (¾, ¼), s² = 1 − 10/16, and z = (e − p) / s."""
    codec = Category.fit(torch.tensor([[0.0], [0], [1], [0]]), [2])
    s = math.sqrt(6 / 16)
    torch.testing.assert_close(codec.encode(torch.tensor([[1.0]])), torch.tensor([[-0.75 / s, 0.75 / s]]))
    assert codec.decode(torch.tensor([[0.1, 0.3]])).tolist() == [[0]]  # the share counts: 0.1 s + ¾ > 0.3 s + ¼
    assert math.isinf(float(codec.decode(torch.tensor([[math.nan, 0]]))))
    constant = Category.fit(torch.zeros(3, 1), [1])
    assert constant.decode(constant.encode(torch.zeros(3, 1))).tolist() == [[0]] * 3


@pytest.mark.unchecked
def test_config_and_weights_come_back_and_others_are_refused():
    codec = fit_codec("category", lambda: [X])
    assert (codec.levels, codec.gaps) == ((3, 2), (False, True))
    config, weights = json.loads(json.dumps(codec.to_config())), codec.weights()
    assert torch.equal(codec_from_config(config, weights).encode(X), codec.encode(X))
    for bad in (
        (config | {"levels": [3]}, weights),
        (config | {"levels": [3, 0]}, weights),
        (config | {"levels": 3}, weights),
        (config | {"gaps": [0, 1]}, weights),
        (config, {}),
        (config, {"shares": weights["shares"] - 1}),
        (config, {"shares": weights["shares"].float()}),
    ):
        with pytest.raises(InputError):
            codec_from_config(*bad)
    for x in (torch.tensor([[3.0, 0]]), torch.tensor([[math.nan, 0]]), torch.zeros(1, 3)):
        with pytest.raises(InputError):
            codec.encode(x)
    for x in (torch.tensor([[0.5]]), torch.tensor([[-1.0]])):
        with pytest.raises(InputError, match="levels"):
            fit_codec("category", lambda x=x: [x])
