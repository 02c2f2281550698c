"""The Fréchet distance between the Gaussians of two sets of features: "FID" when the features are Inception's."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .inputs import Doubles, pair, points

__all__ = ["Moments", "frechet_distance", "frechet_influence", "frechet_of_moments"]


def frechet_distance(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> float:
    """|μ − μ′|² + tr(C + C′ − 2 (C C′)^½) (Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X; Heusel et al.
    2017, arXiv:1706.08500, Eq. 6), in squared units of the features.

    Biased upwards, by O(1/n + 1/m): between two samples of N(0, I) it is near d (d + 5) (1/n + 1/m) / 4, not 0. Compare
    only at equal n and m, and don't trust it where either is at most d, for then a covariance is singular.
    """
    return _distance(*pair(x, y, at_least=2))


def frechet_influence(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> tuple[Doubles, Doubles]:
    """Each sample's contribution to frechet_distance, for x and for y; both have mean 0.

    With the optimal map T between the Gaussians (T C T = C′), for x: 2 (μ − μ′)·(x − μ) + (x − μ)·(I − T)(x − μ).
    """
    return _influence(*pair(x, y, at_least=2))


def _distance(x: Doubles, y: Doubles) -> float:
    a, b = _factor(x)[1], _factor(y)[1]
    apart = np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum()
    # With C = AᵀA and C′ = BᵀB, tr (C C′)^½ is the sum of the singular values of A Bᵀ. No root of a matrix is taken, so
    # nothing turns complex, and a singular C (n ≤ d) costs no accuracy.
    return max(0.0, float(apart - 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()))


def _influence(x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    (p, a), (q, b) = _factor(x), _factor(y)
    u, s, vt = np.linalg.svd(a @ b.T, full_matrices=False)
    rank = int((s > s[0] * 1e-12).sum()) if s.size else 0
    turn = u[:, :rank] @ vt[:rank]
    of_x = _one_side(x, y.mean(0), p @ (turn @ b))
    of_y = _one_side(y, x.mean(0), q @ (turn.T @ a))
    return of_x, of_y


def _one_side(x: Doubles, other: Doubles, mapped: Doubles) -> Doubles:
    """`mapped`: T (x − μ) / √(n − 1) for every row, which needs no inverse of C: (x − μ) / √(n − 1) is P A."""
    mean = x.mean(0)
    centred = x - mean
    influence = 2 * centred @ (mean - other) + (centred * (centred - np.sqrt(len(x) - 1) * mapped)).sum(1)
    return np.asarray(influence - influence.mean())


def _factor(x: Doubles) -> tuple[Doubles, Doubles]:
    """P, A with orthonormal columns in P and P A = (x − μ) / √(n − 1), so that the covariance is AᵀA."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    p, a = np.linalg.qr(centred)
    return p, a


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, mean and scatter Σ (x − μ)(x − μ)ᵀ of features, all that the distance needs of them; of parts of a set,
    `+` gives those of the whole (Chan, Golub & LeVeque 1983, doi:10.2307/2683386)."""

    n: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, x: Float[Tensor, " n *d"]) -> "Moments":
        a = points(x)
        centred = a - a.mean(0)
        return cls(len(a), a.mean(0), centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        n, apart = self.n + other.n, other.mean - self.mean
        mean = self.mean + other.n / n * apart
        between = self.n * other.n / n * np.outer(apart, apart)
        return Moments(n, mean, self.scatter + other.scatter + between)


def frechet_of_moments(x: Moments, y: Moments) -> float:
    """`frechet_distance` of the sets that have these moments; of singular covariances to fewer digits."""
    a, b = (_root(one.scatter / (one.n - 1)) for one in (x, y))
    apart = np.square(x.mean - y.mean).sum() + np.square(a).sum() + np.square(b).sum()
    common = np.linalg.svd(a @ b, compute_uv=False).sum()
    return max(0.0, float(apart - 2 * common))


def _root(c: Doubles) -> Doubles:
    """The symmetric root of a covariance."""
    values, vectors = np.linalg.eigh(c)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)
