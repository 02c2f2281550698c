"""Prediction targets: y = a x₀ + b ε. Each target is its pair (a, b), a row of TARGETS.

Together with x_t = α x₀ + σ ε this is a 2 × 2 linear system, so every conversion between targets is the same two
lines. Its determinant d = α b - σ a says where a target is singular (noise: d = α, lost where α = 0; x0: d = -σ,
lost at t = 0; velocity on Linear: d = 1, never) and what it weighs: |y - ŷ|² = (d / σ)² |x₀ - x̂₀|².
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..specs import require
from .paths import Batch, Number, Scales

__all__ = [
    "TARGETS", "Coefficients", "Estimate", "Target", "as_they_are", "edm_inputs", "from_target", "score", "to_target",
    "velocity",
]  # fmt: skip

Coefficients = tuple[Number, Number]


class Estimate:
    """Estimate of a noisy sample: x̂₀ and ε̂, the two coordinates that all samplers use.

    They are kept as two tensors at hand (x_t and a network's output y, say) and the rows of numbers that make x̂₀ and
    ε̂ of them. So whatever a sampler wants, a x̂₀ + b ε̂, is one multiplication and one addition; and the velocity
    of a network that predicts the velocity is its output to the last bit.

    first, second: the two tensors, (b, *d). x0, noise: two coefficients each, as in x̂₀ = p first + q second.
    """

    __slots__ = ("_first", "_noise", "_second", "_x0")

    def __init__(
        self, first: Tensor, second: Tensor, x0: Coefficients = (1.0, 0.0), noise: Coefficients = (0.0, 1.0)
    ) -> None:
        self._first, self._second, self._x0, self._noise = first, second, x0, noise

    def mix(self, a: Number, b: Number) -> Tensor:
        """a x̂₀ + b ε̂."""
        (p, q), (r, s) = self._x0, self._noise
        return _combine(a * p + b * r, self._first, a * q + b * s, self._second)

    @property
    def x0(self) -> Tensor:
        """x̂₀ = E[x₀ | x_t]."""
        return _combine(self._x0[0], self._first, self._x0[1], self._second)

    @property
    def noise(self) -> Tensor:
        """ε̂ = E[ε | x_t]."""
        return _combine(self._noise[0], self._first, self._noise[1], self._second)

    def __iter__(self) -> Iterator[Tensor]:
        """x0, noise = estimate."""
        yield self.x0
        yield self.noise

    def map(self, function: Callable[[Tensor], Tensor]) -> "Estimate":
        """The same estimate of fewer, more or mixed samples, where `function` is linear: a slice, say."""
        return Estimate(function(self.x0), function(self.noise))


def _combine(p: Number, x: Tensor, q: Number, y: Tensor) -> Tensor:
    """p x + q y, in as few passes as the numbers allow."""
    if isinstance(p, Tensor) or isinstance(q, Tensor):
        return p * x + q * y
    if q == 0:
        return x if p == 1 else x * p
    if p == 0:
        return y if q == 1 else y * q
    if p == 1:
        return torch.add(x, y, alpha=q)
    return (x * p).add_(y, alpha=q)  # in place of what is new anyway: on images memory is what a step waits for


def _x0(c: Scales) -> Coefficients:
    """x₀ itself."""
    return 1.0, 0.0


def _noise(c: Scales) -> Coefficients:
    """ε: Ho et al. 2020, arXiv:2006.11239, Eq. 14."""
    return 0.0, 1.0


def _score(c: Scales) -> Coefficients:
    """∇ log q(x_t | x₀) = -ε / σ: Song et al. 2021, arXiv:2011.13456, Eq. 7."""
    return 0.0, -1 / c.sigma


def _velocity(c: Scales) -> Coefficients:
    """ẋ_t = α̇ x₀ + σ̇ ε: Lipman et al. 2023, arXiv:2210.02747, Eq. 13-15."""
    return c.alpha_dot, c.sigma_dot


def _v(c: Scales) -> Coefficients:
    """v = α ε - σ x₀: Salimans & Ho 2022, arXiv:2202.00512, Appendix D."""
    return -c.sigma, c.alpha


def _edm(c: Scales, data_std: float = 1.0) -> Coefficients:
    """F = (D - c_skip x) / c_out: Karras et al. 2022, arXiv:2206.00364, Table 1, written for any α.

    With r = σ/α their c_skip and c_out give a = σ / (σ_d n), b = -α σ_d / n, n = √(σ² + α² σ_d²). On a variance
    preserving path with σ_d = 1 this is -v.
    """
    require("target 'edm': data_std", data_std, above=0)
    norm = _norm(c, data_std)
    return c.sigma / (data_std * norm), -c.alpha * data_std / norm


def as_they_are(c: Scales, x_t: Batch) -> tuple[Batch, Number]:
    """x_t and t."""
    return x_t, c.t


def edm_inputs(c: Scales, x_t: Batch, data_std: float = 1.0) -> tuple[Batch, Number]:
    """c_in x_t, of unit variance, and the clock c_noise = ¼ log(σ/α) (Karras et al. 2022, Table 1).

    log(σ/α) is kept within ±12, so that t = 0 and a path with α(1) = 0 stay finite.
    """
    norm = _norm(c, data_std)
    if isinstance(norm, Tensor):
        clock = (c.sigma.log() - c.alpha.log()).clamp(-12, 12).flatten() / 4
    else:
        clock = math.log(min(max(c.ratio, math.exp(-12)), math.exp(12))) / 4
    return x_t / norm, clock


def _norm(c: Scales, data_std: float) -> Number:
    """√(σ² + α² σ_d²), the standard deviation of x_t."""
    return (c.sigma**2 + (c.alpha * data_std) ** 2) ** 0.5


@dataclass(frozen=True)
class Target:
    """A row of TARGETS: (a, b) at given scales, and what a network of this target sees of x_t and t."""

    function: Callable[..., Coefficients]
    inputs: Callable[..., tuple[Batch, Number]] = as_they_are

    def __call__(self, c: Scales, **given: Any) -> Coefficients:
        return self.function(c, **given)


TARGETS: dict[str, Target] = {
    "noise": Target(_noise),
    "x0": Target(_x0),
    "velocity": Target(_velocity),
    "v": Target(_v),
    "score": Target(_score),
    "edm": Target(_edm, edm_inputs),
}


def to_target(target: Callable[[Scales], Coefficients], c: Scales, x0: Tensor, noise: Tensor) -> Tensor:
    """y = a x₀ + b ε."""
    a, b = target(c)
    return _combine(a, x0, b, noise)


def from_target(target: Callable[[Scales], Coefficients], c: Scales, x_t: Tensor, y: Tensor) -> Estimate:
    """Solve {α x₀ + σ ε = x_t, a x₀ + b ε = y}: x₀ = (b x_t - σ y) / d, ε = (α y - a x_t) / d."""
    a, b = target(c)
    d = c.alpha * b - c.sigma * a
    return Estimate(x_t, y, x0=(b / d, -c.sigma / d), noise=(-a / d, c.alpha / d))


def velocity(c: Scales, estimate: Estimate) -> Tensor:
    """ẋ = α̇ x̂₀ + σ̇ ε̂, the probability-flow ODE (Song et al. 2021, Eq. 13; Lipman et al. 2023, Eq. 8)."""
    return estimate.mix(c.alpha_dot, c.sigma_dot)


def score(c: Scales, estimate: Estimate) -> Tensor:
    """∇ log p_t(x_t) = -ε̂ / σ."""
    return estimate.mix(0.0, -1 / c.sigma)
