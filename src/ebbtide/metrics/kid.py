"""The kernel distance of two sets of features (KID): unbiased, so it can be compared across numbers of samples."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .inputs import STRIP, Doubles, pair, points
from .mmd import ALIKE, PairMeans, spectrum

__all__ = ["kid", "kid_pairs", "kid_spectrum"]


def kid(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> float:
    """MMD²_u with k(a, b) = (a·b/d + 1)³ (Bińkowski et al. 2018, arXiv:1801.01401, section 4), over every pair.

    The U-statistic: 0 on average between two samples of one law, hence below 0 half the time there.
    """
    return kid_pairs(x, y).value


def kid_pairs(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> PairMeans:
    """The means of kid's kernel, from which its value and influence follow."""
    a, b = pair(x, y, at_least=2)
    (xx, _), (yy, _), (xy, yx) = _sums(a, a), _sums(b, b), _sums(a, b)
    return PairMeans((xx - _self(a)) / (len(a) - 1), (yy - _self(b)) / (len(b) - 1), xy / len(b), yx / len(a))


def kid_spectrum(y: Float[Tensor, " m *d"]) -> Doubles:
    """The spectrum of kid's kernel on y."""
    b = points(y[:ALIKE])
    return spectrum((b @ b.T / b.shape[1] + 1) ** 3)


def _self(x: Doubles) -> Doubles:
    return np.asarray((np.square(x).sum(1) / x.shape[1] + 1) ** 3)


def _sums(x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """Σ_j k(x_i, y_j) for every i, and Σ_i for every j."""
    rows, columns = np.empty(len(x)), np.zeros(len(y))
    for start in range(0, len(x), STRIP):
        strip = x[start : start + STRIP] @ y.T / x.shape[1] + 1
        strip *= strip * strip
        rows[start : start + STRIP] = strip.sum(1)
        columns += strip.sum(0)
    return rows, columns
