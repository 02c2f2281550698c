"""Certification of flow maps: of a sampler that jumps, on the exact map; of a denoiser of two times, by itself.

On N(m, C) the map is known in closed form. A denoiser, a student or a user's own network, has three promises that need
no other answer than its own: toward t itself its pair is its estimate, two jumps lead where one does, and that is where
its own velocity leads.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Path
from ..core.times import grid_times
from ..errors import InputError
from ..losses.flow_map import jumped, mean_slope
from ..samplers import Facts, Stepper
from .checks import Check, exact_moments, walked
from .oracle import gaussian

__all__ = ["certify_map", "jumps"]

COUNTS = (1, 2, 5)
MEAN, STD = (0.7, -0.3), (1.2, 0.3)
FLOW = "flow_power:exponent=2"


def jumps(sampler: str | Stepper, path: Path, name: str, promised: Facts) -> Iterator[Check]:
    """On N(m, C) any number of jumps ends where the flow does; with noise drawn anew they keep the law."""
    means, spread = (torch.tensor(row, dtype=torch.float64) for row in (MEAN, STD))
    exact = gaussian(path, means, spread.square().diag())
    x = path.prior(torch.linspace(-3, 3, 22, dtype=torch.float64).reshape(11, 2))
    for count in COUNTS:
        times = grid_times(FLOW, count, path)
        if promised.noise:
            one = gaussian(path, means[:1], float(spread[0]))
            found = exact_moments(sampler, one, times)
            for what, value, truth in zip(("mean", "std"), found, (MEAN[0], STD[0]), strict=True):
                worst = abs(value - truth)
                yield Check(name, f"bias of the {what}, {count} jumps", worst, "below 1e-8", worst < 1e-8)
        else:
            worst = float((walked(sampler, exact, x, times) - exact.flow(x, 1.0, 0.0)).abs().max())
            yield Check(name, f"{count} jumps beside the flow", worst, "below 1e-8", worst < 1e-8)


@torch.no_grad()
def certify_map(
    denoiser: DenoiserLike,
    start: Float[Tensor, " n *d"],
    *,
    tolerance: float = 0.1,
    steps: int = 200,
    cond: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Check]:
    """The promises of a denoiser that spans two times, from starts at t = 1; distances are RMS, in the units of x.

    tolerance: up to which two ways to one end may part. steps: of Heun's method along the denoiser's own velocity.
    """
    if not getattr(denoiser, "spans", False):
        raise InputError("This denoiser spans a single time, so it is no flow map.")
    path = denoiser.path
    sampler = "heun:clock=flow" if denoiser.gaussian_end else "heun"
    times = grid_times(FLOW, steps, path)
    name, here = type(path).__name__.lower(), path.along([1.0, float(times[steps // 2]), 0.0])

    def distance(a: Tensor, b: Tensor) -> float:
        return float((a - b).flatten(1).square().mean().sqrt())

    half = jumped(denoiser, start, here[0], here[1], cond)
    toward_itself, plain = (mean_slope(denoiser, half, here[1], to, cond) for to in (here[1], None))
    worst = float((toward_itself - plain).abs().max())
    yield Check(name, "toward t itself: the estimate", worst, "below 1e-5", worst < 1e-5)
    whole, twice = jumped(denoiser, start, here[0], here[2], cond), jumped(denoiser, half, here[1], here[2], cond)
    apart = distance(whole, twice)
    yield Check(name, "two jumps where one leads", apart, f"below {tolerance:g}", apart < tolerance)
    end = walked(sampler, denoiser, start, times, cond=cond)
    for what, found in (("one jump", whole), ("two jumps", twice)):
        apart = distance(found, end)
        yield Check(name, f"{what} beside its own flow", apart, f"below {tolerance:g}", apart < tolerance)
