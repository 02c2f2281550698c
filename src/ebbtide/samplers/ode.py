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
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Path, Scales, Time
from ..core.randomness import Draws
from ..core.targets import Estimate, velocity
from ..specs import pick
from .needs import gaussian_end


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


def slope(denoiser: DenoiserLike, x: Tensor, t: Time, **cond: Any) -> Tensor:
    """The marginal velocity u_t(x) = α̇ x̂₀ + σ̇ ε̂."""
    c = denoiser.path.at(t, x)
    return velocity(c, denoiser(x, c, **cond))


class Stage(NamedTuple):
    """One evaluation's place: the scales there, its time on the clock, and y = x / size with slope a x̂₀ + b ε̂."""

    c: Scales
    clock: float
    size: float
    a: float
    b: float


def stages(path: Path, times: Sequence[float], methods: Sequence[Tableau], clock: str) -> list[list[Stage]]:
    """For each step its stages and, last, its end: all scales computed at once."""
    if clock == "time":
        ends = times
    else:
        ends = [c.sigma / (c.alpha + c.sigma) for c in path.along(times)]
    places = [
        [end if c == 1 else start + c * (end - start) for c in (*method.c, 1)]
        for (start, end), method in zip(pairwise(ends), methods, strict=True)
    ]
    flat = torch.tensor([place for row in places for place in row], dtype=torch.float64)
    if clock == "time":
        made = iter(Stage(c, c.t, 1.0, c.alpha_dot, c.sigma_dot) for c in path.along(flat))
    else:
        known = dict(zip(ends, times, strict=True))  # the grid's own times, exactly, where bisection would round
        found = path.time_of(flat / (1 - flat)).tolist()
        t = [known.get(place, time) for place, time in zip(flat.tolist(), found, strict=True)]
        scales = path.along(t)
        made = iter(Stage(c, tau, c.alpha + c.sigma, -1.0, 1.0) for c, tau in zip(scales, flat.tolist(), strict=True))
    return [[next(made) for _ in row] for row in places]


def step(
    denoiser: DenoiserLike,
    x: Tensor,
    stages: Sequence[Stage],
    method: Tableau,
    known: Estimate | None = None,
    **cond: Any,
) -> Tensor:
    """One Runge-Kutta step to the last of `stages`; `known` is the estimate at the first, where it is at hand."""
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


def _walk(
    denoiser: DenoiserLike, x: Tensor, times: Tensor, method: Tableau, last: Tableau, clock: str, cond: dict[str, Any]
) -> Iterator[Tensor]:
    if pick(("time", "flow"), clock, "clock") == "flow":
        gaussian_end(denoiser, "clock=flow")
    ends = times.tolist()
    methods = [last if s == 0 else method for s in ends[1:]]
    for own, places in zip(methods, stages(denoiser.path, ends, methods, clock), strict=True):
        x = step(denoiser, x, places, own, **cond)
        yield x


def euler(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = x_t + (s - t) u_t(x_t). Order 1, one evaluation a step; on the linear path it is DDIM."""
    return _walk(denoiser, x, times, EULER, EULER, "time", cond)


def heun(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    clock: str = "time",
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = x_t + (s - t) (u_t(x_t) + u_s(x̃_s)) / 2 with x̃_s from Euler (Karras et al. 2022, Algorithm 1).

    Order 2, two evaluations a step; the last, to t = 0, is Euler's.
    """
    return _walk(denoiser, x, times, HEUN, EULER, clock, cond)


def midpoint(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    clock: str = "time",
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = x_t + (s - t) u_m(x̃_m), m = (t + s) / 2, x̃_m from Euler. Order 2, two evaluations a step."""
    return _walk(denoiser, x, times, MIDPOINT, MIDPOINT, clock, cond)


def rk4(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    clock: str = "time",
    **cond: Any,
) -> Iterator[Tensor]:
    """The classical method: slopes at t, twice in the middle, and at s, weighed 1 : 2 : 2 : 1 (Kutta 1901).

    Order 4, four evaluations a step; the last, to t = 0, is Ralston's of order 3 with three.
    """
    return _walk(denoiser, x, times, RK4, RALSTON3, clock, cond)
