"""DDPM's ancestral sampling and DDIM: one update, from noisy (η = 1) to deterministic (η = 0), on any grid and path.

Ho et al. 2020, arXiv:2006.11239, Algorithm 2; Song, Meng & Ermon 2021, arXiv:2010.02502, Eqs. 12 and 16.
"""

import math
from collections.abc import Iterator

from torch import Tensor

from ..core.paths import Batch, Scales
from ..specs import pick, require
from .walks import Walk

__all__ = ["ancestral", "ddim", "ddpm", "transition_variance"]


def transition_variance(now: Scales, then: Scales) -> float:
    """β of the forward step s → t: x_t = (α_t / α_s) x_s + √β z,  β = σ_t² - (α_t σ_s / α_s)²; DDPM's β_i at i/N."""
    return max(now.sigma**2 - (now.alpha * then.sigma / then.alpha) ** 2, 0.0)


def ancestral(
    walk: Walk, x: Batch, now: Scales, then: Scales, address: int, eta: float = 1.0, variance: str = "posterior"
) -> Batch:
    """x_s = α_s x̂₀ + √(σ_s² - τ²) ε̂ + √V z,   τ² = η² β̃,   β̃ = β σ_s² / σ_t²;   V = τ², or β; 0 at the last step.

    variance: "beta" for V = β. address: of z in the walk's noise.
    """
    beta = transition_variance(now, then)
    tau2 = eta**2 * beta * (then.sigma / now.sigma) ** 2
    x = walk.estimate(x, now).mix(then.alpha, math.sqrt(max(then.sigma**2 - tau2, 0)))
    return walk.noised(x, math.sqrt(beta if variance == "beta" else tau2), address) if then.sigma > 0 else x


def ddim(walk: Walk, *, eta: float = 0.0) -> Iterator[Tensor]:
    """x_s = α_s x̂₀ + √(σ_s² - τ²) ε̂ + τ z,   τ² = η² β̃,   β̃ = β σ_s² / σ_t².

    η = 0 is deterministic and of order 1; η = 1 is DDPM with the posterior variance β̃.
    """
    require("ddim: eta", eta, 0, 1)
    x = walk.x
    for i, (now, then) in enumerate(walk.steps):
        x = ancestral(walk, x, now, then, i, eta)
        yield x


def ddpm(walk: Walk, *, variance: str = "posterior") -> Iterator[Tensor]:
    """x_s = E[x_s | x_t, x̂₀] + √V z, with V = β̃ ("posterior") or V = β ("beta") (Ho et al. 2020, Section 3.2).

    The mean is DDIM's with τ² = β̃ for either V; the last step, to t = 0, adds no noise. With V = β the samples are
    a little too wide on few steps: β̃/β = σ_s² / σ_t² tends to 1 only as the steps shrink.

    variance: the name of V.
    """
    pick(("posterior", "beta"), variance, "ddpm: variance")
    x = walk.x
    for i, (now, then) in enumerate(walk.steps):
        x = ancestral(walk, x, now, then, i, variance=variance)
        yield x
