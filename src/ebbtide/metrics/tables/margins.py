"""Each column by itself, and each pair: Kolmogorov and Smirnov's distance, total variation, correlations."""

import numpy as np
from jaxtyping import Float, Int

from .rows import Rows, Units

__all__ = ["MOVES", "column_distances", "correlation", "correlations", "empty_shares", "kolmogorov_smirnov", "moves"]

MOST_NUMBERS = 1000  # whose correlations count
MOVES = 0.05  # the least standard deviation, in `Units`, of a number whose correlations count


def kolmogorov_smirnov(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " m"]) -> float:
    """sup |F_x − F_y| of two sets of numbers; 1 if one of them is empty."""
    if not len(x) or not len(y):
        return float(len(x) != len(y))
    every = np.concatenate([x, y])
    below = [np.searchsorted(np.sort(own), every, side="right") / len(own) for own in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


def column_distances(x: Rows, y: Rows) -> Float[np.ndarray, " d"]:
    """Of each column of numbers KS, or how far the shares of missing cells are apart if that is more; of levels TV.

    TV = ½ Σ |p − q|, with missing cells as a level.
    """
    gaps = np.abs(empty_shares(x) - empty_shares(y))
    return np.array([_distance(x, y, k, float(gap)) for k, gap in enumerate(gaps)])


def _distance(x: Rows, y: Rows, k: int, gap: float) -> float:
    if x.levels[k]:
        return float(np.abs(x.level(k).mean(0) - y.level(k).mean(0)).sum() + gap) / 2
    own, other = (rows.x[~np.isnan(rows.x[:, k]), k] for rows in (x, y))
    return max(kolmogorov_smirnov(own, other), gap)


def empty_shares(rows: Rows) -> Float[np.ndarray, " d"]:
    """The share of missing cells of each column."""
    return np.isnan(rows.x).mean(0)


def correlations(units: Units, real: Rows, other: Rows) -> tuple[float, float, str]:
    """The mean |ρ − ρ′| over all pairs of numbers that move, the largest, and the names of that pair.

    One without a spread among the others has ρ′ = 0. (0, 0, "") where no two move.
    """
    kept, names = moves(units, real)
    if len(kept) < 2:
        return 0.0, 0.0, ""
    b, c = (correlation(units.numbers(rows)[0][:, kept]) for rows in (real, other))
    off = np.abs(b - c)
    i, j = np.unravel_index(off.argmax(), off.shape)
    return float(off.sum() / (len(kept) * (len(kept) - 1))), float(off[i, j]), f"{names[i]} and {names[j]}"


def moves(units: Units, real: Rows) -> tuple[Int[np.ndarray, " k"], list[str]]:
    """The places and names of the numbers of `Units` that do more than hardly move in training and real rows, at most
    the first MOST_NUMBERS."""
    (a, names), (b, _) = (units.numbers(rows) for rows in (units.train, real))
    kept = np.flatnonzero((a.std(0) > MOVES) & (b.std(0) > MOVES))[:MOST_NUMBERS]
    return kept, [names[i] for i in kept]


def correlation(x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "k k"]:
    """Pearson's, 1 on the diagonal, 0 beside a constant."""
    centred = x - x.mean(0)
    spread = np.sqrt((centred**2).sum(0))
    spread = np.where(spread > 0, spread, 1)
    found = centred.T @ centred / np.outer(spread, spread)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)
