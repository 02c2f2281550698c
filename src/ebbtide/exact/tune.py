"""Tuning: a search for the sampler and grid that come closest to a denoiser's flow with N evaluations.

The reference is the probability-flow ODE itself, finely integrated from the same starts, so tuning needs no data and
judges the solver, not the network. First every solver of SOLVERS on every grid of the families below; then the best few
are fitted to the reference by least squares: their grids' parameters, the times themselves, and last, where N is small,
every weight of every step (samplers/bespoke.py). Half of the starts are fitted, a quarter choose, a quarter judge.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Path
from ..core.randomness import Draws
from ..core.targets import Estimate
from ..core.times import grid_times
from ..errors import DivergedError, InputError
from ..samplers import SAMPLERS, Walk, facts, walk
from ..samplers.bespoke import format_weights
from ..specs import bind, pick, require
from .checks import rms
from .encoding import require_batch
from .tuned import Tuned
from .unroll import unrolled

__all__ = [
    "AIMS",
    "CHOOSE",
    "DEPTHS",
    "FAMILIES",
    "FIT",
    "JUDGE",
    "KNOTS",
    "LONGEST_TABLE",
    "SOLVERS",
    "TIME_FAMILIES",
    "VELOCITY_SOLVERS",
    "Counted",
    "Family",
    "evaluations",
    "reference",
    "steps_within",
    "tune",
]

DEPTHS = ("grids", "times", "weights")  # what is fitted, each with all before it
AIMS = ("both", "rms", "median")
FIT, CHOOSE, JUDGE = slice(0, None, 2), slice(1, None, 4), slice(3, None, 4)  # of the starts
KNOTS = 16  # times are moved each by itself up to here, and by a spline with this many knots beyond
LONGEST_TABLE = 20  # evaluations up to which weights are fitted

SOLVERS = (
    "ddim", "dpmpp_2m", "dpmpp_2s", "unipc", "unipc:order=3",
    "heun:clock=flow", "midpoint:clock=flow", "rk4:clock=flow", "heun", "midpoint", "rk4",
    *(
        f"exponential:order={order},form={form},clock={clock},corrector={corrector}"
        for order in (2, 3, 4) for form in ("x0", "noise") for clock in ("flow", "log_snr")
        for corrector in ("false", "true")
    ),
    *(f"exponential:order={order},form=noise,clock=ratio,corrector=true" for order in (2, 3)),
    *(f"exponential:order={order},form={form},corrector=true,start=runge_kutta"
      for order in (3, 4) for form in ("x0", "noise")),
)  # fmt: skip
VELOCITY_SOLVERS = ("euler", "heun", "midpoint", "rk4")  # for what has no Gaussian end, and so no x̂₀


@dataclass(frozen=True)
class Family:
    """A grid's name and its parameters: the values tried first, and the scale on which they are then moved."""

    name: str
    first: tuple[tuple[float, ...], ...]
    options: tuple[str, ...]

    def spec(self, values: Sequence[float]) -> str:
        """The grid's spec. values: one for each option."""
        return f"{self.name}:" + ",".join(f"{option}={value:.5g}" for option, value in zip(self.options, values))


FAMILIES = (
    Family(
        "flow_power", tuple((p, k) for p in (1.0, 1.4, 2.0, 3.0) for k in (0.5, 1.0, 2.0)), ("exponent", "shift")
    ),
    Family(
        "log_snr", tuple((low, high) for low in (0.002, 0.01, 0.04) for high in (5.0, 20.0, 80.0)),
        ("ratio_min", "ratio_max"),
    ),
    Family("karras", ((2.0, 0.005, 20.0), (4.0, 0.005, 20.0), (7.0, 0.005, 80.0)), ("rho", "ratio_min", "ratio_max")),
)  # fmt: skip
TIME_FAMILIES = (
    Family("power", ((1.0,), (1.4,), (2.0,), (3.0,)), ("exponent",)),
    Family("shifted", ((0.5,), (2.0,), (4.0,)), ("shift",)),
)


def tune(
    denoiser: DenoiserLike,
    start: Float[Tensor, " n *d"],
    evaluations: int,
    *,
    aim: str = "both",
    depth: str = "weights",
    reference_steps: int = 400,
    solvers: Sequence[str] | None = None,
    rivals: Iterable[tuple[str, str, int]] = (),
    progress: Callable[[str, float], None] = lambda stage, share: None,
    cond: Mapping[str, Any] = MappingProxyType({}),
) -> Tuned:
    """Search; `start` is x at t = 1 for some hundred samples, of which every fourth is kept for judging.

    aim: rms mostly measures the few samples near a border between modes, median the typical one.
    rivals: sampler, grid and steps of known solutions, which win where the search finds nothing better.
    depth: how far the fit goes; weights takes some N³ evaluations of every start.
    progress: called with the current activity and the finished share of the work.
    """
    require("evaluations", evaluations, 1, whole=True)
    require("reference_steps", reference_steps, 2, whole=True)
    require_batch("start", start)
    require("The number of starts", len(start), 4)
    pick(AIMS, aim, "aim")
    pick(DEPTHS, depth, "depth")
    names: Sequence[str] = solvers or (SOLVERS if denoiser.gaussian_end else VELOCITY_SOLVERS)
    if not solvers and getattr(denoiser, "spans", False):
        names = ("jump", *names)
    families = (*FAMILIES, *TIME_FAMILIES) if denoiser.gaussian_end else TIME_FAMILIES
    progress("reference", 0.0)
    truth, error = reference(denoiser, start, reference_steps, cond)
    search = _Search(denoiser, start, truth, aim, cond)
    steps = {name: steps_within(bind(SAMPLERS, name, "sampler"), denoiser.path, evaluations) for name in names}
    names = [name for name in names if steps[name]]
    if not names:
        raise InputError(f"No solver takes a step within {evaluations} evaluations.")

    def scores(solvers: Sequence[str], grids: Sequence[tuple[Family, Sequence[float]]], start: float) -> list[_Scored]:
        rows = []
        for i, name in enumerate(solvers):
            progress(name, start + 0.15 * i / len(solvers))
            rows += [_Scored(search.score(_Choice(name, f.spec(v), steps[name])), name, f, v) for f, v in grids]
        return sorted(rows, key=lambda row: row.score)

    # A few grids tell which solvers are worth a look at all of them.
    rough = scores(names, [(family, family.first[len(family.first) // 2]) for family in families], 0.05)
    names = [row.sampler for row in _leaders(rough, 10)]
    scored = scores(names, [(family, values) for family in families for values in family.first], 0.2)
    usual = min(search.errors(_Choice(name, "uniform", steps[name]))[0] for name in names[:5])
    found: list[tuple[float, _Choice]] = []

    def keep(choices: Iterable[_Choice]) -> None:
        found.extend((search.score(choice), choice) for choice in choices)

    def best(count: int) -> list[_Choice]:
        return [choice for _, choice in sorted(found, key=lambda row: row[0])[:count]]

    leaders = _leaders(scored, 6)
    for i, row in enumerate(leaders):
        progress(f"{row.sampler} on {row.family.name}", 0.35 + 0.25 * i / len(leaders))
        for choice in search.fit_grid(row, steps[row.sampler]):
            keep([choice])
            if depth != "grids":
                keep(search.fit_times(choice))
    if depth == "weights" and denoiser.gaussian_end and evaluations <= LONGEST_TABLE:
        for i, choice in enumerate(best(2)):
            progress(f"the weights of {choice.sampler}", 0.6 + 0.2 * i)
            keep(search.fit_weights(choice))
    winner = min([*best(8), *(_Choice(*rival) for rival in rivals)], key=functools.partial(search.score, part=CHOOSE))
    rms, median = search.errors(winner)
    progress("done", 1.0)
    return Tuned(evaluations, *winner, rms, median, error, usual)


def reference(denoiser: DenoiserLike, start: Tensor, steps: int, cond: Mapping[str, Any]) -> tuple[Tensor, float]:
    """The flow's end from `start` by RK4, and the RMS distance to the same with half the steps."""
    clock, grid = ("flow", "flow_power:exponent=2") if denoiser.gaussian_end else ("time", "power:exponent=1.5")
    fine, coarse = (
        _end(walk(f"rk4:clock={clock}", denoiser, start, grid_times(grid, n, denoiser.path), cond=cond))
        for n in (steps, steps // 2)
    )
    error = rms(fine - coarse)
    if not math.isfinite(error):
        raise DivergedError("The reference is not finite, so there is nothing to tune towards.")
    return fine, error


class _Scored(NamedTuple):
    score: float
    sampler: str
    family: Family
    values: Sequence[float]


class _Choice(NamedTuple):
    sampler: str
    grid: str
    steps: int


class _Search:
    """The distance of a sampler's ends to the reference, on the starts for fitting, for selection and for judging."""

    def __init__(self, denoiser: DenoiserLike, start: Tensor, truth: Tensor, aim: str, cond: Mapping[str, Any]) -> None:
        self.denoiser, self.start, self.truth, self.aim, self.cond = denoiser, start, truth, aim, cond

    def residuals(self, choice: _Choice, part: slice) -> Tensor | None:
        """End minus reference for some starts; None where a grid is impossible or the walk diverged."""
        cond = {k: v[part] if isinstance(v, Tensor) and len(v) > 1 else v for k, v in self.cond.items()}
        try:
            times = grid_times(choice.grid, choice.steps, self.denoiser.path)
            error = _end(walk(choice.sampler, self.denoiser, self.start[part], times, cond=cond)) - self.truth[part]
        except InputError:
            return None
        return error.flatten(1) if bool(error.isfinite().all()) else None

    def errors(self, choice: _Choice, part: slice = JUDGE) -> tuple[float, float]:
        """RMS and median distance; infinite where there is none."""
        error = self.residuals(choice, part)
        return (math.inf, math.inf) if error is None else (rms(error), float(error.norm(dim=1).median()))

    def score(self, choice: _Choice, part: slice = FIT) -> float:
        """log RMS, log median, or log RMS + ¼ log median: the few that change mode count most, but not alone."""
        far, typical = (math.log(max(error, 1e-300)) for error in self.errors(choice, part))
        return {"rms": far, "median": typical, "both": far + typical / 4}[self.aim]

    def fit(self, make: Callable[[Tensor], _Choice], count: int) -> list[_Choice]:
        """make(u) with the `count` numbers u, 0 at first, that bring the ends closest to the reference.

        Nearest is least squares for the RMS. For the median it is Cauchy's loss, log(1 + (e/c)²), to which the few
        with large errors are nearly all the same.
        """
        from scipy.optimize import least_squares  # here: every command reads tuned.json by this file, few tune

        if not count:  # as of a single step's weights; some versions of SciPy refuse it
            return [make(torch.zeros(0, dtype=torch.float64))]
        size = self.truth[FIT].numel()
        step = 1e-5 if self.start.dtype == torch.float64 else 1e-3

        def residuals(shifted: Any) -> Any:
            error = self.residuals(make(torch.from_numpy(shifted - 1)), FIT)
            return np.full(size, 10.0) if error is None else error.double().flatten().cpu().numpy()

        typical = max(float(np.median(np.abs(residuals(np.ones(count))))), 1e-12)
        losses = {"rms": {"linear": 1.0}, "median": {"cauchy": typical}, "both": {"linear": 1.0, "cauchy": typical}}
        made = []
        for loss, scale in losses[self.aim].items():
            # Numbers around 1, for the steps of the differences are relative to them.
            found = least_squares(residuals, np.ones(count), loss=loss, f_scale=scale, diff_step=step, max_nfev=25)
            made.append(make(torch.from_numpy(found.x - 1)))
        return made

    def fit_grid(self, row: _Scored, steps: int) -> list[_Choice]:
        """The parameters of a family's grid, which are positive."""

        def make(u: Tensor) -> _Choice:
            moved = [value * math.exp(shift) for value, shift in zip(row.values, u.tolist(), strict=True)]
            return _Choice(row.sampler, row.family.spec(moved), steps)

        return [make(torch.zeros(len(row.values))), *self.fit(make, len(row.values))]

    def fit_times(self, choice: _Choice) -> list[_Choice]:
        """The times themselves, moved on the scale of log(σ/α) (log(t / (1 - t)) where there is no Gaussian end)."""
        from scipy.interpolate import CubicSpline

        times = grid_times(choice.grid, choice.steps, self.denoiser.path)
        inner = len(times) - 2
        if inner < 1:
            return []
        move, knots = self._mover(times), min(inner, KNOTS)
        places, ends = np.linspace(0, 1, knots), np.linspace(0, 1, inner)

        def make(u: Tensor) -> _Choice:
            shifts = u if knots == inner else torch.from_numpy(CubicSpline(places, u.numpy())(ends))
            return choice._replace(grid=_listed(move(shifts)))

        return self.fit(make, knots)

    def fit_weights(self, choice: _Choice) -> list[_Choice]:
        """Times and every weight of every step, from those of a solver that asks once a time."""
        if facts(choice.sampler).spans:  # each of its estimates leads to another time, so it is no table
            return []
        path, sampler = self.denoiser.path, bind(SAMPLERS, choice.sampler, "sampler")
        times = grid_times(choice.grid, choice.steps, path)
        asked, rows = unrolled(sampler, path, times, evaluations(sampler, path, times))
        if not bool((asked.diff() < 0).all()):
            return []
        move, n = self._mover(asked), len(rows)
        first = torch.tensor([weight for row in rows for weight in row[:-1]], dtype=torch.float64)

        def make(u: Tensor) -> _Choice:
            free = iter((first + u[n - 1 :]).tolist())
            table = [[*(next(free) for _ in row[:-1]), 0.0] for row in rows]
            return _Choice(f"bespoke:weights={format_weights(table)}", _listed(move(u[: n - 1])), n)

        return self.fit(make, n - 1 + len(first))

    def _mover(self, times: Tensor) -> Callable[[Tensor], Tensor]:
        """u → the times with all but the first and last moved by u."""
        path = self.denoiser.path
        if self.denoiser.gaussian_end:
            ratios = torch.tensor([c.ratio for c in path.along(times[1:-1])], dtype=torch.float64)
            first, back = ratios.log(), lambda u: path.time_of(u.exp())
        else:
            first, back = torch.logit(times[1:-1]), torch.sigmoid
        return lambda u: torch.cat([times[:1], back(first + u), times[-1:]])


def _leaders(rows: Sequence[_Scored], count: int) -> list[_Scored]:
    """The best row of each of the best solvers, of rows in order."""
    best: dict[str, _Scored] = {}
    for row in rows:
        best.setdefault(row.sampler, row)
    return list(best.values())[:count]


def _listed(times: Tensor) -> str:
    """Times as a grid's spec: a list."""
    return ",".join(f"{t:.10g}" for t in times.tolist())


def _end(walk: Iterator[Tensor]) -> Tensor:
    with torch.no_grad():
        *_, x = walk
    return x


class Counted:
    """A denoiser that returns x₀ = 0 and counts its calls."""

    gaussian_end = spans = True

    def __init__(self, path: Path) -> None:
        self.path, self.calls = path, 0

    def __call__(self, x_t: Tensor, t: Any, /, **cond: Any) -> Estimate:
        self.calls += 1
        return Estimate(torch.zeros_like(x_t), torch.zeros_like(x_t))


def evaluations(sampler: str | Callable[[Walk], Iterator[Tensor]], path: Path, times: Tensor) -> int:
    """The number of calls of the denoiser by a sampler on a grid: counted, not declared."""
    counted, x = Counted(path), torch.zeros(1, 1, dtype=torch.float64)
    _end(walk(sampler, counted, x, times, draws=Draws.first(1, 0)))
    return counted.calls


def steps_within(
    sampler: str | Callable[[Walk], Iterator[Tensor]], path: Path, budget: int, grid: str = "uniform"
) -> int:
    """The largest number of steps for at most `budget` evaluations; 0 if not even one step fits."""

    def used(steps: int) -> int:
        return evaluations(sampler, path, grid_times(grid, steps, path))

    steps = budget
    while steps and (over := used(steps)) > budget:
        steps = min(steps - 1, steps * budget // over)
    while steps < budget and used(steps + 1) <= budget:  # a last step that costs less than the others
        steps += 1
    return steps
