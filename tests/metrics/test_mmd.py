import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from ebbtide.errors import InputError
from ebbtide.metrics import energy_distance, mmd2
from ebbtide.metrics.mmd import energy_pairs, median_distance, mmd2_pairs, spectrum
from problems import SIGMAS


def normal(n, d, seed, shift=0.0, dtype=torch.float64):
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_pairs(kernel, x, y):
    """Gretton et al. 2012, Eq. 3, one pair at a time."""
    mean = lambda pairs: np.mean([kernel(math.dist(a, b)) for a, b in pairs])
    x, y = x.tolist(), y.tolist()
    within = mean(itertools.permutations(x, 2)) + mean(itertools.permutations(y, 2))
    return within - 2 * mean(itertools.product(x, y))


def test_two_points_by_hand():
    """{0, 0} against {1, 1} with h = 1: 1 + 1 − 2 exp(−½); energy 2·1 − 0 − 0."""
    x, y = torch.zeros(2, 1), torch.ones(2, 1)
    assert mmd2(x, y, bandwidth=1.0) == pytest.approx(2 - 2 * math.exp(-0.5), rel=1e-6)
    assert energy_distance(x, y) == pytest.approx(2, rel=1e-6)


def test_a_set_against_itself_is_below_zero():
    """{0, 1} against {0, 1}: 2·½ − 1 − 1 = −1, since x′ is never x but y may be: unbiased, so not ≥ 0."""
    x = torch.tensor([[0.0], [1.0]])
    assert energy_distance(x, x.clone()) == pytest.approx(-1, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (127, 128), (129, 260), (40, 7)])
def test_strips_of_pairs_agree_with_single_pairs(n, m):
    x, y = normal(n, 3, 0), normal(m, 3, 1, shift=0.5)
    assert mmd2(x, y, bandwidth=0.8) == pytest.approx(by_pairs(lambda r: math.exp(-(r**2) / 1.28), x, y), abs=1e-6)
    assert energy_distance(x, y) == pytest.approx(by_pairs(lambda r: -r, x, y), abs=2e-6)


def test_bandwidth_is_the_median_distance_of_the_real_data():
    """{0, 1, 3}: distances 1, 2, 3."""
    x, y = torch.tensor([[5.0], [9.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    assert median_distance(y) == 2
    assert mmd2(x, y) == mmd2(x, y, bandwidth=2.0)
    assert median_distance(torch.zeros(4, 2)) == 1


def test_far_from_the_origin_nothing_is_lost():
    x, y = normal(100, 2, 0), normal(100, 2, 1, shift=1.0)
    assert mmd2(x + 1e7, y + 1e7) == pytest.approx(mmd2(x, y), abs=1e-6)
    assert energy_distance(x + 1e7, y + 1e7) == pytest.approx(energy_distance(x, y), abs=1e-5)


def test_a_diverged_generator_still_has_a_distance():
    x, y = normal(50, 2, 0, dtype=torch.float32), normal(50, 2, 1, dtype=torch.float32)
    x[:20] *= 1e30
    assert 0 < mmd2(x, y) < 2
    assert 1e6 < energy_distance(x, y) < math.inf


def test_between_two_gaussians_in_closed_form():
    """N(0, 1), N(1.5, 1), h = 1: E k = exp(−δ²/6)/√3; energy 2 E|N(1.5, 2)| − 4/√π. 6 standard errors: 2e-9."""
    x, y, delta = normal(6000, 1, 0), normal(6000, 1, 1, shift=1.5), 1.5
    squared = 2 / 3**0.5 * (1 - math.exp(-(delta**2) / 6))
    across = 2 / math.pi**0.5 * math.exp(-(delta**2) / 4) + delta * math.erf(delta / 2)
    for value, expected, (of_x, of_y) in (
        (mmd2(x, y, 1.0), squared, mmd2_pairs(x, y, 1.0).influence),
        (energy_distance(x, y), 2 * across - 4 / math.pi**0.5, energy_pairs(x, y).influence),
    ):
        error = math.sqrt((of_x.var() + of_y.var()) / 6000)
        assert error < 0.03 * expected  # else the next line says nothing
        assert abs(value - expected) < SIGMAS * error


@pytest.mark.parametrize("distance", [mmd2, energy_distance])
def test_unbiased_between_equal_laws_and_positive_between_others(distance):
    """Over 500 repeats at n = m = 60 the mean is 0 within 6 standard errors (2e-9); leaving x′ = x in would
    put it 30 or more off. A mean shifted by 0.5 is then more than 20 standard errors from 0: power 1 − 1e-6."""

    def score(shift):
        values = [distance(normal(60, 2, 2 * i), normal(60, 2, 2 * i + 1, shift)) for i in range(500)]
        return np.mean(values) / (np.std(values) / 500**0.5)

    assert abs(score(0.0)) < SIGMAS
    assert score(0.5) > 20


def test_a_spectrum_by_hand():
    """The kernel a b of {−1, 1} has the Gram matrix (1, −1; −1, 1): λ = 2/2 and 0; between the two points it is −1. Of
    {0, 2} it is the same, once centred.
    """
    for gram in ([[1.0, -1.0], [-1.0, 1.0]], [[0.0, 0.0], [0.0, 4.0]]):
        assert sorted(spectrum(np.array(gram))) == pytest.approx([0, 1], abs=1e-12)


def test_influence_is_centred_and_adds_up():
    """Dropping one sample moves the U-statistic by its influence / (n − 1), up to 1/n²."""
    x, y = normal(200, 2, 0), normal(300, 2, 1, shift=1.0)
    for distance, influence in (
        (lambda a, b: mmd2(a, b, 1.0), mmd2_pairs(x, y, 1.0).influence),
        (energy_distance, energy_pairs(x, y).influence),
    ):
        assert [pytest.approx(0, abs=1e-12)] * 2 == [influence[0].mean(), influence[1].mean()]
        moves = [distance(x, y) - distance(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(20)]
        np.testing.assert_allclose(moves, influence[0][:20] / 199, atol=3e-4)


@given(n=st.integers(0, 3), d=st.integers(0, 3), m=st.integers(0, 3), e=st.integers(0, 3), fault=st.booleans())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("distance", [mmd2, energy_distance])
def test_shapes(distance, n, d, m, e, fault):
    x, y = torch.zeros(n, d), torch.zeros(m, e)
    if fault and y.numel():
        y[-1, -1] = float("inf")
    if min(n, m) >= 2 and d and d == e and not fault:
        assert distance(x, y) == 0
    else:
        with pytest.raises(InputError) as error:
            distance(x, y)
        assert str(error.value).endswith(".")


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan")])
def test_bandwidth_must_be_positive(bandwidth):
    with pytest.raises(InputError, match="bandwidth"):
        mmd2(torch.zeros(3, 1), torch.zeros(3, 1), bandwidth)


def test_a_hundred_million_pairs_take_about_a_second():
    x, y = normal(10_000, 2, 0), normal(10_000, 2, 1)
    start = time.process_time()
    mmd2(x, y)
    assert time.process_time() - start < 4  # 0.6 s alone
