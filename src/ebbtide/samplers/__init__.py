"""Samplers walk x from t = 1 to t = 0: sampler(denoiser, x, times, *, draws=…, **cond) yields x after every step.

Each is a generator function without state, so plots, previews and progress bars just iterate; `sample` runs one to
its end. The spacing of `times` (see times.GRIDS) is no business of a sampler.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws
from ..core.times import grid_times
from ..errors import InputError
from ..specs import bind
from .adaptive import dopri5
from .bespoke import bespoke
from .ddim import ddim, ddpm
from .dpm_solver import dpmpp_2m, dpmpp_2s, exponential_sde
from .edm import edm, restart
from .exponential import exponential
from .ode import euler, heun, midpoint, rk4, slope
from .sde import euler_maruyama, predictor_corrector
from .unipc import unipc

__all__ = ["SAMPLERS", "ddim", "ddpm", "euler", "heun", "sample", "slope", "trajectory"]

SAMPLERS: dict[str, Callable[..., Iterator[Tensor]]] = {
    # the probability-flow ODE
    "euler": euler,
    "heun": heun,
    "midpoint": midpoint,
    "rk4": rk4,
    "dopri5": dopri5,
    "ddim": ddim,
    "edm": edm,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2s": dpmpp_2s,
    "dpmpp_3m": partial(exponential, order=3, clock="log_snr"),
    "unipc": unipc,
    "deis": partial(exponential, order=3, form="noise", clock="log_snr"),
    "lms": partial(exponential, order=4, form="noise", clock="ratio"),
    "exponential": exponential,
    "bespoke": bespoke,
    # the reverse SDE
    "ddpm": ddpm,
    "dpmpp_2m_sde": partial(dpmpp_2m, eta=1.0),
    "exponential_sde": exponential_sde,
    "euler_maruyama": euler_maruyama,
    "predictor_corrector": predictor_corrector,
    "restart": restart,
}


def trajectory(
    denoiser: DenoiserLike,
    shape: tuple[int, ...],
    *,
    draws: Draws,
    steps: int = 50,
    sampler: str = "heun",
    grid: str | Sequence[float] = "uniform",
    start: Tensor | None = None,
    **cond: Any,
) -> Iterator[tuple[float, Tensor]]:
    """(t, x_t) from t = 1 to t = 0, both included: one sample of `shape` for each id of `draws`.

    grid: a row of GRIDS, or the times themselves, which then also say how many steps there are.

    start: x at t = 1; drawn from the path's prior unless given. Between two sample sets it must be given.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1; got {steps}.")
    walk = bind(SAMPLERS, sampler, "sampler")
    times = grid_times(grid, steps, denoiser.path)
    if start is None and not denoiser.gaussian_end:
        raise InputError("Between two sample sets, sampling starts from points of the second: give them as start.")
    if start is None:
        start = denoiser.path.prior(draws(-1, torch.empty(len(draws.ids), *shape, device=draws.ids.device)))
    yield float(times[0]), start
    yield from zip(times[1:].tolist(), _no_grad(walk(denoiser, start, times, draws=draws, **cond)), strict=True)


def sample(denoiser: DenoiserLike, shape: tuple[int, ...], **options: Any) -> Tensor:
    """The end of a trajectory: one sample of `shape` for each id of `draws`; options as in `trajectory`."""
    *_, (_, x) = trajectory(denoiser, shape, **options)
    return x


def _no_grad(walk: Iterator[Tensor]) -> Iterator[Tensor]:
    """A walk whose steps are taken without gradients, while whoever consumes it keeps their own mode.

    (`with torch.no_grad()` around a yield leaks into the consumer, and as a decorator it is silently without effect
    when another decorator hides that the function is a generator.)
    """
    off = torch.no_grad()
    while True:
        with off:
            x = next(walk, None)
        if x is None:
            return
        yield x
