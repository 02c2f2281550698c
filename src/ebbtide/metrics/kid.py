"""The kernel distance of two sets of features (KID): unbiased, so it can be compared across numbers of samples."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .inputs import STRIP, Doubles, pair, points
from .mmd import ALIKE, spectrum

__all__ = ["kid", "kid_influence", "kid_spectrum"]


def kid(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> float:
    """MMD²_u with k(a, b) = (a·b/d + 1)³ (Bińkowski et al. 2018, arXiv:1801.01401, section 4), over every pair.

    The U-statistic: 0 on average between two samples of one law, hence below 0 half the time there.
    """
    xx, yy, xy, yx = _pair_means(*pair(x, y, at_least=2))
    return float(xx.mean() + yy.mean() - xy.mean() - yx.mean())


def kid_influence(x: Float[Tensor, " n *d"], y: Float[Tensor, " m ..."]) -> tuple[Doubles, Doubles]:
    """Each sample's contribution to kid, for x and for y; both have mean 0."""
    xx, yy, xy, yx = _pair_means(*pair(x, y, at_least=2))
    of_x, of_y = 2 * (xx - xy), 2 * (yy - yx)
    return of_x - of_x.mean(), of_y - of_y.mean()


def kid_spectrum(y: Float[Tensor, " m *d"]) -> Doubles:
    """The spectrum of kid's kernel on y."""
    b = points(y[:ALIKE])
    return spectrum((b @ b.T / b.shape[1] + 1) ** 3)


def _pair_means(x: Doubles, y: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """The mean kernel of each x with the other x, each y with the other y, each x with all y, each y with all x."""
    (xx, _), (yy, _), (xy, yx) = _sums(x, x), _sums(y, y), _sums(x, y)
    return (xx - _self(x)) / (len(x) - 1), (yy - _self(y)) / (len(y) - 1), xy / len(y), yx / len(x)


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
