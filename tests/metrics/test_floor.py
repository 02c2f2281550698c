"""How far from the floor, and how often truth would be: by hand, against scipy's tests, and by their measured level."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import binom, binomtest, fisher_exact, norm, t as students_t

from ebbtide.metrics.floor import (
    LEVEL,
    NORMAL,
    beside_known,
    draws_behind,
    means_beside,
    medians,
    sets_beside,
    share_beside,
    shares,
    student,
)
from problems import FALSE_POSITIVE


def test_a_tail_is_the_worse_side():
    """t = 2 with 5 degrees has 5.097 % above and as much below; normal, 2.275 %."""
    assert student(0.4, 0.2, "lower", 5.0) == pytest.approx(0.05097, abs=1e-5)
    assert student(0.4, 0.2, "higher", 5.0) == pytest.approx(1 - 0.05097, abs=1e-5)
    assert student(-0.4, 0.2, "equal", 5.0) == student(0.4, 0.2, "equal", 5.0) == pytest.approx(2 * 0.05097, abs=2e-5)
    assert student(0.4, 0.2, "lower") == pytest.approx(norm.sf(2))


def test_without_scatter_a_difference_is_all_or_nothing():
    assert [student(d, 0.0, "lower") for d in (0.0, 1e-9, -1e-9)] == [1, 0, 1]
    assert [student(d, 0.0, "equal") for d in (0.0, 1e-9, -1e-9)] == [1, 0, 0]
    assert student(-math.inf, math.nan, "equal") == 0  # a sample outside the support
    assert math.isnan(student(1.0, math.nan, "lower"))


def test_thirteen_outliers_are_no_truth():
    """Truth has exp(−8) = 3.35 of 10 000. P(K ≥ 13) = 5e-5 where that is known, and 6e-4 where six truths had 20."""
    known = shares(13, 10_000, math.exp(-8), math.inf, "lower")
    assert known == pytest.approx(5e-5, rel=0.1)
    assert known == pytest.approx(binom.sf(12, 10_000, math.exp(-8)), rel=1e-6)
    counted = shares(13, 10_000, 20 / 60_000, 60e3, "lower")
    assert known < counted < LEVEL / 10
    assert shares(0, 10_000, math.exp(-8), math.inf, "lower") == 1
    assert shares(1, 10_000, 0.0, math.inf, "lower") == 0  # what truth never has


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_counts_are_fishers_and_the_binomial_tests(k, n, k0, n0):
    k, k0 = min(k, n), min(k0, n0)
    for better, alternative in (("lower", "greater"), ("higher", "less")):
        p = shares(k, n, k0 / n0, float(n0), better)
        assert p == pytest.approx(fisher_exact([[k, n - k], [k0, n0 - k0]], alternative).pvalue, rel=1e-9)
        p = shares(k, n, k0 / n0, math.inf, better)
        assert p == pytest.approx(binomtest(k, n, k0 / n0, alternative).pvalue, rel=1e-9)
    sides = [shares(k, n, k0 / n0, float(n0), better) for better in ("lower", "higher")]
    assert shares(k, n, k0 / n0, float(n0), "equal") == min(1, 2 * min(sides))


def test_draws_behind_a_mean_of_floors():
    """Six times 100 fresh ones are 600; six halves of 200 rows, at most those 200: 1/(1/200 + 1/1200) = 171."""
    assert draws_behind(100, 6) == 600
    assert draws_behind(100, 6, 200.0) == pytest.approx(1200 / 7)
    assert draws_behind(200, 6, 200.0) == 200


def test_two_medians():
    """Of 5 numbers none is at most the other's median, of which 3 of 5 are: Fisher's 2 · C(7, 5)/C(10, 5)."""
    x, y = torch.arange(5.0), torch.arange(5.0)
    assert medians(x, y) == 1
    assert medians(x + 9, y) == pytest.approx(2 * 21 / 252)


def test_the_errors_of_value_and_floor_by_hand():
    """1 ± 0.2 beside 0.4 and 0.6, of variance 0.02: 0.2² + 0.02/2 for a mean. Of a distance's 0.2² = 2 · 0.02 nothing
    is more than the floor's noise: 0.02 + 0.02/2; of 0.3² there is 0.05.
    """
    z = norm.ppf(0.975)
    bounds, floors = (1.0, 1 - 0.2 * z, 1 + 0.7 * z), (0.4, 0.6)
    error, p = means_beside(bounds, floors, "equal")
    assert error == pytest.approx(math.sqrt(0.05))
    assert p == pytest.approx(2 * students_t.sf(0.5 / error, 0.05**2 / 0.01**2))  # Welch and Satterthwaite
    error, p = sets_beside(bounds, floors, "lower")
    assert error == pytest.approx(math.sqrt(0.03))
    assert p == pytest.approx(students_t.sf(0.5 / error, 1))
    error, p = sets_beside((1.0, 1 - 0.3 * z, 1.0), floors, "lower")
    assert error == pytest.approx(math.sqrt(0.08))
    assert p == pytest.approx(students_t.sf(0.5 / error, 0.08**2 / 0.03**2))
    # From halves of one pool: v = 0.04, and the mean floor's is half of that and half of the rest over 2.
    assert means_beside(bounds, floors, "equal", 0.5)[0] == pytest.approx(math.sqrt(0.04 + 0.03))
    assert sets_beside(bounds, floors, "equal", 0.5)[0] == pytest.approx(math.sqrt(0.04 + 0.03))
    error, p = means_beside(bounds, (0.5,), "equal")  # one floor: its scatter is the value's
    assert error == pytest.approx(math.sqrt(0.08))
    assert p == pytest.approx(2 * norm.sf(0.5 / error))
    assert beside_known(bounds, 0.5, "lower") == (pytest.approx(0.2), pytest.approx(norm.sf(2.5)))
    assert all(map(math.isnan, beside_known(bounds, math.nan, "lower")))


def test_one_eigenvalue_is_a_chi_square():
    """λ (z² − 1) > 3 λ √2 beside many floors of 0: z² > 1 + 3 √2, the square root of which is 2.29."""
    error, p = sets_beside((3.0, 0.0, 9.0), [0.0] * 10**6, "lower", spectrum=np.array([0.5**0.5]))
    assert error == pytest.approx(1, abs=1e-5)
    assert p == pytest.approx(2 * norm.sf((1 + 3 * 2**0.5) ** 0.5), rel=1e-4)


def test_a_shares_errors_by_hand():
    error, _ = share_beside((0.2, 0.1, 0.4), 50, 0.1, 300.0, "lower")
    assert error == pytest.approx(math.sqrt((0.1 / norm.ppf(0.975)) ** 2 + 0.1 * 0.9 / 300))
    assert share_beside((0.2, 0.1, 0.4), 50, 0.1, math.inf, "lower")[0] == pytest.approx(0.1 / norm.ppf(0.975))


def test_p_has_its_level():
    """8000 draws of truth beside six: p < 1 % in 1 ± 0.7 %, but for FALSE_POSITIVE. A rule that leaves out the floor's
    error rejects 2 %, seen with power 0.98. A distance, its interval √2 as wide as it scatters, stays below. Samples 5
    standard deviations off are seen in most cases.
    """
    draws = np.random.default_rng(0).standard_normal((8000, 7))
    bound = norm.isf(FALSE_POSITIVE / 2) * math.sqrt(LEVEL * (1 - LEVEL) / len(draws))

    def rejected(beside, width, shift, n=8000):
        rows = draws[:n].tolist()
        ps = [beside((v + shift, v + shift - width, v + shift), floors, "lower")[1] for v, *floors in rows]
        return float((np.array(ps) < LEVEL).mean())

    assert abs(rejected(means_beside, NORMAL, 0.0) - LEVEL) < bound
    assert rejected(sets_beside, 2**0.5 * NORMAL, 0.0) < LEVEL
    assert rejected(means_beside, NORMAL, 5.0, 500) > 0.95
    assert rejected(sets_beside, 2**0.5 * NORMAL, 5.0, 500) > 0.6
