"""Exact moments: of DDIM and DDPM on a Gaussian, against their own recursions written out."""

import math
from itertools import pairwise

import pytest

from ebbtide.core.paths import Linear
from ebbtide.exact.checks import exact_moments
from problems import MEAN, STD, float64, oracle

TIMES = (1.0, 0.6, 0.2, 0.0)


def test_moments_by_the_recursion_of_mean_and_variance():
    """x_s = a x_t + b + c z is linear on a Gaussian, so mean and variance go by a, b and c² of every step."""
    path = Linear()
    for eta in (0.0, 1.0):
        grid = path.along(TIMES)
        mean, variance = 0.0, 1.0
        for now, then in pairwise(grid):
            v = now.alpha**2 * STD**2 + now.sigma**2
            gain, noise = now.alpha * STD**2 / v, now.sigma / v  # of x_t - α m in x̂₀ and ε̂
            beta = now.sigma**2 - (now.alpha * then.sigma / then.alpha) ** 2
            tau2 = eta**2 * beta * then.sigma**2 / now.sigma**2 if then.sigma else 0.0
            left = math.sqrt(then.sigma**2 - tau2)
            slope = then.alpha * gain + left * noise
            mean = then.alpha * MEAN + slope * (mean - now.alpha * MEAN)
            variance = slope**2 * variance + tau2
        found = exact_moments(f"ddim:eta={eta}", oracle(path), float64(*TIMES))
        # The start is the exact marginal's, N(0, 1) on the linear path.
        assert found == pytest.approx((mean, math.sqrt(variance)), abs=1e-9)
