import itertools

import numpy as np
import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics import kid
from ebbtide.metrics.intervals import influence_interval
from ebbtide.metrics.kid import kid_pairs
from problems import SIGMAS


def normal(n, d, seed, shift=0.0):
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_pairs(x, y):
    """Gretton et al. 2012, Eq. 3, one pair at a time."""
    kernel = lambda a, b: (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3
    mean = lambda pairs: np.mean([kernel(a, b) for a, b in pairs])
    x, y = x.tolist(), y.tolist()
    within = mean(itertools.permutations(x, 2)) + mean(itertools.permutations(y, 2))
    return within - 2 * mean(itertools.product(x, y))


def moments(mean, std):
    """E a, E a², E a³ of N(mean, std²)."""
    return mean, mean**2 + std**2, mean**3 + 3 * mean * std**2


def between_gaussians(one, two):
    """In 1-D (ab + 1)³ = 1 + 3ab + 3a²b² + a³b³, so that the distance is 3 Δm₁² + 3 Δm₂² + Δm₃²."""
    first, second, third = ((a - b) ** 2 for a, b in zip(moments(*one), moments(*two), strict=True))
    return 3 * first + 3 * second + third


def test_two_points_by_hand():
    """{1, 2} against {0, 0}: (1·2 + 1)³ + 1 − 2 = 26. In 2-D, {(1,1), (2,2)}: a·b/2 is the same 2."""
    assert kid(torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)) == pytest.approx(26, rel=1e-12)
    assert kid(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.zeros(2, 2)) == pytest.approx(26, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (40, 7), (512, 20), (513, 12)])
def test_strips_of_pairs_agree_with_single_pairs(n, m):
    x, y = normal(n, 3, 0), normal(m, 3, 1, shift=0.5)
    assert kid(x, y) == pytest.approx(by_pairs(x, y), rel=1e-10, abs=1e-12)
    assert kid(y, x) == pytest.approx(kid(x, y), rel=1e-10, abs=1e-12)


def test_between_two_gaussians_in_closed_form():
    """6 standard errors: 2e-9. One is less than a tenth of the distance."""
    x, y = normal(4000, 1, 0), 0.7 * normal(3000, 1, 1) + 0.8
    error = np.sqrt(sum(of.var() / len(of) for of in kid_pairs(x, y).influence))
    expected = between_gaussians((0, 1), (0.8, 0.7))
    assert error < 0.1 * expected
    assert abs(kid(x, y) - expected) < SIGMAS * error


def test_unbiased_between_equal_laws_at_any_size():
    """Over 500 repeats the mean is 0 within 6 standard errors (2e-9); with x′ = x left in it is over 30 off."""
    for n, m in ((20, 20), (15, 80)):
        values = [kid(normal(n, 4, 2 * i), normal(m, 4, 2 * i + 1)) for i in range(500)]
        assert abs(np.mean(values)) < SIGMAS * np.std(values) / 500**0.5
        assert min(values) < 0


def test_influence_is_centred_and_adds_up():
    """Dropping one sample moves the U-statistic by its influence / (n − 1), up to 1/n²."""
    x, y = normal(300, 2, 0), normal(400, 2, 1, shift=0.5)
    of_x, of_y = kid_pairs(x, y).influence
    assert [of_x.mean(), of_y.mean()] == [pytest.approx(0, abs=1e-12)] * 2
    moves = [kid(x, y) - kid(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(20)]
    np.testing.assert_allclose(moves, of_x[:20] / 299, atol=2e-3)
    assert np.ptp(of_x[:20] / 299) > 0.02
    moves = [kid(x, y) - kid(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(20)]
    np.testing.assert_allclose(moves, of_y[:20] / 399, atol=2e-3)


def test_the_interval_covers_the_true_distance():
    """95 % of 200 intervals should; 0.88 is 4.5 σ below. In 1-D, where the kernel's heavy cubes are at their worst."""
    expected, hits = between_gaussians((0, 0.5), (0.6, 0.4)), []
    for i in range(200):
        x, y = 0.5 * normal(200, 1, 2 * i), 0.6 + 0.4 * normal(300, 1, 2 * i + 1)
        low, high = influence_interval(kid(x, y), kid_pairs(x, y).influence, 0)
        assert high - low < 1.5 * expected
        hits.append(low <= expected <= high)
    assert np.mean(hits) > 0.88


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(1, 2), torch.zeros(3, 2)),
        (torch.zeros(3, 2), torch.zeros(3, 4)),
        (torch.zeros(3, 2), torch.full((3, 2), float("inf"))),
    ],
)
def test_unusable_sets_are_one_sentence(x, y):
    with pytest.raises(InputError, match=r"^[^\n]*\.$"):
        kid(x, y)
