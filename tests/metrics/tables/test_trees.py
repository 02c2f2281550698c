"""C2ST and TSTR against problems with known answers."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from ebbtide.errors import InputError
from ebbtide.metrics.tables import Rows, auc, skill
from metrics.tables.people import numbers, people

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr("ebbtide.metrics.tables.trees.ITERATIONS", 30)


def test_auc_of_equal_laws_is_a_half_and_of_apart_ones_one():
    rng = np.random.default_rng(0)
    x, y = numbers(rng.normal(size=(150, 2))), numbers(rng.normal(size=(150, 2)))
    # An AUC of 150 beside 150 rows has a standard deviation of √(301/(12·150²)) = 0.033; 0.2 is 6 of them.
    assert auc(x, y) == pytest.approx(0.5, abs=0.2)
    assert auc(x, numbers(y.x + 10)) > 0.98  # a fold's threshold lies anywhere in the gap


def test_auc_of_two_gaussians_is_the_closed_form():
    """Φ(1/√2) = 0.760 for means one apart, less what trees of 300 rows lose."""
    rng = np.random.default_rng(1)
    found = auc(numbers(rng.normal(size=(300, 1))), numbers(1 + rng.normal(size=(300, 1))))
    assert norm.cdf(0.5**0.5) - 0.1 < found < norm.cdf(0.5**0.5) + 0.08


def test_levels_and_gaps_are_seen():
    """XOR of two columns of levels, whose places alone say nothing; and gaps that tell."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (2, 120))
    levels = (tuple("abcdef"),) * 2
    same, other = (Rows.of(torch.tensor(np.stack([a, c], 1), dtype=torch.float32), ("a", "b"), levels) for c in (a, b))
    assert auc(same, other) > 0.8
    full = numbers(rng.normal(size=(60, 1)))
    assert auc(full, numbers(np.where(np.arange(60)[:, None] < 50, np.nan, full.x))) > 0.7


def test_few_rows_and_odd_columns():
    with pytest.raises(InputError, match="C2ST needs at least 10 rows of either set; got 9 and 20"):
        auc(people(9), people(20))
    assert 0 <= auc(people(40), people(40, seed=1)) <= 1  # constant and empty columns among them


def test_skill_of_a_column_that_follows_from_another():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (400, 1))
    table = numbers(np.concatenate([x, 2 * x + 0.01 * rng.normal(size=(400, 1))], 1))
    train, test = table.take(slice(300)), table.take(slice(300, 400))
    assert skill(train, test, 1) > 0.98
    assert skill(train, numbers(np.stack([test.x[:, 0], -test.x[:, 1]], 1)), 1) < 0  # of rows that it hasn't seen
    shuffled = numbers(np.stack([train.x[:, 0], rng.permutation(train.x[:, 1])], 1))
    assert skill(shuffled, test, 1) < 0.2
    assert skill(people(300), people(200, seed=1), 2) > 0.9


def test_skill_of_one_class_is_its_share_and_of_no_cell_an_error():
    test = people(100, seed=1)
    one = people(100).take(torch.from_numpy(np.flatnonzero(people(100).x[:, 2] == 0)))
    assert skill(one, test, 2) == (test.x[:, 2] == 0).mean()
    with pytest.raises(InputError, match="gone has 0 cells to learn from"):
        skill(people(30), test, 4)
