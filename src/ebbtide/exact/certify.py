"""Certification: a sampler's promises, measured on problems with known answers, on every path.

- Orders of convergence on a smooth mixture, on an even and an uneven grid. (On a single Gaussian some methods exceed
  their promise: midpoint's errors cancel and it shows order 3.)
- Errors at the end of whole trajectories on three separate modes, by number of evaluations.
- Moments of stochastic samplers on a Gaussian, without statistical error; sliced W₂ beside its floor.
- Agreement between samplers that should be equivalent.

`ebbtide certify` prints the table, and the test suite asserts the same checks.
"""

import functools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.paths import DDPM, PATHS, Linear, Path
from ..core.randomness import Draws, generator
from ..core.times import grid_times
from ..errors import EbbtideError, InputError
from ..metrics import sliced_w2
from ..samplers import SAMPLERS, Facts, Sampler, Stepper, facts, trajectory
from ..specs import Own, bind, pick
from .checks import Check, exact_moments, rms, walked
from .fit import fit_solver
from .maps import jumps
from .oracle import Mixture, gaussian, mixture
from .plans import FitPlan
from .tune import steps_within

__all__ = [
    "BUDGETS", "EQUIVALENTS", "GRID", "ROUNDING", "SAMPLES", "SPECS", "STEP_COUNTS", "TOLERANCE", "Check",
    "certify", "checks_to_json", "convergence", "distances", "end_points", "equivalents", "exact_moments", "fitted",
    "interior", "modes", "moments", "smooth", "starts", "walked",
]  # fmt: skip

BUDGETS = (5, 10, 20, 50, 100)
STEP_COUNTS = (40, 80, 160, 320)  # for orders; the last two count
TOLERANCE = 0.15  # of an order
SAMPLES = 8000  # whose distance to truth is measured
GRID = "flow_power:exponent=1.3"  # for whole walks: the same noise levels on every path
ROUNDING = 1e-12  # errors below it say nothing of an order

# The specs certified when none is asked for: every row, and the options that change what it is.
SPECS = (
    *SAMPLERS,
    "heun:clock=flow", "midpoint:clock=flow", "rk4:clock=flow", "ddim:eta=0.5", "ddim:eta=1.0", "ddpm:variance=beta",
    "edm:churn=20", "dpmpp_2m:eta=0.5", "unipc:order=3", "unipc:variant=bh1", "euler_maruyama:diffusion=constant",
    "predictor_corrector:corrections=3",
    *(f"exponential:order={k}" for k in (1, 2, 4)),
    *(f"exponential:order={k},form=noise" for k in (1, 2, 3, 4)),
    *(f"exponential:order={k},corrector=true" for k in (1, 2, 3, 4)),
    *(f"exponential:order={k},start=runge_kutta" for k in (3, 4)),
    *(f"exponential:order={k},start=runge_kutta,form=noise" for k in (3, 4)),
    *(f"exponential:order={k},start=runge_kutta,corrector=true" for k in (3, 4)),
    "exponential:order=3,start=runge_kutta,clock=log_snr",
    "exponential:order=3,start=runge_kutta,clock=ratio,form=noise",
)  # fmt: skip

# (one, the other, the paths on which they are the same sampler)
EQUIVALENTS = (
    ("euler", "ddim", ("linear",)),
    ("exponential:order=1", "ddim", PATHS),
    ("exponential:order=1,form=noise", "ddim", PATHS),
    ("bespoke", "ddim", PATHS),
    ("exponential:clock=time", "exponential", ("linear",)),
    ("heun:clock=flow", "heun", ("linear",)),
    ("midpoint:clock=flow", "midpoint", ("linear",)),
    ("rk4:clock=flow", "rk4", ("linear",)),
    ("edm", "heun", ("ve",)),
    ("dpmpp_3m", "exponential:order=3,form=x0,clock=log_snr", PATHS),
    ("deis", "exponential:order=3,form=noise,clock=log_snr", PATHS),
    ("lms", "exponential:order=4,form=noise,clock=ratio", PATHS),
    ("ddpm", "ddim:eta=1.0", PATHS),
    ("exponential_sde", "ddpm", PATHS),
    ("exponential_sde:eta=0.0", "ddim", PATHS),
    ("dpmpp_2m_sde", "dpmpp_2m:eta=1.0", PATHS),
    ("euler_maruyama:scale=0.0", "euler", ("linear", "ve")),
    ("predictor_corrector:corrections=0", "ddpm", PATHS),
    ("restart:repeats=0", "edm", PATHS),
)


# -- the problems -----------------------------------------------------------------------------------------------------


def smooth(path: Path) -> Mixture:
    """Three overlapping modes: far from Gaussian, but no sample is torn between modes, so errors are smooth in h."""
    means = torch.tensor([[0.8, 0.1], [-0.6, 0.5], [0.1, -0.7]], dtype=torch.float64)
    return mixture(path, means, 0.4, torch.tensor([3.0, 2.0, 2.0], dtype=torch.float64))


def modes(path: Path) -> Mixture:
    """Three separate modes, the typical problem of a sampler."""
    means = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    return mixture(path, means, 0.15)


def starts(denoiser: Mixture, n: int, time: float = 1.0) -> Float[Tensor, " n 2"]:
    """n points of p_t, the same each time: from data drawn by seed, noised by seed; at t = 1 the prior's."""
    z = torch.randn(2, n, 2, generator=generator("certify", n), dtype=torch.float64)
    if time == 1:
        return denoiser.path.prior(z[0])
    pick = torch.multinomial(denoiser.weights, n, replacement=True, generator=generator("certify", n, "mode"))
    x0 = denoiser.means[pick] + denoiser.stds[pick][:, None] * z[1]
    return denoiser.path.interpolate(x0, z[0], torch.tensor([time], dtype=torch.float64))


def interior(path: Path, steps: int, uneven: bool) -> Float[Tensor, " n_plus_1"]:
    """From σ/α = 9 to 1/9: evenly in σ/(α + σ), or in log(σ/α) by steps of which every other is twice as long.

    uneven: the latter.
    """
    if uneven:
        lengths = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(steps // 2).cumsum(0)
        u = torch.cat([lengths.new_zeros(1), lengths / lengths[-1]])
        return path.time_of((math.log(9) * (1 - 2 * u)).exp())
    tau = 0.9 - 0.8 * torch.arange(steps + 1, dtype=torch.float64) / steps
    return path.time_at(tau)


def _flow(denoiser: Mixture, x: Tensor, first: float, last: float, steps: int) -> Tensor:
    """The exact flow from first to last, by RK4 in the clock in which every path is smooth."""
    tau = [
        ratio / (1 + ratio) if ratio < math.inf else 1.0
        for ratio in (c.ratio for c in denoiser.path.along([first, last]))
    ]
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    # Towards data the steps shrink as the modes part: smoothly, so that RK4 keeps its order.
    spacing = tau[0] + (tau[1] - tau[0]) * (u if last else u * (2 - u))
    times = denoiser.path.time_at(spacing)
    times[0], times[-1] = first, last
    return walked("rk4:clock=flow", denoiser, x, times)


@functools.cache
def _inside(n: int) -> Tensor:
    """y = x/(α + σ) at the end of `interior` from `starts` at its beginning: the same on every path."""
    denoiser = smooth(Linear())
    return _flow(denoiser, starts(denoiser, n, 0.9), 0.9, 0.1, 800)


@functools.cache
def _whole(path: Path, n: int) -> Tensor:
    """The data that the noise of `starts` belongs to."""
    denoiser = modes(path)
    return _flow(denoiser, starts(denoiser, n), 1.0, 0.0, 800)


# -- the checks -------------------------------------------------------------------------------------------------------


def convergence(sampler: str | Stepper, path: Path, name: str, promised: Facts) -> Iterator[Check]:
    """The order p of O(hᵖ), from the errors at the last two of STEP_COUNTS, on an even and an uneven grid."""
    denoiser = smooth(path)
    for kind in ("even", "uneven"):
        label = f"order, {kind} grid"
        if promised.order <= 0:
            why = "its error follows a tolerance, not the grid" if _is_row(sampler) else "no order was declared"
            yield Check(name, label, math.nan, "-", None, why)
        elif promised.smooth and isinstance(path, DDPM):
            yield Check(name, label, math.nan, f"{promised.order:g}", None, "a β table is not smooth in t")
        else:
            errors = []
            for steps in STEP_COUNTS:
                times = interior(path, steps, kind == "uneven")
                end, c = walked(sampler, denoiser, starts(denoiser, 48, float(times[0])), times), path.along(times)[-1]
                errors.append(rms(end / c.size - _inside(48)))
            slopes = [math.log2(max(a, 1e-300) / max(b, 1e-300)) for a, b in pairwise(errors)]
            usable = [slope for slope, error in zip(slopes, errors[1:], strict=True) if error > ROUNDING] or slopes[:1]
            why = "errors " + ", ".join(f"{error:.1e}" for error in errors) + " at " + ", ".join(map(str, STEP_COUNTS))
            kept = usable[-1] >= promised.order - TOLERANCE
            if promised.at_least:
                text = f"at least {promised.order:g}"
            else:
                kept, text = kept and usable[-1] <= promised.order + TOLERANCE, f"{promised.order:g} ± {TOLERANCE}"
            yield Check(name, label, usable[-1], text, kept, why)


def end_points(sampler: str | Stepper, path: Path, name: str) -> Iterator[Check]:
    """Distances to the exact flow's end from 128 starts at t = 1, by number of evaluations.

    The few that end in another mode dominate the root of their mean square, so the median has to fall.
    """
    denoiser, x, medians = modes(path), starts(modes(path), 128), {}
    for budget in BUDGETS:
        if not (steps := steps_within(sampler, path, budget, GRID)):
            yield Check(name, f"RMS at {budget}", math.nan, "", None, "no step takes so few evaluations")
            continue
        error = walked(sampler, denoiser, x, grid_times(GRID, steps, path)) - _whole(path, 128)
        medians[budget] = float(error.norm(dim=1).median())
        kept = bool(error.isfinite().all())
        yield Check(name, f"RMS at {budget}", rms(error), "finite", kept, f"median {medians[budget]:.2g}")
    if {10, 100} <= medians.keys():
        kept = medians[100] < medians[10] / 2
        yield Check(name, "median at 100", medians[100], f"below {medians[10] / 2:.2g}", kept, "half of that at 10")


def moments(sampler: str | Stepper, path: Path, name: str, promised: Facts) -> Iterator[Check]:
    """Bias of mean and std at 200 steps within 3 standard errors of 10 000 samples, falling as the steps grow.

    Computed, not sampled: no false alarms, and a variance 5 % off is always detected.
    """
    mean, std = 0.7, 0.5
    denoiser = gaussian(path, torch.tensor([mean], dtype=torch.float64), std)
    found = {steps: exact_moments(sampler, denoiser, grid_times(GRID, steps, path)) for steps in (100, 200, 400)}
    for part, truth, error in ((0, mean, std / 100), (1, std, std / (100 * math.sqrt(2)))):
        bias = {steps: abs(both[part] - truth) for steps, both in found.items()}
        label = f"bias of the {('mean', 'std')[part]}"
        yield Check(name, f"{label} at 200 steps", bias[200], f"below {3 * error:.4f}", bias[200] <= 3 * error)
        order = math.log2(max(bias[200], 1e-15) / max(bias[400], 1e-15))
        small = bias[400] < 1e-5
        kept = small or order > promised.order - 0.25
        why = "already below 1e-5" if small else ""
        yield Check(name, f"{label}: weak order", order, f"above {promised.order - 0.25:g}", kept, why)


@functools.cache
def _floors() -> tuple[Tensor, list[float]]:
    """Many samples of `smooth`, the same on every path, and the sliced W₂ to them of twelve sets of SAMPLES."""
    true = smooth(Linear())

    def draw(n: int, seed: int) -> Tensor:
        own = generator("certify", "truth", seed)
        pick = torch.multinomial(true.weights, n, replacement=True, generator=own)
        return true.means[pick] + true.stds[pick][:, None] * torch.randn(n, 2, generator=own).double()

    many = draw(4 * SAMPLES, 100)
    return many, [sliced_w2(draw(SAMPLES, seed), many, projections=32) for seed in range(12)]


def distances(sampler: str | Stepper, path: Path, name: str) -> Iterator[Check]:
    """Sliced W₂ of SAMPLES samples of `smooth` at 200 steps, below 2.2 times the mean floor.

    That is 6.8 standard deviations of the floor (the largest of 500 was 2.07 times the average); a variance 10 % off is
    detected with power 0.98.
    """
    many, floors = _floors()
    draws = Draws.first(SAMPLES, 5)
    x = path.prior(draws(-1, torch.empty(SAMPLES, 2, dtype=torch.float64)))
    end = walked(sampler, smooth(path), x, grid_times(GRID, 200, path), draws)
    found, bound = sliced_w2(end, many, projections=32), 2.2 * sum(floors) / len(floors)
    floor = f"floor {min(floors):.4f} to {max(floors):.4f}"
    yield Check(name, "sliced W₂ at 200 steps", found, f"below {bound:.4f}", found < bound, floor)


def equivalents(spec: str, path: Path, name: str) -> Iterator[Check]:
    """The largest difference to each sampler that should be the same, from the same starts and draws."""
    denoiser, draws = smooth(path), Draws.first(16, 3)
    for one, other, where in EQUIVALENTS:
        if name in where and spec in (one, other):
            theirs = other if spec == one else one
            # Of karras, as on longer steps edm is ddim.
            x, times = starts(denoiser, 16), grid_times("karras", 12, path)
            ends = [walked(each, denoiser, x, times, draws) for each in (spec, theirs)]
            difference = float((ends[0] - ends[1]).abs().max())
            yield Check(name, f"same as {theirs}", difference, "below 1e-8", difference < 1e-8)


def fitted(path: Path, name: str) -> Iterator[Check]:
    """On N(m, C) with two different variances a fitted table misses with 2 evaluations and is exact with 3."""
    denoiser = gaussian(path, torch.tensor([0.7, -0.3], dtype=torch.float64), torch.tensor([1.2, 0.3]).double().diag())
    x = path.prior(starts(modes(path), 64) / path.along([1.0])[0].sigma)
    for found in fit_solver(denoiser, x[:32], (2, 3), plan=FitPlan(32, 0, 32, 400, 2)):
        error = walked(found.sampler, denoiser, x[32:], grid_times(found.grid, found.steps, path))
        worst = float((error - denoiser.flow(x[32:], 1.0, 0.0)).abs().max())
        label, exact = f"fitted to 2 variances, {found.steps} evaluations", found.steps > 2
        kept = worst < 1e-8 if exact else worst > 1e-4
        yield Check(name, label, worst, "below 1e-8" if exact else "above 1e-4", kept, "Krylov: r + 1 for r variances")


# -- all of them ------------------------------------------------------------------------------------------------------


def certify(what: str | Stepper, paths: Iterable[str] = PATHS, promised: Facts | None = None) -> Iterator[Check]:
    """Every check that applies to a sampler: a spec of SAMPLERS, or a function of a Walk.

    paths: names of PATHS, each checked by itself.
    promised: the promises of a function that has none in SAMPLERS; without it, only the checks that apply to every one.
    """
    if not isinstance(what, str) and not callable(what):
        raise InputError(f"A sampler must be a spec or a function of a Walk; got {type(what).__name__}.")
    if isinstance(paths, str):
        raise InputError(f"paths must be a list of names, such as [{paths!r}]; got {paths!r}.")
    sampler = bind(SAMPLERS, what, "sampler") if isinstance(what, str) else what
    row = _is_row(sampler)
    own = promised or (facts(what) if row and isinstance(what, str) else Facts(0))
    for name in paths:
        path = PATHS[pick(PATHS, name, "path")]()
        try:
            if not row:  # what it yields is checked as in sampling
                problem = gaussian(path, torch.zeros(2), 1.0) if own.spans else modes(path)
                *_, _ = trajectory(problem, (2,), draws=Draws.first(2, 0), steps=3, sampler=what, grid=GRID)
            if own.spans:
                yield from jumps(sampler, path, name, own)
            elif own.noise:
                yield from moments(sampler, path, name, own)
                yield from distances(sampler, path, name)
            else:
                yield from convergence(sampler, path, name, own)
                yield from end_points(sampler, path, name)
            if isinstance(what, str):
                yield from equivalents(what, path, name)
            if what == "bespoke":
                yield from fitted(path, name)
        except Exception as error:
            raised = error.__cause__ if isinstance(what, Own) and isinstance(error, InputError) else None
            if isinstance(error, EbbtideError) and raised is None:
                yield Check(name, "refused", math.nan, "", None, str(error))
            elif row:
                raise
            else:  # by the function itself, which commands answer in one sentence
                broken = raised or error
                yield Check(name, "runs", math.nan, "no error", False, f"{type(broken).__name__}: {broken}")


def _is_row(sampler: object) -> bool:
    """True for a `Sampler`, bound or not; a plain function, also one in SAMPLERS, declares nothing."""
    return isinstance(getattr(sampler, "func", sampler), Sampler)


def checks_to_json(results: dict[str, list[Check]]) -> str:
    """Every check of every sampler; NaN is null. results: the checks by the sampler's spec."""
    rows = {
        spec: [{k: None if v != v else v for k, v in asdict(check).items()} for check in checks]
        for spec, checks in results.items()
    }
    return json.dumps(rows, indent=1, ensure_ascii=False)
