"""Wasserstein-2 distances: sliced, within modes, exact.

In one dimension optimal transport is sorting, so W₂² = ∫₀¹ (F⁻¹(u) − G⁻¹(u))² du is exact for any two sizes.
Each distance comes with its *influence*: how much one sample moves the squared distance to first order. For
transport that is the Kantorovich potential f (del Barrio & Loubes 2019, arXiv:1705.01299: √n (W₂² − E W₂²) →
N(0, Var f)), and it is what the report's intervals resample: sorting or solving again for every replicate would
cost a thousand times more and, worse, measure the replicates' ties.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import ndtri
from torch import Tensor

from ..errors import InputError
from ..specs import require
from .inputs import Doubles, checked_mixture, pair
from .modes import nearest_mode

__all__ = [
    "MOST_POINTS",
    "Transport",
    "directions",
    "exact_w2",
    "sliced_w2",
    "sliced_w2_influence",
    "transport",
    "within_mode_influence",
    "within_mode_sliced_w2",
]

MOST_POINTS = 5_000  # exact W₂ takes O(n³) time and an n × n matrix: 10 s and 200 MB here


def sliced_w2(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."], projections: int = 128, seed: int = 0) -> float:
    """SW₂ = √ mean_θ W₂²(θ·x, θ·y), in data units (Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3).

    Directions are even in 2-D and seeded otherwise. On a mixture it mostly measures mode-count noise: two
    sets of 10 000 from the *same* three Gaussians are 0.02–0.23 apart. Compare with the floor; don't rank by it.
    """
    a, b = pair(x, y)
    θ = directions(a.shape[1], projections, seed)
    return float(np.sqrt(_cost(np.sort(θ @ a.T), np.sort(θ @ b.T)).mean()))


def sliced_w2_influence(
    x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."], projections: int = 128, seed: int = 0
) -> tuple[Doubles, Doubles]:
    """Each sample's contribution to SW₂², for x and for y; both have mean 0."""
    a, b = pair(x, y)
    θ = directions(a.shape[1], projections, seed)
    return _influence(θ @ a.T, np.sort(θ @ b.T)), _influence(θ @ b.T, np.sort(θ @ a.T))


def within_mode_sliced_w2(
    x: Float[Tensor, " n *d"],
    means: Float[Tensor, " k ..."],
    std: float,
    projections: int = 64,
    seed: int = 0,
    pooled: bool = False,
) -> float:
    """√ Σ_k (n_k/n) mean_θ W₂²(θ·(x − μ_k), N(0, σ²)), x in the nearest mode k, in data units.

    The shape of the modes without their counts. Normal quantiles are exact, at (i + ½)/n_k. `pooled` lays all
    modes over one another first: a lower floor (by √k), but opposite faults of two modes then cancel.
    """
    sets = _residuals(x, means, std, pooled)
    θ = directions(sets[0][1].shape[1], projections, seed)
    costs = [len(r) * _cost(np.sort(θ @ r.T), _normal(len(r), std)).mean() for _, r in sets]
    return float(np.sqrt(sum(costs) / len(x)))


def within_mode_influence(
    x: Float[Tensor, " n *d"],
    means: Float[Tensor, " k ..."],
    std: float,
    projections: int = 64,
    seed: int = 0,
) -> Doubles:
    """Each sample's contribution to within_mode_sliced_w2²; mean 0."""
    sets = _residuals(x, means, std, pooled=False)
    θ = directions(sets[0][1].shape[1], projections, seed)
    influence = np.empty(len(x))
    for members, r in sets:
        projected, normal = θ @ r.T, _normal(len(r), std)
        # A sample moves its mode's distance, and how much that mode's distance counts.
        influence[members] = _influence(projected, normal) + _cost(np.sort(projected), normal).mean()
    return influence - influence.mean()


def exact_w2(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> float:
    """W₂ = √ min_π Σ π_ij |x_i − y_j|², the exact optimum (by assignment; unequal sizes need POT).

    O(n³), so at most 5000 points each. Floor: about n^(-1/d) from its sampling alone, whatever the generator.
    """
    return transport(x, y).value


class Transport(NamedTuple):
    """The optimal plan between two sets."""

    value: float
    """W₂."""
    potentials: Callable[[], tuple[Doubles, Doubles]]

    @property
    def influence(self) -> tuple[Doubles, Doubles]:
        """The dual potentials, centred."""
        f, g = self.potentials()
        return f - f.mean(), g - g.mean()


def transport(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> Transport:
    """The plan of exact_w2, from which its value and influence follow."""
    cost = _costs(x, y)
    n, m = cost.shape
    if n == m:  # some optimal plan is a permutation; scipy finds it as fast as POT does
        match = linear_sum_assignment(cost)[1]
        return Transport(float(np.sqrt(cost[np.arange(n), match].mean())), lambda: _potentials(cost, match))
    value, f, g = _network_simplex(cost)
    return Transport(float(np.sqrt(max(0.0, value))), lambda: (f, g))


def directions(dim: int, count: int, seed: int = 0) -> Float[np.ndarray, " c d"]:
    """Unit vectors: the only one in 1-D, an even half-circle in 2-D (no noise), seeded random ones beyond."""
    require("projections", count, 1, whole=True)
    if dim == 1:
        return np.ones((1, 1))
    if dim == 2:
        angle = np.pi * np.arange(count) / count
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    normal = np.random.default_rng(seed).standard_normal((count, dim))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _residuals(x: Tensor, means: Tensor, std: float, pooled: bool) -> list[tuple[npt.NDArray[np.intp], Doubles]]:
    """(indices of samples, their offsets from the mode) for every mode that has any."""
    a, mu = checked_mixture(x, means, std)
    nearest, _ = nearest_mode(a, mu)
    offsets = a - mu[nearest]
    groups = np.zeros_like(nearest) if pooled else nearest
    return [(members := np.flatnonzero(groups == k), offsets[members]) for k in np.unique(groups)]


def _normal(n: int, std: float) -> Float[np.ndarray, " 1 n"]:
    return std * ndtri((np.arange(n) + 0.5) / n)[None]


def _steps(n: int, m: int) -> tuple[Any, Any, Any]:
    """Both quantile functions are stairs: on piece p of width w_p, x is its i_p-th and y its j_p-th value."""
    if n == m:
        return slice(None), slice(None), 1 / n
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1/nm, so exact
    return (ends - 1) // m, (ends - 1) // n, np.diff(ends, prepend=0) / (n * m)


def _cost(xs: Float[np.ndarray, " c n"], ys: Float[np.ndarray, " e m"]) -> Float[np.ndarray, " c"]:
    """W₂² of sorted rows."""
    i, j, w = _steps(xs.shape[1], ys.shape[1])
    return (w * np.square(xs[:, i] - ys[:, j])).sum(1)


def _influence(x: Float[np.ndarray, " c n"], ys: Float[np.ndarray, " e m"]) -> Float[np.ndarray, " n"]:
    """Mean over rows of the Kantorovich potential at x: f′ = 2 (x − T(x)), T the transport map."""
    n, m = x.shape[1], ys.shape[1]
    order = np.argsort(x)
    xs = np.take_along_axis(x, order, 1)
    goal = ys
    if n != m:  # T(x_i) is the mean of the pieces of y that x_i is sent to
        i, j, w = _steps(n, m)
        goal = n * np.add.reduceat(w * ys[:, j], np.flatnonzero(np.diff(i, prepend=-1)), axis=1)
    gap = xs - goal
    f = np.zeros_like(xs)
    np.cumsum(np.diff(xs) * (gap[:, 1:] + gap[:, :-1]), axis=1, out=f[:, 1:])
    back = np.empty_like(f)
    np.put_along_axis(back, order, f - f.mean(1, keepdims=True), 1)
    return back.mean(0)


def _costs(x: Tensor, y: Tensor) -> Float[np.ndarray, " n m"]:
    a, b = pair(x, y)
    if max(len(a), len(b)) > MOST_POINTS:
        raise InputError(f"exact_w2 takes at most {MOST_POINTS} points each; got {len(a)} and {len(b)}.")
    return cdist(a, b, "sqeuclidean")


def _potentials(cost: Float[np.ndarray, " n n"], match: npt.NDArray[np.intp]) -> tuple[Doubles, Doubles]:
    """The assignment's dual: f_i + g_j ≤ cost_ij, with equality where i is matched to j."""
    n = len(cost)
    paid = cost[np.arange(n), match]
    # f are shortest paths in the graph of swaps: f_i ≤ f_k + cost(i, match of k) − paid_k (Bellman–Ford).
    swap, f = cost[:, match] - paid, np.zeros(n)
    for _ in range(n):
        shorter = (swap + f).min(1)
        if np.allclose(shorter, f, rtol=0, atol=1e-12 * cost.max()):
            break
        f = shorter
    g = np.empty(n)
    g[match] = paid - f
    return f, g


def _network_simplex(cost: Float[np.ndarray, " n m"]) -> tuple[float, Doubles, Doubles]:
    try:
        import ot  # here, because importing POT takes longer than anything else in this package
    except ImportError as missing:
        n, m = cost.shape
        raise InputError(f"exact_w2 of {n} against {m} points needs POT: pip install 'ebbtide[metrics]'.") from missing
    value, log = ot.emd2([], [], cost, log=True, numItermax=10_000_000)
    return float(value), log["u"], log["v"]
