"""log p(x) of a denoiser's samples, by the probability-flow ODE and its change of volume.

d log p(x_t)/dt = -∇·u_t along dx/dt = u_t, so with x₁ where the ODE takes x from t = 0 to t = 1
    log p(x) = log N(x₁; 0, σ(1)² I) + ∫₀¹ ∇·u_t(x_t) dt
(Song et al. 2021, arXiv:2011.13456, Eq. 39; Chen et al. 2018, arXiv:1806.07366, Eq. 8). This is the density of the
sampler's own distribution. A path that leaves some data at t = 1 (α(1) x₀, on vp, ddpm and ve) starts from a prior that
is off by that much, and the density follows: it differs from the data's by log N(x₁; 0, σ(1)² I) - log p₁(x₁).

The equation is integrated by RK4 in the flow clock (see samplers/ode.py), where it is smooth on every path: dy/dτ =
ε̂ - x̂₀ with y = x/(α + σ). The first step, from σ = 0, is that of encoding.depart, whose error is of order (σ/α)⁴; so
the number is the density at t = 0 itself, not of data with a little noise.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Path, Scales
from ..core.randomness import Draws
from ..core.targets import Estimate
from ..errors import InputError
from ..samplers.ode import RK4, stages, step
from ..specs import bind, parse, require
from .encoding import bijective, departure, require_batch, upwards

__all__ = [
    "DIVERGENCES",
    "FIRST_PROBE",
    "Likelihood",
    "Prior",
    "Probe",
    "Product",
    "bits_per_dimension",
    "dequantise",
    "doubt",
    "exact",
    "hutch_plus_plus",
    "hutchinson",
    "likelihood",
    "log_density",
]

Product = Callable[[Tensor], Tensor]  # v ↦ Aᵀ v for a batch (b, n): a reverse-mode derivative
Probe = Callable[[int], Tensor]  # probe k of every sample, (b, n) of ±1
Prior = Callable[[Tensor], Tensor]  # x₁ ↦ its log-density, (b,)
FIRST_PROBE = -2  # the address of probe k is (seed, sample, -2 - k): samplers use the steps from -1 up


def exact(product: Product, x: Float[Tensor, " b n"], probe: Probe) -> Float[Tensor, " b 1"]:
    """tr A = Σ_i e_iᵀ A e_i: one derivative for each of the n elements."""
    total = torch.zeros_like(x[:, 0])
    for i in range(x.shape[1]):
        unit = torch.zeros_like(x)
        unit[:, i] = 1
        total = total + product(unit)[:, i]
    return total[:, None]


def hutchinson(
    product: Product, x: Float[Tensor, " b n"], probe: Probe, *, probes: int = 1
) -> Float[Tensor, " b probes"]:
    """tr A = E[zᵀ A z], z = ±1 (Hutchinson 1990; FFJORD, Grathwohl et al. 2019, arXiv:1810.01367, Section 3.1).

    A probe's variance is ½ Σ_{i≠j} (A_ij + A_ji)²: none where the elements are independent.
    """
    require("divergence 'hutchinson': probes", probes, 1, whole=True)
    return torch.stack([(z * product(z)).sum(1) for z in map(probe, range(probes))], 1)


def hutch_plus_plus(
    product: Product, x: Float[Tensor, " b n"], probe: Probe, *, probes: int = 12
) -> Float[Tensor, " b k"]:
    """tr A = tr(Qᵀ A Q) + E[gᵀ A g], g = (I - QQᵀ) z, Q an orthonormal basis of A S for k = probes/3 random columns S.

    Meyer et al. 2021, arXiv:2010.09649, Algorithm 1: the largest directions exactly, Hutchinson for the rest, with a
    third of the derivatives each for A S, A Q and A g. Unbiased, as Q does not depend on z. One column for each g.
    """
    require("divergence 'hutch++': probes", probes, 3, whole=True)
    k = min(probes // 3, x.shape[1])
    with torch.no_grad():  # the expectation is the same for every Q, so its gradient needs none through Q
        sketch = torch.stack([product(probe(i)) for i in range(k)], 2)
        q = torch.linalg.qr(sketch.detach()).Q
    large = sum((column * product(column)).sum(1) for column in q.unbind(2))
    rest = [z - (q @ (q.mT @ z[..., None]))[..., 0] for z in map(probe, range(k, 2 * k))]
    return torch.stack([large + (g * product(g)).sum(1) for g in rest], 1)


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "exact": exact,
    "hutchinson": hutchinson,
    "hutch++": hutch_plus_plus,
}


class Likelihood(NamedTuple):
    """Log-densities in nats, with estimates of their two errors."""

    log_density: Float[Tensor, " b"]
    step_error: Float[Tensor, " b"]  # |difference to half the steps|: some 16 times the error, once that is small
    probe_error: Float[Tensor, " b"]  # standard error over the probes; 0 for exact, NaN where there was but one


def log_density(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    *,
    steps: int = 100,
    divergence: str = "exact",
    draws: Draws | None = None,
    prior: Prior | None = None,
    graph: bool = False,
    **cond: Any,
) -> Float[Tensor, " b"]:
    """log p(x) in nats, one for each sample: log N(x₁; 0, σ(1)² I) + ∫ ∇·u dt (arXiv:2011.13456, Eq. 39).

    x: data of any shape in the network's units; its dtype is that of the integration.
    steps: RK4 steps from data to noise, four evaluations each. Too few give an arbitrary number; `likelihood` warns.
    divergence: exact (a derivative for each element), hutchinson:probes=k or hutch++:probes=k, see DIVERGENCES.
    draws: the probes are functions of their (seed, sample) and constant over the walk. Only exact needs none.
    prior: log-density at t = 1, in place of log N(x₁; 0, σ(1)² I).
    graph: keep the graph needed to differentiate the result with respect to x and to the network's parameters.
    Raises InputError for steps below 2, an x that isn't a batch of floats, missing draws, and a denoiser between two
    sample sets.
    """
    return _by_probe(denoiser, x, steps, divergence, draws, prior, graph, cond).mean(1)


def likelihood(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    *,
    steps: int = 100,
    divergence: str = "exact",
    draws: Draws | None = None,
    prior: Prior | None = None,
    tolerance: float = 0.01,
    **cond: Any,
) -> Likelihood:
    """log p(x) with error bars: arguments as for `log_density`, at one and a half times its cost.

    The walk is taken again with half the steps and the same probes (step doubling). The difference is the coarse walk's
    discretisation error, and a safe bar for the fine one's, which is 2⁴ times smaller once the steps resolve the field.
    Warns where it exceeds `tolerance` nats per dimension: likelihoods of few steps can be any number.
    Raises InputError as `log_density` does, and for steps below 4.
    """
    require("steps", steps, 4, whole=True)  # so that half of them are a comparison
    fine, coarse = (_by_probe(denoiser, x, n, divergence, draws, prior, False, cond) for n in (steps, steps // 2))
    value, k = fine.mean(1), fine.shape[1]
    step_error = (value - coarse.mean(1)).abs()
    if parse(divergence)[0] == "exact":
        probe_error = torch.zeros_like(value)
    else:
        probe_error = fine.std(1) / math.sqrt(k) if k > 1 else torch.full_like(value, math.nan)
    doubt(step_error, tolerance * math.prod(x.shape[1:]), steps)
    return Likelihood(value, step_error, probe_error)


def doubt(step_error: Float[Tensor, " b"], most: float, steps: int) -> None:
    """Warn where half the steps give another log-density by more than `most` nats, or none at all.

    step_error: the changes, in nats.
    """
    if wrong := int((~(step_error <= most)).sum()):
        warnings.warn(
            f"{wrong} of {len(step_error)} log-densities change by more than {most:.2g} nats from {steps // 2} to "
            f"{steps} steps, the worst by {float(step_error.max()):.2g}; use more steps.",
            stacklevel=3,
        )


def bits_per_dimension(
    log_density: Float[Tensor, " b"], dims: int, *, levels: int = 256, low: float = -1.0, high: float = 1.0
) -> Float[Tensor, " b"]:
    """-log₂ p(x) / d + log₂(levels / (high - low)): bits for a dimension of quantised data, such as 8-bit images.

    A grey level v ∈ {0 … 255} is dequantised to v + u, u ~ U[0, 1), and scaled to x = low + w (v + u), a level being
    w = (high - low)/levels wide; see `dequantise`. With log p(v + u) = log p(x) + d log w,
        -log₂ P(v) ≤ -E_u[log₂ p(v + u)] = -E_u[log₂ p(x)] + d log₂(1/w)
    (Theis et al. 2016, arXiv:1511.01844, Section 3.1): 7 bits of scale for [-1, 1), 8 for [0, 1). It is a bound on the
    negative log-likelihood of the pixels only for x that was dequantised so.
    log_density: nats in the units of x. Raises InputError for dims or levels below 1, or an empty range.
    """
    _quantised(levels, low, high)
    require("dims, the number of dimensions,", dims, 1, whole=True)
    return -log_density / (dims * math.log(2)) + math.log2(levels / (high - low))


def dequantise(
    pixels: Tensor, draws: Draws, *, levels: int = 256, low: float = -1.0, high: float = 1.0
) -> Float[Tensor, " b *d"]:
    """x = low + (high - low)(v + u)/levels, u ~ U(0, 1), in float64: integers 0 … levels - 1 as a density's samples.

    Uniform dequantisation (Theis et al. 2016, arXiv:1511.01844, Section 3.1); u depends on (seed, sample) alone. Raises
    InputError for levels out of range.

    pixels: these integers, (b, *d).
    """
    _quantised(levels, low, high)
    if pixels.is_floating_point() or bool(((whole := pixels.long()) < 0).any() or (whole >= levels).any()):
        raise InputError(f"pixels must be integers from 0 to {levels - 1}.")
    u = torch.special.ndtr(draws(FIRST_PROBE, pixels.double()))
    return low + (high - low) / levels * (pixels.double() + u)


def _by_probe(
    denoiser: DenoiserLike,
    x: Tensor,
    steps: int,
    divergence: str,
    draws: Draws | None,
    prior: Prior | None,
    graph: bool,
    cond: dict[str, Any],
) -> Float[Tensor, " b k"]:
    """log p(x) by each probe; their mean is the estimate."""
    bijective(denoiser, "A likelihood")
    require_batch("x", x)
    estimator = bind(DIVERGENCES, divergence, "divergence")
    if draws is None and parse(divergence)[0] != "exact":
        raise InputError(f"divergence {divergence!r} is random and needs draws=Draws.first(n, seed).")
    if draws is not None and len(draws.ids) != len(x):
        raise InputError(f"draws must have one id for each of {len(x)} samples; got {len(draws.ids)}.")
    n, path = math.prod(x.shape[1:]), denoiser.path
    _, *grid = path.along(upwards(path, steps))
    last = grid[-1]
    with torch.set_grad_enabled(graph):
        volume = _Volume(denoiser, tuple(x.shape[1:]), estimator, _probes(x, draws), graph)
        z = volume.depart(x, *departure(path, grid[0].t), **cond)
        for places in stages(path, grid, [RK4] * (steps - 1), "flow"):
            z = step(volume, z, places, RK4, **cond)
        x1, scale = z[:, :n].reshape(x.shape), last.size
        expansion = z[:, n:] / scale + n * math.log(scale)
        at_end = partial(_log_normal, std=last.sigma) if prior is None else prior
        return at_end(x1)[:, None] + expansion


class _Volume:
    """The denoiser of (x, s ℓ), s = α + σ: x flattened, with the logarithms ℓ of the volume of y = x/s at its side.

    In the flow clock dℓ/dτ = ∇_y·(ε̂ - x̂₀) = s tr ∂(ε̂ - x̂₀)/∂x, one ℓ for each probe. As the Runge-Kutta step takes
    y = x/s of all it is given, what it gets and returns is s ℓ.
    """

    gaussian_end = True

    def __init__(
        self,
        denoiser: DenoiserLike,
        shape: tuple[int, ...],
        estimator: Callable[..., Tensor],
        probe: Probe,
        graph: bool,
    ) -> None:
        self.denoiser, self.shape, self.n = denoiser, shape, math.prod(shape)
        self.estimator, self.probe, self.graph = estimator, probe, graph

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def __call__(self, z: Tensor, c: Any, /, **cond: Any) -> Estimate:
        """x̂₀ and ε̂ by which ε̂ - x̂₀ is (u, s tr ∂u/∂x), and α x̂₀ + σ ε̂ = z."""
        s = c.size
        u, trace = self._trace(z[:, : self.n], c, lambda estimate: estimate.mix(-1.0, 1.0), cond)
        return Estimate(z, torch.cat([u, s * trace], 1), x0=(1 / s, -c.sigma / s), noise=(1 / s, c.alpha / s))

    def depart(self, x: Tensor, middle: Scales, end: Scales, **cond: Any) -> Tensor:
        """encoding.depart and its volume: log|∂y/∂x₀| = n log(α/s) + r α_m tr ∂ε̂/∂x, up to r⁴."""
        s, flat = end.size, x.flatten(1)
        noise, trace = self._trace(middle.alpha * flat, middle, lambda estimate: estimate.noise, cond)
        volume = self.n * math.log(end.alpha / s) + end.ratio * middle.alpha * trace
        return torch.cat([end.alpha * torch.add(flat, noise, alpha=end.ratio), s * volume], 1)

    def _trace(
        self, flat: Tensor, c: Scales, part: Callable[[Estimate], Tensor], cond: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """A field f(x) as (b, n), and tr ∂f/∂x by each probe, (b, k)."""
        with torch.enable_grad():
            if not (self.graph and flat.requires_grad):
                flat = flat.detach().requires_grad_()
            field = part(self.denoiser(flat.reshape(-1, *self.shape), c, **cond)).flatten(1)

            def product(direction: Tensor) -> Tensor:
                with torch.enable_grad():  # an estimator may be without
                    dot = (field * direction).sum()  # grad(field, flat, direction) would import sympy: a second
                (found,) = torch.autograd.grad(dot, flat, retain_graph=True, create_graph=self.graph)
                return found

            trace = self.estimator(product, flat.detach(), self.probe)
        return (field, trace) if self.graph else (field.detach(), trace.detach())


def _probes(x: Tensor, draws: Draws | None) -> Probe:
    """Rademacher probes, ±1 as a normal number's sign, made once for the walk."""
    made: dict[int, Tensor] = {}

    def probe(k: int) -> Tensor:
        if k not in made:
            assert draws is not None
            z = draws(FIRST_PROBE - k, x.detach().flatten(1))
            made[k] = torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z))
        return made[k]

    return probe


def _log_normal(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std² I)."""
    flat = x.flatten(1)
    return -flat.square().sum(1) / (2 * std**2) - flat.shape[1] * math.log(std * math.sqrt(2 * math.pi))


def _quantised(levels: int, low: float, high: float) -> None:
    require("levels", levels, 1, whole=True)
    require("low", low)
    require("high", high, above=low)
