"""DPM-Solver++ in its multistep, single-step and SDE forms (Lu et al. 2022, arXiv:2211.01095).

λ = log(α/σ), h = λ_s - λ_t. Only e^{-h} = (α_t σ_s) / (α_s σ_t) enters, which is 0, not undefined, for a step from
α = 0 or to σ = 0.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..core.paths import Scales
from ..specs import require
from .multistep import Scheme, Update, multistep
from .walks import Walk

__all__ = ["dpmpp_2m", "dpmpp_2s", "exponential_sde", "shrinkage"]


def shrinkage(now: Scales, then: Scales) -> float:
    """e^{-h}: how far the noise-to-signal ratio falls from t to s."""
    return now.alpha * then.sigma / (then.alpha * now.sigma)


def dpmpp_2m(walk: Walk, *, eta: float = 0.0) -> Iterator[Tensor]:
    """x_s = (σ_s/σ_t) e^{-η²h} x_t + α_s (1 - e^{-(1+η²)h}) D + σ_s √(1 - e^{-2η²h}) z,   D = x̂₀ + (h/2h') (x̂₀ - x̂₀').

    DPM-Solver++(2M), Algorithm 2, with the estimate x̂₀' and the step h' before; η = 1 is SDE-DPM-Solver++(2M), Eq. 18.
    Order 2 (η = 0), one evaluation a step. The first step, the one after α = 0, and the last are of order 1.
    """
    return multistep(walk, Scheme("x0", _rows(walk, eta, 2)))


def exponential_sde(walk: Walk, *, eta: float = 1.0) -> Iterator[Tensor]:
    """x_s = (σ_s/σ_t) e^{-η²h} x_t + α_s (1 - e^{-(1+η²)h}) x̂₀ + σ_s √(1 - e^{-2η²h}) z: the reverse SDE, x̂₀ held.

    Its marginals are the path's for every η ≥ 0 and every path, flow matching's too: g² dt = 2 η² σ² dλ is free
    (Zhang & Chen 2023, arXiv:2204.13902, Eq. 6). η = 0 is DDIM, η = 1 DDPM with the posterior variance. Order 1.
    """
    return multistep(walk, Scheme("x0", _rows(walk, eta, 1)))


def _rows(walk: Walk, eta: float, order: int) -> list[Update]:
    require("eta", eta, 0)
    rows, before = [], 0.0
    for now, then in walk.steps:
        fall = shrinkage(now, then)
        churn = fall ** (eta**2)  # e^{-η²h}
        h = -math.log(fall) if fall else math.inf
        extra = h / (2 * before) if order == 2 and before and math.isfinite(h) else 0.0
        gain = then.alpha * (1 - churn * fall)
        noise = then.sigma * math.sqrt(max(1 - churn**2, 0.0))
        rows.append(Update(then.sigma / now.sigma * churn, (gain * (1 + extra), -gain * extra), noise))
        before = h
    return rows


def dpmpp_2s(walk: Walk) -> Iterator[Tensor]:
    """x_s = (σ_s/σ_t) x_t + α_s (1 - e^{-h}) x̂₀(m), m half-way in λ and reached by DDIM (Algorithm 1 with r = ½).

    Order 2, two evaluations a step. A step with h = ∞ (from α = 0, and the last) has no half-way; it is DDIM's.
    """
    x, path = walk.x, walk.path
    halfway = [math.sqrt(now.ratio * then.ratio) if now.alpha and then.sigma else 0.0 for now, then in walk.steps]
    middles = path.along(path.time_of(torch.tensor(halfway, dtype=torch.float64)))
    for (now, then), middle in zip(walk.steps, middles, strict=True):
        estimate = walk.estimate(x, now)
        if now.alpha and then.sigma:
            x0 = walk.estimate(estimate.mix(middle.alpha, middle.sigma), middle).x0
            x = torch.add(x * (then.sigma / now.sigma), x0, alpha=then.alpha * (1 - shrinkage(now, then)))
        else:
            x = estimate.mix(then.alpha, then.sigma)
        yield x
