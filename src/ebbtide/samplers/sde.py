"""The reverse SDE by Euler-Maruyama with a diffusion coefficient of one's own choice, and predictor-corrector sampling.

For any g² ≥ 0 the SDE dx = (u_t - ½ g² ∇log p_t) dt + g dW̄, run backwards, has the marginals p_t of the ODE dx = u_t dt
(Song et al. 2021, arXiv:2011.13456, Appendix D; Ma et al. 2024 (SiT), arXiv:2401.08740, Eq. 4): noise forgets errors.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Scales
from ..core.randomness import Draws
from ..errors import InputError
from ..specs import pick
from .ddim import transition_variance
from .dpm_solver import shrinkage
from .needs import needed


def _own(c: Scales) -> float:
    """2 σ² λ̇ = 2 (σ σ̇ - σ² α̇/α), the forward process's own (Song et al. 2021, Eqs. 9-11); infinite where α = 0."""
    return 2 * (c.sigma * c.sigma_dot - c.sigma**2 * c.alpha_dot / c.alpha) if c.alpha else math.inf


def _variance(c: Scales) -> float:
    """d(σ²)/dt = 2 σ σ̇: finite on every path, the own one of VE; 0 where a wide bridge's σ falls again."""
    return max(2 * c.sigma * c.sigma_dot, 0.0)


def _constant(c: Scales) -> float:
    """1."""
    return 1.0


DIFFUSIONS: dict[str, Callable[[Scales], float]] = {"variance": _variance, "own": _own, "constant": _constant}


def euler_maruyama(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    diffusion: str = "variance",
    scale: float = 1.0,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = x_t - h (α̇ x̂₀ + (σ̇ + g²/2σ) ε̂) + g √h z,   h = t - s,   g² = scale · DIFFUSIONS[diffusion](t).

    Weak order 1, one evaluation a step; the last, to t = 0, is DDIM's and adds no noise.
    """
    draws = needed(denoiser, draws, "euler_maruyama")
    rate = DIFFUSIONS[pick(DIFFUSIONS, diffusion, "euler_maruyama: diffusion")]
    if not 0 <= scale < math.inf:
        raise InputError(f"euler_maruyama: scale must be at least 0 and finite; got {scale!r}.")
    grid = denoiser.path.along(times)
    g2 = [scale * rate(c) if scale else 0.0 for c in grid[:-1]]
    if math.inf in g2:
        raise InputError(
            "euler_maruyama: the path's own diffusion is infinite at t = 1, where α = 0; use diffusion=variance, or "
            "exponential_sde, which takes such a step exactly."
        )
    for i, (now, then) in enumerate(pairwise(grid)):
        estimate, h = denoiser(x, now, **cond), now.t - then.t
        if then.sigma:
            x = torch.add(x, estimate.mix(now.alpha_dot, now.sigma_dot + g2[i] / (2 * now.sigma)), alpha=-h)
            x = torch.add(x, draws(i, x), alpha=math.sqrt(g2[i] * h))
        else:
            x = estimate.mix(then.alpha, then.sigma)
        yield x


def predictor_corrector(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    corrections: int = 1,
    strength: float = 1.0,
    **cond: Any,
) -> Iterator[Tensor]:
    """DDPM's step to s, then Langevin steps x ← α_s x̂₀ + σ_s (c ε̂ + √(1 - c²) z) at s, c = e^{-strength · h}.

    Predictor and corrector of Song et al. 2021, Algorithm 1. For c → 1 the correction is their x + ε ∇log p + √(2ε) z
    with ε = (1 - c) σ², in a form that is exact where x₀ is known. Their ε has a size of its own, whose bias stays
    however many steps one takes; ours shrinks with the predictor's step. corrections + 1 evaluations a step.
    Weak order 1.
    """
    draws = needed(denoiser, draws, "predictor_corrector")
    if not 0 <= corrections <= 10**6 or not 0 < strength < math.inf:
        raise InputError(
            "predictor_corrector: corrections must be in 0..1000000 and strength above 0; "
            f"got {corrections} and {strength!r}."
        )
    for i, (now, then) in enumerate(pairwise(denoiser.path.along(times))):
        variance = transition_variance(now, then) * (then.sigma / now.sigma) ** 2
        x = denoiser(x, now, **cond).mix(then.alpha, math.sqrt(max(then.sigma**2 - variance, 0)))
        if then.sigma:
            first = i * (corrections + 1)
            x = torch.add(x, draws(first, x), alpha=math.sqrt(variance))
            c = shrinkage(now, then) ** strength
            for again in range(corrections):
                x = denoiser(x, then, **cond).mix(then.alpha, c * then.sigma)
                x = torch.add(x, draws(first + 1 + again, x), alpha=then.sigma * math.sqrt(1 - c**2))
        yield x
