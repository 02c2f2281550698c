"""Certificates of other libraries' solvers: the order, floor and moments that each shows on its tables and grids.

A solver is told exact estimates of a mixture, or of a Gaussian, and walks from noise to data by its own code on its own
times. Its end is compared with the exact flow's from where it started. Solvers that draw noise aren't here.
"""

import html
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Linear
from ..core.randomness import generator
from ..core.targets import Estimate
from ..errors import InputError
from ..exact.certify import smooth
from ..exact.checks import rms, walked
from ..exact.oracle import gaussian
from ..specs import accept, parse, pick, require
from .solvers import (
    SolverWalk,
    azula_walk,
    diffusers_ddim,
    diffusers_dpm,
    diffusers_flow,
    diffusers_ve,
    flow_matching_linear,
    k_walk,
    shifted_sigmas,
    small_walk,
)

__all__ = [
    "COUNTS_OF_STEPS",
    "FOREIGN",
    "HEADS",
    "SPACINGS",
    "Certificate",
    "certificates",
    "is_foreign",
    "page",
    "solvers_of",
    "table_cells",
    "verdict_of",
]

COUNTS_OF_STEPS = (25, 50, 100)  # for orders; each divides 1000, so that no table's steps are rounded unevenly
MANY = 500  # steps at which what is left is the error's floor
SHORT = 0.25  # that an order may fall short of its promise, or an eighth of it
MEAN, STD = 2.0, 0.5
LEFT = 5.0  # times the error that its order promises at MANY steps, by which a floor is told; below ROUNDED it isn't
ROUNDED = 1e-5
BIAS = 0.02


class AtAnyScales(NamedTuple):
    """An exact denoiser, asked at any scales: of x / (α + σ) on the linear path, where its estimates are the same."""

    exact: Any

    def at(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        """x̂₀ and ε̂ of x = α x₀ + σ ε."""
        size = float(alpha) + float(sigma)
        found: Estimate = self.exact((x / size).double(), float(sigma) / size)
        return found.map(lambda part: part.to(x.dtype))


class ForeignSolver(NamedTuple):
    """A library's solver on one of its tables and grids. run(asked, noise, steps) → SolverWalk; order: its promise."""

    table: str
    grid: str
    order: int
    run: Callable[[Any, Tensor, int], SolverWalk]


class Certificate(NamedTuple):
    """The findings about a solver on one table and grid.

    order: from the last two of COUNTS_OF_STEPS. errors: by these counts. floor: the error at MANY steps. mean, std:
    bias of these on N(2, 0.5²) at 100 steps from pure noise, as pipelines start; start: the part of the mean's that the
    exact flow has too, as data is left where that noise is put. failed: promises not kept. refused: why it can't run.
    """

    spec: str
    table: str
    grid: str
    promised: int
    order: float = math.nan
    errors: tuple[float, ...] = ()
    floor: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    start: float = math.nan
    failed: tuple[str, ...] = ()
    refused: str = ""


# --- the libraries: what each calls a solver, with the options that its specs may name --------------------------------

_TABLES = {
    "linear betas": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear betas": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
}
SPACINGS: dict[str, dict[str, Any]] = {  # options of diffusers' schedulers
    "linspace": {"timestep_spacing": "linspace"},
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}
_VE = {"EulerDiscrete": 1, "HeunDiscrete": 2, "KDPM2Discrete": 2, "LMSDiscrete": 4}
_ORDERED = ("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep")
_FLOWS = {"FlowMatchEulerDiscrete": 1, "FlowMatchHeunDiscrete": 2}


def _order(options: Mapping[str, Any], name: str, default: int) -> int:
    """The order that the options ask for."""
    require(name, order := options.get(name, default), 1, whole=True)
    return int(order)


def _diffusers(name: str, options: dict[str, Any]) -> Iterator[ForeignSolver]:
    kind = name.removesuffix("Scheduler")
    kinds = ("DDIM", *_VE, *_ORDERED, *_FLOWS)
    if kind not in kinds:
        pick([f"{one}Scheduler" for one in kinds], name, "A diffusers scheduler")
    if kind in _FLOWS:
        for shift in (0.5, 1.0, 3.0):
            yield ForeignSolver(
                "flow", f"shift {shift:g}", _FLOWS[kind], partial(diffusers_flow, kind, {"shift": shift} | options)
            )
        return
    for (table, betas), (grid, spacing) in product(_TABLES.items(), SPACINGS.items()):
        if kind == "DDIM":
            if grid in ("linspace", "leading", "trailing"):
                yield ForeignSolver(table, grid, 1, partial(diffusers_ddim, grid, betas | options))
            continue
        if grid == "lu" and kind != "DPMSolverMultistep":
            continue
        if "timestep_spacing" in spacing and kind == "DPMSolverSinglestep":
            if grid != "linspace":  # it has no other
                continue
            spacing = {}
        if kind in _VE:
            if grid != "lu":
                yield ForeignSolver(table, grid, _VE[kind], partial(diffusers_ve, kind, betas | spacing | options))
        else:
            order = _order(options, "solver_order", 2)
            yield ForeignSolver(table, grid, order, partial(diffusers_dpm, kind, betas | spacing | options))
    if kind in _ORDERED:
        for shift in (1.0, 3.0):
            flow = {"use_flow_sigmas": True, "flow_shift": shift}
            order = _order(options, "solver_order", 2)
            yield ForeignSolver("flow", f"shift {shift:g}", order, partial(diffusers_dpm, kind, flow | options))


_K = {"euler": 1, "heun": 2, "dpm_2": 2, "lms": 4, "dpmpp_2m": 2, "dpmpp_2s_ancestral": 2}


def _k_diffusion(name: str, options: dict[str, Any]) -> Iterator[ForeignSolver]:
    name = name.removeprefix("sample_")
    order = _K[pick(_K, name, "A k-diffusion sampler")]
    accept(f"k-diffusion's {name}", options, (), "option")
    for low in (0.002, 0.03):
        karras = lambda lib, n, low=low: lib.get_sigmas_karras(n, low, 80.0)
        even = lambda lib, n, low=low: lib.get_sigmas_exponential(n, low, 80.0)
        yield ForeignSolver("VE, σ ≤ 80", f"karras, σ ≥ {low:g}", order, partial(k_walk, name, karras, False))
        yield ForeignSolver("VE, σ ≤ 80", f"exponential, σ ≥ {low:g}", order, partial(k_walk, name, even, False))
    if name in ("euler", "heun", "lms"):
        for shift in (1.0, 3.0):
            yield ForeignSolver(
                "flow", f"shift {shift:g}", order, partial(k_walk, name, partial(shifted_sigmas, shift), True)
            )


_AZULA = {"DDIM": 1, "Euler": 1, "Heun": 2, "zAB": 3, "vAB": 3, "zEAB": 3, "xEAB": 3, "REAB": 3}


def _azula(name: str, options: dict[str, Any]) -> Iterator[ForeignSolver]:
    name = name.removesuffix("Sampler")
    order = _order(options, "order", _AZULA[pick(_AZULA, name, "An azula sampler")])
    own = options | ({"order": order} if name.endswith("AB") else {})
    for (schedule, first), low in product(
        {"VP": 0.00636, "Cosine": 1e-3, "Rectified": 1e-3}.items(), (1e-2, 1e-3, 1e-4)
    ):
        given = {"alpha_min": first, "sigma_min": low}
        yield ForeignSolver(schedule, f"even, σ ≥ {low:g}", order, partial(azula_walk, name, own, schedule, given))


_METHODS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4, "explicit_adams": 4}


def _flow_matching(name: str, options: dict[str, Any]) -> Iterator[ForeignSolver]:
    order = _METHODS[pick(_METHODS, name, "A flow_matching method")]
    accept(f"flow_matching's {name}", options, (), "option")
    yield ForeignSolver("CondOT", "even", order, partial(flow_matching_linear, name))


_SMALL = {"ddim": 1.0, "accelerated": 2.0}


def _smalldiffusion(name: str, options: dict[str, Any]) -> Iterator[ForeignSolver]:
    gam = options.get("gam", _SMALL[pick(_SMALL, name, "A smalldiffusion sampler")])
    accept(f"smalldiffusion's {name}", options, ("gam",), "option")
    require("gam", gam)
    made: dict[str, Callable[[Any], Any]] = {
        "ScheduleDDPM": lambda lib: lib.ScheduleDDPM(),
        "ScheduleLogLinear, σ ≥ 0.005": lambda lib: lib.ScheduleLogLinear(1000, 0.005, 80.0),
    }
    order = 1  # its paper promises faster steps, not an order
    for table, make in made.items():
        yield ForeignSolver(table, "its own", order, partial(small_walk, make, False, gam))
    yield ForeignSolver(
        "ScheduleFlow", "its own", order, partial(small_walk, lambda lib: lib.ScheduleFlow(), True, gam)
    )


class Library(NamedTuple):
    """A library: the module that it imports, its solvers by spec, and every spec of it."""

    module: str
    rows: Callable[[str, dict[str, Any]], Iterator[ForeignSolver]]
    every: tuple[str, ...]


def _orders(*names: str, orders: tuple[int, ...] = (2, 3), key: str = "solver_order") -> tuple[str, ...]:
    return tuple(f"{name}:{key}={order}" for name, order in product(names, orders))


FOREIGN: dict[str, Library] = {
    "diffusers": Library("diffusers", _diffusers, (
        "DDIMScheduler", *(f"{kind}Scheduler" for kind in _VE),
        *_orders(*(f"{kind}Scheduler" for kind in _ORDERED)), "UniPCMultistepScheduler:solver_order=3,solver_type=bh1",
        "DPMSolverMultistepScheduler:solver_type=heun", *(f"{kind}Scheduler" for kind in _FLOWS),
    )),
    "k-diffusion": Library("k_diffusion", _k_diffusion, tuple(f"sample_{name}" for name in _K)),
    "azula": Library("azula", _azula, (
        "DDIMSampler", "EulerSampler", "HeunSampler",
        *_orders(*(f"{kind}Sampler" for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB")), key="order"),
    )),
    "flow_matching": Library("flow_matching", _flow_matching, tuple(_METHODS)),
    "smalldiffusion": Library("smalldiffusion", _smalldiffusion, tuple(_SMALL)),
}  # fmt: skip


def is_foreign(spec: str) -> bool:
    """True for a spec of another library's solver: diffusers:DDIMScheduler, azula:HeunSampler; or a library's name."""
    return spec.partition(":")[0] in FOREIGN


def solvers_of(spec: str) -> list[str]:
    """The specs that a spec stands for: itself, or every solver of a library whose name it is."""
    name, _, rest = spec.partition(":")
    return [spec] if rest else [f"{name}:{one}" for one in FOREIGN[name].every]


# --- measuring -------------------------------------------------------------------------------------------------------


def certificates(spec: str) -> Iterator[Certificate]:
    """A certificate for each table and grid of a solver, as in diffusers:DPMSolverMultistepScheduler:solver_order=3.

    Raises InputError for a library that isn't installed, and a solver or option that it doesn't have.
    """
    name, _, rest = spec.partition(":")
    library = FOREIGN[pick(FOREIGN, name, "A library")]
    if importlib.util.find_spec(library.module) is None:
        raise InputError(f"{spec} needs the package {name}, which is not installed.")
    solver, options = parse(rest)
    for row in library.rows(solver, options):
        try:
            yield _measured(spec, row)
        except ImportError as error:
            raise InputError(f"{spec} needs the package {error.name}, which is not installed.") from error
        except (
            ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
        ) as error:  # fmt: skip
            why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            yield Certificate(spec, row.table, row.grid, row.order, refused=why)


def _measured(spec: str, row: ForeignSolver) -> Certificate:
    noise = torch.randn(48, 2, generator=generator("foreign", 48), dtype=torch.float64)
    problem = smooth(Linear())

    def error(steps: int) -> float:
        walk = row.run(AtAnyScales(problem), noise.clone(), steps)
        return rms(walk.end.double() - _flow(problem, walk))

    errors = tuple(error(steps) for steps in COUNTS_OF_STEPS)
    floor = error(MANY)
    order = math.log(errors[-2] / errors[-1]) / math.log(COUNTS_OF_STEPS[-1] / COUNTS_OF_STEPS[-2])
    law = gaussian(Linear(), torch.tensor([MEAN], dtype=torch.float64), STD)
    walk = row.run(AtAnyScales(law), torch.tensor([[0.0], [1.0]], dtype=torch.float64), 100)
    ends, exact = (x.double().flatten().tolist() for x in (walk.end, _flow(law, walk)))
    mean, std, start = ends[0] - MEAN, abs(ends[1] - ends[0]) - STD, exact[0] - MEAN
    failed = []
    if not order >= row.order - max(SHORT, row.order / 8) and errors[-1] > ROUNDED:
        failed.append(f"order {order:.2f}, promised {row.order}")
    if not floor <= max(LEFT * errors[-1] * (COUNTS_OF_STEPS[-1] / MANY) ** row.order, ROUNDED):
        failed.append(f"error {floor:.1e} at {MANY} steps, {errors[-1]:.1e} at {COUNTS_OF_STEPS[-1]}")
    if not max(abs(mean - start), abs(std)) <= BIAS:
        failed.append(f"mean off by {mean - start:+.3f}, std by {std:+.3f}")
    return Certificate(spec, row.table, row.grid, row.order, order, errors, floor, mean, std, start, tuple(failed))


def _flow(problem: DenoiserLike, walk: SolverWalk) -> Tensor:
    """The end of the exact flow from where a solver started."""
    size = walk.alpha + walk.sigma
    u = torch.linspace(0, 1, 201, dtype=torch.float64)
    times = walk.sigma / size * (1 - u * (2 - u))
    return walked("rk4:clock=flow", problem, walk.start.double() / size, times)


# --- the page --------------------------------------------------------------------------------------------------------

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}div{overflow-x:auto}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #8884}"
    "td:nth-child(-n+3),th:nth-child(-n+3),td:last-child,th:last-child{text-align:left}.failed{color:#b3261e}"
    "code{font-size:.9em}@media (prefers-color-scheme:dark){body{background:#111;color:#ddd}.failed{color:#ff8a80}}"
)


def page(found: list[Certificate], versions: Mapping[str, str], command: str) -> str:
    """One HTML page of certificates, which needs nothing beside it: to be sent to a library's maintainers.

    found: the certificates. versions: by library. command: the line that measured them.
    """
    rows = "\n".join(
        f"<tr{_class(one)}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in table_cells(one))}</tr>"
        for one in found
    )
    _, few, steps = COUNTS_OF_STEPS
    about = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Certificates of solvers</title><style>{_STYLE}</style>
<h1>Certificates of solvers</h1>
<p>{html.escape(about)}. {verdict_of(found)}</p>
<p>Each solver walks from noise to data by its own code on its own times, with exact estimates of a mixture of three
Gaussians in the place of a network. <b>Errors</b>: RMS distance to the end of the exact flow from the same start, by
number of steps. <b>Order</b>: from the errors at {few} and {steps} steps; it may be {SHORT} or an eighth less than
promised. The error at {MANY} may be {LEFT:g} times what that order makes of that at {steps}. <b>Mean, std</b>: bias at
{steps} steps on N({MEAN:g}, {STD:g}²), from pure noise. A table that ends while some data is left in x biases every
solver that begins with noise there: <b>start</b> is that part of the mean's bias. The rest, mean less start, may be
{BIAS:g}, and so may std.</p>
<p>Reproduce: <code>{html.escape(command)}</code></p>
<div><table><tr>{"".join(f"<th>{html.escape(name)}</th>" for name in HEADS)}</tr>
{rows}
</table></div></html>
"""


HEADS = ("solver", "table", "grid", "order", *map(str, COUNTS_OF_STEPS), str(MANY), "mean", "start", "std", "promises")


def _class(one: Certificate) -> str:
    return ' class="failed"' if one.failed or one.refused else ""


def verdict_of(found: Sequence[Certificate]) -> str:
    """The numbers of certificates whose promises are kept and broken, and of solvers that can't run, as a sentence.

    found: the certificates.
    """
    bad, refused = sum(bool(one.failed) for one in found), sum(bool(one.refused) for one in found)
    kept = f"{len(found) - bad - refused} of {len(found)} rows keep their promises"
    return "; ".join([kept, *[f"broken: {bad}"] * bool(bad), *[f"refused: {refused}"] * bool(refused)]) + "."


def table_cells(one: Certificate) -> tuple[str, ...]:
    """A certificate as a row of texts, as HEADS names them. one: the certificate."""
    if one.refused:
        return one.spec, one.table, one.grid, *["-"] * 8, f"refused: {one.refused}"
    errors = (f"{error:.1e}" for error in (*one.errors, one.floor))
    biases = (f"{bias:+.4f}".replace("-0.0000", "+0.0000") for bias in (one.mean, one.start, one.std))
    order, last = f"{one.order:.2f} of {one.promised}", "; ".join(one.failed) or "kept"
    return one.spec, one.table, one.grid, order, *errors, *biases, last
