"""Samplers walk x from t = 1 to t = 0: sampler(walk) yields x after every step of a `Walk`.

Each is a generator function without state, so plots, previews and progress bars just iterate; `sample` runs one to
its end. The spacing of a walk's grid (see times.GRIDS) is no business of a sampler. A new one is a function and a row
of SAMPLERS.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.guidance import Recomputed
from ..core.paths import Batch
from ..core.randomness import Draws
from ..core.times import GridTimes, grid_times
from ..errors import InputError
from ..specs import Own, bind, calling, expect, parse, pick, require, shaped
from .bespoke import bespoke
from .beyond.dopri5 import dopri5
from .beyond.langevin import predictor_corrector
from .beyond.restart import restart
from .ddim import ddim, ddpm
from .dpm_solver import dpmpp_2m, dpmpp_2s, exponential_sde
from .edm import edm
from .exponential import exponential
from .jump import jump
from .ode import euler, heun, midpoint, rk4
from .sde import euler_maruyama
from .walks import Facts, Sampler, Stepper, Walk, slope

__all__ = [
    "SAMPLERS",
    "Facts",
    "Sampler",
    "Stepper",
    "Walk",
    "facts",
    "sample",
    "slope",
    "times_from",
    "trajectory",
    "walk",
]


def _runge_kutta(order: int) -> Callable[..., Facts]:
    return lambda clock: Facts(order, gaussian_end=clock == "flow", smooth=clock == "time")


def _exponential(order: int, corrector: bool, start: str, clock: str, **_: Any) -> Facts:
    most = order + corrector
    # The ramp's first step has order 1 (2 with the corrector), an error of h² (h³) that no later step undoes.
    shown = most if start == "runge_kutta" else min(most, 2 + corrector)
    return Facts(shown, gaussian_end=True, at_least=shown < most, smooth=clock == "time")


def _or_noise(option: str, order: int) -> Callable[..., Facts]:
    """Of this order; where the option is above 0, of weak order 1 and with noise."""
    return lambda **chosen: Facts(1, noise=True) if chosen[option] > 0 else Facts(order, gaussian_end=True)


SAMPLERS: dict[str, Stepper] = {  # a plain function of a Walk is a row too, which promises nothing
    # the probability-flow ODE
    "euler": Sampler(euler, Facts(1, smooth=True)),
    "heun": Sampler(heun, _runge_kutta(2)),
    "midpoint": Sampler(midpoint, _runge_kutta(2)),
    "rk4": Sampler(rk4, _runge_kutta(4)),
    "dopri5": Sampler(dopri5, Facts()),  # its error follows rtol and atol, not the grid
    "ddim": Sampler(ddim, lambda eta: Facts(1, noise=eta > 0)),
    "edm": Sampler(edm, _or_noise("churn", 2)),
    "dpmpp_2m": Sampler(dpmpp_2m, _or_noise("eta", 2)),
    "dpmpp_2s": Sampler(dpmpp_2s, Facts(2, gaussian_end=True)),
    "dpmpp_3m": Sampler(partial(exponential, order=3, clock="log_snr"), _exponential),
    "unipc": Sampler(partial(exponential, order=2, clock="log_snr", corrector=True, variant="bh2"), _exponential),
    "deis": Sampler(partial(exponential, order=3, form="noise", clock="log_snr"), _exponential),
    "lms": Sampler(partial(exponential, order=4, form="noise", clock="ratio"), _exponential),
    "exponential": Sampler(exponential, _exponential),
    "bespoke": Sampler(bespoke, Facts(1)),  # without weights; with them it has no order, being made for one grid
    # the map of the flow, of denoisers that span two times
    "jump": Sampler(jump, lambda renew: Facts(noise=renew > 0, spans=True)),
    # the reverse SDE
    "ddpm": Sampler(ddpm, Facts(1, noise=True)),
    "dpmpp_2m_sde": Sampler(partial(dpmpp_2m, eta=1.0), _or_noise("eta", 2)),
    "exponential_sde": Sampler(exponential_sde, _or_noise("eta", 1)),
    "euler_maruyama": Sampler(euler_maruyama, Facts(1, noise=True, smooth=True)),
    "predictor_corrector": Sampler(predictor_corrector, Facts(1, noise=True)),
    "restart": Sampler(restart, Facts(2, noise=True)),
}


def facts(spec: str) -> Facts:
    """The facts of a spec such as "exponential:order=3,corrector=true"."""
    name, given = parse(spec)
    row = SAMPLERS[pick(SAMPLERS, name, "sampler")]
    return row.facts(**given) if isinstance(row, Sampler) else Facts()


def walk(
    sampler: str | Stepper,
    denoiser: DenoiserLike,
    x: Batch,
    times: Tensor,
    *,
    draws: Draws | None = None,
    cond: Mapping[str, Any] = MappingProxyType({}),
    **given: Any,
) -> Iterator[Tensor]:
    """x after every step from x at the first of `times` to the last, in the caller's own mode of gradients.

    sampler: a spec, a row of SAMPLERS, or any function of a Walk. given: its options.
    """
    expect("sampler", sampler, str, Callable)
    expect("x", x, Tensor)
    expect("draws", draws, Callable, None)
    if isinstance(draws, Draws):
        shaped("x", x, len(draws.ids), ...)
    taken = Walk(denoiser, x, denoiser.path.along(times), draws, cond)
    if not isinstance(sampler, Own):
        chosen = bind(SAMPLERS, sampler, "sampler") if isinstance(sampler, str) else sampler
        return chosen(taken, **given)
    answered = partial(calling, "sampler", sampler.name, "yield x after every step")  # a command's, in one sentence
    with answered():
        steps = sampler(taken, **given)
    expect("the sampler's result", steps, Iterator)
    return _each_in(answered, steps)


def trajectory(
    denoiser: DenoiserLike,
    shape: tuple[int, ...],
    *,
    draws: Draws,
    steps: int = 50,
    sampler: str | Stepper = "heun",
    grid: str | Sequence[float] = "uniform",
    start: Tensor | None = None,
    at: float = 1.0,
    gradient: bool = False,
    **cond: Any,
) -> Iterator[tuple[float, Tensor]]:
    """(t, x_t) from t = at to t = 0, both included: one sample of `shape` for each id of `draws`.

    sampler, grid: rows of SAMPLERS and GRIDS; or a function of a Walk, and the times themselves, which then also give
    the number of steps.

    start: x at t = at; drawn from the path's prior unless given. Between two sample sets and below t = 1 it must be
    given. at: the time of start; of the grid, the times below it are left.
    gradient: whether each x_t keeps its gradient, for which every estimate is computed again (see `Recomputed`).
    """
    expect("denoiser", denoiser, DenoiserLike)
    expect("shape", shape, tuple, list)
    for side in shape:
        require("shape", side, 0, whole=True)
    expect("draws", draws, Draws)
    expect("start", start, Tensor, None)
    times = times_from(at, grid_times(grid, steps, denoiser.path))
    if start is not None:
        shaped("start", start, len(draws.ids), *shape)
        if not start.is_floating_point() or not bool(start.isfinite().all()):
            raise InputError("start must hold finite floating-point numbers.")
    elif at < 1:
        raise InputError(f"From t = {at:g}, sampling starts from noised data: give it as start.")
    elif denoiser.gaussian_end:
        start = denoiser.path.prior(draws(-1, torch.empty(len(draws.ids), *shape, device=draws.ids.device)))
    else:
        raise InputError("Between two sample sets, sampling starts from points of the second: give them as start.")
    asked = Recomputed(denoiser) if gradient else denoiser
    steps_taken = walk(sampler, asked, start, times, draws=draws, cond=cond)
    expect("the sampler's result", steps_taken, Iterator)
    off = torch.no_grad()
    walked = steps_taken if gradient else _each_in(lambda: off, steps_taken)
    yield float(times[0]), start
    for t in times[1:].tolist():
        x = next(walked, None)
        if x is None or getattr(x, "shape", None) != start.shape:  # of a user's function; ours do
            raise InputError(
                f"A sampler must yield x after every step, of shape {tuple(start.shape)}; {sampler} doesn't."
            )
        yield t, x
    if next(walked, None) is not None:
        raise InputError(f"A sampler must yield x once after every step; {sampler} goes on after the last.")


def times_from(at: float, times: GridTimes) -> Float[Tensor, " k"]:
    """The times of a walk that starts at t = at: this one, and those of a grid below it."""
    require("at", at, above=0, high=1)
    return times if at == 1 else torch.cat([times.new_tensor([at]), times[times < at]])


def sample(denoiser: DenoiserLike, shape: tuple[int, ...], **options: Any) -> Tensor:
    """The end of a trajectory: one sample of `shape` for each id of `draws`; options as in `trajectory`."""
    *_, (_, x) = trajectory(denoiser, shape, **options)
    return x


def _each_in(context: Callable[[], AbstractContextManager[Any]], steps: Iterator[Tensor]) -> Iterator[Tensor]:
    """A walk each of whose steps is taken in a context, such as `torch.no_grad`, that its consumer stays out of.

    (`with torch.no_grad()` around a yield leaks into the consumer, and as a decorator it is silently without effect
    when another decorator hides that the function is a generator.)
    """
    while True:
        with context():
            x = next(steps, None)
        if x is None:
            return
        yield x
