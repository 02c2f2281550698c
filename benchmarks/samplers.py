"""ebbflow's samplers beside those of other libraries: error per network evaluation, and overhead per step.

    python -m benchmarks.samplers            the tables of RESULTS.md and docs/pictures/samplers.png
    python -m benchmarks.samplers --quick    the same in short, printed only

The network is an exact denoiser in float64, so the only error is the solver's. Everyone starts from the same noise, and
each end point is held against a fine solution of the ODE from the very point where that solver started. Evaluations are
counted at the network, not taken from a name. Ours is chosen once per count, on other noise than is judged; a peer is
granted its best row of each column, chosen on the noise that is judged.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import math
import platform
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import scipy.optimize
import torch
from torch import Tensor
from tqdm import tqdm

from ebbflow.data import DATASETS
from ebbflow.denoiser import Denoiser
from ebbflow.errors import EbbflowError, InputError
from ebbflow.paths import DDPM, Linear, Path as ProbabilityPath, Scales
from ebbflow.randomness import Draws
from ebbflow.samplers import SAMPLERS, trajectory
from ebbflow.specs import bind
from ebbflow.targets import Estimate
from ebbflow.times import grid_times

PEERS = ("diffusers", "flow_matching", "azula", "smalldiffusion", "k-diffusion")
COUNTS = (5, 10, 20, 50, 100)
PATHS: dict[str, ProbabilityPath] = {"VP": DDPM(), "linear": Linear()}
SHIFTS, PRESETS = (0.5, 1.0, 2.0, 3.0), (1.0, 3.0)  # a flow's shift: the default, and Stable Diffusion 3's
HERE = Path(__file__).parent
OURS, TUNED = "ebbflow", ", tuned"
FREE = 20
BEGIN, END = "<!-- samplers -->", "<!-- /samplers -->"


def three_gaussians() -> tuple[Tensor, float]:
    """ebbflow's data set, centred and scaled so that a coordinate's standard deviation is 1 on average."""
    modes = DATASETS["three_gaussians"].modes
    assert modes is not None
    centred = modes.means - modes.means.mean(0)
    scale = float((centred.square().mean() + modes.std**2).sqrt())
    return centred / scale, modes.std / scale


def corners() -> tuple[Tensor, float]:
    """Four modes at (±1, ±1), std 0.15."""
    return torch.tensor(list(product((-1.0, 1.0), repeat=2)), dtype=torch.float64), 0.15


def sixteen() -> tuple[Tensor, float]:
    """Eight modes, drawn from N(0, I) in 16 dimensions, std 0.2."""
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(8), dtype=torch.float64), 0.2


PROBLEMS: dict[str, Callable[[], tuple[Tensor, float]]] = {
    "three Gaussians": three_gaussians,
    "16 dimensions": sixteen,
    "four corners": corners,
}


@dataclass
class Exact:
    """The exact denoiser of equal modes N(m_k, s² I), asked in anyone's convention, counting how often.

    It is ebbflow.oracle.Mixture for this case in fewer operations: V = α² s² + σ², m̂ = Σ r_k m_k with
    r = softmax(α x·m_k / V - α² |m_k|² / 2V), x̂₀ = m̂ + α s² / V (x - α m̂), ε̂ = σ / V (x - α m̂).
    """

    path: ProbabilityPath
    means: Tensor
    std: float
    gaussian_end: bool = True
    calls: int = 0

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    def __call__(self, x: Tensor, t: Scales, /, **cond: Any) -> Estimate:
        return self.at(x, t.alpha, t.sigma)

    def at(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        """The estimate for x = α x₀ + σ ε, whatever the time is called."""
        self.calls += 1
        alpha, sigma, x = float(alpha), float(sigma), x.double()
        variance = (alpha * self.std) ** 2 + sigma**2
        logits = torch.addmm(self.biases, x, self.means.T, beta=-(alpha**2) / (2 * variance), alpha=alpha / variance)
        mean = logits.softmax(1) @ self.means
        offset = torch.add(x, mean, alpha=-alpha)
        return Estimate(mean, offset, x0=(1.0, alpha * self.std**2 / variance), noise=(0.0, sigma / variance))

    @cached_property
    def biases(self) -> Tensor:
        """|m_k|²."""
        return self.means.square().sum(1)


def exact(problem: str, path: str) -> Exact:
    """The denoiser of a problem on a path."""
    return Exact(PATHS[path], *PROBLEMS[problem]())


@dataclass(frozen=True)
class Walk:
    """Where a solver started, x = α x₀ + σ ε with (α, σ), and where it ended, at σ = 0."""

    start: Tensor
    alpha: float
    sigma: float
    end: Tensor


@dataclass(frozen=True)
class Solver:
    """A row: a library's solver on one of its grids. run(exact, noise, steps) → Walk."""

    library: str
    name: str
    run: Callable[[Exact, Tensor, int], Walk]
    paths: tuple[str, ...] = tuple(PATHS)
    least: int = 1  # steps
    fixed: int | None = None  # steps, where the grid is a list of times
    tuned: bool = False  # a grid option other than what the library's documentation or presets use


def last(walk: Iterable[Tensor]) -> Tensor:
    """Where a walk ends."""
    *_, end = walk
    return end


# --- ours


def ours(sampler: str, grid: str) -> Solver:
    """A sampler's spec, and a grid's or a list of times, which are those of the linear path."""

    def run(model: Exact, noise: Tensor, steps: int) -> Walk:
        listed = grid[:1].isdigit()
        times = moved(grid_times(grid, steps, Linear()), model.path) if listed else grid_times(grid, steps, model.path)
        first = model.path.along(times[:1])[0]
        start = model.path.prior(noise)
        return Walk(start, first.alpha, first.sigma, last(bind(SAMPLERS, sampler, "sampler")(model, start, times)))

    fixed = grid.count(",") if grid[:1].isdigit() else None
    return Solver("ebbflow", f"{sampler}, {grid}", run, fixed=fixed)


def moved(times: Tensor, path: ProbabilityPath) -> Tensor:
    """The times at which a path has the linear path's σ/(α + σ), shrunk to end where the path does."""
    last = path.along([1.0])[0]
    fraction = times * (last.sigma / (last.alpha + last.sigma))
    inner = path.time_of(fraction / (1 - fraction))[1:-1]
    return torch.cat([times[:1], inner, times[-1:]])


# --- diffusers


def scheduler(kind: str, **options: Any) -> Any:
    """A diffusers scheduler on the linear betas, which are those of our VP path."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    if not kind.startswith("FlowMatch"):
        options = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, **options}
    return getattr(diffusers, f"{kind}Scheduler")(**options)


def diffusers_ddim(spacing: str, model: Exact, noise: Tensor, steps: int) -> Walk:
    """DDIM knows integer times; each is fed the scales that it stands for."""
    made = scheduler("DDIM", clip_sample=False, prediction_type="sample", timestep_spacing=spacing)
    made.set_timesteps(steps)
    bars = made.alphas_cumprod.double()
    x, first = noise, float(bars[made.timesteps[0]])
    for t in made.timesteps:
        bar = float(bars[t])
        x = made.step(model.at(x, bar**0.5, (1 - bar) ** 0.5).x0, t, x).prev_sample
    return Walk(noise, first**0.5, (1 - first) ** 0.5, x)


def diffusers_ve(kind: str, options: dict[str, Any], model: Exact, noise: Tensor, steps: int) -> Walk:
    """The k-diffusion family (Euler, Heun, DPM2, LMS): x = x₀ + σ ε, its times doubled where a step has two stages."""
    made = scheduler(kind, **options)
    made.set_timesteps(steps)
    x = start = noise * float(made.sigmas[0])
    for t in made.timesteps:
        made.scale_model_input(x, t)  # it also finds the index
        sigma = float(made.sigmas[made.step_index])
        if kind.startswith("KDPM2") and not made.state_in_first_order:
            sigma = float(made.sigmas_interpol[made.step_index])
        x = made.step(model.at(x, 1.0, sigma).noise, t, x).prev_sample
    return Walk(start, 1.0, float(made.sigmas[0]), x)


def diffusers_dpm(kind: str, options: dict[str, Any], model: Exact, noise: Tensor, steps: int) -> Walk:
    """The DPM-Solver family: variance preserving with σ/α for its sigmas, or (use_flow_sigmas) α = 1 - σ."""
    flow = options.get("use_flow_sigmas", False)
    made = scheduler(kind, prediction_type="flow_prediction" if flow else "sample", **options)
    made.set_timesteps(steps)
    scales = [((1 - s, s) if flow else ((1 + s * s) ** -0.5, s * (1 + s * s) ** -0.5)) for s in made.sigmas.tolist()]
    x = noise
    for i, t in enumerate(made.timesteps):
        estimate = model.at(x, *scales[i])
        x = made.step(estimate.mix(-1.0, 1.0) if flow else estimate.x0, t, x).prev_sample
    return Walk(noise, *scales[0], x)


def diffusers_flow(kind: str, options: dict[str, Any], model: Exact, noise: Tensor, steps: int) -> Walk:
    """FlowMatchEuler and FlowMatchHeun."""
    made = scheduler(kind, **options)
    made.set_timesteps(steps)
    x, first = noise, float(made.sigmas[0])
    for i, t in enumerate(made.timesteps):
        sigma = float(made.sigmas[i])
        x = made.step(model.at(x, 1 - sigma, sigma).mix(-1.0, 1.0), t, x).prev_sample
    return Walk(noise, 1 - first, first, x)


def diffusers() -> Iterator[Solver]:
    """Every deterministic scheduler, at the orders and on the spacings that it offers."""
    spaced = {
        "linspace": {"timestep_spacing": "linspace"},
        "trailing": {"timestep_spacing": "trailing"},
        "karras": {"use_karras_sigmas": True},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
    }
    for spacing in ("leading", "linspace", "trailing"):
        yield Solver("diffusers", f"DDIM, {spacing}", partial(diffusers_ddim, spacing), ("VP",))
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
        lu = {"lu": {"use_lu_lambdas": True}} if kind.startswith("DPM") and kind.endswith("Multistep") else {}
        for name, spacing in {**spaced, **lu}.items():
            if not (kind.endswith("Singlestep") and "timestep_spacing" in spacing and name != "linspace"):
                own = {} if kind.endswith("Singlestep") and name == "linspace" else spacing
                run = partial(diffusers_dpm, kind, {**options, **own})
                yield Solver("diffusers", f"{label}, {name}", run, ("VP",))
        for shift in SHIFTS:
            own = {**options, "use_flow_sigmas": True, "flow_shift": shift}
            run = partial(diffusers_dpm, kind, own)
            name = f"{label}, flow shift {shift:g}"
            yield Solver("diffusers", name, run, ("linear",), tuned=shift not in PRESETS)
    for kind in ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"):
        for shift in SHIFTS:
            run = partial(diffusers_flow, kind, {"shift": shift})
            name = f"{kind.removesuffix('Discrete')}, shift {shift:g}"
            yield Solver("diffusers", name, run, ("linear",), tuned=shift not in PRESETS)


# --- flow_matching


def flow_matching_linear(method: str, model: Exact, noise: Tensor, steps: int) -> Walk:
    """ODESolver on even times; its t = 0 is noise."""
    from flow_matching.solver import ODESolver

    solver = ODESolver(lambda x, t: model.at(x, t, 1 - t).mix(1.0, -1.0))
    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return Walk(noise, 0.0, 1.0, solver.sample(noise, step_size=None, method=method, time_grid=grid))


def flow_matching_vp(method: str, model: Exact, noise: Tensor, steps: int) -> Walk:
    """The VP velocity on the linear path through its ScheduleTransformedModel, which is undefined at both ends."""
    from flow_matching.path.scheduler import CondOTScheduler, ScheduleTransformedModel, VPScheduler
    from flow_matching.solver import ODESolver
    from flow_matching.utils import ModelWrapper

    schedule = VPScheduler()

    class Velocity(ModelWrapper):
        def forward(self, x: Tensor, t: Tensor, **extras: Any) -> Tensor:
            c = schedule(t)
            return model.at(x, c.alpha_t, c.sigma_t).mix(float(c.d_alpha_t), float(c.d_sigma_t))

    last = schedule(torch.zeros((), dtype=torch.float64))
    alpha, sigma = float(last.alpha_t), float(last.sigma_t)
    first, size = alpha / (alpha + sigma), alpha + sigma
    moved = ScheduleTransformedModel(Velocity(None), schedule, CondOTScheduler())
    grid = torch.linspace(first, 1 - 1e-4, steps + 1, dtype=torch.float64)
    end = ODESolver(moved).sample(noise * (sigma / size), step_size=None, method=method, time_grid=grid)
    return Walk(noise * (sigma / size), alpha / size, sigma / size, end)


def flow_matching() -> Iterator[Solver]:
    """The fixed-step methods of torchdiffeq."""
    for method in ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams"):
        yield Solver("flow_matching", method, partial(flow_matching_linear, method), ("linear",))
        name = f"{method}, VP as linear"
        yield Solver("flow_matching", name, partial(flow_matching_vp, method), ("VP",))


# --- azula


def azula_walk(
    sampler: str,
    options: dict[str, Any],
    schedule: str,
    given: dict[str, float],
    model: Exact,
    noise: Tensor,
    steps: int,
) -> Walk:
    """A sampler on the even times of one of its schedules."""
    from azula import noise as schedules, sample as samplers
    from azula.denoise import Denoiser as AzulaDenoiser, DiracPosterior

    made = getattr(schedules, f"{schedule}Schedule")(**given)

    class Wrapped(AzulaDenoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = made

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
            alpha, sigma = made(t)
            return DiracPosterior(mean=model.at(x_t, alpha, sigma).x0)

    solver = getattr(samplers, f"{sampler}Sampler")(Wrapped(), steps=steps, silent=True, dtype=torch.float64, **options)
    alpha, sigma = (float(value) for value in made(torch.ones((), dtype=torch.float64)))
    return Walk(sigma * noise, alpha, sigma, solver(sigma * noise))


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


def small_walk(make: Callable[[Any], Any], flow: bool, gam: float, model: Exact, noise: Tensor, steps: int) -> Walk:
    """`samples` with μ = 0: DDIM at gam 1, its accelerated form at gam 2."""
    library = import_smalldiffusion()

    class Wrapped:
        def eval(self) -> None:
            """Nothing to switch."""

        def rand_input(self, n: int) -> Tensor:
            return torch.zeros_like(noise)

        def predict_eps_cfg(self, x: Tensor, sigma: Tensor, cond: None, scale: float) -> Tensor:
            s = float(sigma)
            return model.at(x, 1 - s, s).mix(-1.0, 1.0) if flow else model.at(x, 1.0, s).noise

    sigmas = make(library).sample_sigmas(steps).double()
    first = float(sigmas[0])
    start = noise * first
    walk = library.samples(Wrapped(), sigmas, gam=gam, xt=start, accelerator=object())
    return Walk(start, 1 - first if flow else 1.0, first, last(walk))


def smalldiffusion() -> Iterator[Solver]:
    """Its schedules with gam from 1 to 2."""
    vp = {
        "DDPM": lambda lib: lib.ScheduleDDPM(),
        "log-linear 0.01": lambda lib: lib.ScheduleLogLinear(1000, 0.01, 157.0),
        "log-linear 0.002": lambda lib: lib.ScheduleLogLinear(1000, 0.002, 80.0),
    }
    for gam in (1.0, 1.5, 2.0):
        for name, make in vp.items():
            yield Solver("smalldiffusion", f"gam {gam:g}, {name}", partial(small_walk, make, False, gam), ("VP",))
        run = partial(small_walk, lambda lib: lib.ScheduleFlow(), True, gam)
        yield Solver("smalldiffusion", f"gam {gam:g}, flow", run, ("linear",), least=2)


@cache
def import_smalldiffusion() -> Any:
    """The package, with a stand-in for torchvision (for images only) where that is absent."""
    with stand_ins("torchvision"):
        import smalldiffusion as library
    return library.diffusion


# --- k-diffusion


def k_walk(
    name: str, spacing: Callable[[Any, int], Tensor], flow: bool, model: Exact, noise: Tensor, steps: int
) -> Walk:
    """x = x₀ + σ ε; or a flow's x = (1 - σ) x₀ + σ ε, for which those that only use (x - x̂₀)/σ hold as well."""
    library = import_k_diffusion()
    sigmas = spacing(library, steps).double()
    first = float(sigmas[0])

    def denoised(x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        s = float(sigma[0])
        return model.at(x, 1 - s if flow else 1.0, s).x0

    start = noise * first
    more = {"eta": 0.0} if name.endswith("ancestral") else {}
    end = getattr(library, f"sample_{name}")(denoised, start, sigmas, disable=True, **more)
    return Walk(start, 1 - first if flow else 1.0, first, end)


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
            run = partial(k_walk, name, partial(shifted, shift), True)
            yield Solver("k-diffusion", f"{name}, flow shift {shift:g}", run, ("linear",), tuned=shift not in PRESETS)


def shifted(shift: float, library: Any, n: int) -> Tensor:
    """k u / (1 + (k - 1) u)."""
    u = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    return shift * u / (1 + (shift - 1) * u)


@cache
def import_k_diffusion() -> Any:
    """Its sampling.py alone: the rest imports torchvision and image models."""
    found = importlib.util.find_spec("k_diffusion")
    assert found is not None
    assert found.submodule_search_locations is not None
    where = Path(found.submodule_search_locations[0]) / "sampling.py"
    package = types.ModuleType("k_diffusion_alone")
    package.__path__ = []
    utils = types.ModuleType("k_diffusion_alone.utils")
    utils.append_dims = lambda x, dims: x[(..., *(None,) * (dims - x.ndim))]
    sys.modules |= {"k_diffusion_alone": package, "k_diffusion_alone.utils": utils}
    package.utils = utils
    spec = importlib.util.spec_from_file_location("k_diffusion_alone.sampling", where)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with stand_ins("torchsde"):
        spec.loader.exec_module(module)
    return module


class stand_ins:
    """Modules that are imported and not used, replaced where absent while a library is imported."""

    def __init__(self, *names: str) -> None:
        self.names = [name for name in names if importlib.util.find_spec(name) is None]

    def __enter__(self) -> None:
        sys.modules |= {name: MagicMock() for name in self.names}

    def __exit__(self, *error: object) -> None:
        for name in self.names:
            del sys.modules[name]


LIBRARIES: dict[str, Callable[[], Iterable[Solver]]] = {
    "diffusers": diffusers,
    "flow_matching": flow_matching,
    "azula": azula,
    "smalldiffusion": smalldiffusion,
    "k-diffusion": k_diffusion,
}


# --- accuracy


def reference(problem: str, walk: Walk, steps: int = 1000) -> Tensor:
    """Where the ODE takes that start: RK4 on the linear path, into which x/(α + σ) takes every path."""
    size = walk.alpha + walk.sigma
    tau = walk.sigma / size
    times = tau * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps) ** 1.5
    return last(SAMPLERS["rk4"](exact(problem, "linear"), walk.start / size, times, clock="flow"))


class References:
    """One reference for each place that anyone starts from, for one noise."""

    def __init__(self, problem: str, steps: int) -> None:
        self.problem, self.steps, self.known = problem, steps, {}

    def __call__(self, walk: Walk) -> Tensor:
        size = walk.alpha + walk.sigma
        key = (round(walk.sigma / size, 10), round(float(walk.start[0, 0]) / size, 9))
        if key not in self.known:
            self.known[key] = reference(self.problem, walk, self.steps)
        return self.known[key]


@dataclass(frozen=True)
class Errors:
    """Over all starts: the root mean square and the median distance to the truth, per √coordinate."""

    rms: float
    median: float

    @classmethod
    def of(cls, end: Tensor, truth: Tensor) -> "Errors":
        if not bool(end.isfinite().all()):
            return cls(math.inf, math.inf)
        squares = (end - truth).square().mean(1)
        return cls(float(squares.mean().sqrt()), float(squares.sqrt().median()))


def steps_within(solver: Solver, model: Exact, evaluations: int) -> int:
    """The number of steps that, going by 7 and 9 of them, calls the network at most so often."""
    if solver.fixed is not None:
        return solver.fixed
    few, more = cost(solver, model.dim, 7), cost(solver, model.dim, 9)
    rate = (more - few) / 2
    return int((evaluations - few) / rate + 7 + 1e-9)


@cache
def cost(solver: Solver, dim: int, steps: int) -> int:
    """How often so many steps call the network."""
    model = exact(next(name for name in PROBLEMS if PROBLEMS[name]()[0].shape[1] == dim), solver.paths[0])
    solver.run(model, torch.zeros(1, dim, dtype=torch.float64), steps)
    return model.calls


def errors(solver: Solver, model: Exact, noise: Tensor, references: References, evaluations: int) -> Errors | None:
    """One walk of as many steps as fit; None where the solver can't be set to so few evaluations."""
    for steps in range(steps_within(solver, model, evaluations), solver.least - 1, -1):
        model.calls = 0
        try:
            walk = solver.run(model, noise, steps)
        except (ValueError, IndexError, RuntimeError, AssertionError, InputError, ZeroDivisionError):
            continue
        if model.calls <= evaluations:
            return Errors.of(walk.end, references(walk))
    return None


@dataclass
class Panel:
    """One problem on one path: by library and count, the best row for each measure; ours is one row for both."""

    problem: str
    path: str
    best: dict[str, dict[int, dict[str, tuple[float, str]]]] = field(default_factory=dict)

    def add(self, library: str, count: int, name: str, found: Errors) -> None:
        """Keep what is best."""
        kept = self.best.setdefault(library, {}).setdefault(count, {})
        for measure, value in asdict(found).items():
            if measure not in kept or value < kept[measure][0]:
                kept[measure] = (value, name)

    def peer(self, count: int, measure: str, tuned: bool = True) -> tuple[float, str]:
        """The best error of any peer and its row, with or without those whose grid option is no default."""
        rows = [
            (*kept[count][measure],)
            for library, kept in self.best.items()
            if library != OURS and count in kept and (tuned or not library.endswith(TUNED))
        ]
        return min(rows)


def measure_peers(
    panel: Panel, libraries: Sequence[str], counts: Sequence[int], noise: Tensor, refs: References
) -> None:
    """Every row of every peer at every count."""
    model = exact(panel.problem, panel.path)
    for library in libraries:
        rows = [solver for solver in LIBRARIES[library]() if panel.path in solver.paths]
        for solver, count in product(rows, counts):
            if found := errors(solver, model, noise, refs, count):
                panel.add(library + TUNED * solver.tuned, count, f"{library} {solver.name}", found)


# --- our choice


def candidates(count: int) -> list[str]:
    """Samplers worth a try at a count: multistep methods, and Runge-Kutta where it can take a few steps."""
    orders = (2, 3, 4) if count < 50 else (3, 4)
    made = [
        f"exponential:order={order},form={form},clock={clock},corrector={corrector}"
        for order, form, clock, corrector in product(
            orders, ("x0", "noise"), ("flow", "log_snr", "ratio"), ("true", "false")
        )
    ]
    made += [
        f"exponential:order={order},form={form},clock={clock},corrector=true,start=runge_kutta"
        for order, form, clock in product((3, 4), ("x0", "noise"), ("flow", "log_snr"))
        if count >= 10
    ]
    made += ["midpoint:clock=flow"] * (count <= 10) + ["unipc:order=2", "unipc:order=3"] * (count < 50)
    return made + ["rk4:clock=flow"] * (count >= 10)


@cache
def steps_of_ours(sampler: str, evaluations: int) -> int:
    """Steps within a number of evaluations, which no grid changes."""
    return steps_within(ours(sampler, "uniform"), exact("four corners", "linear"), evaluations)


def choose(problem: str, count: int, noise: Tensor, references: References, keep: int = 5) -> list[tuple[str, str]]:
    """A few (sampler, grid) of least rms³ × median: all candidates on a few grids, then the best ones' grids refined.

    On the linear path, whose clock σ/(α + σ) every path has. Up to FREE evaluations the times are moved last.
    """
    model = exact(problem, "linear")

    def score(sampler: str, exponent: float, shift: float, n: int) -> float:
        try:
            walk = ours(sampler, flow_power(exponent, shift)).run(model, noise[:n], steps_of_ours(sampler, count))
        except InputError:
            return math.inf
        found = Errors.of(walk.end, references(walk_from(noise))[:n])
        return found.rms**3 * found.median

    grids = product((1.2, 1.8), (0.3, 0.6, 1.2))
    few = max(len(noise) // 3, 1)
    first = {(name, *grid): score(name, *grid, few) for name, grid in product(candidates(count), grids)}
    kept = {row[0]: row for row in sorted(first, key=first.__getitem__, reverse=True)}  # each sampler's best grid
    refined = []
    for name, exponent, shift in sorted(kept.values(), key=first.__getitem__)[:keep]:
        best = (score(name, exponent, shift, len(noise)), exponent, shift)
        for size in (1.3, 1.13, 1.06):
            before = math.inf
            while best[0] < before:
                before, (_, e, s) = best[0], best
                moves = ((size, 1), (1 / size, 1), (1, size), (1, 1 / size), (size, size), (1 / size, 1 / size))
                best = min(best, *((score(name, e * a, s * b, len(noise)), e * a, s * b) for a, b in moves))
        refined.append((best[0], name, flow_power(*best[1:])))
    if count <= FREE:
        truth = references(walk_from(noise))
        refined += [polish(model, name, grid, count, noise, truth) for _, name, grid in refined]
    return [row[1:] for row in sorted(refined)]


def polish(model: Exact, sampler: str, grid: str, count: int, noise: Tensor, truth: Tensor) -> tuple[float, str, str]:
    """(score, sampler, times): each time of the grid moved by itself, by Powell's method on log gaps."""
    first = grid_times(grid, steps_of_ours(sampler, count), model.path).numpy()

    def spelled(logs: np.ndarray) -> str:
        gaps = np.exp(logs - logs.max())
        inner = 1 - np.cumsum(gaps)[:-1] / gaps.sum()
        return ",".join(["1", *(f"{t:.5f}" for t in inner), "0"])

    def score(logs: np.ndarray) -> float:
        try:
            found = Errors.of(ours(sampler, spelled(logs)).run(model, noise, len(logs)).end, truth)
        except InputError:  # gaps too small to spell
            return math.inf
        return math.log(found.rms**3 * found.median) if math.isfinite(found.rms) else math.inf

    start = np.log(-np.diff(first))
    options = {"maxfev": 40 * len(start), "xtol": 0.02, "ftol": 1e-4}
    made = scipy.optimize.minimize(score, start, method="Powell", options=options)
    return math.exp(made.fun), sampler, spelled(made.x)


def walk_from(noise: Tensor) -> Walk:
    """The start of the linear path."""
    return Walk(noise, 0.0, 1.0, noise)


def flow_power(exponent: float, shift: float) -> str:
    """The grid's spec."""
    return f"flow_power:exponent={exponent:.3g},shift={shift:.3g}"


def starts(problem: str, n: int, seed: int) -> Tensor:
    """Standard normal noise."""
    dim = PROBLEMS[problem]()[0].shape[1]
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Choices = dict[str, dict[int, tuple[str, str]]]  # "problem, path" → count → (sampler, grid)


def tuned(plan: "Plan", bar: tqdm) -> Choices:
    """Our choice for each problem, path and count: candidates and judges see noise that nothing is reported on."""
    made: Choices = {}
    for problem in plan.problems:
        noise, references = starts(problem, plan.tuning, seed=99), References(problem, plan.reference)
        for count in plan.counts:
            bar.set_postfix_str(f"{problem}, {count} evaluations")
            rows = choose(problem, count, noise, references)
            for path in plan.paths:
                made.setdefault(f"{problem}, {path}", {})[count] = elect(problem, path, count, rows, plan)
            bar.update()
    return made


def elect(problem: str, path: str, count: int, rows: Sequence[tuple[str, str]], plan: "Plan") -> tuple[str, str]:
    """The row that is best on a path over four times as many fresh starts, so that none wins by luck."""
    model, noise = exact(problem, path), starts(problem, 4 * plan.tuning, seed=98)
    references = References(problem, plan.reference)

    def score(row: tuple[str, str]) -> float:
        found = errors(ours(*row), model, noise, references, count)
        return found.rms**3 * found.median if found else math.inf

    return min(rows, key=score)


# --- overhead


class Identity(torch.nn.Module):
    """A network that costs nothing."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


METHODS = {  # ours, and the same in diffusers
    "DDIM": ("ddim", "DDIM", {"clip_sample": False, "timestep_spacing": "trailing"}),
    "DPM++2M": ("dpmpp_2m", "DPMSolverMultistep", {"solver_order": 2, "timestep_spacing": "trailing"}),
    "LMS": ("lms", "LMSDiscrete", {"timestep_spacing": "trailing"}),
}
SHAPES = ((1, 2), (1024, 2), (4, 3, 64, 64))


@dataclass(frozen=True)
class Overhead:
    """Microseconds per step, each the least of several repeats."""

    method: str
    shape: tuple[int, ...]
    ours: float
    diffusers: float


def overhead(method: str, shape: tuple[int, ...], steps: int = 50, repeats: int = 9) -> Overhead:
    """Ours: the whole walk, with its plan and the Denoiser. diffusers: scale_model_input and step alone, in turns."""
    own, kind, options = METHODS[method]
    denoiser, draws = Denoiser(Identity(), DDPM(), "noise"), Draws.first(shape[0], 0)
    network, made, start = Identity(), scheduler(kind, **options), torch.randn(shape)

    def walk() -> float:
        before = time.perf_counter()
        for _ in trajectory(denoiser, shape[1:], draws=draws, steps=steps, sampler=own, grid="trailing", start=start):
            pass
        return time.perf_counter() - before

    @torch.no_grad()
    def theirs() -> float:
        made.set_timesteps(steps)
        x = start
        before = time.perf_counter()
        for t in made.timesteps:
            x = made.step(network(made.scale_model_input(x, t), t), t, x).prev_sample
        return time.perf_counter() - before

    turns = [(walk(), theirs()) for _ in range(repeats)]
    return Overhead(method, shape, *(min(column) / steps * 1e6 for column in zip(*turns, strict=True)))


# --- the whole


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    problems: tuple[str, ...] = tuple(PROBLEMS)
    paths: tuple[str, ...] = tuple(PATHS)
    libraries: tuple[str, ...] = PEERS
    counts: tuple[int, ...] = COUNTS
    starts: int = 512
    tuning: int = 1024  # starts that ours is chosen on
    reference: int = 400  # RK4 steps
    repeats: int = 9


@dataclass
class Results:
    """What `measure` found."""

    plan: Plan
    choices: Choices
    panels: list[Panel]
    overheads: list[Overhead]


def measure(plan: Plan, choices: Choices | None = None) -> Results:
    """Choose ours unless told, then walk everyone from the same noise, then time the steps."""
    shapes = list(product(METHODS, SHAPES)) if "diffusers" in plan.libraries else []
    cells = len(plan.problems) * len(plan.paths) * (1 + len(plan.libraries)) + len(shapes)
    with tqdm(total=cells + len(plan.problems) * len(plan.counts) * (choices is None), dynamic_ncols=True) as bar:
        choices = choices or tuned(plan, bar)
        panels = []
        for problem in plan.problems:
            noise = starts(problem, plan.starts, seed=1)
            for path in plan.paths:
                panel, references = Panel(problem, path), References(problem, plan.reference)
                for count in plan.counts:
                    sampler, grid = choices[f"{problem}, {path}"][count]
                    if found := errors(ours(sampler, grid), exact(problem, path), noise, references, count):
                        panel.add(OURS, count, f"{sampler} on {grid}", found)
                bar.update()
                for library in plan.libraries:
                    bar.set_postfix_str(f"{problem}, {path}, {library}")
                    measure_peers(panel, [library], plan.counts, noise, references)
                    bar.update()
                panels.append(panel)
        overheads = []
        for method, shape in shapes:
            overheads.append(overhead(method, shape, repeats=plan.repeats))
            bar.update()
    return Results(plan, choices, panels, overheads)


def report(results: Results, command: str) -> str:
    """The section of RESULTS.md."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("ebbflow", *results.plan.libraries))
    lines = [
        "# Samplers: error per evaluation, and overhead",
        "",
        f"`{command}` on {datetime.date.today()}: {cpu_name()}, one thread, Python {platform.python_version()}, "
        f"torch {importlib.metadata.version('torch').partition('+')[0]}; {versions}.",
        "",
        f"Exact denoisers in float64, {results.plan.starts} starts, the same noise for all; each end point against a "
        "fine solution of the ODE from where that solver started. Network evaluations are counted. Ours: one sampler "
        "and grid for each problem, path and count, chosen on other noise. The peers: for each cell "
        "the best of all their rows, chosen on the noise that is judged; *presets* leaves out flow shifts other than 1 "
        "and 3. × is the peer's error over ours, so below 1 the peer is better. README.md says how the stored choices "
        "were found.",
    ]
    for panel in results.panels:
        lines += [
            "",
            f"## {panel.problem}, {panel.path}",
            "",
            "| evaluations | measure | ours | presets | × | best peer | × | which peer |",
            "|--:|---|--:|--:|--:|--:|--:|---|",
        ]
        for count, measure in product(results.plan.counts, ("rms", "median")):
            if count in panel.best.get(OURS, {}):
                own = panel.best[OURS][count][measure][0]
                preset, best = (
                    panel.peer(count, measure, kind) if results.plan.libraries else None for kind in (False, True)
                )
                cells = [f"{p[0]:.1e} | {p[0] / own:.1f}" if p else " | " for p in (preset, best)]
                lines.append(
                    f"| {count} | {measure} | {own:.1e} | {cells[0]} | {cells[1]} | {best[1] if best else ''} |"
                )
    lines += ["", "## Our choices", "", "| problem | evaluations | sampler | grid |", "|---|--:|---|---|"]
    for problem, row in results.choices.items():
        lines += [f"| {problem} | {count} | `{sampler}` | `{grid}` |" for count, (sampler, grid) in row.items()]
    if results.overheads:
        lines += [
            "",
            "## Overhead of a step",
            "",
            "A network that returns its input, 50 steps, best of several repeats in turns. Ours is the whole walk with "
            "its plan and the Denoiser; diffusers' is `scale_model_input` and `step` alone.",
            "",
            "| method | shape | ours, µs | diffusers, µs | ours / diffusers |",
            "|---|---|--:|--:|--:|",
        ]
        for o in results.overheads:
            shape = " × ".join(map(str, o.shape))
            lines.append(f"| {o.method} | {shape} | {o.ours:.1f} | {o.diffusers:.1f} | {o.ours / o.diffusers:.2f} |")
    return "\n".join(lines) + "\n"


def between_markers(text: str, section: str) -> str:
    """The text with the section between its markers replaced, or added at the end."""
    before, found, rest = text.partition(BEGIN)
    after = rest.partition(END)[2].lstrip() if found else ""
    tail = f"\n{after}" if after else ""
    return f"{before.rstrip()}\n\n{BEGIN}\n\n{section.strip()}\n\n{END}\n{tail}"


def picture(results: Results, where: Path) -> None:
    """Error over evaluations: a panel for each problem and path."""
    import matplotlib.pyplot as plt

    problems, paths = results.plan.problems, results.plan.paths
    figure, grid = plt.subplots(
        len(paths), len(problems), figsize=(4 * len(problems), 3.4 * len(paths)), sharex=True, squeeze=False
    )
    colors = dict(zip((OURS, *PEERS), ("black", *plt.get_cmap("tab10").colors), strict=False))
    for panel in results.panels:
        axes = grid[paths.index(panel.path)][problems.index(panel.problem)]
        for library, color in colors.items():
            curve: dict[int, float] = {}
            for name in (library, library + TUNED):
                for count, kept in panel.best.get(name, {}).items():
                    curve[count] = min(curve.get(count, math.inf), kept["rms"][0])
            if curve:
                thick = 2.5 if library == OURS else 1.3
                axes.loglog(*zip(*sorted(curve.items()), strict=True), "o-", color=color, lw=thick, ms=4, label=library)
        axes.set_title(f"{panel.problem}, {panel.path}", fontsize=11)
        axes.set_xticks(results.plan.counts, [str(count) for count in results.plan.counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("network evaluations")
    for axes in grid[:, 0]:
        axes.set_ylabel("RMS error")
    known = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=len(known), frameon=False)
    figure.set_layout_engine("constrained")
    where.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(where, dpi=110)
    plt.close(figure)


def cpu_name() -> str:
    """The processor's model, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def missing(libraries: Sequence[str]) -> list[str]:
    """Peers that are not installed."""
    return [name for name in libraries if importlib.util.find_spec(name.replace("-", "_")) is None]


def stored_choices(where: Path) -> Choices:
    """Our choices of an earlier run."""
    found = json.loads(where.read_text())["choices"]
    return {p: {int(count): (row[0], row[1]) for count, row in rows.items()} for p, rows in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and (unless --quick) write RESULTS.md, samplers.json and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one problem, three counts, fewer starts; print only")
    parser.add_argument("--choices", type=Path, help="take our choices from this samplers.json instead of searching")
    parser.add_argument("--only", nargs="+", choices=[OURS, *PEERS], help="these libraries only; print only")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md, samplers.json and samplers.png")
    args = parser.parse_args(argv)
    libraries = tuple(name for name in PEERS if not args.only or name in args.only)
    if absent := missing(libraries):
        raise InputError(
            f"Not installed: {', '.join(absent)}. `make bench-samplers` installs them; see benchmarks/README.md."
        )
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    plan = Plan(libraries=libraries)
    if args.quick:
        plan = replace(plan, problems=("four corners",), counts=(5, 10, 20), starts=256, tuning=256)
        plan = replace(plan, reference=200, repeats=3)
    results = measure(plan, stored_choices(args.choices) if args.choices else None)
    command = " ".join(["python -m benchmarks.samplers", *(sys.argv[1:] if argv is None else argv)])
    text = report(results, command)
    if args.out or not (args.quick or args.only):
        write(results, text, args.out or HERE, (args.out or HERE.parent / "docs/pictures") / "samplers.png")
    print(text)


def write(results: Results, text: str, out: Path, image: Path) -> None:
    """RESULTS.md (between the markers), samplers.json and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / "RESULTS.md"
    table.write_text(between_markers(table.read_text() if table.exists() else "", text))
    (out / "samplers.json").write_text(json.dumps(asdict(results), indent=1) + "\n")
    picture(results, image)


if __name__ == "__main__":
    try:
        main()
    except EbbflowError as error:
        sys.exit(f"benchmarks.samplers: {error}")
