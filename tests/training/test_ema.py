"""The average's decay: by hand, and what it does to a short run."""

import pytest

from ebbtide.training.ema import ema_decay


@pytest.mark.parametrize(
    ("step", "decay"), [(0, 0.1), (1, 2 / 11), (8, 0.5), (80, 0.9), (8989, 8990 / 8999), (8990, 0.999), (10**9, 0.999)]
)
def test_it_warms_up_to_its_final_value(step, decay):
    assert ema_decay(step, 0.999) == pytest.approx(decay, rel=1e-12)


def test_none_is_none():
    assert ema_decay(0, 0.0) == ema_decay(10**6, 0.0) == 0.0


def test_a_short_run_forgets_its_random_start():
    """After 100 steps the start's share is Π d_k = 10! · 101 … 109 / …, next to nothing; without warm-up it is 99 %."""
    share = 1.0
    for step in range(100):
        share *= ema_decay(step, 0.9999)
    # Π (1 + k)/(10 + k) telescopes to 9! / (101 · 102 … 109).
    by_hand = 362880.0
    for factor in range(101, 110):
        by_hand /= factor
    assert share == pytest.approx(by_hand, rel=1e-9)
    assert share < 1e-12
    assert 0.9999**100 > 0.99
