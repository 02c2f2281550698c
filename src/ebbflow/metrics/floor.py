"""How far from its floor is a number, and how often would truth itself be as far off?

p is one-sided for a metric of which less, or more, is better: only what is *worse* than the floor is held against
samples, and what is below it (copies are nearer to real rows than real rows are) is what the rows on memorisation are
for. Where samples should be like truth and neither side is better, p is two-sided. "At the floor" is p ≥ LEVEL: of
twelve rows of a perfect generator's report one falls below in a report of nine.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import bdtr, bdtrc, betaln, ndtr, ndtri, stdtr
from torch import Tensor

Better = Literal["lower", "higher", "equal"]

LEVEL = 0.01
NORMAL = float(ndtri(0.975))


def student(difference: float, error: float, better: Better, freedom: float = math.inf) -> float:
    """p of a difference to the floor with this standard error, by Student's t with `freedom` degrees."""
    if math.isnan(difference) or (math.isnan(error) and math.isfinite(difference)):
        return math.nan
    if math.isfinite(difference) and error > 0:
        t = difference / error
    else:  # without any scatter there is either no difference, or nothing but
        t = math.copysign(math.inf, difference) if difference else 0.0
        if not t:
            return 1.0
    below = lambda t: float(stdtr(freedom, t) if math.isfinite(freedom) and math.isfinite(t) else ndtr(t))
    return {"lower": below(-t), "higher": below(t), "equal": 2 * below(-abs(t))}[better]


def shares(count: int, n: int, truth: float, of: float, better: Better) -> float:
    """p of count/n beside a share of truth that was found on `of` draws, or is known: then of = ∞. Without a normal
    approximation, which is wrong for a handful.

    P(K ≥ count) of a binomial K where truth's share is known, else of a hypergeometric one (Fisher's exact test): all
    choices of the marked among n + of draws are equally likely. The smaller tail counts twice where both sides do.
    """
    if math.isinf(of):
        above = float(bdtrc(count - 1, n, truth)) if count else 1.0
        below = float(bdtr(count, n, truth))
    else:
        of = round(of)
        marked = round(truth * of) + count
        k = np.arange(max(0, marked - of), min(n, marked) + 1)
        log = _log_choose(marked, k) + _log_choose(n + of - marked, n - k) - _log_choose(n + of, np.asarray(n))
        chance = np.exp(log)
        above, below = min(1.0, float(chance[k >= count].sum())), min(1.0, float(chance[k <= count].sum()))
    return {"lower": above, "higher": below, "equal": min(1.0, 2 * min(above, below))}[better]


def _log_choose(n: float, k: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log(n + 1) - betaln(n - k + 1, k + 1))


def draws_behind(n: int, repeats: int, pool: float = math.inf) -> float:
    """How many independent draws the mean over `repeats` floors of n is worth: all n · repeats of them, unless each was
    drawn from the same `pool` of real rows."""
    return 1 / (1 / pool + (1 / n - 1 / pool) / repeats)


def share_beside(
    bounds: tuple[float, float, float], n: int, truth: float, of: float, better: Better
) -> tuple[float, float]:
    """The standard error of a share of n − truth's, and p: `bounds` are the share and its 95 % interval."""
    error = math.sqrt(_own_variance(*bounds, truth) + truth * (1 - truth) / of)
    return error, shares(round(bounds[0] * n), n, truth, of, better)


def medians(x: Float[Tensor, " n"], y: Float[Tensor, " m"]) -> float:
    """p of two sets of numbers having one median: how many of x are at most y's median, counted as in `shares`."""
    middle = y.median()
    low, half = (z <= middle for z in (x, y))
    return shares(int(low.sum()), len(x), float(half.double().mean()), len(y), "equal")


def scatter(
    value: float,
    low: float,
    high: float,
    floors: Sequence[float],
    better: Better,
    *,
    of_sets: bool,
    taken: float = 0.0,
) -> tuple[float, float]:
    """The standard error of value − mean floor, with that of both, and p by Student's t.

    The value's own error s is that of the side of its 95 % interval that faces the floor; the floor's variance v is that
    of its repeats, with repeats − 1 degrees (of one repeat: the value's own). taken: the part of a pool of real rows that
    each repeat took; its draws differ less than fresh ones, by 1 − taken, and all of them share the pool's own error.

    of_sets: a distance of two sets, whose linear term vanishes at the floor. There bootstrapping it makes s² on average
    2 v, where v is true, as the resampled term and its estimate are equally random; so the value's variance is taken
    for v and what s² has beyond 2 v, which is all of it far from the floor. Welch and Satterthwaite's degrees.
    """
    floor, repeats = float(np.mean(floors)), len(floors)
    if not math.isfinite(value):
        return math.nan, student(value - floor, math.nan, better)
    own = _own_variance(value, low, high, floor)
    v = float(np.var(floors, ddof=1)) / (1 - taken) if repeats > 1 else own
    truth = v * (taken + (1 - taken) / repeats)
    if of_sets:
        own, truth = max(0.0, own - 2 * v), truth + v
    error = math.sqrt(own + truth)
    freedom = ((own + truth) / truth) ** 2 * (repeats - 1) if truth > 0 and repeats > 1 else math.inf
    return error, student(value - floor, error, better, freedom)


def _own_variance(value: float, low: float, high: float, floor: float) -> float:
    """From the half of a 95 % interval that faces the floor."""
    return ((value - low if value > floor else high - value) / NORMAL) ** 2
