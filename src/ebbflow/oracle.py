"""Exact denoisers of known distributions, on every path: the truth that samplers and networks are held against."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import InputError
from .paths import Path, Scales
from .targets import Estimate


@dataclass(frozen=True)
class Mixture:
    """Data Σ_k w_k N(m_k, s_k² I); s_k = 0 makes it a finite data set, one mode per point.

    Seen through x_t = α x₀ + σ ε it is again a mixture, Σ_k w_k N(α m_k, V_k I) with V_k = α² s_k² + σ², so with
    the responsibilities r_k ∝ w_k N(x_t; α m_k, V_k I) the conditional means are
        x̂₀ = Σ r_k (m_k + α s_k² / V_k (x_t - α m_k)),    ε̂ = Σ r_k σ / V_k (x_t - α m_k).
    Neither divides by α or σ, so the ends t = 0 and t = 1 are exact too (but t = 0 of a finite set, where V = 0).
    """

    path: Path
    means: Float[Tensor, " k d"]
    stds: Float[Tensor, " k"]
    weights: Float[Tensor, " k"]
    gaussian_end: bool = True

    def __call__(self, x_t: Float[Tensor, " b d"], t: Float[Tensor, " #b"], /, **cond: Any) -> Estimate:
        c, offsets, variance, log_joint = self._components(x_t, t)
        r = log_joint.softmax(1)[..., None]
        gain = c.alpha[..., None] * self.stds.to(x_t).square()[:, None] / variance
        x0 = (r * (self.means.to(x_t) + gain * offsets)).sum(1)
        noise = (r * c.sigma[..., None] / variance * offsets).sum(1)
        return Estimate(x0, noise)

    def log_density(self, x_t: Float[Tensor, " b d"], t: Float[Tensor, " #b"]) -> Float[Tensor, " b"]:
        """log p_t(x_t)."""
        return self._components(x_t, t)[3].logsumexp(1)

    def _components(self, x_t: Tensor, t: Tensor) -> tuple[Scales, Tensor, Tensor, Tensor]:
        c = self.path.at(t, x_t)
        offsets = x_t[:, None] - c.alpha[..., None] * self.means.to(x_t)
        variance = (c.alpha * self.stds.to(x_t)).square() + c.sigma.square()
        d = x_t.shape[1]
        log_normal = -offsets.square().sum(2) / (2 * variance) - d / 2 * (2 * torch.pi * variance).log()
        return c, offsets, variance[..., None], self.weights.to(x_t).log() + log_normal


def mixture(
    path: Path,
    means: Float[Tensor, " k d"],
    stds: float | Float[Tensor, " k"] = 0.0,
    weights: Float[Tensor, " k"] | None = None,
) -> Mixture:
    """A Mixture with equal weights and one standard deviation unless told otherwise."""
    k = len(means)
    spread = torch.as_tensor(stds, dtype=torch.float64).expand(k)
    shares = torch.full((k,), 1 / k, dtype=torch.float64) if weights is None else weights / weights.sum()
    if bool((spread < 0).any()) or bool((shares <= 0).any()):
        raise InputError("A mixture needs standard deviations of at least 0 and weights above 0.")
    return Mixture(path, means.double(), spread, shares.double())


def finite(path: Path, points: Float[Tensor, " k d"]) -> Mixture:
    """The exact denoiser of a data set: a network that reaches it has memorised the points."""
    return mixture(path, points)


def gaussian(path: Path, mean: Float[Tensor, " d"], std: float) -> Mixture:
    """One Gaussian N(mean, std² I), whose probability flow is known: see `gaussian_flow`."""
    return mixture(path, mean[None], std)


def gaussian_flow(
    path: Path, mean: Float[Tensor, " d"], std: float, x: Float[Tensor, " b d"], t: float, s: float
) -> Float[Tensor, " b d"]:
    """The exact solution of the probability-flow ODE from t to s: x_s = α_s m + √(V_s / V_t) (x_t - α_t m)."""
    now, then = (path.scales(torch.tensor(time, dtype=torch.float64)) for time in (t, s))
    spread = [((c.alpha * std) ** 2 + c.sigma**2).sqrt() for c in (now, then)]
    return (then.alpha * mean + spread[1] / spread[0] * (x - now.alpha * mean)).to(x)
