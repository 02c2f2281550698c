"""Solvers of five other libraries as functions (exact denoiser, noise, steps) → where they started and ended.

Each library's own code takes the steps, on its own times; it is told exact estimates in the terms that it asks in.
"""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from unittest.mock import MagicMock

import torch
from torch import Tensor

from ..core.targets import Estimate

__all__ = [
    "ExactEstimates", "SolverWalk", "azula_walk", "diffusers_ddim", "diffusers_dpm", "diffusers_flow", "diffusers_ve",
    "flow_matching_linear", "flow_matching_vp", "import_k_diffusion", "import_smalldiffusion", "k_walk", "last_of",
    "scheduler", "shifted_sigmas", "small_walk",
]  # fmt: skip


@dataclass(frozen=True)
class SolverWalk:
    """The start of a solver's walk, x = α x₀ + σ ε with (α, σ), and its end, at σ = 0."""

    start: Tensor
    alpha: float
    sigma: float
    end: Tensor


@runtime_checkable
class ExactEstimates(Protocol):
    """An exact denoiser, asked at any scales: x = α x₀ + σ ε."""

    def at(self, x: Tensor, alpha: Any, sigma: Any) -> Estimate:
        """x̂₀ and ε̂ of x."""
        ...


def last_of(walk: Iterable[Tensor]) -> Tensor:
    """The end of a walk."""
    *_, end = walk
    return end


# --- diffusers


def scheduler(kind: str, **options: Any) -> Any:
    """A diffusers scheduler on the linear betas, which are those of our VP path."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    if not kind.startswith("FlowMatch"):
        options = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, **options}
    return getattr(diffusers, f"{kind}Scheduler")(**options)


def diffusers_ddim(
    spacing: str, options: dict[str, Any], model: ExactEstimates, noise: Tensor, steps: int
) -> SolverWalk:
    """DDIM knows integer times; each is fed the scales that it stands for.

    spacing: of its timesteps, such as trailing.
    """
    made = scheduler("DDIM", clip_sample=False, prediction_type="sample", timestep_spacing=spacing, **options)
    made.set_timesteps(steps)
    bars = made.alphas_cumprod.double()
    x, first = noise, float(bars[made.timesteps[0]])
    for t in made.timesteps:
        bar = float(bars[t])
        x = made.step(model.at(x, bar**0.5, (1 - bar) ** 0.5).x0, t, x).prev_sample
    return SolverWalk(noise, first**0.5, (1 - first) ** 0.5, x)


def diffusers_ve(kind: str, options: dict[str, Any], model: ExactEstimates, noise: Tensor, steps: int) -> SolverWalk:
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
    return SolverWalk(start, 1.0, float(made.sigmas[0]), x)


def diffusers_dpm(kind: str, options: dict[str, Any], model: ExactEstimates, noise: Tensor, steps: int) -> SolverWalk:
    """The DPM-Solver family: variance preserving with σ/α for its sigmas, or (use_flow_sigmas) α = 1 - σ."""
    flow = options.get("use_flow_sigmas", False)
    made = scheduler(kind, prediction_type="flow_prediction" if flow else "sample", **options)
    made.set_timesteps(steps)
    scales = [((1 - s, s) if flow else ((1 + s * s) ** -0.5, s * (1 + s * s) ** -0.5)) for s in made.sigmas.tolist()]
    x = noise
    for i, t in enumerate(made.timesteps):
        estimate = model.at(x, *scales[i])
        x = made.step(estimate.mix(-1.0, 1.0) if flow else estimate.x0, t, x).prev_sample
    return SolverWalk(noise, *scales[0], x)


def diffusers_flow(kind: str, options: dict[str, Any], model: ExactEstimates, noise: Tensor, steps: int) -> SolverWalk:
    """FlowMatchEuler and FlowMatchHeun."""
    made = scheduler(kind, **options)
    made.set_timesteps(steps)
    x, first = noise, float(made.sigmas[0])
    for i, t in enumerate(made.timesteps):
        sigma = float(made.sigmas[i])
        x = made.step(model.at(x, 1 - sigma, sigma).mix(-1.0, 1.0), t, x).prev_sample
    return SolverWalk(noise, 1 - first, first, x)


# --- flow_matching


def flow_matching_linear(method: str, model: ExactEstimates, noise: Tensor, steps: int) -> SolverWalk:
    """ODESolver on even times; its t = 0 is noise. method: torchdiffeq's."""
    from flow_matching.solver import ODESolver

    solver = ODESolver(lambda x, t: model.at(x, t, 1 - t).mix(1.0, -1.0))
    grid = torch.linspace(0, 1, steps + 1, dtype=noise.dtype)
    return SolverWalk(noise, 0.0, 1.0, solver.sample(noise, step_size=None, method=method, time_grid=grid))


def flow_matching_vp(method: str, model: ExactEstimates, noise: Tensor, steps: int) -> SolverWalk:
    """The VP velocity on the linear path through its ScheduleTransformedModel, which is undefined at both ends.

    method: torchdiffeq's.
    """
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
    return SolverWalk(noise * (sigma / size), alpha / size, sigma / size, end)


# --- azula


def azula_walk(
    sampler: str,
    options: dict[str, Any],
    schedule: str,
    given: dict[str, float],
    model: ExactEstimates,
    noise: Tensor,
    steps: int,
) -> SolverWalk:
    """A sampler on the even times of one of its schedules. schedule: its class. given: the schedule's options."""
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
    return SolverWalk(sigma * noise, alpha, sigma, solver(sigma * noise))


# --- smalldiffusion


def small_walk(
    make: Callable[[Any], Any], flow: bool, gam: float, model: ExactEstimates, noise: Tensor, steps: int
) -> SolverWalk:
    """`samples` with μ = 0: DDIM at gam 1, its accelerated form at gam 2.

    make: smalldiffusion → its schedule. flow: true for a flow's.
    """
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
    return SolverWalk(start, 1 - first if flow else 1.0, first, last_of(walk))


@cache
def import_smalldiffusion() -> Any:
    """The package, with a stand-in for torchvision (for images only) where that is absent."""
    with stand_ins("torchvision"):
        import smalldiffusion as library
    return library.diffusion


# --- k-diffusion


def k_walk(
    name: str, spacing: Callable[[Any, int], Tensor], flow: bool, model: ExactEstimates, noise: Tensor, steps: int
) -> SolverWalk:
    """x = x₀ + σ ε; or a flow's x = (1 - σ) x₀ + σ ε, for which those that only use (x - x̂₀)/σ hold as well.

    name: the sampler's, without sample_. spacing: (k_diffusion, steps) → σ.
    """
    library = import_k_diffusion()
    sigmas = spacing(library, steps).double()
    first = float(sigmas[0])

    def denoised(x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        s = float(sigma[0])
        return model.at(x, 1 - s if flow else 1.0, s).x0

    start = noise * first
    more = {"eta": 0.0} if name.endswith("ancestral") else {}
    end = getattr(library, f"sample_{name}")(denoised, start, sigmas, disable=True, **more)
    return SolverWalk(start, 1 - first if flow else 1.0, first, end)


def shifted_sigmas(shift: float, library: Any, n: int) -> Tensor:
    """k u / (1 + (k - 1) u). shift: k. library: not needed."""
    u = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    return shift * u / (1 + (shift - 1) * u)


@cache
def import_k_diffusion() -> Any:
    """Its sampling.py alone: the rest imports torchvision and image models."""
    found = importlib.util.find_spec("k_diffusion")
    assert found is not None
    assert found.submodule_search_locations is not None
    where = Path(found.submodule_search_locations[0]) / "sampling.py"
    package: Any = types.ModuleType("k_diffusion_alone")
    package.__path__ = []
    utils: Any = types.ModuleType("k_diffusion_alone.utils")
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
