"""Who solves it: ebbtide's samplers, and each solver of five other libraries."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from torch import Tensor

from ebbtide.core.times import grid_times
from ebbtide.interop.certified import SPACINGS
from ebbtide.interop.solvers import (
    SolverWalk,
    azula_walk,
    diffusers_ddim,
    diffusers_dpm,
    diffusers_flow,
    diffusers_ve,
    flow_matching_linear,
    flow_matching_vp,
    k_walk,
    last_of,
    shifted_sigmas,
    small_walk,
)
from ebbtide.samplers import walk

from .flows import PATHS, Flow

SHIFTS = (0.5, 1.0, 2.0, 3.0)  # of a flow
DEFAULTS = {  # what each library's own documentation samples with; on a path that it doesn't mention, its simplest row
    "diffusers": {"VP": "DPM++2M, linspace", "linear": "FlowMatchEuler, shift 1"},
    "flow_matching": {"VP": "midpoint, VP as linear", "linear": "midpoint"},
    "azula": {"VP": "DDIM, VP, σ ≥ 0.001", "linear": "DDIM, Rectified, σ ≥ 0.001"},
    "smalldiffusion": {"VP": "gam 2, log-linear 0.005", "linear": "gam 2, flow"},
    "k-diffusion": {"VP": "lms, karras 0.01", "linear": "euler, flow shift 1"},
    "ebbtide": {"VP": "heun on quadratic", "linear": "heun on quadratic"},
}


@dataclass(frozen=True)
class Solver:
    """A row: a library's solver on one of its grids. run(flow, noise, steps) → SolverWalk."""

    library: str
    name: str
    run: Callable[[Flow, Tensor, int], SolverWalk]
    paths: tuple[str, ...] = tuple(PATHS)
    least: int = 1  # steps
    fixed: int | None = None  # steps, where the grid is a list of times

    @property
    def label(self) -> str:
        """Library and name."""
        return f"{self.library} {self.name}"


# --- ours


def ours(sampler: str, grid: str) -> Solver:
    """A sampler's spec, and a grid's or a list of times."""

    def run(model: Flow, noise: Tensor, steps: int) -> SolverWalk:
        times = grid_times(grid, steps, model.path)
        first = model.path.along(times[:1])[0]
        start = model.path.prior(noise)
        return SolverWalk(start, first.alpha, first.sigma, last_of(walk(sampler, model, start, times)))

    fixed = grid.count(",") if grid[:1].isdigit() else None
    return Solver("ebbtide", f"{sampler} on {grid}", run, fixed=fixed)


def unfitted() -> Iterator[Solver]:
    """Our samplers that ask once a step or take Runge-Kutta's, on grids as they come."""
    plain = ("ddim", "dpmpp_2m", "dpmpp_2s", "unipc", "unipc:order=3", "heun", "midpoint", "rk4")
    flow = ("heun:clock=flow", "midpoint:clock=flow", "rk4:clock=flow")
    exponential = (
        f"exponential:order={order},form={form},clock={clock},corrector=true"
        for order, form, clock in product((2, 3, 4), ("x0", "noise"), ("flow", "log_snr"))
    )
    grids = ("uniform", "quadratic", "flow_power:exponent=1.4", "flow_power:exponent=2", "log_snr", "karras")
    for sampler, grid in product((*plain, *flow, *exponential), grids):
        yield ours(sampler, grid)


# --- diffusers


def diffusers() -> Iterator[Solver]:
    """Every deterministic scheduler, at the orders and on the spacings that it offers."""
    spaced = {name: SPACINGS[name] for name in ("linspace", "trailing", "karras", "exponential", "beta")}
    for spacing in ("leading", "linspace", "trailing"):
        yield Solver("diffusers", f"DDIM, {spacing}", partial(diffusers_ddim, spacing, {}), ("VP",))
    for kind in ("EulerDiscrete", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete"):
        for name, options in list(spaced.items())[:-1]:
            yield Solver("diffusers", f"{kind}, {name}", partial(diffusers_ve, kind, options), ("VP",))
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("DPM++2M", "DPMSolverMultistep", {"solver_order": 2}),
        ("DPM++2M heun", "DPMSolverMultistep", {"solver_order": 2, "solver_type": "heun"}),
        ("DPM++3M", "DPMSolverMultistep", {"solver_order": 3}),
        ("DPM++2S", "DPMSolverSinglestep", {"solver_order": 2, "lower_order_final": True}),
        ("DPM++3S", "DPMSolverSinglestep", {"solver_order": 3, "lower_order_final": True}),
        ("DEIS 2", "DEISMultistep", {"solver_order": 2}),
        ("DEIS 3", "DEISMultistep", {"solver_order": 3}),
        ("UniPC 2", "UniPCMultistep", {"solver_order": 2}),
        ("UniPC 3", "UniPCMultistep", {"solver_order": 3}),
        ("UniPC 3 bh1", "UniPCMultistep", {"solver_order": 3, "solver_type": "bh1"}),
    ]
    for label, kind, options in kinds:
        lu = {"lu": SPACINGS["lu"]} if kind.startswith("DPM") and kind.endswith("Multistep") else {}
        for name, spacing in {**spaced, **lu}.items():
            if not (kind.endswith("Singlestep") and "timestep_spacing" in spacing and name != "linspace"):
                own = {} if kind.endswith("Singlestep") and name == "linspace" else spacing
                run = partial(diffusers_dpm, kind, {**options, **own})
                yield Solver("diffusers", f"{label}, {name}", run, ("VP",))
        for shift in SHIFTS:
            own = {**options, "use_flow_sigmas": True, "flow_shift": shift}
            run = partial(diffusers_dpm, kind, own)
            name = f"{label}, flow shift {shift:g}"
            yield Solver("diffusers", name, run, ("linear",))
    for kind in ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"):
        for shift in SHIFTS:
            run = partial(diffusers_flow, kind, {"shift": shift})
            name = f"{kind.removesuffix('Discrete')}, shift {shift:g}"
            yield Solver("diffusers", name, run, ("linear",))


# --- flow_matching


def flow_matching() -> Iterator[Solver]:
    """The fixed-step methods of torchdiffeq."""
    for method in ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams"):
        yield Solver("flow_matching", method, partial(flow_matching_linear, method), ("linear",))
        name = f"{method}, VP as linear"
        yield Solver("flow_matching", name, partial(flow_matching_vp, method), ("VP",))


# --- azula


def azula() -> Iterator[Solver]:
    """Its deterministic samplers, on its schedules, from the path's own last α to a small σ."""
    rows: list[tuple[str, str, dict[str, Any]]] = [("DDIM", "DDIM", {}), ("Euler", "Euler", {}), ("Heun", "Heun", {})]
    rows += [(f"{kind} {k}", kind, {"order": k}) for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB") for k in (2, 3)]
    ends = {"VP": PATHS["VP"].along([1.0])[0].alpha, "linear": 1e-3}
    for path, names in {"VP": ("VP", "Cosine", "Decay"), "linear": ("Rectified", "Decay")}.items():
        for (label, sampler, options), schedule, low in product(rows, names, (1e-2, 1e-3, 1e-4)):
            given = {"alpha_min": ends[path], "sigma_min": low}
            run = partial(azula_walk, sampler, options, schedule, given)
            yield Solver("azula", f"{label}, {schedule}, σ ≥ {low:g}", run, (path,))


# --- smalldiffusion


def smalldiffusion() -> Iterator[Solver]:
    """Its schedules with gam from 1 to 2."""
    vp = {
        "DDPM": lambda lib: lib.ScheduleDDPM(),
        "log-linear 0.005": lambda lib: lib.ScheduleLogLinear(200, 0.005, 10.0),
        "log-linear 0.01": lambda lib: lib.ScheduleLogLinear(1000, 0.01, 157.0),
        "log-linear 0.002": lambda lib: lib.ScheduleLogLinear(1000, 0.002, 80.0),
    }
    for gam in (1.0, 1.5, 2.0):
        for name, make in vp.items():
            yield Solver("smalldiffusion", f"gam {gam:g}, {name}", partial(small_walk, make, False, gam), ("VP",))
        run = partial(small_walk, lambda lib: lib.ScheduleFlow(), True, gam)
        yield Solver("smalldiffusion", f"gam {gam:g}, flow", run, ("linear",), least=2)


# --- k-diffusion


def k_diffusion() -> Iterator[Solver]:
    """Its samplers on Karras's and the exponential sigmas, and those that a flow admits on even and shifted ones."""
    grids: dict[str, Callable[[Any, int], Tensor]] = {}
    for low in (0.002, 0.01, 0.03):
        grids[f"karras {low:g}"] = lambda lib, n, low=low: lib.get_sigmas_karras(n, low, 157.0)
        grids[f"exponential {low:g}"] = lambda lib, n, low=low: lib.get_sigmas_exponential(n, low, 157.0)
    for name in ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_2s_ancestral"):
        for label, spacing in grids.items():
            run = partial(k_walk, name, spacing, False)
            yield Solver("k-diffusion", f"{name}, {label}", run, ("VP",), least=2)
    for name in ("euler", "heun", "lms"):
        for shift in SHIFTS:
            run = partial(k_walk, name, partial(shifted_sigmas, shift), True)
            yield Solver("k-diffusion", f"{name}, flow shift {shift:g}", run, ("linear",))


LIBRARIES: dict[str, Callable[[], Iterable[Solver]]] = {
    "diffusers": diffusers,
    "flow_matching": flow_matching,
    "azula": azula,
    "smalldiffusion": smalldiffusion,
    "k-diffusion": k_diffusion,
}
