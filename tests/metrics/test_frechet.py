import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ebbtide.errors import InputError
from ebbtide.metrics import frechet_distance
from ebbtide.metrics.frechet import Moments, frechet_influence, frechet_of_moments
from ebbtide.metrics.intervals import influence_interval


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean, covariance, n=50, seed=0):
    """n points whose sample mean and covariance are exactly these."""
    z = normal(n, len(mean), seed).numpy()
    z = z - z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, ddof=1))).T
    return torch.from_numpy(np.asarray(mean) + z @ np.linalg.cholesky(np.asarray(covariance)).T)


def by_matrix_root(x, y):
    a, b = x.numpy(), y.numpy()
    c, d = np.cov(a.T), np.cov(b.T)
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(c + d - 2 * sqrtm(c @ d).real)


def test_two_points_by_hand():
    """{−1, 1}: mean 0, variance 2; {2, 6}: mean 4, variance 8. 16 + (√8 − √2)² = 18."""
    x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([[2.0], [6.0]])
    assert frechet_distance(x, y) == pytest.approx(18, rel=1e-12)


def test_gaussians_at_a_known_distance():
    """diag(1, 4) to diag(9, 16): (1 − 3)² + (2 − 4)² = 8, and means 3, 4 apart: 25. Then the same, turned: both
    covariances by 30°, which changes nothing. And two that don't commute: C′ = I turns it to Σ (√λ − 1)²."""
    x, y = with_moments([0, 0], [[1, 0], [0, 4]]), with_moments([3, 4], [[9, 0], [0, 16]], 80, 1)
    assert frechet_distance(x, y) == pytest.approx(33, rel=1e-10)
    turn = torch.tensor([[3**0.5 / 2, 0.5], [-0.5, 3**0.5 / 2]], dtype=torch.float64)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(33, rel=1e-10)
    x, y = with_moments([0, 0], [[5, 4], [4, 5]]), with_moments([0, 0], [[1, 0], [0, 1]], 60, 2)  # λ = 1, 9
    assert frechet_distance(x, y) == pytest.approx(4, rel=1e-10)


def test_the_matrix_root_agrees():
    x, y = normal(60, 6, 0) @ normal(6, 6, 1), normal(90, 6, 2) @ normal(6, 6, 3) + 0.5
    assert frechet_distance(x, y) == pytest.approx(by_matrix_root(x, y), rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * frechet_distance(x, y), rel=1e-12)


def test_fewer_points_than_numbers():
    """Three-dimensional sets turned into 200 dimensions keep their distance, though the covariances are singular."""
    x, y = normal(20, 3, 0), 2 * normal(30, 3, 1) + 1
    into, _ = torch.linalg.qr(normal(200, 3, 2))
    assert frechet_distance(x @ into.T, y @ into.T) == pytest.approx(by_matrix_root(x, y), rel=1e-10)
    assert frechet_distance(normal(5, 9, 0), normal(4, 9, 1)) > 1


def test_a_set_is_at_no_distance_from_itself():
    x = 1e3 + normal(100, 8, 0)
    assert 0 <= frechet_distance(x, x.clone()) < 1e-9
    assert 0 <= frechet_distance(torch.zeros(3, 2), torch.zeros(4, 2)) < 1e-12


@pytest.mark.parametrize(("n", "m"), [(50, 50), (100, 100), (100, 400), (400, 400)])
def test_the_bias_falls_as_one_over_n(n, m):
    """Between two samples of N(0, I₃): E|μ − μ′|² = 3 (1/n + 1/m), and ¼ E|C − C′|² = 3·4/4 (1/n + 1/m). Over 300
    repeats the mean is known to 3 %; what the expansion leaves out is of order 1/n."""
    mean = np.mean([frechet_distance(normal(n, 3, 2 * i), normal(m, 3, 2 * i + 1)) for i in range(300)])
    assert mean == pytest.approx(6 * (1 / n + 1 / m), rel=0.13)


def test_influence_is_centred_and_adds_up():
    """Dropping one sample moves the distance by its influence / (n − 1), up to 1/n²."""
    x, y = normal(400, 3, 0), 1.5 * normal(600, 3, 1) + torch.tensor([1.0, 0, 0])
    of_x, of_y = frechet_influence(x, y)
    assert (len(of_x), len(of_y)) == (400, 600)
    assert [of_x.mean(), of_y.mean()] == [pytest.approx(0, abs=1e-12)] * 2
    whole = frechet_distance(x, y)
    moves = [whole - frechet_distance(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(20)]
    np.testing.assert_allclose(moves, of_x[:20] / 399, atol=6e-4)
    assert np.ptp(of_x[:20] / 399) > 0.01  # so that the tolerance is small beside what is compared
    moves = [whole - frechet_distance(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(20)]
    np.testing.assert_allclose(moves, of_y[:20] / 599, atol=6e-4)


def test_influence_of_singular_covariances():
    """Turned into 50 dimensions, twelve points have the influence they had in two."""
    x, y = normal(12, 2, 0), normal(15, 2, 1) + 2
    into, _ = torch.linalg.qr(normal(50, 2, 2))
    for flat, turned in zip(frechet_influence(x, y), frechet_influence(x @ into.T, y @ into.T), strict=True):
        np.testing.assert_allclose(turned, flat, atol=1e-9)


def test_the_interval_covers():
    """What 300-point samples score on average lies in 95 % of their intervals; 160 repeats: 0.88 is 4 σ below."""
    sets = [(normal(300, 4, 2 * i), 1.3 * normal(300, 4, 2 * i + 1) + 0.4) for i in range(160)]
    values = [frechet_distance(x, y) for x, y in sets]
    ends = [influence_interval(v, frechet_influence(x, y), 0) for v, (x, y) in zip(values, sets, strict=True)]
    assert np.mean([low <= np.mean(values) <= high for low, high in ends]) > 0.88
    assert np.mean([high - low for low, high in ends]) < 0.7 * np.mean(values)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(1, 2), torch.zeros(3, 2)),
        (torch.zeros(3, 2), torch.zeros(1, 2)),
        (torch.zeros(3, 2), torch.zeros(3, 4)),
        (torch.full((3, 2), float("nan")), torch.zeros(3, 2)),
    ],
)
def test_unusable_sets_are_one_sentence(x, y):
    with pytest.raises(InputError, match=r"^[^\n]*\.$"):
        frechet_distance(x, y)


def test_moments_of_unequal_blocks_are_those_of_the_whole():
    """Blocks far from one another, one of a single point; the distance by moments is that of the sets."""
    x = normal(40, 3, 0) + torch.arange(40)[:, None]
    blocks = [Moments.of(part) for part in x.split([1, 30, 9])]
    merged, other = blocks[0] + blocks[1] + blocks[2], blocks[2] + (blocks[0] + blocks[1])
    for one in (merged, other):
        assert one.n == 40
        np.testing.assert_allclose(one.mean, x.numpy().mean(0))
        np.testing.assert_allclose(one.scatter / 39, np.cov(x.numpy().T))
    y = normal(25, 3, 1)
    assert frechet_of_moments(merged, Moments.of(y)) == pytest.approx(frechet_distance(x, y), rel=1e-10)


def test_moments_of_singular_sets_too():
    x, y = normal(6, 9, 0), normal(7, 9, 1)
    assert frechet_of_moments(Moments.of(x), Moments.of(y)) == pytest.approx(frechet_distance(x, y), rel=1e-6)
