"""The learning rate: pins worked out by hand."""

import math

import pytest

from ebbtide.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.5),  # 2/4 of the warm-up's way; never 0, which would waste the first step
        (1, 1.0),
        (3, 2.0),
        (4, 2.0),  # the cosine's top
        (7, 1 + math.cos(math.pi / 4)),  # a quarter down: 1.7071
        (10, 1.0),  # half way down is half the peak
        (13, 1 - math.cos(math.pi / 4)),
        (16, 0.0),
    ],
)
def test_pins(step, rate):
    assert learning_rate(step, 16, 2.0, 4) == pytest.approx(rate, abs=1e-15)


def test_it_rises_then_falls_to_next_to_nothing():
    rates = [learning_rate(step, 1000, 1e-2, 30) for step in range(1000)]
    top = rates.index(max(rates))
    assert top in (29, 30)
    assert max(rates) == 1e-2
    assert rates[:30] == sorted(rates[:30])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert 0 < rates[-1] < 1e-4 * max(rates)


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_shortest_runs_divide_by_nothing(steps, warmup):
    assert all(0 <= learning_rate(step, steps, 1.0, warmup) <= 1 for step in range(steps + 1))
    assert learning_rate(0, steps, 1.0, warmup) > 0
