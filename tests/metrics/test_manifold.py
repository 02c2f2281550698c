import numpy as np
import pytest
import torch

from ebbtide.errors import InputError
from ebbtide.metrics import precision_recall

# Radii to the nearest other point 1, 1, 2, 9 and to the second nearest 3, 2, 3, 10; of x 4, 4, 4.5 and 8.5, 4.5, 8.5.
Y = torch.tensor([[0.0], [1.0], [3.0], [-9.0]])
X = torch.tensor([[0.5], [4.5], [9.0]])


def normal(n, d, seed, shift=0.0):
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_balls(x, y, k):
    """The four definitions, a ball at a time."""
    x, y = x.numpy(), y.numpy()
    away = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2)
    reach = lambda a: np.sort(away(a, a), axis=1)[:, k]  # column 0 is the point itself
    in_y, in_x = away(x, y) <= reach(y), away(y, x) <= reach(x)
    return in_y.any(1).mean(), in_x.any(1).mean(), in_y.sum() / (k * len(x)), in_y.any(0).mean()


def four(found):
    return found.precision, found.recall, found.density, found.coverage


def test_one_neighbour_by_hand():
    """Balls of y: [−1, 1], [0, 2], [1, 5], [−18, 0]. 0.5 lies in two, 4.5 in one, 9 in none; the last holds none.
    Balls of x: [−3.5, 4.5], [0.5, 8.5], [4.5, 13.5]: −9 lies in none."""
    found = precision_recall(X, Y, k=1)
    assert four(found) == pytest.approx((2 / 3, 3 / 4, 1, 3 / 4))
    assert found.among_real.tolist() == [2, 1, 0]
    assert found.inside_samples.tolist() == [1, 1, 1, 0]


def test_two_neighbours_by_hand():
    """Balls of y: [−3, 3], [−1, 3], [0, 6], [−19, 1]. 0.5 lies in all four, 4.5 in one."""
    found = precision_recall(X, Y, k=2)
    assert four(found) == pytest.approx((2 / 3, 3 / 4, 5 / 6, 1))
    assert found.covered.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("n", "m", "k"), [(7, 9, 1), (600, 40, 5), (30, 520, 3), (513, 1025, 5)])
def test_strips_agree_with_single_balls(n, m, k):
    x, y = normal(n, 3, 0, 100.5), normal(m, 3, 1, 100)
    assert four(precision_recall(x, y, k)) == pytest.approx(by_balls(x, y, k), abs=1e-12)


def test_equal_laws_far_ones_and_a_lost_mode():
    two_modes = torch.cat([normal(200, 2, 0), normal(200, 2, 1, 50)])
    assert four(precision_recall(normal(400, 2, 5), normal(400, 2, 6, 1e3))) == (0, 0, 0, 0)
    same = precision_recall(torch.cat([normal(200, 2, 2), normal(200, 2, 3, 50)]), two_modes)
    assert min(same.precision, same.recall, same.coverage) > 0.9
    lost = precision_recall(normal(400, 2, 2), two_modes)
    assert lost.precision > 0.9
    assert 0.4 < lost.recall < 0.51
    assert 0.4 < lost.coverage < 0.51


def test_one_real_outlier_fools_precision_but_not_coverage():
    """Its ball, out to its fifth nearest real point, holds every sample and counts once."""
    x, y = normal(300, 2, 0), normal(300, 2, 1, 30)
    found = precision_recall(x, torch.cat([y, torch.full((1, 2), -300.0, dtype=torch.float64)]))
    assert found.precision > 0.99
    assert found.coverage == pytest.approx(1 / 301)
    assert found.density == pytest.approx(1 / 5)


@pytest.mark.parametrize("k", [0, 3, 10])
def test_k_is_below_the_smaller_set(k):
    with pytest.raises(InputError, match=rf"k must be at least 1 and below 3; got {k}\."):
        precision_recall(X, Y, k)


def test_sets_of_two_dimensions_are_refused():
    with pytest.raises(InputError, match="dimension"):
        precision_recall(X, torch.zeros(5, 2))
