"""What a network predicts: y = a x₀ + b ε. Each target is its pair (a, b), a row of TARGETS.

Together with x_t = α x₀ + σ ε this is a 2 × 2 linear system, so every conversion between targets is the same two
lines. Its determinant d = α b - σ a says where a target is singular (noise: d = α, lost where α = 0; x0: d = -σ,
lost at t = 0; velocity on Linear: d = 1, never) and what it weighs: |y - ŷ|² = (d / σ)² |x₀ - x̂₀|².
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .paths import Scales

Row = tuple[Tensor, Tensor]
Target = Callable[[Scales], Row]


class Estimate(NamedTuple):
    """What is believed of a noisy sample, in the two coordinates that all samplers use: x̂₀ and ε̂."""

    x0: Tensor
    noise: Tensor


def _x0(c: Scales) -> Row:
    """x₀ itself."""
    return torch.ones_like(c.alpha), torch.zeros_like(c.alpha)


def _noise(c: Scales) -> Row:
    """ε: Ho et al. 2020, arXiv:2006.11239, Eq. 14."""
    return torch.zeros_like(c.alpha), torch.ones_like(c.alpha)


def _score(c: Scales) -> Row:
    """∇ log q(x_t | x₀) = -ε / σ: Song et al. 2021, arXiv:2011.13456, Eq. 7."""
    return torch.zeros_like(c.alpha), -1 / c.sigma


def _velocity(c: Scales) -> Row:
    """ẋ_t = α̇ x₀ + σ̇ ε: Lipman et al. 2023, arXiv:2210.02747, Eq. 13-15."""
    return c.alpha_dot, c.sigma_dot


def _v(c: Scales) -> Row:
    """v = α ε - σ x₀: Salimans & Ho 2022, arXiv:2202.00512, Appendix D."""
    return -c.sigma, c.alpha


def _edm(c: Scales, data_std: float = 1.0) -> Row:
    """F = (D - c_skip x) / c_out: Karras et al. 2022, arXiv:2206.00364, Table 1, written for any α.

    With r = σ/α their c_skip and c_out give a = σ / (σ_d n), b = -α σ_d / n, n = √(σ² + α² σ_d²). On a variance
    preserving path with σ_d = 1 this is -v.
    """
    norm = (c.sigma**2 + (c.alpha * data_std) ** 2).sqrt()
    return c.sigma / (data_std * norm), -c.alpha * data_std / norm


TARGETS: dict[str, Callable[..., Row]] = {
    "noise": _noise,
    "x0": _x0,
    "velocity": _velocity,
    "v": _v,
    "score": _score,
    "edm": _edm,
}


def encode(target: Target, c: Scales, x0: Tensor, noise: Tensor) -> Tensor:
    """y = a x₀ + b ε."""
    a, b = target(c)
    return a * x0 + b * noise


def decode(target: Target, c: Scales, x_t: Tensor, y: Tensor) -> Estimate:
    """Solve {α x₀ + σ ε = x_t, a x₀ + b ε = y} for x₀ and ε."""
    a, b = target(c)
    d = c.alpha * b - c.sigma * a
    return Estimate(x0=(b * x_t - c.sigma * y) / d, noise=(c.alpha * y - a * x_t) / d)


def velocity(c: Scales, estimate: Estimate) -> Tensor:
    """ẋ = α̇ x̂₀ + σ̇ ε̂, the probability-flow ODE (Song et al. 2021, Eq. 13; Lipman et al. 2023, Eq. 8)."""
    return encode(_velocity, c, *estimate)


def score(c: Scales, estimate: Estimate) -> Tensor:
    """∇ log p_t(x_t) = -ε̂ / σ."""
    return encode(_score, c, *estimate)


def edm_inputs(
    c: Scales, x_t: Float[Tensor, " b *d"], data_std: float
) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " _"]]:
    """c_in x_t, of unit variance, and the clock c_noise = ¼ log(σ/α) (Karras et al. 2022, Table 1).

    log(σ/α) is kept within ±12, so that t = 0 and a path with α(1) = 0 stay finite.
    """
    norm = (c.sigma**2 + (c.alpha * data_std) ** 2).sqrt()
    clock = (c.sigma.log() - c.alpha.log()).clamp(-12, 12) / 4
    return x_t / norm, clock.flatten()
