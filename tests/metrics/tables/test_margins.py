"""KS against SciPy, TV and correlations by hand and against NumPy."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from ebbtide.metrics.tables import Rows, Units, column_distances, correlations
from ebbtide.metrics.tables.margins import correlation, empty_shares, kolmogorov_smirnov
from metrics.tables.people import numbers, people


def test_ks_is_scipys():
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (7, 30), (100, 100)):
        x, y = rng.integers(0, 9, n).astype(float), rng.normal(4, 2, m).round()
        assert kolmogorov_smirnov(x, y) == pytest.approx(ks_2samp(x, y).statistic)
    none = np.empty(0)
    assert kolmogorov_smirnov(none, none) == 0
    assert kolmogorov_smirnov(none, np.ones(1)) == 1


def test_tv_counts_levels_and_gaps_by_hand():
    a = Rows.of(torch.tensor([[0.0], [0.0], [1.0], [torch.nan]]), ("k",), (("x", "y"),))
    b = Rows.of(torch.tensor([[0.0], [1.0], [1.0], [1.0]]), ("k",), (("x", "y"),))
    assert column_distances(a, b).tolist() == [0.5]  # ½ (¼ + ½ + ¼)


def test_a_columns_gaps_count_where_they_are_farther_apart_than_its_numbers():
    full, half = numbers([[1.0], [2.0], [1.0], [2.0]]), numbers([[1.0], [2.0], [torch.nan], [torch.nan]])
    assert column_distances(full, half).tolist() == [0.5]
    assert empty_shares(half).tolist() == [0.5]
    assert column_distances(half, half).tolist() == [0.0]


def test_odd_columns_have_numbers():
    """Of a constant and an empty column, of one row, of a column that is empty in one set alone."""
    x = people(40)
    assert np.isfinite(column_distances(x, people(30, seed=1))).all()
    assert column_distances(x, x).tolist() == [0.0] * 6
    assert np.isfinite(column_distances(x, people(1, seed=1))).all()
    assert column_distances(numbers([[1.0]]), numbers([[torch.nan]])).tolist() == [1.0]


def test_correlations_are_numpys_and_the_worst_pair_is_named():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 3))
    real = numbers(np.stack([z[:, 0], z[:, 0] + 0.1 * z[:, 1], z[:, 2]], 1))
    other = numbers(z)
    a, b = np.corrcoef(real.x.T), np.corrcoef(other.x.T)
    assert np.allclose(correlation(real.x), a)
    mean, most, pair = correlations(Units(real), real, other)
    assert mean == pytest.approx(np.abs(a - b)[~np.eye(3, dtype=bool)].mean())
    assert most == pytest.approx(abs(a - b)[0, 1])
    assert pair == "column 1 and column 2"
    assert correlations(Units(real), real, real)[:2] == (0, 0)


def test_a_constant_among_samples_has_no_correlation_and_one_number_no_pair():
    real = numbers(np.random.default_rng(0).normal(size=(50, 2)))
    flat = numbers(np.stack([real.x[:, 0], np.ones(50)], 1))
    assert correlations(Units(real), real, flat)[1] == pytest.approx(abs(np.corrcoef(real.x.T)[0, 1]))
    assert correlations(Units(flat), flat, flat) == (0, 0, "")
