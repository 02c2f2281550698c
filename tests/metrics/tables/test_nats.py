"""Nats over independent columns of Gaussians: the mutual information."""

import math

import pytest
import torch

from ebbtide.codecs import fit_table
from ebbtide.core.randomness import generator
from ebbtide.metrics.tables.bars import gaussians, rank_scores
from ebbtide.metrics.tables.nats import log_independent, nats_over_independent, within_range


def gaussian(n, seed, rho=0.8):
    z = torch.randn(n, 2, generator=generator("nats", seed), dtype=torch.float64)
    return torch.stack([z[:, 0], rho * z[:, 0] + math.sqrt(1 - rho**2) * z[:, 1]], 1).float()


def test_nats_of_a_gaussian_are_its_mutual_information():
    """−½ log(1 − ρ²) = 0.511; the standard error of 1000 rows is ρ/√1000 = 0.025."""
    train, held = gaussian(3000, 0), gaussian(1000, 1)
    codec = fit_table(train)
    found = nats_over_independent(codec, lambda z, _: log_independent(z), (train, None), (held, None))
    truth = -math.log(1 - 0.64) / 2
    assert float(found.copula.mean()) == pytest.approx(truth, abs=0.1)
    assert found.own.tolist() == pytest.approx([0] * 1000, abs=1e-5)
    assert not found.bound
    own = gaussians(rank_scores(codec, train))
    again = nats_over_independent(codec, lambda z, _: own.log_density(z.double()), (train, None), (held, None))
    assert torch.allclose(again.own, again.copula, atol=0.05)  # other places in the cells of what was learned


def test_ties_make_a_bound_and_rows_beyond_the_range_are_counted():
    train, held = gaussian(500, 0).round(), gaussian(100, 1).round()
    held[0] = 99.0
    codec = fit_table(train)
    found = nats_over_independent(codec, lambda z, _: log_independent(z), (train, None), (held, None))
    assert found.bound
    assert found.beyond >= 1
    assert found.copula.isfinite().all()
    moved = within_range(train, held)
    assert moved[0].tolist() == train.amax(0).tolist()
    gap = torch.tensor([[torch.nan, 1.0]])
    assert within_range(train, gap)[0].isnan().tolist() == [True, False]


def test_with_labels_the_copula_has_a_gaussian_each():
    """Two classes with opposite correlations: together none, apart 0.511 nats."""
    x = torch.cat([gaussian(1500, 0), gaussian(1500, 1, -0.8)])
    labels = torch.arange(2).repeat_interleave(1500)
    own, rows = torch.cat([gaussian(300, 2), gaussian(300, 3, -0.8)]), torch.arange(2).repeat_interleave(300)
    codec = fit_table(x)
    plain = lambda z, _: log_independent(z)
    apart = nats_over_independent(codec, plain, (x, labels), (own, rows)).copula.mean()
    together = nats_over_independent(codec, plain, (x, None), (own, None)).copula.mean()
    assert float(apart) == pytest.approx(0.511, abs=0.12)
    assert float(together) < 0.05


def test_levels_as_unit_vectors_have_no_density():
    x = torch.randint(0, 3, (30, 1), generator=generator("levels")).float()
    assert fit_table(x, [3]).has_unit_vectors
    assert not fit_table(x, [3], [True]).has_unit_vectors
    assert not fit_table(x).has_unit_vectors
