"""Runge-Kutta methods on the probability-flow ODE, on any path and target, in one of two clocks.

time: dx/dt = u_t(x) = α̇ x̂₀ + σ̇ ε̂ (Song et al. 2021, arXiv:2011.13456, Eq. 13; Lipman et al. 2023, arXiv:2210.02747).
flow: dy/dτ = ε̂ - x̂₀ for y = x/(α + σ), τ = σ/(α + σ). Every path is the linear path in other clothes: this takes them
off, so that a solver meets the same smooth equation whatever the path, with no infinite σ̇ and no kinks of a β table.

At t = 0 (σ = 0) the velocity may not exist, so no stage is put there: the last step takes a method one order lower
whose stages all come before its end. A single step of order p - 1 has a local error of order p, so the walk keeps its
order.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Batch, Path, Scales
from ..core.targets import Estimate
from ..specs import pick
from .walks import Walk

__all__ = [
    "EULER", "HEUN", "MIDPOINT", "RALSTON3", "RK4", "Stage", "Tableau", "euler", "heun", "midpoint", "rk4",
    "runge_kutta", "stages", "step",
]  # fmt: skip


class Tableau(NamedTuple):
    """A Butcher tableau: stage i is at t + c_i h, from x + h Σ_j a_ij k_j; the step is x + h Σ_i b_i k_i."""

    c: Sequence[float]
    a: Sequence[Sequence[float]]
    b: Sequence[float]


EULER = Tableau((0.0,), ((),), (1.0,))
HEUN = Tableau((0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2))
MIDPOINT = Tableau((0.0, 1 / 2), ((), (1 / 2,)), (0.0, 1.0))
RALSTON3 = Tableau((0.0, 1 / 2, 3 / 4), ((), (1 / 2,), (0.0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9))
RK4 = Tableau((0.0, 1 / 2, 1 / 2, 1.0), ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


class Stage(NamedTuple):
    """One evaluation's place: the scales there, its time on the clock, and y = x / size with slope a x̂₀ + b ε̂."""

    c: Scales
    clock: float
    size: float
    a: float
    b: float


def stages(path: Path, grid: Sequence[Scales], methods: Sequence[Tableau], clock: str) -> list[list[Stage]]:
    """For each step its stages and, last, its end: all scales computed at once. methods: the tableau of each step."""
    ends = [c.t if clock == "time" else c.tau for c in grid]
    places = [
        [end if c == 1 else start + c * (end - start) for c in (*method.c, 1)]
        for (start, end), method in zip(pairwise(ends), methods, strict=True)
    ]
    flat = [place for row in places for place in row]
    if clock == "time":
        made = iter(Stage(c, c.t, 1.0, c.alpha_dot, c.sigma_dot) for c in path.along(flat))
    else:
        known = {c.tau: c.t for c in grid}  # the grid's own times, exactly, where bisection would round
        found = path.time_at(torch.tensor(flat, dtype=torch.float64)).tolist()
        scales = path.along([known.get(place, t) for place, t in zip(flat, found, strict=True)])
        made = iter(Stage(c, tau, c.size, -1.0, 1.0) for c, tau in zip(scales, flat, strict=True))
    return [[next(made) for _ in row] for row in places]


def step(
    denoiser: DenoiserLike,
    x: Batch,
    stages: Sequence[Stage],
    method: Tableau,
    known: Estimate | None = None,
    **cond: Any,
) -> Batch:
    """One Runge-Kutta step to the last of `stages`; `known` is the estimate at the first, where it is at hand.

    method: the tableau.
    """
    first, end = stages[0], stages[-1]
    h, slopes = end.clock - first.clock, [(known or denoiser(x, first.c, **cond)).mix(first.a, first.b)]
    y = x if first.size == 1 else x / first.size
    for stage, row in zip(stages[1:-1], method.a[1:], strict=True):
        x = _advance(y, h, slopes, row)
        slopes.append(denoiser(x if stage.size == 1 else x * stage.size, stage.c, **cond).mix(stage.a, stage.b))
    x = _advance(y, h, slopes, method.b)
    return x if end.size == 1 else x * end.size


def _advance(x: Tensor, h: float, slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """x + h Σ w_j k_j."""
    for k, w in zip(slopes, weights, strict=True):
        if w:
            x = torch.add(x, k, alpha=h * w)
    return x


def runge_kutta(walk: Walk, method: Tableau, last: Tableau, clock: str = "time") -> Iterator[Tensor]:
    """x after every step of `method`; a step to t = 0 is `last`'s."""
    pick(("time", "flow"), clock, "clock")
    methods = [method if c.t else last for c in walk.grid[1:]]
    x = walk.x
    for own, places in zip(methods, stages(walk.path, walk.grid, methods, clock), strict=True):
        x = step(walk.denoiser, x, places, own, **walk.cond)
        yield x


def euler(walk: Walk) -> Iterator[Tensor]:
    """x_s = x_t + (s - t) u_t(x_t). Order 1, one evaluation a step; on the linear path it is DDIM."""
    return runge_kutta(walk, EULER, EULER)


def heun(walk: Walk, *, clock: str = "time") -> Iterator[Tensor]:
    """x_s = x_t + (s - t) (u_t(x_t) + u_s(x̃_s)) / 2 with x̃_s from Euler (Karras et al. 2022, Algorithm 1).

    Order 2, two evaluations a step; the last, to t = 0, is Euler's.
    """
    return runge_kutta(walk, HEUN, EULER, clock)


def midpoint(walk: Walk, *, clock: str = "time") -> Iterator[Tensor]:
    """x_s = x_t + (s - t) u_m(x̃_m), m = (t + s) / 2, x̃_m from Euler. Order 2, two evaluations a step."""
    return runge_kutta(walk, MIDPOINT, MIDPOINT, clock)


def rk4(walk: Walk, *, clock: str = "time") -> Iterator[Tensor]:
    """The classical method: slopes at t, twice in the middle, and at s, weighed 1 : 2 : 2 : 1 (Kutta 1901).

    Order 4, four evaluations a step; the last, to t = 0, is Ralston's of order 3 with three.
    """
    return runge_kutta(walk, RK4, RALSTON3, clock)
