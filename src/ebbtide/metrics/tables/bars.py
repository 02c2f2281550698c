"""Cheap bars: generators of tables that are fitted in two seconds, which a network should at least equal.

All are Gaussians between ranks: each column's ranks are N(0, 1) by construction (`codecs.ranks`), levels and missing
cells too, and what they have to do with one another is Σ_k w_k N(m_k, C_k).

    copula       one of them: the Gaussian copula
    per_class    a copula for the rows of each level of a column, with the column's own distribution functions
    rank_mixture up to 8 of them, as many as training rows that were set aside are likeliest under
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...codecs import Missing, Mixed, Ranks, fit_table
from ...core.randomness import far_apart, generator
from ...errors import InputError
from ...specs import require
from .rows import Rows

__all__ = [
    "MOST_COLUMNS",
    "MOST_PARTS",
    "PerClass",
    "RankCodec",
    "RankGaussians",
    "copula",
    "gaussians",
    "per_class",
    "rank_mixture",
    "rank_scores",
]

MOST_PARTS, MOST_ROWS, MOST_NUMBERS = 8, 4000, 100  # of a mixture; of more numbers it has one part
MOST_COLUMNS = 500  # of a table that has cheap bars
ROUNDS, ENOUGH = 60, 1e-3  # of EM, which ends when a round gains less than this many nats a row
ASIDE = 0.2  # of the rows, to choose the number of parts on
PRIOR = 2.0  # rows of N(·, I) that each covariance is shrunk by
LEAST = 1e-6  # eigenvalue
RankCodec = Ranks | Missing | Mixed


@dataclass(frozen=True, eq=False)
class RankGaussians:
    """Σ_k w_k N(m_k, C_k) of numbers z; C_k = L_k L_kᵀ."""

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    roots: Float[Tensor, "k d d"]

    def log_parts(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """log w_k N(z; m_k, C_k)."""
        off = torch.linalg.solve_triangular(self.roots, (z - self.means[:, None]).mT, upper=False)  # (k, d, n)
        volume = self.roots.diagonal(dim1=1, dim2=2).log().sum(1)
        normal = -(off.square().sum(1) + z.shape[1] * math.log(2 * math.pi)) / 2 - volume[:, None]
        return (self.weights.log()[:, None] + normal).T

    def log_density(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """log Σ_k w_k N(z; m_k, C_k)."""
        return self.log_parts(z).logsumexp(1)

    def sample(self, n: int, draw: torch.Generator) -> Float[Tensor, "n d"]:
        """n draws."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=draw)
        noise = torch.randn(n, self.means.shape[1], 1, dtype=torch.float64, generator=draw)
        return self.means[k] + (self.roots[k] @ noise)[..., 0]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Gaussians between the ranks of a table's columns."""

    like: Rows
    codec: Mixed
    z: RankGaussians

    def sample(self, n: int, draw: torch.Generator) -> Rows:
        """n rows."""
        return Rows.of(self.codec.decode(self.z.sample(n, draw)), self.like.names, self.like.levels)


@dataclass(frozen=True, eq=False)
class PerClass:
    """A copula for each class, and how many rows it has."""

    parts: tuple[Fitted, ...]
    counts: tuple[int, ...]

    def sample(self, n: int, draw: torch.Generator) -> Rows:
        """n rows, each class as often as in training, within one."""
        total = sum(self.counts)
        ends = [round(n * sum(self.counts[: k + 1]) / total) for k in range(len(self.counts))]
        own = [part.sample(b - a, draw).x for part, a, b in zip(self.parts, [0, *ends], ends) if b > a]
        return replace(self.parts[0].like, x=np.concatenate(own))


def copula(train: Rows, seed: int = 0) -> Fitted:
    """The Gaussian copula of the training rows: their ranks as N(m, C), each column's own values and shares kept."""
    codec = _ranks(train)
    return Fitted(train, codec, gaussians(rank_scores(codec, train.tensor, seed)))


def per_class(train: Rows, column: int, seed: int = 0) -> PerClass:
    """A copula for the rows of each level of a column; rows where that is missing are a class."""
    of = np.nan_to_num(train.x[:, column], nan=-1)
    classes = [train.take(torch.from_numpy(np.flatnonzero(of == k))) for k in np.unique(of)]
    return PerClass(tuple(copula(own, seed) for own in classes), tuple(map(len, classes)))


def rank_mixture(train: Rows, seed: int = 0) -> Fitted:
    """The mixture whose number of parts is the best on rows set aside, fitted to all (at most 4000) of them again."""
    rows = train.drawn(MOST_ROWS, generator("mixture", seed))
    codec = fit_table(rows.tensor, [len(own) for own in rows.levels])
    z = rank_scores(codec, rows.tensor, seed)
    aside = max(1, round(ASIDE * len(z)))
    learned, seen = z[aside:], z[:aside]
    most = MOST_PARTS if z.shape[1] <= MOST_NUMBERS else 1
    counts = range(1, min(most, max(1, len(learned) // 5)) + 1)
    k = max(counts, key=lambda k: float(_fitted(learned, k, seed).log_density(seen).mean()))
    return Fitted(train, codec, _fitted(z, k, seed))


def gaussians(
    z: Float[Tensor, "n d"], shares: Float[Tensor, "n k"] | None = None, about: Float[Tensor, "d d"] | None = None
) -> RankGaussians:
    """The Gaussians of these rows, of which row i belongs to part k by its share; by default one, of all rows.

    C_k is shrunk as by PRIOR more rows of covariance `about`, by default I, and no eigenvalue is below LEAST.
    """
    require("The number of rows", len(z), 1)
    shares = torch.ones(len(z), 1, dtype=z.dtype) if shares is None else shares
    counts = shares.sum(0)
    if not bool((counts > 0).all()):
        raise InputError("Each part must have a row.")
    means = shares.T @ z / counts[:, None]
    off = z - means[:, None]
    about = torch.eye(z.shape[1], dtype=z.dtype) if about is None else about
    squares = (shares.T[..., None] * off).mT @ off + PRIOR * about
    values, axes = torch.linalg.eigh(squares / (counts + PRIOR)[:, None, None])
    full = axes * values.clamp(min=LEAST)[:, None] @ axes.mT
    return RankGaussians(counts / counts.sum(), means, torch.linalg.cholesky(full))


def rank_scores(codec: RankCodec, x: Float[Tensor, "n d"], seed: int = 0) -> Float[Tensor, "n k"]:
    """z of rows in float64, anywhere in their cells."""
    v = torch.rand(len(x), codec.shape(tuple(x.shape[1:]))[0], dtype=torch.float64, generator=generator("V", seed))
    return codec.encode_with(x, v).double()


def _ranks(train: Rows) -> Mixed:
    """Every column by its ranks: one number per column, which gives levels their exact shares."""
    return fit_table(train.tensor, [len(own) for own in train.levels], [True] * len(train.levels))


def _fitted(z: Tensor, k: int, seed: int) -> RankGaussians:
    """k Gaussians by EM from k rows that are far from one another."""
    if k == 1:
        return gaussians(z)
    nearest = torch.cdist(z, z[far_apart(z, k, generator("parts", seed, k))]).argmin(1)
    whole = gaussians(z)
    about = whole.roots[0] @ whole.roots[0].T / k ** (2 / z.shape[1])
    found = gaussians(z, torch.nn.functional.one_hot(nearest, k).to(z) + 1e-6, about)
    before = -math.inf
    for gain in _improved(z, found, about):
        found, value = gain
        if value - before < ENOUGH:
            break
        before = value
    return found


def _improved(z: Tensor, found: RankGaussians, about: Tensor) -> Iterator[tuple[RankGaussians, float]]:
    """EM's rounds: the Gaussians after each, and the mean log-density before it."""
    for _ in range(ROUNDS):
        parts = found.log_parts(z)
        value = float(parts.logsumexp(1).mean())
        found = gaussians(z, parts.softmax(1) + 1e-6, about)
        yield found, value
