"""The cheap bars: margins kept, closed forms of Gaussians, time."""

import math
import time

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from ebbtide.core.randomness import generator
from ebbtide.errors import InputError
from ebbtide.metrics.tables import column_distances, copula, per_class, rank_mixture
from ebbtide.metrics.tables.bars import PRIOR, RankGaussians, gaussians
from metrics.tables.people import numbers, people


def test_density_of_a_mixture_is_scipys():
    rng = np.random.default_rng(0)
    roots = np.tril(rng.normal(size=(2, 3, 3))) + 2 * np.eye(3)
    means, weights, z = rng.normal(size=(2, 3)), np.array([0.3, 0.7]), rng.normal(size=(5, 3))
    own = RankGaussians(*map(torch.from_numpy, (weights, means, roots)))
    true = sum(w * multivariate_normal(m, r @ r.T).pdf(z) for w, m, r in zip(weights, means, roots))
    assert np.allclose(own.log_density(torch.from_numpy(z)), np.log(true))
    x = own.sample(20_000, generator("test"))
    assert np.allclose(x.mean(0), weights @ means, atol=0.15)


def test_gaussians_are_the_shrunk_moments():
    z = torch.randn(40, 2, dtype=torch.float64, generator=generator("test"))
    found = gaussians(z)
    own = (39 * torch.cov(z.T) + PRIOR * torch.eye(2)) / (40 + PRIOR)
    assert torch.allclose(found.roots[0] @ found.roots[0].T, own)
    assert torch.allclose(found.means[0], z.mean(0))
    assert gaussians(z[:1]).roots.isfinite().all()
    with pytest.raises(InputError, match="Each part must have a row"):
        gaussians(z, torch.zeros(40, 1, dtype=torch.float64))


@pytest.mark.parametrize("make", [copula, rank_mixture, lambda rows: per_class(rows, 2)])
def test_bars_keep_columns_and_are_quick(make):
    """Each column's own values and shares; a constant and an empty column as they are; fitted in two seconds."""
    rows = people(400)
    start = time.process_time()
    fitted = make(rows)
    assert time.process_time() - start < 2
    x = fitted.sample(2000, generator("bars"))
    for k in (1, 2, 3):
        assert set(np.unique(x.x[:, k])) <= set(np.unique(rows.x[:, k]))
    assert np.isnan(x.x[:, 4]).all()
    assert column_distances(rows, x).max() < 0.12  # 5 standard deviations of KS at 400 rows
    assert x.names == rows.names


def test_a_copula_has_its_correlation_and_the_mixture_more():
    """Of a circle, on which a Gaussian says nothing."""
    angle = torch.rand(1500, generator=generator("angle")) * 2 * math.pi
    ring = numbers(torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(1500, 2, generator=generator("n")))
    line = torch.randn(1500, 2, generator=generator("line")) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    drawn = copula(numbers(line)).sample(4000, generator("a")).x
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(0.8, abs=0.05)
    radius = {
        make: np.linalg.norm(make(ring).sample(1000, generator("b")).x, axis=1) for make in (copula, rank_mixture)
    }
    assert np.mean(np.abs(radius[rank_mixture] - 1)) < np.mean(np.abs(radius[copula] - 1)) / 2


def test_classes_are_as_frequent_as_in_training():
    rows = people(300)
    x = per_class(rows, 2).sample(100, generator("c"))
    for k in range(3):
        assert abs((x.x[:, 2] == k).sum() - (rows.x[:, 2] == k).sum() / 3) <= 1


def test_one_row_is_a_table():
    for make in (copula, rank_mixture, lambda rows: per_class(rows, 2)):
        assert len(make(people(2)).sample(3, generator("d"))) == 3
