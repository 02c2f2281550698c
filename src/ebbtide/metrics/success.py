"""Success of a policy: the rate at which its episodes succeed and their mean score, each with an interval.

The floor of these rows is the score of demonstrations or another expert, where given; p takes it for exact.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from ..specs import require
from .floor import NORMAL, beside_known, share_beside
from .measurement import Measurement

__all__ = ["mean_length", "mean_score", "score_interval", "success_rate", "wilson_interval"]


def wilson_interval(mean: float, n: int) -> tuple[float, float]:
    """95 % interval of a success rate p: all p with |p̂ - p| ≤ z √(p (1 - p)/n) (Wilson 1927, doi:10.2307/2276774).

    (p̂ + z²/2n ± z √(p̂ (1 - p̂)/n + z²/4n²)) / (1 + z²/n); never empty, not even at 0 or n successes.
    Raises InputError for n < 1 or a mean outside [0, 1].
    """
    require("The number of episodes", n, 1, whole=True)
    require("A mean", mean, 0, 1)
    z2 = NORMAL**2 / n
    centre, half = mean + z2 / 2, NORMAL * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n))
    low, high = (centre - half) / (1 + z2), (centre + half) / (1 + z2)
    return low if mean > 0 else 0.0, high if mean < 1 else 1.0  # at its ends to the last bit


def score_interval(scores: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of scores in [0, 1]: m ± t s/√n, Student's t with n - 1 degrees, within [0, 1].

    Scores that are all equal don't show their spread; then Wilson's, for s² ≤ m (1 - m) whatever the scores.
    """
    n, mean = len(scores), float(np.mean(scores))
    spread = float(np.std(scores, ddof=1)) if n > 1 else 0.0
    if spread < 1e-9:
        return wilson_interval(mean, n)
    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
    return max(0.0, mean - half), min(1.0, mean + half)


def success_rate(successes: Sequence[bool | float], *, expert: float = math.nan) -> Measurement:
    """The share of episodes that succeeded, with Wilson's interval. expert: the rate of an expert.

    If several policies played an episode, it counts by the share of them that succeeded, and the interval is Student's:
    however many played it, its starting positions are a single draw.
    """
    n, shares = len(successes), [float(success) for success in successes]
    rate = sum(shares) / max(n, 1)
    if set(shares) <= {0.0, 1.0}:
        bounds = rate, *wilson_interval(rate, n)
        beside = (math.nan, math.nan) if math.isnan(expert) else share_beside(bounds, n, expert, math.inf, "higher")
    else:
        bounds = rate, *score_interval(shares)
        beside = beside_known(bounds, expert, "higher")
    return Measurement("success rate", *bounds, expert, expert, expert, "higher", _of(n), *beside)


def mean_score(scores: Sequence[float], *, expert: float = math.nan) -> Measurement:
    """The mean of scores in [0, 1], with Student's interval. expert: the mean of an expert.

    Diffusion Policy's score of Push-T is the largest coverage of the episode, up to 0.95, divided by 0.95 (Chi et al.
    2023, arXiv:2303.04137). Raises InputError for no scores, or one outside [0, 1].
    """
    require("The number of episodes", len(scores), 1)
    for score in scores:
        require("A score", score, 0, 1)
    bounds = float(np.mean(scores)), *score_interval(scores)
    beside = beside_known(bounds, expert, "higher")
    return Measurement("mean score", *bounds, expert, expert, expert, "higher", _of(len(scores)), *beside)


def mean_length(lengths: Sequence[int]) -> Measurement:
    """The mean length of episodes in steps, with Student's interval; the shorter, the sooner they were done."""
    require("The number of episodes", len(lengths), 1)
    n, mean = len(lengths), float(np.mean(lengths))
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(lengths, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    nothing = math.nan
    return Measurement("episode length", mean, mean - half, mean + half, nothing, nothing, nothing, "lower", _of(n))


def _of(n: int) -> str:
    return f"Over {n} episode{'s' * (n != 1)}."
