"""The reverse SDE by Euler-Maruyama, with a diffusion coefficient of your choice.

For any g² ≥ 0 the SDE dx = (u_t - ½ g² ∇log p_t) dt + g dW̄, run backwards, has the marginals p_t of the ODE dx = u_t dt
(Song et al. 2021, arXiv:2011.13456, Appendix D; Ma et al. 2024 (SiT), arXiv:2401.08740, Eq. 4): noise forgets errors.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..core.paths import Scales
from ..errors import InputError
from ..specs import pick, require
from .walks import Walk

__all__ = ["DIFFUSIONS", "euler_maruyama"]


def _own(c: Scales) -> float:
    """2 σ² λ̇ = 2 (σ σ̇ - σ² α̇/α), the forward process's own (Song et al. 2021, Eqs. 9-11); infinite where α = 0."""
    return 2 * (c.sigma * c.sigma_dot - c.sigma**2 * c.alpha_dot / c.alpha) if c.alpha else math.inf


def _variance(c: Scales) -> float:
    """d(σ²)/dt = 2 σ σ̇: finite on every path, the own one of VE; 0 where a wide bridge's σ falls again."""
    return max(2 * c.sigma * c.sigma_dot, 0.0)


DIFFUSIONS: dict[str, Callable[[Scales], float]] = {"variance": _variance, "own": _own, "constant": lambda c: 1.0}


def euler_maruyama(walk: Walk, *, diffusion: str = "variance", scale: float = 1.0) -> Iterator[Tensor]:
    """x_s = x_t - h (α̇ x̂₀ + (σ̇ + g²/2σ) ε̂) + g √h z,   h = t - s,   g² = scale · DIFFUSIONS[diffusion](t).

    Weak order 1, one evaluation a step; the last, to t = 0, is DDIM's and adds no noise.
    """
    rate = DIFFUSIONS[pick(DIFFUSIONS, diffusion, "euler_maruyama: diffusion")]
    require("euler_maruyama: scale", scale, 0)
    g2 = [scale * rate(c) if scale else 0.0 for c in walk.grid[:-1]]
    if math.inf in g2:
        raise InputError(
            "euler_maruyama: the path's own diffusion is infinite at t = 1, where α = 0; use diffusion=variance, or "
            "exponential_sde, which takes such a step exactly."
        )
    x = walk.x
    for i, (now, then) in enumerate(walk.steps):
        estimate, h = walk.estimate(x, now), now.t - then.t
        if then.sigma:
            x = torch.add(x, estimate.mix(now.alpha_dot, now.sigma_dot + g2[i] / (2 * now.sigma)), alpha=-h)
            x = walk.noised(x, math.sqrt(g2[i] * h), i)
        else:
            x = estimate.mix(then.alpha, then.sigma)
        yield x
