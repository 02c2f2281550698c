"""Stable targets: pairs averaged over what could have made x_t, by Bayes' rule, whose mean is what it was."""

import math

import pytest
import torch

from ebbtide.core.paths import PATHS
from ebbtide.losses.stable import TOGETHER, posterior_mean
from problems import SIGMAS


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", PATHS)
def test_the_averaged_pair_makes_the_same_x_t(name):
    path = PATHS[name]()
    x0, noise, t = normal((300, 3), 1), normal((300, 3), 2), torch.linspace(1e-3, 1, 300, dtype=torch.float64)
    mean, rest = posterior_mean(path, x0, noise, t)
    there, here = path.interpolate(x0, noise, t), path.interpolate(mean, rest, t)
    # α = 0 at t = 1 is taken for 1e-6, hence the tolerance there.
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)


def test_the_average_is_bayes_rule_by_hand():
    """α = σ = ½; x₀ = 0, 2; x_t = ½ for the first: likelihoods of ½ under N(0, ¼) and N(1, ¼) are equal, so ½ each."""
    x0, t = torch.tensor([[0.0], [2.0]], dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    noise = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    mean, rest = posterior_mean(PATHS["linear"](), x0, noise, t)
    assert mean[0].item() == pytest.approx(1.0)
    assert rest[0].item() == pytest.approx(0.0)  # ½ = ½ · 1 + ½ · 0
    # The second: x_t = 1, likelihoods e^{-1/(2·¼)} = e^{-2} and 1.
    assert mean[1].item() == pytest.approx(2 / (1 + math.exp(-2)))


def test_the_average_keeps_the_expected_target_and_takes_most_of_its_variance():
    """Against x₀ ~ N(0, 1): E[x̄₀ f(x_t)] = E[x₀ f(x_t)] for any f, and x̄₀ is near E[x₀ | x_t] = α x_t / (α² + σ²).

    Batches of 64, 1000 of them; six z-tests of 6 standard errors, false-positive rate 2e-9 each.
    """
    path, batches, n = PATHS["linear"](), 1000, 64
    gaps = []
    spread, left = 0.0, 0.0
    for seed in range(batches):
        x0, noise = normal((2, n, 1), seed)
        t = torch.linspace(0.05, 0.95, n, dtype=torch.float64)
        x_t = path.interpolate(x0, noise, t)
        mean, _ = posterior_mean(path, x0, noise, t)
        gap, u = (mean - x0)[:, 0], x_t[:, 0]
        gaps.append([(gap * f).mean() for f in (torch.ones(n), u, u**2, u.sin(), t * u, (u > 1).double())])
        exact = (1 - t) * u / ((1 - t) ** 2 + t**2)
        spread, left = spread + (x0[:, 0] - exact).square().mean(), left + (mean[:, 0] - exact).square().mean()
    gaps = torch.tensor(gaps)
    assert ((gaps.mean(0) / gaps.std(0) * batches**0.5).abs() < SIGMAS).all()
    assert left < 0.1 * spread


def test_a_label_shares_with_its_own_class_and_a_hidden_one_with_all():
    x0 = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]], dtype=torch.float64)
    label, hidden = torch.tensor([0, 0, 1, 1]), torch.tensor([False, True, False, False])
    allowed = hidden[:, None] | (label[:, None] == label)
    mean, _ = posterior_mean(PATHS["linear"](), x0, normal((4, 1), 0), torch.ones(4, dtype=torch.float64), allowed)
    # At t = 1 nothing is known of x₀ but its class.
    torch.testing.assert_close(mean[:, 0], torch.tensor([-1.5, 0.0, 1.5, 1.5], dtype=torch.float64), atol=1e-4, rtol=0)


def test_large_batches_share_in_blocks():
    x0, noise = normal((2, 3 * TOGETHER + 5, 2), 3)
    t = torch.full((len(x0),), 0.3, dtype=torch.float64)
    mean, rest = posterior_mean(PATHS["linear"](), x0, noise, t)
    some = slice(TOGETHER, 2 * TOGETHER)
    alone = posterior_mean(PATHS["linear"](), x0[some], noise[some], t[some])
    torch.testing.assert_close((mean[some], rest[some]), alone)


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_blocks_are_averaged_apart_the_last_one_too(columns):
    """And by differences, whether a few columns are taken one by one or all at once."""
    n = 2 * TOGETHER + 40
    x0, noise, t = normal((n, columns), 3), normal((n, columns), 4), torch.linspace(0.01, 0.9, n, dtype=torch.float64)
    label = torch.randint(3, (n,), generator=torch.Generator().manual_seed(5))
    allowed = label[:, None] == label
    whole = posterior_mean(PATHS["linear"](), x0, noise, t, allowed)
    for first in range(0, n, TOGETHER):
        b = slice(first, first + TOGETHER)
        (alpha, sigma), x_t = (
            ((1 - t[b])[:, None], t[b][:, None]),
            (1 - t[b])[:, None] * x0[b] + t[b][:, None] * noise[b],
        )
        far = ((x_t[:, None] - alpha[:, None] * x0[b]) ** 2).sum(2) / (2 * sigma**2)
        weight = torch.exp(-far) * allowed[b, b]
        mean = weight @ x0[b] / weight.sum(1, keepdim=True)
        torch.testing.assert_close(whole[0][b], mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(whole[1][b], (x_t - alpha * mean) / sigma, rtol=1e-7, atol=1e-7)
