"""Distances through pairs: MMD² and energy distance, both as unbiased U-statistics.

With any kernel k, D = E k(x, x′) + E k(y, y′) − 2 E k(x, y), x′ ≠ x. Unbiased means that D is 0 on average between
two samples of one law, so it can be (and then half the time is) negative.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..specs import require
from .inputs import Doubles, flat, pair

__all__ = [
    "ALIKE",
    "CACHED_ROWS",
    "FAR",
    "PairMeans",
    "energy_distance",
    "energy_pairs",
    "energy_spectrum",
    "median_distance",
    "mmd2",
    "mmd2_pairs",
    "mmd2_spectrum",
    "spectrum",
]

ALIKE = 500  # points of which a spectrum is taken
CACHED_ROWS = 128  # pairs are taken in strips of this many rows, which stay in cache: 7 × faster than one matrix
FAR = 1e12  # in bandwidths or median distances


class PairMeans(NamedTuple):
    """A kernel's mean over the pairs that each point is in, with those of one set or the other; D is their sum."""

    xx: Doubles
    yy: Doubles
    xy: Doubles
    yx: Doubles

    @property
    def value(self) -> float:
        """D."""
        return float(self.xx.mean() + self.yy.mean() - self.xy.mean() - self.yx.mean())

    @property
    def influence(self) -> tuple[Doubles, Doubles]:
        """Twice the witness function at each point of x and of y (Gretton et al. 2012, section 2.3), centred."""
        of_x, of_y = 2 * (self.xx - self.xy), 2 * (self.yy - self.yx)
        return of_x - of_x.mean(), of_y - of_y.mean()


def mmd2(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."], bandwidth: float | None = None) -> float:
    """MMD²_u with k = exp(−|x − y|² / 2h²) (Gretton et al. 2012, jmlr v13, Eq. 3).

    y is the real data: without `bandwidth`, h is the median distance among its first 1000 points, which on a
    mixture is the distance of modes, so it sees their counts and places long before their shapes.
    """
    return mmd2_pairs(x, y, bandwidth).value


def energy_distance(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> float:
    """2 E|x − y| − E|x − x′| − E|y − y′| in data units (Székely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018).

    0 only between equal laws, and no bandwidth to choose. (scipy.stats.energy_distance is the root of it in 1-D.)
    """
    return energy_pairs(x, y).value


def mmd2_pairs(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."], bandwidth: float | None = None) -> PairMeans:
    """The means of mmd2's kernel, from which its value and influence follow."""
    pair(x, y, at_least=2)
    h = median_distance(y) if bandwidth is None else bandwidth
    require("bandwidth", h, above=0)
    return _pair_means(x, y, h, lambda squared: squared.mul_(-0.5).exp_())


def energy_pairs(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> PairMeans:
    """The means of energy_distance's kernel, −|x − y|."""
    pair(x, y, at_least=2)
    unit = median_distance(y)
    means = _pair_means(x, y, unit, lambda squared: squared.sqrt_().neg_())
    return PairMeans(*(unit * part for part in means))


def mmd2_spectrum(y: Float[Tensor, " m *d"], bandwidth: float | None = None) -> Doubles:
    """The spectrum of mmd2's kernel on y."""
    h = median_distance(y) if bandwidth is None else bandwidth
    return spectrum(_distances(y).div(h).square().mul(-0.5).exp().numpy())


def energy_spectrum(y: Float[Tensor, " m *d"]) -> Doubles:
    """The spectrum of energy_distance's kernel, −|y − y′|, on y."""
    return spectrum(-_distances(y).numpy())


def spectrum(gram: Float[np.ndarray, "m m"]) -> Doubles:
    """Eigenvalues λ of the centred kernel, from its Gram matrix on some points.

    Between two samples of one law D is nearly (1/n + 1/m) Σ λ_i (z_i² − 1), z_i standard normal (Gretton et al. 2009,
    "A fast, consistent kernel two-sample test", Theorem 1). Scaled so that Σ λ² is the mean square of the kernel
    between different points, which a matrix of few points overstates.
    """
    m = len(gram)
    centred = gram - gram.mean(0) - gram.mean(1, keepdims=True) + gram.mean()
    values = np.linalg.eigvalsh(centred).clip(0) / m
    apart = (np.square(centred).sum() - np.square(np.diag(centred)).sum()) / (m * (m - 1))
    return np.asarray(values * np.sqrt(apart / max(np.square(values).sum(), 1e-300)))


def median_distance(y: Float[Tensor, " m *d"]) -> float:
    """The median heuristic on a fixed subsample, the first 1000 points; 1 if most of them coincide."""
    return float(torch.pdist(flat(y[:1000]).double().cpu()).median()) or 1.0


def _distances(y: Tensor) -> Tensor:
    few = flat(y[:ALIKE]).double().cpu()
    return torch.cdist(few, few)


def _pair_means(x: Tensor, y: Tensor, unit: float, kernel: Callable[[Tensor], Tensor]) -> PairMeans:
    """kernel(|x − y|²/unit²) averaged over every pair, in float32 around the centre of y (float64 is 2 × slower)."""
    a, b = pair(x, y)
    centre = b.mean(0)
    # A sample further off than FAR is as good as one at FAR, and its square still fits float32.
    u, v = (torch.from_numpy(((z - centre) / unit).clip(-FAR, FAR)).float() for z in (a, b))
    sums = [_sums(u, u, kernel)[0], _sums(v, v, kernel)[0], *_sums(u, v, kernel)]
    counts = len(u) - 1, len(v) - 1, len(v), len(u)
    return PairMeans(*(total.numpy() / count for total, count in zip(sums, counts, strict=True)))


def _sums(u: Tensor, v: Tensor, kernel: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Σ_j k(u_i, v_j) for every i, and Σ_i for every j; within one set (u is v) no point meets itself."""
    # |u − v|² = [u, |u|², 1] · [−2v, 1, |v|²]: one matrix product makes the whole strip.
    left = torch.cat([u, u.square().sum(1, keepdim=True), torch.ones(len(u), 1)], 1)
    right = torch.cat([-2 * v, torch.ones(len(v), 1), v.square().sum(1, keepdim=True)], 1).T.contiguous()
    rows, columns = torch.zeros(len(u), dtype=torch.float64), torch.zeros(len(v), dtype=torch.float64)
    for start in range(0, len(u), CACHED_ROWS):
        strip_of = slice(start, start + CACHED_ROWS)
        if u is v:  # symmetric: only the columns from the diagonal on, whose first square holds both triangles
            strip = kernel((left[strip_of] @ right[:, start:]).clamp_(min=0))
            strip.diagonal().zero_()
            columns[start + CACHED_ROWS :] += strip[:, CACHED_ROWS:].sum(0)
        else:
            strip = kernel((left[strip_of] @ right).clamp_(min=0))
            columns += strip.sum(0)
        rows[strip_of] = strip.sum(1)
    return (rows + columns, rows + columns) if u is v else (rows, columns)
