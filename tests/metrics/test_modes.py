import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import binom

from ebbtide.errors import InputError
from ebbtide.metrics import label_agreement, mean_log_density, mode_fractions, outlier_fraction
from ebbtide.metrics.modes import expected_outliers
from problems import FALSE_POSITIVE, SIGMAS

SQUARE = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_outliers_by_hand():
    """σ = 2, so 4 σ is 8: (8.1, −8.1) is 11.5 from 0 and 8.3 from (10, 0); (10, 7) is 7 from (10, 0)."""
    x = torch.tensor([[0.0, 0.0], [8.1, -8.1], [10.0, 7.0], [-8.01, 0.0]])
    assert outlier_fraction(x, SQUARE, 2.0) == 0.5
    assert outlier_fraction(x, SQUARE, 2.0, sigmas=4.2) == 0


def test_a_gaussian_in_the_plane_has_exp_minus_8_beyond_4_sigma():
    """3.35e-4 of a million: 335 ± 18. The bounds are the exact binomial's, at FALSE_POSITIVE; half as many more are
    seen with power 0.99."""
    x = 0.3 * torch.randn(1_000_000, 2, generator=torch.Generator().manual_seed(0))
    low, high = binom.ppf([FALSE_POSITIVE / 2, 1 - FALSE_POSITIVE / 2], 1_000_000, math.exp(-8))
    assert low <= outlier_fraction(x, torch.zeros(1, 2), 0.3) * 1_000_000 <= high


def test_how_many_outliers_truth_has():
    """P(χ²_d > 16): exp(−8) in the plane, erfc(√8) on a line. Modes nearer than 8 σ share their outliers."""
    assert expected_outliers(SQUARE, 1.0) == pytest.approx(math.exp(-8))
    assert expected_outliers(torch.zeros(1, 1), 5.0) == pytest.approx(math.erfc(8**0.5))
    assert expected_outliers(SQUARE, 1.24) is not None
    assert expected_outliers(SQUARE, 1.26) is None


def test_mode_fractions_by_hand():
    x = torch.tensor([[1.0, 1.0], [9.0, 1.0], [6.0, 0.0], [-3.0, -3.0]])
    assert mode_fractions(x, SQUARE).tolist() == [0.5, 0.5, 0.0]


def test_mean_log_density_by_hand():
    x = torch.tensor([[1.0], [3.0]])
    assert mean_log_density(x, lambda x: -x.square().sum(1)) == -5


def test_mean_log_density_of_the_truth_is_minus_its_entropy():
    """N(0, I) in the plane: −1 − log 2π, each sample with variance 1. 6 standard errors: 2e-9."""
    x = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1))
    density = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    assert abs(mean_log_density(x, density.log_prob) + 1 + math.log(2 * math.pi)) < SIGMAS / 100_000**0.5


def test_label_agreement_by_hand():
    reference, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([7, 3, 7])
    x = torch.tensor([[-1.0], [0.9], [4.0], [100.0]])
    assert label_agreement(x, torch.tensor([7, 3, 3, 7]), reference, labels) == 0.75
    assert label_agreement(x.double(), torch.tensor([7, 3, 7, 7]), reference, labels) == 1


def test_every_point_needs_a_label():
    x, labels = torch.zeros(3, 1), torch.tensor([0, 1])
    with pytest.raises(InputError, match="one label; got 3 for 3 and 2 for 3"):
        label_agreement(x, torch.tensor([0, 1, 1]), x, labels)


def test_log_density_must_give_one_value_each():
    with pytest.raises(InputError, match="log_density must give 3 values"):
        mean_log_density(torch.zeros(3, 2), lambda x: x)


@given(n=st.integers(0, 3), d=st.integers(0, 3), k=st.integers(0, 3), e=st.integers(0, 3), fault=st.booleans())
@settings(max_examples=60, deadline=None)
def test_shapes(n, d, k, e, fault):
    x, means = torch.zeros(n, d), torch.zeros(k, e)
    if fault and means.numel():
        means[0, 0] = float("nan")
    if n and k and d and d == e and not fault:
        assert outlier_fraction(x, means, 1.0) == 0
        assert mode_fractions(x, means).sum() == 1
    else:
        for metric in (mode_fractions, lambda x, means: outlier_fraction(x, means, 1.0)):
            with pytest.raises(InputError) as error:
                metric(x, means)
            assert str(error.value).endswith(".")
