"""Gaussian probability paths: x_t = α(t) x₀ + σ(t) ε, from data (t = 0) to noise (t = 1).

A new path is one frozen dataclass with the method `scales`, and its row in PATHS; the tests then check its
derivatives, its ends, every target and every sampler on it.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..specs import LARGEST, expect, pick, require

__all__ = [
    "DDPM", "PATHS", "VE", "VP", "Batch", "Bridge", "Cosine", "Linear", "Number", "Path", "Scales", "Time",
]  # fmt: skip

Batch = Float[Tensor, " b *d"]  # b examples of any shape d
Number = Any  # a float, or a tensor that broadcasts against the data: formulas are the same for both


class Scales(NamedTuple):
    """α, σ and their time derivatives at one time t: floats for a whole batch, or tensors with a time per example."""

    t: Number
    alpha: Number
    sigma: Number
    alpha_dot: Number
    sigma_dot: Number

    @property
    def ratio(self) -> Number:
        """σ/α, the noise-to-signal ratio (EDM's σ); ∞ where α = 0."""
        return self.sigma / self.alpha if isinstance(self.alpha, Tensor) or self.alpha else math.inf

    @property
    def size(self) -> Number:
        """α + σ, by which x is divided in the flow clock."""
        return self.alpha + self.sigma

    @property
    def tau(self) -> Number:
        """The flow clock τ = σ/(α + σ): the linear path's time, from 1 (or nearly) to 0 on every path."""
        return self.sigma / self.size


# When: one time for a whole batch (a float, a tensor of one, the Scales themselves), or a time per example.
Time = float | Scales | Float[Tensor, ""] | Float[Tensor, " #b"]


class Path(ABC):
    """x_t = α(t) x₀ + σ(t) ε. Subclasses give `scales`; the rest follows from it."""

    @abstractmethod
    def scales(self, t: Tensor) -> Scales:
        """t, α, σ, α̇, σ̇ at times t ∈ [0, 1] of any shape, in t's own precision."""

    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which σ/α = ratio, the noise-to-signal ratio (EDM's σ), clamped to [0, 1].

        σ/α grows with t on every path, so bisection finds it; paths with a closed form override this.
        """
        low, high = torch.zeros_like(ratio), torch.ones_like(ratio)
        for _ in range(60):
            middle = (low + high) / 2
            c = self.scales(middle)
            below = c.sigma < ratio * c.alpha
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return torch.where(ratio > 0, (low + high) / 2, 0.0)

    def time_at(self, tau: Tensor) -> Tensor:
        """The time at which the flow clock σ/(α + σ) is τ."""
        return self.time_of(tau / (1 - tau))

    def at(self, t: Time, x: Batch) -> Scales:
        """Scales ready to multiply x: floats, or (b, 1, …, 1) in x's dtype. The only place where time meets shape."""
        if isinstance(t, Scales) and isinstance(t.alpha, float):
            return t
        if not isinstance(t, (Scales, Tensor)):
            require("a time", t)
            return self.along([float(t)])[0]
        shape = (-1, *[1] * (x.ndim - 1))
        if isinstance(t, Scales):
            return Scales(t.t, *(value.to(x).reshape(shape) for value in t[1:]))
        return Scales(t.reshape(-1), *(value.to(x) for value in self.scales(t.reshape(shape))[1:]))

    def along(self, times: Iterable[float] | Tensor) -> list[Scales]:
        """Scales of floats at each of a grid's times: computed once, before a sampler's loop, in float64."""
        c = self.scales(torch.as_tensor(list(times) if not isinstance(times, Tensor) else times, dtype=torch.float64))
        return [Scales(*values) for values in zip(*(value.tolist() for value in c), strict=True)]

    def interpolate(self, x0: Batch, noise: Batch, t: Float[Tensor, " #b"]) -> Batch:
        """x_t = α x₀ + σ ε."""
        c = self.at(t, x0)
        return c.alpha * x0 + c.sigma * noise

    def between(self, x0: Batch, x1: Batch, t: Float[Tensor, " #b"], z: Batch) -> tuple[Batch, Batch]:
        """x_t and its velocity ẋ_t when both ends are *given*: coupled pairs, or two sample sets.

        z is the independent noise a Bridge adds on the way; other paths have none and ignore it.
        """
        c = self.at(t, x0)
        return c.alpha * x0 + c.sigma * x1, c.alpha_dot * x0 + c.sigma_dot * x1

    def prior(self, noise: Batch) -> Batch:
        """x₁ = σ(1) ε: where sampling starts. What α(1) leaves of the data is neglected."""
        return self.scales(torch.ones((), dtype=torch.float64)).sigma.to(noise) * noise


@dataclass(frozen=True)
class Linear(Path):
    """Rectified flow, conditional OT: α = 1 - t, σ = t (Liu et al. 2022, arXiv:2209.03003, Eq. 1)."""

    def scales(self, t: Tensor) -> Scales:
        return Scales(t, 1 - t, t, -torch.ones_like(t), torch.ones_like(t))

    def time_of(self, ratio: Tensor) -> Tensor:
        return torch.where(ratio.isinf(), 1.0, ratio / (1 + ratio))


@dataclass(frozen=True)
class Cosine(Path):
    """Variance preserving: α = cos(φ(t)) / cos(φ(0)), φ(t) = π/2 · (t + s) / (1 + s), σ = √(1 - α²).

    Nichol & Dhariwal 2021, arXiv:2102.09672, Eq. 17. Their offset is s = 0.008; s = 0 is the trigonometric path.
    """

    offset: float = 0.008

    def __post_init__(self) -> None:
        require("cosine path: offset", self.offset, 0, below=1)

    def scales(self, t: Tensor) -> Scales:
        rate = math.pi / 2 / (1 + self.offset)
        phase = rate * (t + self.offset)
        first = math.cos(rate * self.offset)
        # cos φ = sin(π/2 - φ) = sin(rate (1 - t)): exactly 0 at t = 1, and precise near it.
        alpha, alpha_dot = (rate * (1 - t)).sin() / first, -rate * phase.sin() / first
        # 1 - α² = (cos²φ₀ - cos²φ) / cos²φ₀ = sin(φ - φ₀) sin(φ + φ₀) / cos²φ₀, without the cancellation near t = 0.
        sigma = ((rate * t).sin() * (phase + rate * self.offset).sin()).clamp(min=0).sqrt() / first
        # At s = 0 this is α̇ = -rate σ, σ̇ = rate α, finite at t = 0; the quotient below is 0/0 there.
        sigma_dot = rate * alpha if self.offset == 0 else -alpha * alpha_dot / sigma
        return Scales(t, alpha, sigma, alpha_dot, sigma_dot)


@dataclass(frozen=True)
class DDPM(Path):
    """ᾱ_i = Π_{j ≤ i} (1 - β_j): exact at t = i/N, β constant (log ᾱ linear) in between.

    Ho et al. 2020, arXiv:2006.11239, Eq. 4 and Section 4 (linear, 1e-4 … 0.02, N = 1000); `scaled_linear` is
    Stable Diffusion's (linear in √β), `squared_cosine` is Nichol & Dhariwal's Eq. 17 with β ≤ 0.999. `table`
    takes any list of β instead. σ̇ is infinite at t = 0, as σ starts like √t.

    betas: linear, scaled_linear or squared_cosine. steps: N, at least 1. beta_min, beta_max: β₁ and β_N of the first
    two, within (0, 1).
    """

    betas: str = "linear"
    steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02
    table: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        pick(("linear", "scaled_linear", "squared_cosine"), self.betas, "ddpm path: betas")
        require("ddpm path: steps", self.steps, 1, 10**7, whole=True)
        require("ddpm path: beta_min", self.beta_min, above=0, below=1)
        require("ddpm path: beta_max", self.beta_max, self.beta_min, below=1)
        expect("ddpm path: table", self.table, tuple, list)
        for beta in self.table:
            require("ddpm path: a β of the table", beta, above=0, below=1)
        _warn_of_leftover("ddpm path: ᾱ_T", float(self.log_alpha_bar[-1].exp()), "use more steps or larger β")

    @cached_property
    def log_alpha_bar(self) -> Float[Tensor, " n_plus_1"]:
        """log ᾱ at i/N for i = 0 … N, float64."""
        n = self.steps
        if self.table:
            beta = torch.tensor(self.table, dtype=torch.float64)
        elif self.betas == "linear":
            beta = torch.linspace(self.beta_min, self.beta_max, n, dtype=torch.float64)
        elif self.betas == "scaled_linear":
            beta = torch.linspace(self.beta_min**0.5, self.beta_max**0.5, n, dtype=torch.float64) ** 2
        else:
            bar = ((torch.arange(n + 1, dtype=torch.float64) / n + 0.008) / 1.008 * math.pi / 2).cos() ** 2
            beta = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
        return torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)])

    def scales(self, t: Tensor) -> Scales:
        table = self._table_like(t)
        n = len(table) - 1
        index = (t * n).floor().clamp(0, n - 1)
        start = table[index.long()]
        slope = (table[index.long() + 1] - start) * n
        return _variance_preserving(t, start + slope * (t - index / n), slope)

    def time_of(self, ratio: Tensor) -> Tensor:
        # -log ᾱ = log(1 + (σ/α)²) rises along the table and is linear between its entries.
        table, rise = -self._table_like(ratio), ratio.square().log1p()
        after = torch.searchsorted(table, rise.contiguous()).clamp(1, len(table) - 1)
        low, high = table[after - 1], table[after]
        return ((after - 1 + ((rise - low) / (high - low)).clamp(0, 1)) / (len(table) - 1)).to(ratio)

    def _table_like(self, t: Tensor) -> Tensor:
        key = (t.dtype, t.device)
        if key not in (cache := self._tables):
            cache[key] = self.log_alpha_bar.to(t)
        return cache[key]

    @cached_property
    def _tables(self) -> dict[tuple[torch.dtype, torch.device], Tensor]:
        return {}


@dataclass(frozen=True)
class VP(Path):
    """Continuous variance preserving: log α = -¼ t² (β₁ - β₀) - ½ t β₀, σ = √(1 - α²).

    Song et al. 2021, arXiv:2011.13456, Eq. 33 (β from 0.1 to 20). σ̇ is infinite at t = 0.

    beta_min, beta_max: β₀ and β₁, above 0 and rising.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        require("vp path: beta_min", self.beta_min, above=0)
        require("vp path: beta_max", self.beta_max, self.beta_min)
        _warn_of_leftover("vp path: α(1)²", math.exp(-(self.beta_min + self.beta_max) / 2), "use larger β")

    def scales(self, t: Tensor) -> Scales:
        rise = self.beta_max - self.beta_min
        log_alpha = -t * t * rise / 4 - t * self.beta_min / 2
        return _variance_preserving(t, 2 * log_alpha, -(self.beta_min + t * rise))


@dataclass(frozen=True)
class VE(Path):
    """Variance exploding: α = 1, σ = σ_max t; EDM's σ with its clock scaled to [0, 1].

    Karras et al. 2022, arXiv:2206.00364, Table 1 (σ = t, σ_max = 80).

    sigma_max: σ at t = 1, in the denoiser's units, above 0.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        require("ve path: sigma_max", self.sigma_max, above=0)

    def scales(self, t: Tensor) -> Scales:
        one = torch.ones_like(t)
        return Scales(t, one, self.sigma_max * t, torch.zeros_like(t), self.sigma_max * one)

    def time_of(self, ratio: Tensor) -> Tensor:
        return (ratio / self.sigma_max).clamp(0, 1)


@dataclass(frozen=True)
class Bridge(Path):
    """The linear path with noise on the way: x_t = (1 - t) x₀ + t x₁ + γ z, γ = s √(t (1 - t)).

    A stochastic interpolant (Albergo et al. 2023, arXiv:2303.08797, Eq. 2.1). Its velocity is
    ẋ_t = x₁ - x₀ + γ̇ z with γ̇ = s (1 - 2t) / (2 √(t (1 - t))); without γ̇ z the learned field would carry
    x₁ to something other than the data. From x₁ = ε ~ N(0, I) the two noises add up to *one*: σ² = t² + γ²,
    which has the same marginals and the same marginal velocity, and a smaller variance. `scales` is that path;
    `between` keeps the three terms for coupled pairs and for two sample sets.

    spread: s, the noise on the way, in the denoiser's units, from 0 (the linear path).
    """

    spread: float = 0.5

    def __post_init__(self) -> None:
        require("bridge path: spread", self.spread, 0, LARGEST)

    def scales(self, t: Tensor) -> Scales:
        s2 = self.spread**2
        sigma = (t * t + s2 * t * (1 - t)).sqrt()
        sigma_dot = torch.ones_like(t) if s2 == 0 else (t + s2 * (1 - 2 * t) / 2) / sigma
        return Scales(t, 1 - t, sigma, -torch.ones_like(t), sigma_dot)

    def time_of(self, ratio: Tensor) -> Tensor:
        # With q = t / (1 - t), σ²/α² = q² + s² q is solved by the larger root, √(h² + ratio²) - h with h = s²/2.
        h = self.spread**2 / 2
        q = ratio if h == 0 else ratio * (ratio / ((h**2 + ratio**2).sqrt() + h))
        return torch.where(ratio.isinf(), 1.0, q / (1 + q))

    def between(self, x0: Batch, x1: Batch, t: Float[Tensor, " #b"], z: Batch) -> tuple[Batch, Batch]:
        time = t.reshape(-1, *[1] * (x0.ndim - 1)).to(x0)
        root = (time * (1 - time)).sqrt()
        gamma, gamma_dot = self.spread * root, self.spread * (1 - 2 * time) / (2 * root)
        return (1 - time) * x0 + time * x1 + gamma * z, x1 - x0 + gamma_dot * z


PATHS: dict[str, type[Path]] = {"linear": Linear, "cosine": Cosine, "ddpm": DDPM, "vp": VP, "ve": VE, "bridge": Bridge}


def _variance_preserving(t: Tensor, log_bar: Tensor, slope: Tensor) -> Scales:
    """α = √ᾱ, σ = √(1 - ᾱ) and α̇ = α/2 d log ᾱ/dt, σ̇ = -α α̇/σ."""
    alpha, sigma = (log_bar / 2).exp(), log_bar.expm1().abs().sqrt()
    alpha_dot = alpha * slope / 2
    return Scales(t, alpha, sigma, alpha_dot, -alpha * alpha_dot / sigma)


def _warn_of_leftover(name: str, signal: float, remedy: str) -> None:
    """A path that ends with much of the data still in it can't start from pure noise."""
    if signal > 0.05:
        warnings.warn(
            f"{name} = {signal:.2f}, so x₁ still holds much of the data and sampling from pure noise is biased; "
            f"{remedy}.",
            stacklevel=4,
        )
