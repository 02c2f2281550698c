"""Quality and variety apart: how many samples lie among the real features, and how many real ones among the samples.

A set's manifold is the union of the balls around its points, each out to its k-th nearest other point.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..specs import require
from .inputs import STRIP, Doubles, pair

__all__ = ["Manifold", "precision_recall"]


@dataclass(frozen=True, eq=False)
class Manifold:
    """Each point's contribution to the four numbers, which are means."""

    among_real: Doubles  # for every x, how many balls of y it lies in, over k: density is the mean
    inside_real: Doubles  # for every x, whether it lies in any: precision
    inside_samples: Doubles  # for every y, whether it lies in any ball of x: recall
    covered: Doubles  # for every y, whether its own ball holds any x: coverage

    @property
    def precision(self) -> float:
        return float(self.inside_real.mean())

    @property
    def recall(self) -> float:
        return float(self.inside_samples.mean())

    @property
    def density(self) -> float:
        return float(self.among_real.mean())

    @property
    def coverage(self) -> float:
        return float(self.covered.mean())


def precision_recall(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."], k: int = 5) -> Manifold:
    """Precision and recall of samples x against real y (Kynkäänniemi et al. 2019, arXiv:1904.06991, Eq. 2), density
    and coverage (Naeem et al. 2020, arXiv:2002.09797).

    All but density are at most 1. They depend on n and m, so compare at equal ones; recall and precision are fooled by
    one outlier, whose ball is huge, and coverage is not.
    """
    a, b = pair(x, y)
    fewest = min(len(a), len(b))
    require("k", k, 1, below=fewest, whole=True)
    centre = b.mean(0)  # nearer 0, |a|² + |b|² − 2 a·b keeps more digits
    a, b = a - centre, b - centre
    reach_a, reach_b = _reach(a, k), _reach(b, k)
    balls, inside_samples = np.zeros(len(a)), np.zeros(len(b), dtype=bool)
    covered = np.zeros(len(b), dtype=bool)
    for start in range(0, len(a), STRIP):
        rows = slice(start, start + STRIP)
        distances = _squares(a[rows], b)
        in_real = distances <= reach_b
        balls[rows] = in_real.sum(1)
        covered |= in_real.any(0)
        inside_samples |= (distances <= reach_a[rows, None]).any(0)
    return Manifold(balls / k, (balls > 0).astype(float), inside_samples.astype(float), covered.astype(float))


def _reach(x: Doubles, k: int) -> Doubles:
    """The squared distance of every point's k-th nearest other point."""
    reach = np.empty(len(x))
    for start in range(0, len(x), STRIP):
        squares = _squares(x[start : start + STRIP], x)
        own = np.arange(len(squares))
        squares[own, start + own] = np.inf
        reach[start : start + STRIP] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return reach


def _squares(a: Doubles, b: Doubles) -> Doubles:
    """|a − b|² of every pair."""
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.asarray(squares.clip(min=0))
