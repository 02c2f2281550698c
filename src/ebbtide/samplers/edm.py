"""EDM's stochastic sampler: Heun's method in the noise-to-signal ratio r = σ/α, on any path.

With x̃ = x/α the probability-flow ODE is dx̃/dr = ε̂, straight where the noise is all there is (Karras et al. 2022,
arXiv:2206.00364, Eq. 4 and Section 3).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..core.paths import Batch, Scales
from ..specs import require
from .walks import Walk

__all__ = ["edm", "heun_step", "renoise"]


def edm(
    walk: Walk, *, churn: float = 0.0, churn_min: float = 0.0, churn_max: float = math.inf, noise: float = 1.0
) -> Iterator[Tensor]:
    """Raise r to r̂ = (1 + γ) r with fresh noise, then x̃_s = x̃ + (r_s - r̂) (ε̂ + ε̂_s) / 2 (Algorithm 2).

    churn: S_churn; γ = min(S_churn / n, √2 - 1) while r is in [churn_min, churn_max], else 0. noise: S_noise, the
    fresh noise's standard deviation; only 1 keeps the marginals.
    Order 2 without churn, two evaluations a step; the last, to σ = 0, and long ones from afar are DDIM's (see
    heun_step).
    """
    for name, value in {"churn": churn, "churn_min": churn_min, "churn_max": churn_max}.items():
        if value != math.inf:
            require(f"edm: {name}", value, 0)
    require("edm: noise", noise, above=0)
    x, steps, path = walk.x, walk.steps, walk.path
    most, gamma = path.along([1.0])[0].ratio, min(churn / len(steps), math.sqrt(2) - 1)
    ratios = torch.tensor([min(now.ratio * (1 + gamma), most) for now, _ in steps], dtype=torch.float64)
    raised = path.along(path.time_of(ratios)) if gamma else walk.grid[:-1]
    for i, ((now, then), up) in enumerate(zip(steps, raised, strict=True)):
        if churn_min <= now.ratio <= churn_max and up.ratio > now.ratio:
            x, now = renoise(walk, x, now, up, i, noise), up
        x = heun_step(walk, x, now, then)
        yield x


def heun_step(walk: Walk, x: Batch, now: Scales, then: Scales) -> Batch:
    """x_s = α_s (x̃_t + (r_s - r_t) (ε̂_t + ε̂_s) / 2), with ε̂_s at DDIM's x_s; or that x_s itself where it is nearer.

    Where r is above 1, the data's own scale, ε̂ on a trajectory is a constant less c/r². Of a step by q = r_t/r_s
    Euler's rule, which is DDIM, then misses c/r_s (q - 1)²/q², and Heun's q - 1 times that, without bound from r = ∞.
    Beyond q = 3, where it is at least twice, the step is DDIM's (measured: docs/LOG.md).
    """
    estimate = walk.estimate(x, now)
    if not then.sigma or now.ratio > 3 * max(then.ratio, 1):
        return estimate.mix(then.alpha, then.sigma)
    noise, half = estimate.noise, then.alpha * (then.ratio - now.ratio) / 2
    x_s = torch.add(x * (then.alpha / now.alpha), noise, alpha=2 * half)
    return torch.add(torch.add(x_s, noise, alpha=-half), walk.estimate(x_s, then).noise, alpha=half)


def renoise(walk: Walk, x: Batch, now: Scales, up: Scales, address: int, noise: float = 1.0) -> Batch:
    """x at a larger noise-to-signal ratio r̂, by the forward process: x̃ + √(r̂² - r²) z.

    up: the scales at r̂. address: of z in the walk's noise. noise: the factor of z.
    """
    added = up.alpha * math.sqrt(up.ratio**2 - now.ratio**2)
    return walk.noised(x * (up.alpha / now.alpha), noise * added, address)
