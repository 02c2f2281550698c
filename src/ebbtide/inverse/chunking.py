"""Real-time chunking: a chunk that continues the one being executed, from any denoiser and any ODE sampler.

While a chunk is computed the robot keeps moving. By the time it is ready, the first actions of the old chunk that it
overlaps have been executed, and the later ones were planned. So the new chunk is inpainted: it agrees with the first
actions exactly and with the others less the later they come (Black, Galliker & Levine 2025, arXiv:2506.07339). Their τ
is our 1 - t.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Number, Scales, Time
from ..core.targets import Estimate
from ..errors import InputError
from ..specs import expect, require, shaped
from .posterior import LinearMap, NoisyMeasurement, Posterior, conjugate_gradients

__all__ = ["Previous", "RealTime", "real_time", "soft_mask"]


class Previous(NamedTuple):
    """The rest of the chunk being executed.

    actions: index 0 is the current step; values beyond the end are ignored.
    weights: commitment to each action, 1 for those that will certainly be executed, 0 beyond the end.
    """

    actions: Float[Tensor, "b h a"]
    weights: Float[Tensor, "b h"]


def soft_mask(horizon: int, delay: int, executed: int) -> Float[Tensor, " h"]:
    """W_i = 1 for i < d;  c_i (e^{c_i} - 1)/(e - 1) for d ≤ i < H - s;  0 after that (Eq. 5).

    c_i = (H - s - i)/(H - s - d + 1). delay: d, steps from the observation to the chunk's first action that counts.
    executed: s, how far the old chunk's first action lies in the past. Raises InputError unless 0 ≤ d ≤ H - s ≤ H.

    horizon: H, actions in a chunk.
    """
    for name, value in (("horizon", horizon), ("delay", delay), ("executed", executed)):
        require(name, value, 0, whole=True)
    if delay + executed > horizon:
        raise InputError(
            f"Real-time chunking needs delay + executed steps within the horizon, {horizon}; got {delay} + {executed}."
        )
    i = torch.arange(horizon, dtype=torch.float64)
    c = (horizon - executed - i) / (horizon - executed - delay + 1)
    decaying = torch.where(c > 0, c * c.expm1() / (math.e - 1), 0.0)
    return torch.where(i < delay, 1.0, decaying).float()


@dataclass(frozen=True)
class RealTime(Posterior):
    """x̂₀ + δ, ε̂ - α/σ δ,   δ = V u,   u = min(β α/σ, 1/r²) W (Y - x̂₀),   r² = σ²/(α² + σ²),   V = σ²/α Jᵀ.

    J = ∂x̂₀/∂x_t, by a backward pass, makes free actions follow the committed ones as far as the denoiser correlates
    them. (With J = I in its place, as in LeRobot, free actions don't react.) On the linear path this is the velocity
    u_t - min(β, t / ((1 - t) r²)) Jᵀ W (Y - x̂₀) of their Eq. 2 to 4, and on others the same flow after a change of
    variables. With β = ∞ and W of zeros and ones it is PiGDM with a mask.

    weights: W. beta: β, which keeps the first steps, where α → 0, and the last, where r → 0, from overshooting.
    solve: 0 is the paper's. Above, the most conjugate gradient steps, a backward pass each, for
        (√W V √W + r² (1 - W)) w = √W (Y - x̂₀),   u = √W w,
    which needs no β: V stands where the paper has r² I, as in TMPD, and (1 - W)/W r² is the variance of a soft action.
    Measured on a Gaussian chunk whose neighbours correlate by 0.9, given its first action, Euler with 5 steps: the
    second of 8 has mean 0.66 by the paper's formula and 0.90 by this one, which is exact.

    Raises InputError for β that isn't above 0, solve below 0, and a weight for other than every action.
    """

    weights: Float[Tensor, "b h"]
    beta: float = 5.0
    solve: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta != math.inf:
            require("Real-time chunking: beta", self.beta, above=0)
        require("Real-time chunking: solve", self.solve, 0, whole=True)
        expect("Real-time chunking: weights", self.weights, Tensor)
        shaped("Real-time chunking: weights, one for each action,", self.weights, *self.measurement.y.shape[:2])

    def __call__(self, x_t: Float[Tensor, "b h a"], t: Time, /, **cond: Any) -> Estimate:
        return super().__call__(x_t, t, **cond)

    def weigh(self, residual: Tensor, c: Scales, x: Tensor, covariance: LinearMap) -> Tensor:
        weights, r2 = self.weights.to(residual)[..., None], c.sigma**2 / (c.alpha**2 + c.sigma**2)
        if not self.solve:
            return _strength(c, self.beta) * weights * residual
        root = weights.sqrt()
        matrix = lambda w: root * covariance(root * w) + r2 * (1 - weights) * w
        return root * conjugate_gradients(matrix, root * residual, steps=self.solve, rtol=1e-4)


def _strength(c: Scales, beta: float) -> Number:
    """min(β α/σ, 1/r²), but 0 at σ = 0, where V is 0 too."""
    bounded, exact = beta * c.alpha * c.sigma, c.alpha**2 + c.sigma**2
    if isinstance(bounded, Tensor):
        return torch.minimum(bounded, exact) / (c.sigma**2).clamp(min=1e-30)
    return min(bounded, exact) / max(c.sigma**2, 1e-30)


def real_time(denoiser: DenoiserLike, previous: Previous, *, beta: float = 5.0, solve: int = 0) -> RealTime:
    """The denoiser of chunks that continue the previous one, which is given in the network's units.

    beta, solve: as in `RealTime`.
    """
    expect("Real-time chunking: previous", previous, Previous)
    expect("Real-time chunking: actions", previous.actions, Tensor)
    shaped("Real-time chunking: actions", previous.actions, "b", "h", "a")
    return RealTime(denoiser, NoisyMeasurement(lambda x: x, previous.actions), previous.weights, beta, solve)
