"""Posterior sampling of linear inverse problems: wrappers that turn E[x₀ | x_t] into an estimate of E[x₀ | x_t, y].

y = A x₀ + s n is the measurement. With ∇log p(x_t | y) = ∇log p(x_t) + ∇log p(y | x_t), Tweedie's formula gives
    x̂₀(y) = x̂₀ + δ,    ε̂(y) = ε̂ - α/σ δ,    δ = σ²/α ∇log p(y | x_t),
and the methods differ in their model of p(y | x_t), a Gaussian with mean A x̂₀ in all of them:
    δ = V Aᵀ u,    (A R Aᵀ + s² I) u = y - A x̂₀,    V = σ²/α ∂x̂₀/∂x_t.
V is Cov(x₀ | x_t) by Tweedie's second-order formula, one vector-Jacobian product for each V v; R is the method's
approximation of that covariance: 0 in DPS, r² I in PiGDM, V itself in TMPD. Any sampler then draws from the posterior:
    sample(TMPD(denoiser, masked(known, mask)), shape, sampler="ddim", draws=draws).

A wrapped estimate costs a backward pass and is cut off from the graph: no gradient goes through it, and samples of a
batch must not depend on each other. Guide first and wrap then, TMPD(ClassifierFree(…), …); bound last,
Bounded(TMPD(…)): where x̂₀ is clipped it has no gradient, and the measurement would have no effect. Where α < σ/200 on
a path that ends at α = 0, ∂x̂₀/∂x_t is lost as 0/0, and V is taken at the last time before that, for one more
evaluation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..codecs import Codec, Shape
from ..core.denoiser import DenoiserLike
from ..core.guidance import Bounded, Wrapper
from ..core.paths import Number, Scales, Time
from ..core.targets import Estimate
from ..errors import InputError
from ..specs import expect, require, shaped
from .masks import boolean

__all__ = [
    "DPS", "TMPD", "LinearMap", "NoisyMeasurement", "PiGDM", "Posterior", "conjugate_gradients", "masked", "moved",
    "resampled", "through",
]  # fmt: skip

LinearMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class NoisyMeasurement:
    """y = A x₀ + s n, n ~ N(0, I).

    operator: A, a linear function of (b, *d) to (b, *m), sample by sample; its transpose comes from autograd. An offset
    has to be subtracted from y, and nothing checks that A is linear.
    y: one measurement for each sample, or (1, *m) for all. dopri5, which works on parts of a batch, needs the latter.
    std: s; 0 for an exact measurement.
    Raises InputError where s is negative or not finite.
    """

    operator: LinearMap
    y: Float[Tensor, " #b *m"]
    std: float = 0.0

    def __post_init__(self) -> None:
        expect("A measurement's operator", self.operator, Callable)
        expect("A measurement's y", self.y, Tensor)
        shaped("A measurement's y", self.y, "b", ...)
        require("A measurement's std", self.std, 0)

    def residual(self, x0: Float[Tensor, " b *d"]) -> Float[Tensor, " b *m"]:
        """y - A x₀; an InputError if A's output doesn't have y's shape."""
        seen = self.operator(x0)
        if seen.shape[1:] != self.y.shape[1:] or len(self.y) not in (1, len(seen)):
            raise InputError(
                f"The operator measures {tuple(seen.shape)}, but y has shape {tuple(self.y.shape)}; its first number "
                "may be 1, the others have to agree."
            )
        return self.y.to(seen) - seen

    def transpose(self, u: Float[Tensor, " b *m"], x: Float[Tensor, " b *d"]) -> Float[Tensor, " b *d"]:
        """Aᵀ u, of x's shape."""
        with torch.enable_grad():
            start = torch.zeros_like(x).requires_grad_()
            (pulled,) = torch.autograd.grad(self.operator(start), start, u)
        return pulled


def masked(known: Float[Tensor, " #b *d"], mask: Bool[Tensor, "..."], std: float = 0.0) -> NoisyMeasurement:
    """Inpainting: A selects the elements where `mask` is true, the same for all samples; `known` matters only there."""
    expect("masked: known", known, Tensor)
    if boolean(mask, "masked").shape != known.shape[1:] or not bool(mask.any()):
        raise InputError(
            f"A mask needs the shape of one sample, {tuple(known.shape[1:])}, and something known; "
            f"got shape {tuple(mask.shape)} with {int(mask.sum())} known."
        )
    return NoisyMeasurement(lambda x: x[:, mask], known[:, mask], std)


def through(measurement: NoisyMeasurement, codec: Codec, shape: Shape) -> NoisyMeasurement:
    """The measurement of data as one of their latents: y - A D(0) = A (D(z) - D(0)) + s n, of a linear decoder D.

    shape: of the data. Exact if the codec loses nothing, else for the data nearest to it that the codec can decode to.
    """
    expect("through: measurement", measurement, NoisyMeasurement)
    if not codec.linear:
        raise InputError(
            "through: a measurement of data is linear in their latents only if the codec is, and it isn't."
        )
    origin = codec.decode(torch.zeros(1, *codec.shape(shape), dtype=measurement.y.dtype, device=measurement.y.device))
    seen = measurement.operator(origin)
    return NoisyMeasurement(
        lambda z: measurement.operator(codec.decode(z)) - seen.to(z), measurement.y - seen, measurement.std
    )


def conjugate_gradients(
    matrix: LinearMap, right: Float[Tensor, " b *m"], *, steps: int, rtol: float = 0.0
) -> Float[Tensor, " b *m"]:
    """u with M u = right for each sample, M symmetric and positive semidefinite (Hestenes & Stiefel 1952).

    Exact, up to rounding, after as many steps as M has distinct eigenvalues. It stops where the residual is below
    rtol times the right side, and, sample by sample, where it meets pᵀ M p ≤ 0: then M is not positive semidefinite (a
    network's Jacobian, say), or nothing is left to solve.

    matrix: v → A v, symmetric and positive definite.
    """
    dot = lambda a, b: (a * b).flatten(1).sum(1).reshape(-1, *[1] * (right.ndim - 1))
    u, residual, direction = torch.zeros_like(right), right, right
    square = start = dot(right, right)
    good = torch.ones_like(start, dtype=torch.bool)
    for _ in range(steps):
        image = matrix(direction)
        curvature = dot(direction, image)
        good = good & (curvature > 0) & (square > rtol**2 * start)
        if not bool(good.any()):
            break
        step = torch.where(good, square / curvature, 0.0)
        u = u + step * direction
        residual = residual - step * image
        before, square = square, dot(residual, residual)
        direction = residual + torch.where(good, square / before, 0.0) * direction
    return u


@dataclass(frozen=True)
class Posterior(Wrapper, ABC):
    """δ = V Aᵀ u, with the method's own u: see the top of this file."""

    denoiser: DenoiserLike
    measurement: NoisyMeasurement

    def __post_init__(self) -> None:
        expect(f"{type(self).__name__}: measurement", self.measurement, NoisyMeasurement)
        if not self.denoiser.gaussian_end:
            raise InputError(
                f"{type(self).__name__} needs a path from Gaussian noise: between two sample sets there is no x̂₀."
            )

    @abstractmethod
    def weigh(self, residual: Tensor, c: Scales, x: Tensor, covariance: LinearMap) -> Tensor:
        """u, (b, *m), of the residual y - A x̂₀. covariance: u → V Aᵀ u; x: anything of x₀'s shape."""

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Time, /, **cond: Any) -> Estimate:
        name = type(self).__name__
        if isinstance(self.denoiser, Bounded):
            raise InputError(f"{name} needs x̂₀'s gradient, which a bound cuts off; write Bounded({name}(…)) instead.")
        near = self._within(t)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            estimate = self.denoiser(x, near, **cond)
            seen = self.measurement.operator(estimate.x0)
        if not seen.requires_grad:
            raise InputError(f"{name} needs x̂₀'s gradient, and this denoiser gives none.")
        c, there = self.path.at(t, x_t), self.path.at(near, x_t)
        scale = there.sigma**2 / there.alpha

        def covariance(u: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(seen, x, u, retain_graph=True)
            return scale * pulled

        with torch.no_grad():
            x0, noise = estimate if near is t else self.denoiser(x_t, t, **cond)
            u = self.weigh(self.measurement.residual(x0), there, x0, covariance)
            return moved(x0.detach(), noise.detach(), covariance(u), c)

    @cached_property
    def _last(self) -> float:
        """The last time at which ∂x̂₀/∂x_t is taken."""
        if self.path.along([1.0])[0].alpha >= 1 / 200:
            return 1.0
        return float(self.path.time_of(torch.tensor(200.0, dtype=torch.float64)))

    def _within(self, t: Time) -> Time:
        """t itself, or no later than _last where it is."""
        if isinstance(t, Scales):
            return self._within(t.t) if bool(torch.as_tensor(t.t > self._last).any()) else t
        if isinstance(t, Tensor):
            return t.clamp(max=self._last) if bool((t > self._last).any()) else t
        return self._last if t > self._last else t


def moved(x0: Tensor, noise: Tensor, delta: Tensor, c: Scales) -> Estimate:
    """x̂₀ + δ, ε̂ - α/σ δ: x_t stays α x̂₀ + σ ε̂. δ is of order σ², so that σ = 0 only needs a floor.

    delta: δ, (b, *d).
    """
    floor = 1e-30
    sigma: Number = c.sigma.clamp(min=floor) if isinstance(c.sigma, Tensor) else max(c.sigma, floor)
    return Estimate(x0 + delta, noise - c.alpha / sigma * delta)


@dataclass(frozen=True)
class DPS(Posterior):
    """u = ζ (y - A x̂₀) / s²: x₀ is taken to equal x̂₀, without uncertainty (R = 0).

    Chung et al. 2023, arXiv:2209.14687, Eq. 16: ∇log p(y | x_t) ≈ -ρ ∇|y - A x̂₀|², with the Gaussian's ρ = 1/(2 s²)
    times strength ζ (their ρ = 1/s² is ζ = 2). A may be nonlinear here.

    Once V is above s² this overshoots by up to V/s², and steps have to be as small as that is large. Measured on data
    N(0, 1), A = 1, y = 1, s = ½, whose posterior is N(0.8, 0.2): the probability flow ends in N(1.28, 0.018), the
    variance being e^{-1/s²}.

    normalise: u = ζ (y - A x̂₀) / |y - A x̂₀|, which is their step size ζ'/|y - A x̂₀| and the only choice for s = 0.
    Their ζ' is per step: Algorithm 1 is `ddpm` with ζ = 2 ζ' √(1 - β_i) / β_i at step i. Ours is independent of the
    steps. Raises InputError for s = 0 without normalise, and ζ that isn't positive.
    """

    strength: float = 1.0
    normalise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require("DPS: strength", self.strength, above=0)
        if not self.normalise and self.measurement.std == 0:
            raise InputError("DPS divides by the measurement's std, which is 0; use normalise=True, PiGDM or TMPD.")

    def weigh(self, residual: Tensor, c: Scales, x: Tensor, covariance: LinearMap) -> Tensor:
        if not self.normalise:
            return self.strength / self.measurement.std**2 * residual
        norm = residual.flatten(1).norm(dim=1).reshape(-1, *[1] * (residual.ndim - 1))
        return self.strength * residual / norm.clamp(min=1e-30)


@dataclass(frozen=True)
class PiGDM(Posterior):
    """(r² A Aᵀ + s² I) u = y - A x̂₀, r² = σ² d² / (σ² + α² d²): the Tweedie covariance of data N(·, d² I) (R = r² I).

    Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems", ICLR (9_gsMA8MRKQ), Section 3, whose
    r² = σ²/(σ² + 1) is ours for α = d = 1. Exact for such data, and at s = 0 A⁺ (y - A x̂₀) scaled by V/r².

    data_std: d. gradients: False puts r² I also in the place of V, so that no backward pass is needed and t = 1 is like
    every other time; with s = 0 this projects x̂₀ onto A x = y (Peng et al. 2024, arXiv:2402.02149, Type II).
    steps: most conjugate gradient steps; one is enough where A Aᵀ is a multiple of the identity, as for a mask.
    Raises InputError for d that isn't positive, and steps below 1.
    """

    data_std: float = 1.0
    gradients: bool = True
    steps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require("PiGDM: data_std", self.data_std, above=0)
        require("PiGDM: steps", self.steps, 1, whole=True)

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Time, /, **cond: Any) -> Estimate:
        if self.gradients:
            return super().__call__(x_t, t, **cond)
        with torch.no_grad():
            c, (x0, noise) = self.path.at(t, x_t), self.denoiser(x_t, t, **cond)
            u = self.weigh(self.measurement.residual(x0), c, x0, lambda u: u)
            return moved(x0, noise, self._variance(c) * self.measurement.transpose(u, x0), c)

    def weigh(self, residual: Tensor, c: Scales, x: Tensor, covariance: LinearMap) -> Tensor:
        m, s2 = self.measurement, self.measurement.std**2
        variance = _like(self._variance(c), residual)
        matrix = lambda u: variance * m.operator(m.transpose(u, x)) + s2 * u
        return conjugate_gradients(matrix, residual, steps=self.steps, rtol=_rtol(residual))

    def _variance(self, c: Scales) -> Number:
        d2 = self.data_std**2
        return c.sigma**2 * d2 / (c.sigma**2 + c.alpha**2 * d2)


@dataclass(frozen=True)
class TMPD(Posterior):
    """(A V Aᵀ + s² I) u = y - A x̂₀ with the Tweedie covariance itself (R = V): exact for Gaussian data.

    Boys et al. 2023, arXiv:2310.06721: x₀ | x_t is taken for the Gaussian with its first two moments. For speed they
    put row sums of V into the system; here it is the full matrix, by conjugate gradients, each of whose steps is one
    vector-Jacobian product.

    On several modes it is biased, even with an exact denoiser: a Gaussian for x₀ | x_t makes a bridge of two modes, so
    some samples end in the mode that y rules out. Two modes at ±(1, 1), std 0.1, x = 0.05 known: y is positive in
    99.995 %, its 5 % quantile 0.84; TMPD's is -0.98. In few dimensions, and where y isn't far out as it is there,
    `resampled` is right.

    steps: most of these. An exact answer takes as many as y has numbers, and fewer give a good approximation; a network
    whose Jacobian isn't symmetric and positive stops them early. Raises InputError for steps below 1.
    """

    steps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require("TMPD: steps", self.steps, 1, whole=True)

    def weigh(self, residual: Tensor, c: Scales, x: Tensor, covariance: LinearMap) -> Tensor:
        m, s2 = self.measurement, self.measurement.std**2
        matrix = lambda u: m.operator(covariance(u)) + s2 * u
        return conjugate_gradients(matrix, residual, steps=self.steps, rtol=_rtol(residual))


def resampled(
    x0: Float[Tensor, " n *d"], measurement: NoisyMeasurement, count: int, *, seed: int = 0
) -> Float[Tensor, " count *d"]:
    """`count` of the unconditional samples x₀, drawn with weights w ∝ exp(-|y - A x₀|²/2s²) by systematic resampling.

    Sampling-importance-resampling (Rubin 1988): right for any distribution as n grows, modes and nonlinear A included.
    The necessary n grows exponentially with the information in y, so it suits few dimensions.
    Raises InputError for s = 0, more than one y, a count below 1, and where the weights amount to fewer than 50 samples
    (their effective number (Σ w)²/Σ w²): draw more, or widen s.
    """
    expect("resampled: x0", x0, Tensor)
    expect("resampled: measurement", measurement, NoisyMeasurement)
    require("resampled: the measurement's std", measurement.std, above=0)
    shaped("resampled: the measurement's y", measurement.y, 1, ...)
    require("resampled: count", count, 1, whole=True)
    require("resampled: seed", seed, 0, 2**63 - 1, whole=True)
    misfit = measurement.residual(x0).double().flatten(1).square().sum(1) / (2 * measurement.std**2)
    weights = (misfit.min() - misfit).exp()
    effective = float(weights.sum() ** 2 / weights.square().sum())
    if effective < 50:
        raise InputError(
            f"resampled: only {effective:.1f} of {len(x0)} samples count under this measurement, fewer than 50; draw "
            "more samples or raise its std."
        )
    first = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    places = (torch.arange(count, dtype=torch.float64) + first).to(weights.device) / count
    chosen = torch.searchsorted(weights.cumsum(0) / weights.sum(), places).clamp(max=len(x0) - 1)
    return x0[chosen]


def _rtol(x: Tensor) -> float:
    """The relative residual below which conjugate gradients gain nothing in x's precision."""
    return 4 * torch.finfo(x.dtype).eps


def _like(value: Number, x: Tensor) -> Number:
    """One number for the batch or one a sample, shaped to multiply x."""
    return value.reshape(-1, *[1] * (x.ndim - 1)) if isinstance(value, Tensor) else value
