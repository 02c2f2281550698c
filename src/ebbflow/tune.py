"""Tuning: which sampler on which grid comes closest to a denoiser's own flow with N evaluations.

The reference is the probability-flow ODE itself, finely integrated from the same starts, so tuning needs no data and
judges the solver, not the network. Half of the starts choose, the other half judge. First every solver of SOLVERS on
every grid of the families below; then the best few move their grid's parameters; last, where N is small, the times
themselves are moved, one by one (cf. Sabour et al. 2024, arXiv:2404.14507, which does this by a bound).
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from .denoiser import DenoiserLike
from .errors import DivergedError, InputError
from .paths import Path
from .randomness import Draws
from .samplers import SAMPLERS
from .samplers.ode import rk4
from .specs import bind
from .targets import Estimate
from .times import grid_times
from .training.checkpoint import dump_json, parse_json

FILE = "tuned.json"
LONGEST_LIST = 24  # steps up to which the times themselves are tuned

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
        """The grid's spec."""
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


@dataclass(frozen=True)
class Tuned:
    """The best sampler, grid and number of steps for a number of evaluations, and how close it comes.

    rms, median: distance to the reference, over the starts that had no part in the choice; `error` is the
    reference's own (against half its steps), `usual` what the best solver on the uniform grid reaches.
    """

    evaluations: int
    sampler: str
    grid: str
    steps: int
    rms: float
    median: float
    error: float
    usual: float

    def to_config(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Any, where: str) -> "Tuned":
        """The inverse; InputError where the values can't be used."""
        try:
            tuned = cls(**config)
            texts, counts = (tuned.sampler, tuned.grid), (tuned.evaluations, tuned.steps)
            right = all(isinstance(text, str) for text in texts) and all(isinstance(count, int) for count in counts)
            if not right or min(tuned.steps, tuned.evaluations) < 1:
                raise TypeError("a value of the wrong kind")
        except TypeError as error:
            raise InputError(f"{where} is not what ebbflow tune writes: {error}.") from error
        return tuned


def read(data: bytes, where: str) -> tuple[Tuned, ...]:
    """What was tuned, the latest last."""
    rows = parse_json(data, where)
    if not isinstance(rows, list):
        raise InputError(f"{where} is not what ebbflow tune writes: not a list.")
    return tuple(Tuned.from_config(row, where) for row in rows)


def write(tuned: Iterable[Tuned]) -> bytes:
    """The inverse of `read`."""
    return dump_json([one.to_config() for one in tuned])


def tune(
    denoiser: DenoiserLike,
    start: Float[Tensor, " n *d"],
    evaluations: int,
    *,
    reference_steps: int = 400,
    solvers: Sequence[str] | None = None,
    progress: Callable[[str, float], None] = lambda stage, share: None,
    cond: Mapping[str, Any] = MappingProxyType({}),
) -> Tuned:
    """Search; `start` is x at t = 1 for some hundred samples, of which every other is kept for judging.

    progress: called with what is being done and the share of the whole that is done.
    """
    if evaluations < 1 or len(start) < 4:
        raise InputError(f"tune needs at least 1 evaluation and 4 starts; got {evaluations} and {len(start)}.")
    names: Sequence[str] = solvers or (SOLVERS if denoiser.gaussian_end else VELOCITY_SOLVERS)
    families = (*FAMILIES, *TIME_FAMILIES) if denoiser.gaussian_end else TIME_FAMILIES
    progress("reference", 0.0)
    truth, error = reference(denoiser, start, reference_steps, cond)
    search = _Search(denoiser, start, truth, cond)
    steps = {name: steps_within(bind(SAMPLERS, name, "sampler"), denoiser.path, evaluations) for name in names}
    names = [name for name in names if steps[name]]
    if not names:
        raise InputError(f"No solver takes a step within {evaluations} evaluations.")

    def scores(solvers: Sequence[str], grids: Sequence[tuple[Family, Sequence[float]]], start: float) -> list[_Scored]:
        rows = []
        for i, name in enumerate(solvers):
            progress(name, start + 0.2 * i / len(solvers))
            rows += [_Scored(search.score(name, f.spec(v), steps[name]), name, f, v) for f, v in grids]
        return sorted(rows, key=lambda row: row.score)

    # A few grids tell which solvers are worth a look at all of them.
    rough = scores(names, [(family, family.first[len(family.first) // 2]) for family in families], 0.05)
    names = [row.sampler for row in _leaders(rough, 10)]
    scored = scores(names, [(family, values) for family in families for values in family.first], 0.25)
    usual = min(search.errors(name, "uniform", steps[name])[0] for name in names[:5])
    best = []
    for i, row in enumerate(_leaders(scored, 6)):
        progress(f"{row.sampler} on {row.family.name}", 0.45 + 0.05 * i)
        moved = _move(lambda v: search.score(row.sampler, row.family.spec(v), steps[row.sampler]), row.values)  # noqa: B023
        best.append((row.sampler, row.family.spec(moved)))
    best.sort(key=lambda one: search.score(one[0], one[1], steps[one[0]]))
    for i, (name, spec) in enumerate(best[:3]):
        if steps[name] <= LONGEST_LIST:
            progress(f"{name}, each time by itself", 0.75 + 0.08 * i)
            best.append((name, search.polish(name, grid_times(spec, steps[name], denoiser.path))))
    name, spec = min(best, key=lambda one: search.score(one[0], one[1], steps[one[0]], half=1))
    rms, median = search.errors(name, spec, steps[name])
    progress("done", 1.0)
    return Tuned(evaluations, name, spec, steps[name], rms, median, error, usual)


def reference(denoiser: DenoiserLike, start: Tensor, steps: int, cond: Mapping[str, Any]) -> tuple[Tensor, float]:
    """The flow's end from `start` by RK4, and the RMS distance to the same with half the steps."""
    clock, grid = ("flow", "flow_power:exponent=2") if denoiser.gaussian_end else ("time", "power:exponent=1.5")
    flow = functools.partial(rk4, clock=clock)
    fine, coarse = (
        _end(flow(denoiser, start, grid_times(grid, n, denoiser.path), **cond)) for n in (steps, steps // 2)
    )
    error = rms(fine - coarse)
    if not math.isfinite(error):
        raise DivergedError("The reference is not finite, so there is nothing to tune towards.")
    return fine, error


class _Search:
    """The distance of a sampler's ends to the reference, on the starts that choose and on those that judge."""

    def __init__(self, denoiser: DenoiserLike, start: Tensor, truth: Tensor, cond: Mapping[str, Any]) -> None:
        self.denoiser, self.start, self.truth, self.cond = denoiser, start, truth, cond

    def errors(self, sampler: str, grid: str, steps: int, half: int = 1) -> tuple[float, float]:
        """RMS and median distance over every other start; infinite where a grid can't be had or the walk diverged."""
        cond = {k: v[half::2] if isinstance(v, Tensor) and len(v) > 1 else v for k, v in self.cond.items()}
        try:
            times = grid_times(grid, steps, self.denoiser.path)
        except InputError:
            return math.inf, math.inf
        end = _end(bind(SAMPLERS, sampler, "sampler")(self.denoiser, self.start[half::2], times, **cond))
        error = (end - self.truth[half::2]).flatten(1).norm(dim=1)
        found = float(error.square().mean().sqrt()), float(error.median())
        return found if all(map(math.isfinite, found)) else (math.inf, math.inf)

    def score(self, sampler: str, grid: str, steps: int, half: int = 0) -> float:
        """log RMS + ¼ log median: the few that change mode count most, but not alone."""
        far, typical = (math.log(max(error, 1e-300)) for error in self.errors(sampler, grid, steps, half))
        return far + typical / 4

    def polish(self, sampler: str, times: Tensor) -> str:
        """The list of times after a simplex search over log(τ_i / (1 - τ_i)), τ = σ/(α + σ) (or t)."""
        path, n = self.denoiser.path, len(times) - 1
        if n < 2:
            return _listed(times)
        logit = lambda t: torch.log(t / (1 - t))
        if self.denoiser.gaussian_end:
            ratios = torch.tensor([c.ratio for c in path.along(times[1:-1])], dtype=torch.float64)
            first, back = ratios.log(), lambda u: path.time_of(u.exp())
        else:
            first, back = logit(times[1:-1]), torch.sigmoid

        def grid(u: Any) -> str:
            return _listed(torch.cat([times[:1], back(torch.as_tensor(u, dtype=torch.float64)), times[-1:]]))

        found = minimize(
            lambda u: self.score(sampler, grid(u), n), first.numpy(), method="Nelder-Mead",
            options={"maxfev": 60 * n, "initial_simplex": _simplex(first, 0.15), "xatol": 1e-3, "fatol": 1e-3},
        )  # fmt: skip
        return grid(found.x)


class _Scored(NamedTuple):
    score: float
    sampler: str
    family: Family
    values: Sequence[float]


def _leaders(rows: Sequence[_Scored], count: int) -> list[_Scored]:
    """The best row of each of the best solvers, of rows in order."""
    best: dict[str, _Scored] = {}
    for row in rows:
        best.setdefault(row.sampler, row)
    return list(best.values())[:count]


def _move(score: Callable[[Sequence[float]], float], values: Sequence[float]) -> list[float]:
    """Nelder-Mead on the logarithms of positive parameters."""
    first = torch.tensor(values, dtype=torch.float64).log()
    found = minimize(
        lambda u: score([math.exp(v) for v in u]), first.numpy(), method="Nelder-Mead",
        options={"maxfev": 40, "initial_simplex": _simplex(first, 0.3), "xatol": 1e-3, "fatol": 1e-3},
    )  # fmt: skip
    return [math.exp(v) for v in found.x]


def _simplex(first: Tensor, size: float) -> Any:
    return torch.cat([first[None], first + size * torch.eye(len(first), dtype=torch.float64)]).numpy()


def _listed(times: Tensor) -> str:
    """Times as a grid's spec: a list."""
    return ",".join(f"{t:.8g}" for t in times.tolist())


def _end(walk: Iterator[Tensor]) -> Tensor:
    with torch.no_grad():
        *_, x = walk
    return x


def rms(error: Float[Tensor, " n *d"]) -> float:
    """√ mean of the squared distance."""
    return math.sqrt(float(error.flatten(1).square().sum(1).mean()))


class Counted:
    """A denoiser that knows one thing, x₀ = 0, and counts how often it is asked."""

    gaussian_end = True

    def __init__(self, path: Path) -> None:
        self.path, self.calls = path, 0

    def __call__(self, x_t: Tensor, t: Any, /, **cond: Any) -> Estimate:
        self.calls += 1
        return Estimate(torch.zeros_like(x_t), torch.zeros_like(x_t))


def evaluations(sampler: Callable[..., Iterator[Tensor]], path: Path, times: Tensor) -> int:
    """How often a sampler asks the denoiser on a grid: counted, not declared."""
    counted, x = Counted(path), torch.zeros(1, 1, dtype=torch.float64)
    _end(sampler(counted, x, times, draws=Draws.first(1, 0)))
    return counted.calls


def steps_within(sampler: Callable[..., Iterator[Tensor]], path: Path, budget: int, grid: str = "uniform") -> int:
    """The most steps for at most `budget` evaluations; 0 where not even one step fits."""

    def used(steps: int) -> int:
        return evaluations(sampler, path, grid_times(grid, steps, path))

    steps = budget
    while steps and (over := used(steps)) > budget:
        steps = min(steps - 1, steps * budget // over)
    while steps < budget and used(steps + 1) <= budget:  # a last step that costs less than the others
        steps += 1
    return steps
