"""Exact denoisers of known distributions, on every path: the reference for samplers and networks.

Data of any shape; one time for the batch or one per example; in the precision of x_t.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.paths import Path, Scales, Time
from ..core.targets import Estimate
from ..errors import InputError

__all__ = ["Gaussian", "Gaussians", "Mixture", "finite", "gaussian", "mixture"]


@dataclass(frozen=True)
class Mixture:
    """Data Σ_k w_k N(m_k, s_k² I); s_k = 0 makes it a finite data set, one mode per point.

    Seen through x_t = α x₀ + σ ε it is again a mixture, Σ_k w_k N(α m_k, V_k I) with V_k = α² s_k² + σ², so with
    the responsibilities r_k ∝ w_k N(x_t; α m_k, V_k I) the conditional means are
        x̂₀ = Σ r_k (m_k + α s_k² / V_k (x_t - α m_k)),    ε̂ = Σ r_k σ / V_k (x_t - α m_k).
    Neither divides by α or σ, so the ends t = 0 and t = 1 are exact too (except t = 0 of a finite set, where V = 0).
    """

    path: Path
    means: Float[Tensor, " k *d"]
    stds: Float[Tensor, " k"]
    weights: Float[Tensor, " k"]
    gaussian_end: bool = True

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Time, /, **cond: Any) -> Estimate:
        c, offsets, variance, log_joint = self._components(x_t, t)
        r = log_joint.softmax(1)[..., None]
        gain = c.alpha * self.stds.to(x_t).square()[:, None] / variance
        x0 = (r * (self.means.to(x_t).flatten(1) + gain * offsets)).sum(1)
        noise = (r * (c.sigma / variance) * offsets).sum(1)
        return Estimate(x0.reshape(x_t.shape), noise.reshape(x_t.shape))

    def log_density(self, x_t: Float[Tensor, " b *d"], t: Time = 0.0) -> Float[Tensor, " b"]:
        """log p_t(x_t)."""
        return self._components(x_t, t)[3].logsumexp(1)

    def _components(self, x_t: Tensor, t: Time) -> tuple[Scales, Tensor, Tensor, Tensor]:
        """Scales, x_t - α m_k as (b, k, d), V_k as (b or 1, k, 1), and log w_k N(x_t; α m_k, V_k I)."""
        x = x_t.flatten(1)[:, None]
        c = self.path.at(t, x)
        offsets = x - c.alpha * self.means.to(x).flatten(1)
        variance = (c.alpha * self.stds.to(x)[None, :, None]) ** 2 + c.sigma**2
        squares = offsets.square().sum(2) / variance[..., 0]
        log_normal = -(squares + x.shape[2] * (2 * math.pi * variance[..., 0]).log()) / 2
        return c, offsets, variance, self.weights.to(x).log() + log_normal


def mixture(
    path: Path,
    means: Float[Tensor, " k *d"],
    stds: float | Float[Tensor, " k"] = 0.0,
    weights: Float[Tensor, " k"] | None = None,
) -> Mixture:
    """A Mixture, by default with equal weights and one standard deviation."""
    k = len(means)
    spread = torch.as_tensor(stds, dtype=torch.float64).expand(k)
    shares = torch.full((k,), 1 / k, dtype=torch.float64) if weights is None else weights / weights.sum()
    if bool((spread < 0).any()) or bool((shares <= 0).any()):
        raise InputError("A mixture needs standard deviations of at least 0 and weights above 0.")
    return Mixture(path, means.double(), spread, shares.double())


def finite(path: Path, points: Float[Tensor, " k *d"]) -> Mixture:
    """The exact denoiser of a data set: a network that reaches it has memorised the points."""
    return mixture(path, points)


@dataclass(frozen=True)
class Gaussian:
    """Data N(m, C), C = U diag(s²) Uᵀ: in the basis U the coordinates are independent Gaussians.

    x̂₀ = m + U diag(α s² / V) Uᵀ (x_t - α m),  ε̂ = U diag(σ / V) Uᵀ (x_t - α m),  V = α² s² + σ².
    """

    path: Path
    mean: Float[Tensor, " *d"]
    basis: Float[Tensor, " n n"]
    stds: Float[Tensor, " n"]
    gaussian_end: bool = True
    spans: bool = True

    def __call__(self, x_t: Float[Tensor, " b *d"], t: Time, /, *, to: Time | None = None, **cond: Any) -> Estimate:
        if to is not None:
            return self._leading(x_t, t, to)
        c, offsets, variance = self._coordinates(x_t, t)
        back = self.basis.T.to(x_t)
        x0 = (c.alpha * self.stds.to(x_t) ** 2 / variance * offsets) @ back
        noise = (c.sigma / variance * offsets) @ back
        return Estimate(self.mean.to(x_t) + x0.reshape(x_t.shape), noise.reshape(x_t.shape))

    def _leading(self, x_t: Tensor, t: Time, to: Time) -> Estimate:
        """The pair x̂₀ = z - τ_t u, ε̂ = x̂₀ + u of the mean slope u to another time.

        With W(τ) = (1 - τ)² s² + τ², the variance of z, √(W_s / W_t) - 1 = (W_s - W_t) / (W_t + √(W_s W_t)), and
        (W_s - W_t) / (τ_s - τ_t) = τ_s + τ_t - s² (2 - τ_s - τ_t): exact where s = t, too.
        """
        x = x_t.flatten(1)
        now, then, square = self.path.at(t, x), self.path.at(to, x), self.stds.to(x) ** 2
        offsets = (x / now.size - (1 - now.tau) * self.mean.to(x).flatten()) @ self.basis.to(x)
        before, after = ((1 - c.tau) ** 2 * square + c.tau**2 for c in (now, then))
        both = now.tau + then.tau
        u = ((both - square * (2 - both)) / (before + (after * before).sqrt()) * offsets) @ self.basis.T.to(x)
        u = u.reshape(x_t.shape) - self.mean.to(x_t)
        c = self.path.at(t, x_t)
        x0 = x_t / c.size - c.tau * u
        return Estimate(x0, x0 + u)

    def log_density(self, x_t: Float[Tensor, " b *d"], t: Time = 0.0) -> Float[Tensor, " b"]:
        """log p_t(x_t)."""
        _, offsets, variance = self._coordinates(x_t, t)
        return -(offsets.square() / variance + (2 * math.pi * variance).log()).sum(1) / 2

    def flow(self, x_t: Float[Tensor, " b *d"], t: float, s: float) -> Float[Tensor, " b *d"]:
        """The probability-flow ODE, solved from t to s: x_s = α_s m + U diag(√(V_s / V_t)) Uᵀ (x_t - α_t m)."""
        _, offsets, before = self._coordinates(x_t, t)
        then, _, after = self._coordinates(x_t, s)
        moved = ((after / before).sqrt() * offsets) @ self.basis.T.to(x_t)
        return then.alpha * self.mean.to(x_t) + moved.reshape(x_t.shape)

    def _coordinates(self, x_t: Tensor, t: Time) -> tuple[Scales, Tensor, Tensor]:
        """Scales, Uᵀ (x_t - α m) as (b, n), and V."""
        x = x_t.flatten(1)
        c = self.path.at(t, x)
        offsets = (x - c.alpha * self.mean.to(x).flatten()) @ self.basis.to(x)
        return c, offsets, (c.alpha * self.stds.to(x)) ** 2 + c.sigma**2


@dataclass(frozen=True)
class Gaussians:
    """Data Σ_k w_k N(m_k, C_k), C_k = U_k diag(s_k²) U_kᵀ: x̂₀ and ε̂ are the parts' own, by their responsibilities.

    With o_k = U_kᵀ (x_t - α m_k), V_k = α² s_k² + σ² and r_k ∝ w_k N(o_k; 0, V_k),
        x̂₀ = Σ r_k (m_k + U_k (α s_k² / V_k o_k)),    ε̂ = Σ r_k U_k (σ / V_k o_k).
    weights: w_k, also one row of them per example; 0 leaves a part out.
    """

    path: Path
    means: Float[Tensor, "k d"]
    bases: Float[Tensor, "k d d"]
    stds: Float[Tensor, "k d"]
    weights: Float[Tensor, "#b k"]
    gaussian_end: bool = True

    def __call__(self, x_t: Float[Tensor, " b d"], t: Time, /, **cond: Any) -> Estimate:
        c, offsets, variance = self._coordinates(x_t, t)
        own, mean = offsets / variance, self.means.to(x_t)
        if len(mean) > 1:
            r = self._joint(offsets, variance).softmax(1)
            own, mean = r[..., None] * own, r @ mean
        back = self.bases.to(x_t).transpose(1, 2).flatten(0, 1)
        x0 = (c.alpha * (own * self.stds.to(x_t).square()).flatten(1)) @ back
        return Estimate(mean + x0, (c.sigma * own.flatten(1)) @ back)

    def log_density(self, x_t: Float[Tensor, " b d"], t: Time = 0.0) -> Float[Tensor, " b"]:
        """log p_t(x_t)."""
        return self.log_joint(x_t, t).logsumexp(1)

    def log_joint(self, x_t: Float[Tensor, " b d"], t: Time = 0.0) -> Float[Tensor, "b k"]:
        """log w_k p_k(x_t)."""
        return self._joint(*self._coordinates(x_t, t)[1:])

    def _joint(self, offsets: Tensor, variance: Tensor) -> Tensor:
        squares = offsets.square() / variance + (2 * math.pi * variance).log()
        return self.weights.to(offsets).log() - squares.sum(2) / 2

    def _coordinates(self, x_t: Tensor, t: Time) -> tuple[Scales, Tensor, Tensor]:
        """Scales, U_kᵀ (x_t - α m_k) as (b, k, d), and V_k as (b or 1, k, d)."""
        c = self.path.at(t, x_t)
        means, bases, stds = (part.to(x_t) for part in (self.means, self.bases, self.stds))
        turned = (means[:, None] @ bases)[:, 0]  # U_kᵀ m_k
        alpha, sigma = (one[..., None] if isinstance(one, Tensor) else one for one in (c.alpha, c.sigma))
        offsets = (x_t @ bases.transpose(0, 1).flatten(1)).reshape(-1, *stds.shape) - alpha * turned
        return c, offsets, (alpha * stds[None]) ** 2 + sigma**2


def gaussian(path: Path, mean: Float[Tensor, " *d"], spread: float | Tensor) -> Gaussian:
    """N(mean, C) of data shaped like `mean`; spread: a standard deviation, or the covariance C as an (n, n) matrix."""
    n = mean.numel()
    if not isinstance(spread, Tensor):
        basis, variances = torch.eye(n, dtype=torch.float64), torch.full((n,), float(spread) ** 2, dtype=torch.float64)
    else:
        if spread.shape != (n, n) or not torch.allclose(spread, spread.T):
            raise InputError(f"The covariance of {n} numbers must be a symmetric {n} × {n} matrix.")
        variances, basis = torch.linalg.eigh(spread.double())
    if not bool((variances >= 0).all()):
        raise InputError("A covariance must not have negative eigenvalues.")
    return Gaussian(path, mean.double(), basis, variances.sqrt())
