"""DDPM's ancestral sampling and DDIM: one update, from noisy (η = 1) to deterministic (η = 0), on any grid and path.

Ho et al. 2020, arXiv:2006.11239, Algorithm 2; Song, Meng & Ermon 2021, arXiv:2010.02502, Eqs. 12 and 16.
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
from .needs import needed


def transition_variance(now: Scales, then: Scales) -> float:
    """β of the forward step s → t: x_t = (α_t / α_s) x_s + √β z,  β = σ_t² - (α_t σ_s / α_s)²; DDPM's β_i at i/N."""
    return max(now.sigma**2 - (now.alpha * then.sigma / then.alpha) ** 2, 0.0)


def ddim(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    eta: float = 0.0,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = α_s x̂₀ + √(σ_s² - τ²) ε̂ + τ z,   τ² = η² β̃,   β̃ = β σ_s² / σ_t².

    η = 0 is deterministic and of order 1; η = 1 is DDPM with the posterior variance β̃.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"ddim: eta must be in [0, 1]; got {eta!r}.")
    if eta > 0:
        draws = needed(denoiser, draws, "ddim with eta > 0")
    for step, (now, then) in enumerate(pairwise(denoiser.path.along(times))):
        tau2 = eta**2 * transition_variance(now, then) * (then.sigma / now.sigma) ** 2
        x = denoiser(x, now, **cond).mix(then.alpha, math.sqrt(max(then.sigma**2 - tau2, 0)))
        if draws is not None and tau2 > 0:
            x = torch.add(x, draws(step, x), alpha=math.sqrt(tau2))
        yield x


def ddpm(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    variance: str = "posterior",
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = E[x_s | x_t, x̂₀] + √V z, with V = β̃ ("posterior") or V = β ("beta") (Ho et al. 2020, Section 3.2).

    The mean is DDIM's with τ² = β̃ for either V; the last step, to t = 0, adds no noise. With V = β the samples are
    a little too wide on few steps: β̃/β = σ_s² / σ_t² tends to 1 only as the steps shrink.
    """
    if variance not in ("posterior", "beta"):
        raise InputError(f"ddpm: variance must be posterior or beta; got {variance!r}.")
    draws = needed(denoiser, draws, "ddpm")
    for step, (now, then) in enumerate(pairwise(denoiser.path.along(times))):
        beta = transition_variance(now, then)
        posterior = beta * (then.sigma / now.sigma) ** 2
        x = denoiser(x, now, **cond).mix(then.alpha, math.sqrt(max(then.sigma**2 - posterior, 0)))
        if then.sigma > 0:
            x = torch.add(x, draws(step, x), alpha=math.sqrt(posterior if variance == "posterior" else beta))
        yield x
