"""Dormand-Prince 5(4) with error control and dense output: as many evaluations as the tolerance asks for.

Dormand & Prince 1980; step control and first step as in Hairer, Nørsett & Wanner, Solving ODEs I, Section II.4. Every
sample has its own time and step, so that it depends on the batch it is drawn in only as far as the network's rounding
does, which may decide whether a step is just good enough: in float32, samples between two modes differ by 1e-3.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...errors import DivergedError
from ...specs import require
from ..ode import Tableau
from ..walks import Walk, slope

__all__ = ["DOPRI5", "dopri5"]

DOPRI5 = Tableau(
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
)
# The embedded order 4's difference to the step, and the middle of the step to order 4 (Shampine 1986).
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_MIDDLE = (
    6025192743 / 30085553152 / 2, 0.0, 51252292925 / 65400821598 / 2, -2691868925 / 45128329728 / 2,
    187940372067 / 1594534317056 / 2, -1776094331 / 19743644256 / 2, 11237099 / 235043384 / 2,
)  # fmt: skip
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0


def dopri5(
    walk: Walk, *, rtol: float = 1e-5, atol: float = 1e-5, end: float = 1e-5, max_steps: int = 10_000
) -> Iterator[Tensor]:
    """dy/dτ = ε̂ - x̂₀, y = x/(α + σ), τ = σ/(α + σ), each sample's error per step below atol + rtol |y| (its RMS).

    The grid's times are only where x is read off, by the dense output of order 4. Order 5, six evaluations a step.
    end: at t = 0 the velocity may not exist, so the walk goes to the time where σ/α = `end`, then one DDIM step; the
    error of that is of order end². Raises DivergedError when a sample needs more than max_steps.
    """
    for name, value in (("rtol", rtol), ("atol", atol), ("end", end)):
        require(f"dopri5: {name}", value, above=0)
    require("dopri5: max_steps", max_steps, 1, whole=True)
    return _steps(_Problem(walk, rtol, atol), walk.x, [c.t for c in walk.grid], end, max_steps)


class _Problem:
    """The slope of some of the samples, each at its own clock, and the norm in which errors are measured.

    The clock is the flow's, τ = σ/(α + σ), in which y = x/(α + σ) has the slope ε̂ - x̂₀ on every path: it is finite
    from noise to data, and doesn't jump where a β table does. Between two sample sets, which have a velocity alone,
    it is t itself and y = x.
    """

    def __init__(self, walk: Walk, rtol: float, atol: float) -> None:
        self.denoiser, self.cond, self.rtol, self.atol = walk.denoiser, walk.cond, rtol, atol
        self.flow, self.path = self.denoiser.gaussian_end, walk.path
        self.first = walk.grid[0].t, self.clock(walk.grid[0].t)

    def clock(self, t: float) -> float:
        return self.path.along([t])[0].tau if self.flow else t

    def size(self, t: float) -> float:
        """x/y at a time."""
        return self.path.along([t])[0].size if self.flow else 1.0

    def slope(self, y: Tensor, clock: Tensor, which: Tensor) -> Tensor:
        own = {
            name: value[which] if isinstance(value, Tensor) and value.ndim and len(value) > 1 else value
            for name, value in self.cond.items()
        }
        if not self.flow:
            return slope(self.denoiser, y, clock, **own)
        first, begin = self.first
        t = self.path.time_at(clock).where(clock != begin, first)  # exactly, where bisection would round
        c = self.path.at(t, y)
        return self.denoiser(y * c.size, c, **own).mix(-1.0, 1.0)

    def to_data(self, y: Tensor, k: Tensor, t: float) -> Tensor:
        """x at t = 0 by one DDIM step from time t, of whose y the slope is known; in the flow's clock Euler's."""
        if self.flow:
            return (y - self.clock(t) * k) * self.size(0.0)
        return self.denoiser(y, t, **self.cond).mix(*self.path.along([0.0])[0][1:3])

    def norm(self, error: Tensor, x: Tensor, y: Tensor) -> Tensor:
        scale = self.atol + self.rtol * torch.maximum(x.abs(), y.abs())
        return (error / scale).flatten(1).square().mean(1).sqrt().double()


def _steps(problem: _Problem, x: Tensor, times: list[float], end: float, max_steps: int) -> Iterator[Tensor]:
    path = problem.path
    last = float(path.time_of(torch.tensor([end], dtype=torch.float64))) if times[-1] == 0 else times[-1]
    finish = problem.clock(last)
    x = x / problem.size(times[0])
    t = torch.full((len(x),), problem.clock(times[0]), dtype=torch.float64, device=x.device)
    everyone = torch.arange(len(x), device=x.device)
    k = problem.slope(x, t, everyone)
    h = _first_step(problem, x, t, k, finish)
    # The dense output of the last step of each sample: x at fraction 0 ≤ w ≤ 1 of it, as a quartic in w.
    began, length, quartic = t.clone(), torch.zeros_like(t), x[None].repeat(5, *[1] * x.ndim)
    taken = 0
    for s in times[1:]:
        target = problem.clock(max(s, last))
        while bool((behind := t > target).any()):
            taken += 1
            if taken > max_steps:
                raise DivergedError(f"dopri5 needs more than {max_steps} steps; loosen rtol and atol.")
            which = behind.nonzero()[:, 0]
            here, step = t[which], torch.minimum(h[which], t[which] - finish)
            y, stages = _stages(problem, x[which], here, step, k[which], which)
            error = problem.norm(_sum(_ERROR, stages, step), x[which], y)
            if not bool(error.isfinite().all()):
                raise DivergedError("dopri5: a velocity is not finite.")
            good = error <= 1
            factor = (_SAFETY * error.clamp(min=1e-10) ** -0.2).clamp(_SHRINK, _GROW)
            factor = torch.where(good, factor.clamp(min=1.0), factor)  # a step that was good enough never shrinks
            h[which] = step * factor
            done = which[good]
            middle = x[which] + _sum(_MIDDLE, stages, step)
            quartic[:, done] = _quartic(x[which], middle, y, stages[0], stages[-1], step)[:, good]
            began[done], length[done] = here[good], step[good]
            x = x.index_copy(0, done, y[good])
            k = k.index_copy(0, done, stages[-1][good])
            reached = here[good] - step[good]
            t[done] = torch.where(reached - finish < 1e-14, torch.full_like(reached, finish), reached)
        if s == 0:
            yield problem.to_data(x, k, last)
        else:
            w = _like(((began - target) / length.clamp(min=1e-300)).clamp(0, 1), x)
            y = (((quartic[4] * w + quartic[3]) * w + quartic[2]) * w + quartic[1]) * w + quartic[0]
            yield y * problem.size(s)


def _stages(
    problem: _Problem, x: Tensor, t: Tensor, step: Tensor, first: Tensor, which: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The step's end and its seven slopes, the last of which is the next step's first."""
    stages, y = [first], x
    for c, row in zip(DOPRI5.c[1:], DOPRI5.a[1:], strict=True):
        y = x + _sum(row, stages, step)
        stages.append(problem.slope(y, t - c * step, which))
    return y, stages


def _sum(weights: Sequence[float], stages: list[Tensor], step: Tensor) -> Tensor:
    """Σ w_j k_j times each sample's -step: time falls."""
    total = sum(w * k for w, k in zip(weights, stages, strict=False) if w)
    return -_like(step, stages[0]) * total


def _quartic(x: Tensor, middle: Tensor, y: Tensor, first: Tensor, last: Tensor, step: Tensor) -> Tensor:
    """Coefficients, constant first, of the quartic through both ends and the middle with both ends' slopes."""
    h = -_like(step, x)
    a = 2 * h * (last - first) - 8 * (y + x) + 16 * middle
    b = h * (5 * first - 3 * last) + 18 * x + 14 * y - 32 * middle
    c = h * (last - 4 * first) - 11 * x - 5 * y + 16 * middle
    return torch.stack([x, h * first, c, b, a])


def _first_step(problem: _Problem, x: Tensor, t: Tensor, k: Tensor, finish: float) -> Tensor:
    """Hairer et al., Section II.4: a step that Euler would survive, then what its change of slope allows."""
    everyone = torch.arange(len(x), device=x.device)
    d0, d1 = problem.norm(x, x, x), problem.norm(k, x, x)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
    h0 = torch.minimum(h0, t - finish)
    ahead = problem.slope(x - _like(h0, x) * k, t - h0, everyone)
    d2 = problem.norm(ahead - k, x, x) / h0
    steepest = torch.maximum(d1, d2)
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest) ** 0.2)
    return torch.minimum(100 * h0, h1)


def _like(value: Tensor, x: Tensor) -> Tensor:
    """One number a sample, shaped to multiply x."""
    return value.reshape(-1, *[1] * (x.ndim - 1)).to(x)
