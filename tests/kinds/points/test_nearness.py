"""The distance of samples to the rows that a run learns."""

import math
from types import SimpleNamespace

import pytest
import torch

from ebbtide.data import Points
from ebbtide.data.forms import Column, Form
from ebbtide.kinds.points.nearness import DRAWN, nearness_to

FORM = Form((Column("a"), Column("b"), Column("kind", "level", ("x", "y"))))


def rows(n, seed, scale=1.0):
    """Two normal numbers, a gap among them, and a level."""
    g = torch.Generator().manual_seed(seed)
    x = torch.cat([scale * torch.randn(n, 2, generator=g), torch.randint(2, (n, 1), generator=g)], 1)
    x[0, 0] = torch.nan
    return x


def run(x):
    return SimpleNamespace(recipe=SimpleNamespace(seed=0), in_proportion=lambda n: None, sample=lambda n, **how: x)


def test_fresh_rows_are_as_near_as_real_ones_and_copies_at_no_distance():
    learned, others = (Points(rows(n, seed), form=FORM) for n, seed in ((400, 0), (100, 1)))
    assert nearness_to(learned, others, run(rows(1000, 2))) == pytest.approx(1, abs=0.15)
    assert nearness_to(learned, others, run(learned.x)) == 0
    near = learned.x + 0.01 * torch.randn(400, 3) * torch.tensor([1.0, 1, 0])
    assert 0 < nearness_to(learned, others, run(near)) < 0.3
    assert nearness_to(learned, others, run(rows(1000, 2, scale=3.0))) > 2


def test_it_is_told_of_no_large_table_nor_of_samples_that_are_not_finite():
    learned = Points(rows(DRAWN + 1, 0), form=FORM)
    assert math.isnan(nearness_to(learned, Points(rows(9, 1), form=FORM), run(learned.x)))
    few = Points(rows(50, 0), form=FORM)
    assert math.isnan(nearness_to(few, few, run(torch.full((9, 3), torch.inf))))
