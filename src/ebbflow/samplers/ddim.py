"""DDPM's ancestral sampling and DDIM: one update, from noisy (η = 1) to deterministic (η = 0), on any grid and path.

Ho et al. 2020, arXiv:2006.11239, Algorithm 2; Song, Meng & Ermon 2021, arXiv:2010.02502, Eqs. 12 and 16.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..denoiser import DenoiserLike
from ..errors import InputError
from ..paths import Scales
from ..randomness import Draws


def transition_variance(now: Scales, then: Scales) -> Tensor:
    """β of the forward step s → t: x_t = (α_t / α_s) x_s + √β z,  β = σ_t² - (α_t σ_s / α_s)²; DDPM's β_i at i/N."""
    return (now.sigma**2 - (now.alpha * then.sigma / then.alpha) ** 2).clamp(min=0)


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
        draws = _needed(denoiser, draws, "ddim with eta > 0")
    for step, (t, s) in enumerate(pairwise(times)):
        now, then = denoiser.path.scales(t), denoiser.path.scales(s)
        x0, noise = denoiser(x, t.reshape(1), **cond)
        tau2 = eta**2 * transition_variance(now, then) * (then.sigma / now.sigma) ** 2
        x = then.alpha * x0 + (then.sigma**2 - tau2).clamp(min=0).sqrt() * noise
        if draws is not None and tau2 > 0:
            x = x + tau2.sqrt() * draws(step, x)
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
    draws = _needed(denoiser, draws, "ddpm")
    for step, (t, s) in enumerate(pairwise(times)):
        now, then = denoiser.path.scales(t), denoiser.path.scales(s)
        x0, noise = denoiser(x, t.reshape(1), **cond)
        beta = transition_variance(now, then)
        posterior = beta * (then.sigma / now.sigma) ** 2
        x = then.alpha * x0 + (then.sigma**2 - posterior).clamp(min=0).sqrt() * noise
        if s > 0:
            x = x + (posterior if variance == "posterior" else beta).sqrt() * draws(step, x)
        yield x


def _needed(denoiser: DenoiserLike, draws: Draws | None, sampler: str) -> Draws:
    if not denoiser.gaussian_end:
        raise InputError(
            f"{sampler} needs a path from Gaussian noise: between two sample sets there is only a velocity; "
            "use an ODE sampler such as euler or heun."
        )
    if draws is None:
        raise InputError(f"{sampler} is stochastic and needs draws=Draws.first(n, seed).")
    return draws
