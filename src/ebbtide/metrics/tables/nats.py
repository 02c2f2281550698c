"""Nats per row over independent columns: what a density has learned of how columns depend on one another.

With z the ranks of a row, each column's N(0, 1), the density of x over that of independent columns is p(z)/N(z; 0, I):
what turns z into x is the same for both. Where cells have a width, as ties have, z is drawn anywhere in them, and the
mean of log p(z) is a lower bound (Jensen).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core.randomness import generator
from .bars import RankCodec, gaussians, rank_scores

__all__ = ["Nats", "log_independent", "nats_over_independent", "within_range"]


class Nats(NamedTuple):
    """Each row's nats over independent columns, under a density and under the Gaussian copula."""

    own: Float[Tensor, " n"]
    copula: Float[Tensor, " n"]
    bound: bool
    """True if both are lower bounds."""
    beyond: int
    """Rows with a number beyond the training rows' range, which were moved to its end."""


def log_independent(z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """log N(z; 0, I)."""
    return -(z.square().sum(1) + z.shape[1] * math.log(2 * math.pi)) / 2


def nats_over_independent(
    codec: RankCodec,
    log_density: Callable[[Float[Tensor, "n k"], Int[Tensor, " n"] | None], Float[Tensor, " n"]],
    train: tuple[Float[Tensor, "m d"], Int[Tensor, " m"] | None],
    held: tuple[Float[Tensor, "n d"], Int[Tensor, " n"] | None],
    seed: int = 0,
) -> Nats:
    """Those of held-out rows, given their labels where they have some: then the copula has a Gaussian per label."""
    (x, of), (rows, asked) = train, held
    inside = within_range(x, rows)
    v = torch.rand(len(rows), codec.shape(tuple(rows.shape[1:]))[0], dtype=torch.float64, generator=generator(seed))
    cells = codec.cells(inside)
    z = codec.drawn(cells, v).double()
    learned = rank_scores(codec, x, seed)
    copula = torch.zeros(len(z), dtype=torch.float64)
    labels, own = (torch.zeros(len(n), dtype=torch.long) if k is None else k for n, k in ((x, of), (rows, asked)))
    whole = gaussians(learned).roots[0]
    for k in own.unique():  # shrunk towards all rows' covariance: a class may have a single one
        part = learned[labels == k]
        found = gaussians(part if len(part) else learned, about=whole @ whole.T)
        copula[own == k] = found.log_density(z[own == k])
    beyond = int((~((inside == rows) | rows.isnan())).any(1).sum())
    alone = log_independent(z)
    return Nats(log_density(z.float(), asked).double() - alone, copula - alone, bool((cells[..., 1] > 0).any()), beyond)


def within_range(train: Float[Tensor, "m d"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows with each number no farther out than the training rows' least and largest; missing cells stay."""
    least = train.where(~train.isnan(), torch.inf).amin(0)
    most = train.where(~train.isnan(), -torch.inf).amax(0)
    return torch.where(least <= most, rows.clamp(least, torch.maximum(least, most)), rows)
