import numpy as np
import pytest
import torch

from ebbtide.metrics import points
from ebbtide.metrics.points import METRICS, Case, interval

pytestmark = pytest.mark.unchecked


@pytest.mark.parametrize(  # MMD²'s is that of test_intervals, from KID's kind of spectrum
    "name", ["mean log-density", "within-mode sliced W2", pytest.param("MMD²", marks=pytest.mark.slow), "sliced W2"]
)
def test_intervals_cover_at_about_the_nominal_rate(name):
    """N(0.5, 1) for N(0, 1): the mean of 200 repeats lies in 95 % of their intervals, ± 1.5 %.

    The bound is 6 standard deviations (1e-9) below a true rate of 0.935.
    """
    metric, zero = METRICS[name], torch.zeros(1, 2)
    draw = lambda seed, shift: shift + torch.randn(200, 2, generator=torch.Generator().manual_seed(seed))
    outcomes = []
    for i in range(200):
        case = Case(draw(2 * i, 0.5), draw(2 * i + 1, 0.0), zero, 1.0, lambda x: -x.square().sum(1) / 2)
        value = metric.value(case)
        outcomes.append((value, *interval(metric, case, value, i)))
    values, low, high = np.array(outcomes).T
    truth = np.sqrt((values**2).mean()) if metric.root else values.mean()
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.83 < covered <= 1
    assert np.mean(high - low) < 1.3 * 2 * 1.96 * np.std(values)


def test_sets_are_compared_once_for_value_and_interval(monkeypatch):
    """An exact plan takes a second; each field of `Case` that two functions need is found once."""
    calls = []
    plan = points.transport
    monkeypatch.setattr(points, "transport", lambda x, y: calls.append(1) or plan(x, y))
    x, y = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
    case, metric = Case(x, y), METRICS["exact W2"]
    interval(metric, case, metric.value(case))
    assert len(calls) == 1
