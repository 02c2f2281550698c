"""Who solves it: ebbtide's samplers, and each solver of five other libraries."""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

from ebbtide.core.times import grid_times
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
class Walk:
    """Where a solver started, x = α x₀ + σ ε with (α, σ), and where it ended, at σ = 0."""

    start: Tensor
    alpha: float
    sigma: float
    end: Tensor


@dataclass(frozen=True)
class Solver:
    """A row: a library's solver on one of its grids. run(flow, noise, steps) → Walk."""

    library: str
    name: str
    run: Callable[[Flow, Tensor, int], Walk]
    paths: tuple[str, ...] = tuple(PATHS)
    least: int = 1  # steps
    fixed: int | None = None  # steps, where the grid is a list of times

    @property
    def label(self) -> str:
        """Library and name."""
        return f"{self.library} {self.name}"


def last(walk: Iterable[Tensor]) -> Tensor:
    """Where a walk ends."""
    *_, end = walk
    return end


# --- ours


def ours(sampler: str, grid: str) -> Solver:
    """A sampler's spec, and a grid's or a list of times."""

    def run(model: Flow, noise: Tensor, steps: int) -> Walk:
        times = grid_times(grid, steps, model.path)
        first = model.path.along(times[:1])[0]
        start = model.path.prior(noise)
        return Walk(start, first.alpha, first.sigma, last(walk(sampler, model, start, times)))

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


def scheduler(kind: str, **options: Any) -> Any:
    """A diffusers scheduler on the linear betas, which are those of our VP path."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    if not kind.startswith("FlowMatch"):
        options = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, **options}
    return getattr(diffusers, f"{kind}Scheduler")(**options)


def diffusers_ddim(spacing: str, model: Flow, noise: Tensor, steps: int) -> Walk:
    """DDIM knows integer times; each is fed the scales that it stands for."""
    made = scheduler("DDIM", clip_sample=False, prediction_type="sample", timestep_spacing=spacing)
    made.set_timesteps(steps)
    bars = made.alphas_cumprod.double()
    x, first = noise, float(bars[made.timesteps[0]])
    for t in made.timesteps:
        bar = float(bars[t])
        x = made.step(model.at(x, bar**0.5, (1 - bar) ** 0.5).x0, t, x).prev_sample
    return Walk(noise, first**0.5, (1 - first) ** 0.5, x)


def diffusers_ve(kind: str, options: dict[str, Any], model: Flow, noise: Tensor, steps: int) -> Walk:
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


def diffusers_dpm(kind: str, options: dict[str, Any], model: Flow, noise: Tensor, steps: int) -> Walk:
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


def diffusers_flow(kind: str, options: dict[str, Any], model: Flow, noise: Tensor, steps: int) -> Walk:
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
            yield Solver("diffusers", name, run, ("linear",))
    for kind in ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"):
        for shift in SHIFTS:
            run = partial(diffusers_flow, kind, {"shift": shift})
            name = f"{kind.removesuffix('Discrete')}, shift {shift:g}"
            yield Solver("diffusers", name, run, ("linear",))


# --- flow_matching


def flow_matching_linear(method: str, model: Flow, noise: Tensor, steps: int) -> Walk:
    """ODESolver on even times; its t = 0 is noise."""
    from flow_matching.solver import ODESolver

    solver = ODESolver(lambda x, t: model.at(x, t, 1 - t).mix(1.0, -1.0))
    grid = torch.linspace(0, 1, steps + 1, dtype=noise.dtype)
    return Walk(noise, 0.0, 1.0, solver.sample(noise, step_size=None, method=method, time_grid=grid))


def flow_matching_vp(method: str, model: Flow, noise: Tensor, steps: int) -> Walk:
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
    grid = torch.linspace(first, 1 - 1e-4, steps + 1, dtype=noise.dtype)
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
    model: Flow,
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

    solver = getattr(samplers, f"{sampler}Sampler")(Wrapped(), steps=steps, silent=True, dtype=noise.dtype, **options)
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


def small_walk(make: Callable[[Any], Any], flow: bool, gam: float, model: Flow, noise: Tensor, steps: int) -> Walk:
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
        "log-linear 0.005": lambda lib: lib.ScheduleLogLinear(200, 0.005, 10.0),
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
    name: str, spacing: Callable[[Any, int], Tensor], flow: bool, model: Flow, noise: Tensor, steps: int
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
            yield Solver("k-diffusion", f"{name}, flow shift {shift:g}", run, ("linear",))


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
