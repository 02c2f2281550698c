import json
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbflow.data import DATASETS, IDENTITY, Pixels, Standardise, transform_from_config
from ebbflow.errors import InputError

widths = st.integers(1, 5)


def matrix(seed: int, n: int, d: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    scale = 10 ** (6 * torch.rand(d, generator=g, dtype=torch.float64) - 3)
    return scale * (torch.randn(n, d, generator=g, dtype=torch.float64) + 3)


def test_by_hand():
    """1, 2, 3, 6 has mean 3 and variance (4 + 1 + 0 + 9) / 4."""
    transform = Standardise.fit(torch.tensor([[1.0, 7], [2, 7], [3, 7], [6, 7]]))
    assert transform.mean == (3, 7)
    assert transform.std == (pytest.approx(math.sqrt(3.5)), 1)
    z = transform.apply(torch.tensor([[3 + 2 * math.sqrt(3.5), 7]], dtype=torch.float64))
    torch.testing.assert_close(z, torch.tensor([[2.0, 0]], dtype=torch.float64))
    assert transform.log_volume((2,)) == pytest.approx(math.log(3.5) / 2)


@given(seed=st.integers(0, 2**31), n=st.integers(2, 20), d=widths)
@settings(max_examples=50, deadline=None)
def test_fit_apply_undo(seed, n, d):
    x = matrix(seed, n, d)
    transform = Standardise.fit(x)
    z = transform.apply(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(d, dtype=x.dtype), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.square().mean(0), torch.ones(d, dtype=x.dtype))
    torch.testing.assert_close(transform.undo(z), x)
    torch.testing.assert_close(transform.undo(transform.apply(x.float())), x.float(), rtol=1e-4, atol=1e-3)


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False), st.floats(1e-300, 1e300)),
        max_size=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_config_round_trip_is_exact(pairs):
    transform = Standardise(tuple(m for m, _ in pairs), tuple(s for _, s in pairs))
    assert transform_from_config(json.loads(json.dumps(transform.to_config()))) == transform


def test_identity():
    x = torch.randn(3, 2)
    assert IDENTITY.apply(x) is x
    assert IDENTITY.undo(x) is x
    assert IDENTITY.log_volume((2,)) == 0
    assert IDENTITY.to_config() == {"name": "none"}
    assert transform_from_config({"name": "none"}) == IDENTITY


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_leading_shape_are_kept(dtype):
    transform = Standardise((1.0, 2.0), (3.0, 4.0))
    for shape in [(2,), (0, 2), (5, 2), (4, 5, 2)]:
        x = torch.ones(shape, dtype=dtype)
        assert transform.apply(x).dtype == dtype
        assert transform.apply(x).shape == shape
        assert transform.undo(x).dtype == dtype
        assert transform.undo(x).shape == shape


def test_statistics_are_float64():
    """In float32, a sum of 10⁵ values near 10⁶ loses the spread of 1."""
    x = 1e6 + torch.arange(100_000, dtype=torch.float32)[:, None] % 2
    transform = Standardise.fit(x)
    assert transform.mean == (1_000_000.5,)
    assert transform.std == (0.5,)


def test_constant_columns_are_only_shifted():
    transform = Standardise.fit(torch.full((7, 1), 0.1))
    assert transform.std == (1.0,)
    torch.testing.assert_close(transform.apply(torch.full((7, 1), 0.1)), torch.zeros(7, 1), atol=1e-7, rtol=0)


def test_nothing_is_clipped():
    transform = Standardise((0.0,), (1.0,))
    assert transform.apply(torch.tensor([[1e30]])).item() == pytest.approx(1e30)


def test_log_volume_turns_one_density_into_the_other():
    """∫ p(z(x)) / volume dx = 1, for a density over z and a grid over x."""
    transform = Standardise((1.0, -2.0), (0.5, 3.0))
    x, y = torch.linspace(-1.5, 3.5, 400).double(), torch.linspace(-17, 13, 400).double()
    z = transform.apply(torch.cartesian_prod(x, y))
    log_p = DATASETS["three_gaussians"].log_density(z) - transform.log_volume((2,))
    assert float(log_p.exp().sum() * (x[1] - x[0]) * (y[1] - y[0])) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
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
        ({"name": "standardise", "mean": [0], "std": [0]}, "std"),
        ({"name": "standardise", "mean": [0], "std": [-1]}, "-1"),
        ({"name": "standardise", "mean": [0], "std": [math.inf]}, "inf"),
        ([], "table"),
        (None, "table"),
    ],
)
def test_a_malformed_config_is_refused(config, word):
    with pytest.raises(InputError) as caught:
        transform_from_config(config)
    assert "\n" not in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize("method", ["apply", "undo"])
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
    z = Pixels().apply(x)
    assert z.dtype == torch.float32
    assert z[[0, 1, 3, 4]].tolist() == pytest.approx([-1, -0.6, 0.6, 1])
    assert torch.equal(Pixels().undo(z).round().to(torch.uint8), x)
    assert Pixels().undo(torch.tensor([2.0])).item() == 382.5  # what lies outside stays there
    every = torch.arange(256)
    assert torch.equal(Pixels().undo(Pixels().apply(every.to(torch.uint8))).round().long(), every)


def test_pixels_know_their_volume_and_survive_json():
    assert Pixels().log_volume((3, 2, 2)) == pytest.approx(12 * math.log(127.5))
    assert transform_from_config(json.loads(json.dumps(Pixels().to_config()))) == Pixels()
    with pytest.raises(InputError, match="takes the keys 'name'; got 'low', 'name'"):
        transform_from_config({"name": "pixels", "low": 0})
