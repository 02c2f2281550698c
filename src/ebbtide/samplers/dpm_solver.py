"""DPM-Solver++ in its multistep, single-step and SDE forms (Lu et al. 2022, arXiv:2211.01095).

λ = log(α/σ), h = λ_s - λ_t. Only e^{-h} = (α_t σ_s) / (α_s σ_t) enters, which is 0, not undefined, for a step from
α = 0 or to σ = 0.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Scales
from ..core.randomness import Draws
from ..errors import InputError
from .multistep import Plan, Row, multistep
from .needs import gaussian_end, needed


def shrinkage(now: Scales, then: Scales) -> float:
    """e^{-h}: how far the noise-to-signal ratio falls from t to s."""
    return now.alpha * then.sigma / (then.alpha * now.sigma)


def dpmpp_2m(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    eta: float = 0.0,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = (σ_s/σ_t) e^{-η²h} x_t + α_s (1 - e^{-(1+η²)h}) D + σ_s √(1 - e^{-2η²h}) z,   D = x̂₀ + (h/2h') (x̂₀ - x̂₀').

    DPM-Solver++(2M), Algorithm 2, with the estimate x̂₀' and the step h' before; η = 1 is SDE-DPM-Solver++(2M), Eq. 18.
    Order 2 (η = 0), one evaluation a step. The first step, the one after α = 0, and the last are of order 1.
    """
    if eta > 0:
        draws = needed(denoiser, draws, "dpmpp_2m with eta > 0")
    gaussian_end(denoiser, "dpmpp_2m")
    grid = denoiser.path.along(times)
    return multistep(denoiser, x, grid, Plan("x0", _rows(grid, eta, 2)), draws, cond)


def exponential_sde(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    eta: float = 1.0,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = (σ_s/σ_t) e^{-η²h} x_t + α_s (1 - e^{-(1+η²)h}) x̂₀ + σ_s √(1 - e^{-2η²h}) z: the reverse SDE, x̂₀ held.

    Its marginals are the path's for every η ≥ 0 and every path, flow matching's too: g² dt = 2 η² σ² dλ is free
    (Zhang & Chen 2023, arXiv:2204.13902, Eq. 6). η = 0 is DDIM, η = 1 DDPM with the posterior variance. Order 1.
    """
    draws = needed(denoiser, draws, "exponential_sde")
    grid = denoiser.path.along(times)
    return multistep(denoiser, x, grid, Plan("x0", _rows(grid, eta, 1)), draws, cond)


def _rows(grid: Sequence[Scales], eta: float, order: int) -> list[Row]:
    if not 0 <= eta < math.inf:
        raise InputError(f"dpmpp_2m and exponential_sde: eta must be at least 0 and finite; got {eta!r}.")
    rows, before = [], 0.0
    for now, then in pairwise(grid):
        fall = shrinkage(now, then)
        churn = fall ** (eta**2)  # e^{-η²h}
        h = -math.log(fall) if fall else math.inf
        extra = h / (2 * before) if order == 2 and before and math.isfinite(h) else 0.0
        gain = then.alpha * (1 - churn * fall)
        noise = then.sigma * math.sqrt(max(1 - churn**2, 0.0))
        rows.append(Row(then.sigma / now.sigma * churn, (gain * (1 + extra), -gain * extra), noise))
        before = h
    return rows


def dpmpp_2s(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = (σ_s/σ_t) x_t + α_s (1 - e^{-h}) x̂₀(m), m half-way in λ and reached by DDIM (Algorithm 1 with r = ½).

    Order 2, two evaluations a step. A step with h = ∞ (from α = 0, and the last) has no half-way; it is DDIM's.
    """
    gaussian_end(denoiser, "dpmpp_2s")
    path, grid = denoiser.path, denoiser.path.along(times)
    halfway = [math.sqrt(now.ratio * then.ratio) if now.alpha and then.sigma else 0.0 for now, then in pairwise(grid)]
    middles = path.along(path.time_of(torch.tensor(halfway, dtype=torch.float64)))
    for now, then, middle in zip(grid[:-1], grid[1:], middles, strict=True):
        estimate = denoiser(x, now, **cond)
        if now.alpha and then.sigma:
            x0 = denoiser(estimate.mix(middle.alpha, middle.sigma), middle, **cond).x0
            x = torch.add(x * (then.sigma / now.sigma), x0, alpha=then.alpha * (1 - shrinkage(now, then)))
        else:
            x = estimate.mix(then.alpha, then.sigma)
        yield x
