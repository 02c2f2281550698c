"""One loop for every multistep method: its scheme, a row of numbers for each step, is made before the first evaluation.

A method differs from another only in its rows (exponential.py and dpm_solver.py make them), so a step costs
the few multiplications it consists of.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from ..core.paths import Batch, Scales
from .ode import EULER, Tableau, stages, step
from .walks import Walk

__all__ = ["Scheme", "Update", "multistep", "orders"]


class Update(NamedTuple):
    """x_s = keep · x_t + Σ_j weights_j D_j + noise · z, D_0 the newest estimate (of x₀, or of the noise)."""

    keep: float
    weights: Sequence[float]
    noise: float = 0.0


class Scheme(NamedTuple):
    """predict: a row for each step; None is a DDIM step, for where the noise form would divide by α = 0.

    correct: for each step the row that takes it again when the estimate at its end is D_0; None leaves it.
    first: the Runge-Kutta method of the first steps, and how many there are.
    """

    form: str
    predict: Sequence[Update | None]
    correct: Sequence[Update | None] = ()
    first: tuple[Tableau, int] = (EULER, 0)


def orders(grid: Sequence[Scales], order: int) -> list[int]:
    """The order of each step in the clock log(α/σ), which a last step to σ = 0 makes infinitely long.

    That step is of order 1, and each before it of no more than the steps left, as a polynomial through ever longer
    steps is a poor one; where a step isn't longer than its predecessor by a fifth the order stays (on the grid log_snr,
    and on karras of 20 steps). Chosen on closed forms: docs/LOG.md.
    """
    found = [order] * (len(grid) - 1)
    if grid[-1].sigma == 0:
        lengths = [math.log(now.ratio / then.ratio) if now.alpha and then.sigma else math.inf
                   for now, then in pairwise(grid)]  # fmt: skip
        for left in range(1, min(order, len(found)) + 1):
            if left == 1 or (left < len(found) and lengths[-left] > 1.2 * lengths[-left - 1]):
                found[-left] = left
    return found


def multistep(walk: Walk, scheme: Scheme) -> Iterator[Tensor]:
    """x after each step: one evaluation a step, at the predicted x; a corrected x is where the next step starts.

    scheme: the rows of numbers, and what they multiply.
    """
    depth = max([1, *[len(row.weights) for row in (*scheme.predict, *scheme.correct) if row is not None]])
    method, first = scheme.first
    begin = stages(walk.path, walk.grid[: first + 1], [method] * first, "flow") if first else []
    history: list[Tensor] = []
    x = start = walk.x  # start: x before the step that is still to be corrected
    for i, (now, then) in enumerate(walk.steps):
        estimate = walk.estimate(x, now)
        history = [estimate.x0 if scheme.form == "x0" else estimate.noise, *history[: depth - 1]]
        if i > first and scheme.correct and (row := scheme.correct[i - 1]) is not None:
            x = _apply(row, start, history)
        start = x
        row = scheme.predict[i]
        if i < first:
            x = step(walk.denoiser, x, begin[i], method, estimate, **walk.cond)
        elif row is None:
            x = estimate.mix(then.alpha, then.sigma)
        else:
            x = walk.noised(_apply(row, x, history), row.noise, i)
        yield x


def _apply(row: Update, x: Batch, history: Sequence[Tensor]) -> Batch:
    x = x * row.keep
    for weight, estimate in zip(row.weights, history, strict=False):
        x.add_(estimate, alpha=weight)
    return x
