"""EDM's stochastic sampler and Restart: Heun's method in the noise-to-signal ratio r = σ/α, on any path.

With x̃ = x/α the probability-flow ODE is dx̃/dr = ε̂, straight where the noise is all there is (Karras et al. 2022,
arXiv:2206.00364, Eq. 4 and Section 3).
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Scales
from ..core.randomness import Draws
from ..errors import InputError
from ..specs import require
from .needs import gaussian_end, needed


def edm(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    noise: float = 1.0,
    **cond: Any,
) -> Iterator[Tensor]:
    """Raise r to r̂ = (1 + γ) r with fresh noise, then x̃_s = x̃ + (r_s - r̂) (ε̂ + ε̂_s) / 2 (Algorithm 2).

    churn: S_churn; γ = min(S_churn / n, √2 - 1) while r is in [churn_min, churn_max], else 0. noise: S_noise, the
    fresh noise's standard deviation; only 1 keeps the marginals.
    Order 2 without churn, two evaluations a step; the last, to σ = 0, and long ones from afar are DDIM's (see
    heun_step).
    """
    if not churn >= 0 or not churn_min >= 0 or math.isnan(churn_max):
        raise InputError(f"edm: churn and churn_min must be at least 0; got {churn!r} and {churn_min!r}.")
    require("edm: noise", noise, above=0)
    gaussian_end(denoiser, "edm")
    if churn > 0:
        draws = needed(denoiser, draws, "edm with churn")
    grid = denoiser.path.along(times)
    most, gamma = denoiser.path.along([1.0])[0].ratio, min(churn / (len(grid) - 1), math.sqrt(2) - 1)
    ratios = torch.tensor([min(c.ratio * (1 + gamma), most) for c in grid[:-1]], dtype=torch.float64)
    raised = denoiser.path.along(denoiser.path.time_of(ratios)) if gamma else grid[:-1]
    for i, (now, then, up) in enumerate(zip(grid[:-1], grid[1:], raised, strict=True)):
        if gamma and draws is not None and churn_min <= now.ratio <= churn_max and up.ratio > now.ratio:
            x, now = renoise(x, now, up, noise * draws(i, x)), up
        x = heun_step(denoiser, x, now, then, cond)
        yield x


def restart(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    low: float = 0.1,
    high: float = 1.0,
    repeats: int = 2,
    **cond: Any,
) -> Iterator[Tensor]:
    """Walk down; having passed r = `low`, jump back up to `high` with fresh noise and walk down again, `repeats` times.

    Xu et al. 2023, arXiv:2306.14878, Algorithm 1: the noise undoes errors that the ODE only carries along. Steps are
    EDM's; every pass goes through the grid's own times nearest to `high` and `low`, and only the last is yielded.
    """
    if not 0 < low < high < math.inf:
        raise InputError(f"restart: needs 0 < low < high < inf; got {low!r} and {high!r}.")
    if not 0 <= repeats <= 10**6:
        raise InputError(f"restart: repeats must be in 0..1000000; got {repeats}.")
    draws = needed(denoiser, draws, "restart")
    grid = denoiser.path.along(times)
    inner = [i for i in range(len(grid)) if grid[i].alpha and grid[i].sigma]
    top, bottom = (min(inner, key=lambda i: abs(math.log(grid[i].ratio / r)), default=0) for r in (high, low))
    for i, (now, then) in enumerate(pairwise(grid)):
        x = heun_step(denoiser, x, now, then, cond)
        if top < bottom == i + 1:
            for again in range(repeats):
                x = renoise(x, then, grid[top], draws(again, x))
                for upper, lower in pairwise(grid[top : bottom + 1]):
                    x = heun_step(denoiser, x, upper, lower, cond)
        yield x


def heun_step(denoiser: DenoiserLike, x: Tensor, now: Scales, then: Scales, cond: dict[str, Any]) -> Tensor:
    """x_s = α_s (x̃_t + (r_s - r_t) (ε̂_t + ε̂_s) / 2), with ε̂_s at DDIM's x_s; or that x_s itself where it is nearer.

    Where r is above 1, the data's own scale, ε̂ on a trajectory is a constant less c/r². Of a step by q = r_t/r_s
    Euler's rule, which is DDIM, then misses c/r_s (q - 1)²/q², and Heun's q - 1 times that, without bound from r = ∞.
    Beyond q = 3, where it is at least twice, the step is DDIM's (measured: docs/LOG.md).
    """
    estimate = denoiser(x, now, **cond)
    if not then.sigma or now.ratio > 3 * max(then.ratio, 1):
        return estimate.mix(then.alpha, then.sigma)
    noise, half = estimate.noise, then.alpha * (then.ratio - now.ratio) / 2
    x_s = torch.add(x * (then.alpha / now.alpha), noise, alpha=2 * half)
    return torch.add(torch.add(x_s, noise, alpha=-half), denoiser(x_s, then, **cond).noise, alpha=half)


def renoise(x: Tensor, now: Scales, up: Scales, z: Tensor) -> Tensor:
    """x at a larger noise-to-signal ratio r̂, by the forward process: x̃ + √(r̂² - r²) z."""
    added = up.alpha * math.sqrt(up.ratio**2 - now.ratio**2)
    return torch.add(x * (up.alpha / now.alpha), z, alpha=added)
