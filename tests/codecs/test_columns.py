import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cells import each
from ebbtide.codecs import (
    IDENTITY,
    Pixels,
    Quantiles,
    Standardise,
    codec_from_config,
    columns as module,
    within_float32,
)
from ebbtide.data import DATASETS
from ebbtide.errors import InputError

widths = st.integers(1, 5)


def matrix(seed: int, n: int, d: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    scale = 10 ** (6 * torch.rand(d, generator=g, dtype=torch.float64) - 3)
    return scale * (torch.randn(n, d, generator=g, dtype=torch.float64) + 3)


def test_by_hand():
    """1, 2, 3, 6 has mean 3 and variance (4 + 1 + 0 + 9) / 4."""
    codec = Standardise.fit(torch.tensor([[1.0, 7], [2, 7], [3, 7], [6, 7]]))
    assert codec.mean == (3, 7)
    assert codec.std == (pytest.approx(math.sqrt(3.5)), 0)
    z = codec.encode(torch.tensor([[3 + 2 * math.sqrt(3.5), 7]], dtype=torch.float64))
    torch.testing.assert_close(z, torch.tensor([[2.0, 0]], dtype=torch.float64))
    assert codec.log_volume((2,)) == pytest.approx(math.log(3.5) / 2)


@given(seed=st.integers(0, 2**31), n=st.integers(2, 20), d=widths)
@settings(max_examples=50, deadline=None)
def test_fit_apply_undo(seed, n, d):
    x = matrix(seed, n, d)
    codec = Standardise.fit(x)
    z = codec.encode(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(d, dtype=x.dtype), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.square().mean(0), torch.ones(d, dtype=x.dtype))
    torch.testing.assert_close(codec.decode(z), x)
    torch.testing.assert_close(codec.decode(codec.encode(x.float())), x.float(), rtol=1e-4, atol=1e-3)


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False), st.floats(1e-300, 1e300)),
        max_size=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_config_round_trip_is_exact(pairs):
    codec = Standardise(tuple(m for m, _ in pairs), tuple(s for _, s in pairs))
    assert codec_from_config(json.loads(json.dumps(codec.to_config()))) == codec


def test_identity():
    x = torch.randn(3, 2)
    assert IDENTITY.encode(x) is x
    assert IDENTITY.decode(x) is x
    assert IDENTITY.log_volume((2,)) == 0
    assert IDENTITY.to_config() == {"name": "none"}
    assert codec_from_config({"name": "none"}) == IDENTITY


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_leading_shape_are_kept(dtype):
    codec = Standardise((1.0, 2.0), (3.0, 4.0))
    for shape in [(2,), (0, 2), (5, 2), (4, 5, 2)]:
        x = torch.ones(shape, dtype=dtype)
        assert codec.encode(x).dtype == dtype
        assert codec.encode(x).shape == shape
        assert codec.decode(x).dtype == dtype
        assert codec.decode(x).shape == shape


def test_statistics_are_float64():
    """In float32, a sum of 10⁵ values near 10⁶ loses the spread of 1."""
    x = 1e6 + torch.arange(100_000, dtype=torch.float32)[:, None] % 2
    codec = Standardise.fit(x)
    assert codec.mean == (1_000_000.5,)
    assert codec.std == (0.5,)


@pytest.mark.parametrize("n", [1, 4, 5, 13])
def test_columns_are_fitted_block_by_block(monkeypatch, n):
    """Also to rows that are never in memory together; quantiles a column at a time."""

    class Parts:
        def __init__(self, x):
            self.x, self.shape, self.most = x, x.shape, 0

        def __len__(self):
            return len(self.x)

        def split(self, size):
            self.most = max(self.most, size)
            return self.x.split(size)

    x = 50 + torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    x[:, 2] = 7
    quantiles = Quantiles.fit(x)
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "TOGETHER", 8 * n)
    parts = Parts(x)
    codec = Standardise.fit(parts)
    assert codec == Standardise.fit(x)
    assert codec.mean == pytest.approx(x.mean(0).tolist(), rel=1e-14)
    assert codec.std == pytest.approx(x.std(0, correction=0).tolist(), rel=1e-12)
    assert Quantiles.fit(parts) == quantiles
    assert parts.most == 4


@each("value", [0.1, 7.3, -1e30, 0.0])
@each("fit", [Standardise.fit, Quantiles.fit, lambda x: Standardise.fit(x).of_constants()])
@each("least", [{}, {"least": 0.5}])
def test_constant_columns_are_exactly_constant(value, fit, least):
    """Whatever the network makes of them. Another value on the way in is shifted: a robot may meet one."""
    x = torch.tensor([[value, 1], [value, 2], [value, 6]])
    codec = fit(x, **least) if fit in (Standardise.fit, Quantiles.fit) else fit(x)
    z = codec.encode(x)
    assert z[:, 0].tolist() == [0, 0, 0]
    assert torch.equal(codec.decode(z + 0.06)[:, 0], x[:, 0])
    assert codec.encode(x + 1)[0, 0] == (x + 1 - x)[0, 0]
    assert math.isfinite(codec.log_volume((2,)))
    assert codec_from_config(json.loads(json.dumps(codec.to_config()))) == codec


def test_only_constants():
    codec = Standardise.fit(torch.tensor([[5.0, 1, 9], [5, 3, 9]])).of_constants()
    assert (codec.mean, codec.std) == ((5, 0, 9), (0, 1, 0))
    assert codec.constant == {0: 5, 2: 9}
    assert Standardise.fit(torch.tensor([[1.0], [3]])).of_constants() == IDENTITY


def test_nothing_is_clipped():
    codec = Standardise((0.0,), (1.0,))
    assert codec.encode(torch.tensor([[1e30]])).item() == pytest.approx(1e30)


def test_log_volume_turns_one_density_into_the_other():
    """∫ p(z(x)) / volume dx = 1, for a density over z and a grid over x."""
    codec = Standardise((1.0, -2.0), (0.5, 3.0))
    x, y = torch.linspace(-1.5, 3.5, 400).double(), torch.linspace(-17, 13, 400).double()
    z = codec.encode(torch.cartesian_prod(x, y))
    log_p = DATASETS["three_gaussians"].log_density(z) - codec.log_volume((2,))
    assert float(log_p.exp().sum() * (x[1] - x[0]) * (y[1] - y[0])) == pytest.approx(1, abs=1e-4)


@each(
    ("config", "word"),
    [
        ({}, "name"),
        ({"name": "standardize", "mean": [0], "std": [1]}, "did you mean 'standardise'"),
        ({"name": "os.system"}, "os.system"),
        ({"name": ["none"]}, "none"),
        ({"name": "none", "mean": [0]}, "mean"),
        ({"name": "standardise"}, "'std'"),
        ({"name": "standardise", "mean": [0]}, "'std'"),
        ({"name": "standardise", "mean": [0], "std": [1], "clip": 1}, "'clip'"),
        ({"name": "standardise", "mean": [0, 1], "std": [1]}, "2 and 1"),
        ({"name": "standardise", "mean": [], "std": []}, "mean"),
        ({"name": "standardise", "mean": 0, "std": 1}, "mean"),
        ({"name": "standardise", "mean": ["0"], "std": [1]}, "'0'"),
        ({"name": "standardise", "mean": [True], "std": [1]}, "True"),
        ({"name": "standardise", "mean": [None], "std": [1]}, "None"),
        ({"name": "standardise", "mean": [math.nan], "std": [1]}, "nan"),
        ({"name": "standardise", "mean": [10**400], "std": [1]}, "mean"),
        ({"name": "standardise", "mean": [0], "std": [-1]}, "-1"),
        ({"name": "standardise", "mean": [0], "std": [math.inf]}, "inf"),
        ({"name": "quantiles"}, "'high', 'low'"),
        ({"name": "quantiles", "low": [0], "high": [1], "clip": 1}, "'clip'"),
        ({"name": "quantiles", "low": [], "high": []}, "low"),
        ({"name": "quantiles", "low": [0, 1], "high": [1]}, "2 and 1"),
        ({"name": "quantiles", "low": [1], "high": [0]}, "high must be at least 1"),
        ({"name": "quantiles", "low": [math.nan], "high": [0]}, "nan"),
        ({"name": "quantiles", "low": [-1e308], "high": [1e308]}, "finite"),
        ({"name": "quantiles", "low": ["0"], "high": [1]}, "'0'"),
        ([], "table"),
        (None, "table"),
    ],
)
def test_a_malformed_config_is_refused(config, word):
    with pytest.raises(InputError) as caught:
        codec_from_config(config)
    assert "\n" not in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_the_width_must_match(method):
    with pytest.raises(InputError, match="2 columns"):
        getattr(Standardise((0.0, 0.0), (1.0, 1.0)), method)(torch.zeros(5, 3))


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_nothing_to_fit(shape):
    with pytest.raises(InputError, match="row"):
        Standardise.fit(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_fit_refuses_what_is_not_finite(value):
    with pytest.raises(InputError, match="finite"):
        Standardise.fit(torch.tensor([[1.0], [value]]))


def test_pixels_go_to_minus_one_and_one_and_back():
    x = torch.tensor([0, 51, 127, 204, 255], dtype=torch.uint8)
    z = Pixels().encode(x)
    assert z.dtype == torch.float32
    assert z[[0, 1, 3, 4]].tolist() == pytest.approx([-1, -0.6, 0.6, 1])
    assert torch.equal(Pixels().decode(z).round().to(torch.uint8), x)
    assert Pixels().decode(torch.tensor([2.0])).item() == 382.5  # what lies outside stays there
    every = torch.arange(256)
    assert torch.equal(Pixels().decode(Pixels().encode(every.to(torch.uint8))).round().long(), every)


def test_pixels_know_their_volume_and_survive_json():
    assert Pixels().log_volume((3, 2, 2)) == pytest.approx(12 * math.log(127.5))
    assert codec_from_config(json.loads(json.dumps(Pixels().to_config()))) == Pixels()
    with pytest.raises(InputError, match="takes the keys 'name'; got 'low', 'name'"):
        codec_from_config({"name": "pixels", "low": 0})


# --- quantiles ------------------------------------------------------------------------------------------------------


def test_quantiles_by_hand():
    """Of 0, 1, …, 100 the quantiles are 1 and 99, the centre 50, dx/dz 49; of ten and once fifty, 1 % is 10."""
    x = torch.stack([torch.arange(101.0), torch.full((101,), 7.0)], 1)
    codec = Quantiles.fit(x)
    assert codec.low == (pytest.approx(1), 7)
    assert codec.high == (pytest.approx(99), 7)
    z = codec.encode(torch.tensor([[1.0, 7], [99, 7], [50, 7], [148, 9], [-48, 4]]))
    torch.testing.assert_close(z, torch.tensor([[-1.0, 0], [1, 0], [0, 0], [2, 2], [-2, -3]]))  # and nothing clipped
    torch.testing.assert_close(codec.decode(torch.tensor([[3.0, 1.0]])), torch.tensor([[50 + 3 * 49.0, 7]]))
    assert codec.log_volume((2,)) == pytest.approx(math.log(49))


def test_between_two_values_quantiles_are_linear():
    codec = Quantiles.fit(torch.tensor([[0.0], [10.0]]), 0.1, 0.75)
    assert (codec.low, codec.high) == ((pytest.approx(1),), (pytest.approx(7.5),))


@given(seed=st.integers(0, 2**31), n=st.integers(2, 20), d=widths)
@settings(max_examples=50, deadline=None)
def test_the_least_and_largest_become_minus_one_and_one(seed, n, d):
    x = matrix(seed, n, d)
    codec = Quantiles.fit(x, 0.0, 1.0)
    z = codec.encode(x)
    torch.testing.assert_close(z.amin(0), -torch.ones(d, dtype=x.dtype))
    torch.testing.assert_close(z.amax(0), torch.ones(d, dtype=x.dtype))
    torch.testing.assert_close(codec.decode(z), x)
    assert codec_from_config(json.loads(json.dumps(codec.to_config()))) == codec


def test_two_percent_lie_beyond_the_quantiles():
    x = torch.randn(10_000, 2, generator=torch.Generator().manual_seed(0))
    z = Quantiles.fit(x).encode(x)
    assert (z.abs() > 1).sum(0).tolist() == [200, 200]
    assert z.abs().max() > 1.5


def test_a_column_that_hardly_moves_is_only_shifted():
    """Two rows of a thousand are beyond both quantiles, which are equal: no division by zero, and nothing is lost."""
    x = torch.full((1000, 1), 3.0)
    x[:2] = torch.tensor([[2.0], [5.5]])
    codec = Quantiles.fit(x)
    assert codec.encode(x)[:3].flatten().tolist() == [-1, 2.5, 0]
    assert torch.equal(codec.decode(codec.encode(x)), x)
    assert codec.log_volume((1,)) == 0


def test_quantiles_of_many_numbers():
    """torch.quantile refuses more than 2²⁴."""
    x = torch.zeros(2**24 + 1, 1)
    x[: len(x) // 2] = 1
    codec = Quantiles.fit(x)
    assert (codec.low, codec.high) == ((0,), (1,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_keep_dtype_and_leading_shape(dtype):
    codec = Quantiles((1.0, 2.0), (3.0, 4.0))
    for shape in [(2,), (0, 2), (5, 2), (4, 5, 2)]:
        for method in (codec.encode, codec.decode):
            assert method(torch.ones(shape, dtype=dtype)).dtype == dtype
            assert method(torch.ones(shape, dtype=dtype)).shape == shape
    for method in (codec.encode, codec.decode):
        with pytest.raises(InputError, match="2 columns"):
            method(torch.zeros(5, 3))


def test_quantiles_give_densities_their_volume():
    """z standard normal in x: p(x) must be N(x; 2, 3²) where low, high = -1, 5."""
    codec, x = Quantiles((-1.0,), (5.0,)), torch.tensor([[4.0]], dtype=torch.float64)
    normal = torch.distributions.Normal(torch.tensor(2.0).double(), torch.tensor(3.0).double())
    z = codec.encode(x)
    log_p = -z.square().sum() / 2 - math.log(2 * math.pi) / 2 - codec.log_volume((1,))
    torch.testing.assert_close(log_p, normal.log_prob(x).sum())


@pytest.mark.parametrize(("x", "word"), [
    (torch.zeros(0, 2), "row"), (torch.zeros(3, 0), "row"),
    (torch.tensor([[1.0], [math.nan]]), "finite"), (torch.tensor([[1.0]] * 500 + [[math.inf]]), "finite"),
])  # fmt: skip
def test_quantiles_refuse_what_has_none(x, word):
    with pytest.raises(InputError, match=word):
        Quantiles.fit(x)


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((0.5, 0.5), "high must be above 0.5 and at most 1; got 0.5."),
        ((0.9, 0.1), "high must be above 0.9 and at most 1; got 0.1."),
        ((-0.1, 1.0), "low must be at least 0 and below 1; got -0.1."),
        ((0.0, 1.1), "high must be above 0 and at most 1; got 1.1."),
        ((math.nan, 1.0), "low must be at least 0 and below 1; got nan."),
        (("0.1", 1.0), "low must be a number, at least 0 and below 1; got '0.1'."),
    ],
)
def test_quantiles_must_be_two_shares(pair, message):
    with pytest.raises(InputError) as caught:
        Quantiles.fit(torch.zeros(2, 1), *pair)
    assert str(caught.value) == message


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Standardise.fit([[1.0]]), "x must be a tensor; got [[1.0]]."),
        (lambda: Standardise.fit(torch.zeros(3)), "x must be a tensor or array of shape (n, d); got a tensor of"),
        (lambda: Standardise.fit(torch.zeros(3, 1), least="1"), "least must be a number, at least 0 and finite; got"),
        (lambda: Quantiles.fit(np.zeros((3, 1))), "x must be a tensor; got an array of shape (3, 1)."),
        (lambda: Standardise([0.0], [1.0]), "mean must be a tuple; got [0.0]."),
        (lambda: Standardise(("0",), (1.0,)), "mean must be a finite number; got '0'."),
        (lambda: Quantiles((0.0,), (None,)), "high must be a number, at least 0 and finite; got None."),
        (lambda: Standardise((0.0,), (1.0,)).encode([1.0]), "The data must be a tensor; got [1.0]."),
        (lambda: Quantiles((0.0,), (1.0,)).decode([1.0]), "The data must be a tensor; got [1.0]."),
        (lambda: Pixels().encode([1.0]), "The data must be a tensor; got [1.0]."),
    ],
)
def test_wrong_types_are_one_sentence(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_a_column_that_hardly_moves_is_not_stretched_beyond_what_is_asked():
    x = torch.tensor([[0.0, 5.0, 0.0], [1e-4, 5.0, 4.0]])
    assert Standardise.fit(x, least=0.5).std == pytest.approx((0.5, 0, 2.0))
    assert Standardise.fit(x).std == pytest.approx((5e-5, 0, 2.0))
    found = Quantiles.fit(x, 0.0, 1.0, least=0.5)
    assert found.scale == pytest.approx((0.5, 0, 2.0))
    assert found.centre == pytest.approx((5e-5, 5.0, 2.0))


@pytest.mark.parametrize("fit", [Standardise.fit, Quantiles.fit])
@pytest.mark.parametrize("scale", [1e37, 1e-39])
def test_a_spread_beyond_float32_is_refused_by_the_columns_name(fit, scale):
    x = torch.tensor([[1.0, -1.0], [2.0, 1.0], [3.0, -1.0], [4.0, 1.0]]) * torch.tensor([1.0, scale])
    with pytest.raises(InputError, match=r"^a\.csv, column 'y': values around .* that spread by ") as refused:
        within_float32(fit(x), "a.csv", ("x", "y"))
    assert str(refused.value).endswith("float32 holds, 1.2e-38 to 3.4e+38; scale them.")
    with pytest.raises(InputError, match=r"^a\.csv, column 2: "):
        within_float32(fit(x), "a.csv")


@pytest.mark.parametrize("scale", [3e36, 1e-37])
def test_up_to_a_hundred_spreads_float32_has_room(scale):
    """100 × 3e36 = 3e38 is below 3.4e38, and comes back finite; a spread of 0 is nobody's."""
    codec = Standardise((0.0,), (scale,))
    within_float32(codec, "a.csv")
    assert bool(codec.decode(torch.tensor([[100.0]])).isfinite())
    within_float32(Pixels(), "a.npz")
    within_float32(Quantiles((1.0,), (1.0,)), "a.npz")
    with pytest.raises(InputError, match="column 1"):  # the middle counts too
        within_float32(Standardise((1e38,), (3e36,)), "a.csv")
