"""Certification of flow maps: of a sampler that jumps, on the exact map; of a denoiser of two times, by itself.

On N(m, C) the map is known in closed form. A denoiser, a student or a user's own network, has three promises that need
no other answer than its own: toward t itself its pair is its estimate, which holds to the bit or not at all; two jumps
lead where one does, and that is where its own velocity leads, both as nearly as it has learned.
"""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.denoiser import DenoiserLike
from ..core.paths import Path
from ..core.times import grid_times
from ..errors import InputError
from ..losses.flow_map import jumped, mean_slope
from ..samplers import Facts, Stepper
from .checks import Check, exact_moments, rms, walked
from .oracle import gaussian

__all__ = ["certify_map", "jumps"]

COUNTS = (1, 2, 5)
MEAN, STD = (0.7, -0.3), (1.2, 0.3)
FLOW = "flow_power:exponent=2"
EVEN = "flow_power:exponent=1"
ROUNDING = 1e-10  # of closed forms in float64
JUMPS = (1, 2, 4)  # of a denoiser, on an even grid in the flow clock
TIMES = 8  # steps of that grid, at whose times the estimate is asked where it is


def jumps(sampler: str | Stepper, path: Path, name: str, promised: Facts) -> Iterator[Check]:
    """On N(m, C) any number of jumps ends where the flow does; with noise drawn anew they keep the law."""
    means, spread = (torch.tensor(row, dtype=torch.float64) for row in (MEAN, STD))
    exact = gaussian(path, means, spread.square().diag())
    x = path.prior(torch.linspace(-3, 3, 22, dtype=torch.float64).reshape(11, 2))
    yield _toward_itself(exact, path, name, x, {})
    ends = []
    for count in COUNTS:
        times = grid_times(FLOW, count, path)
        if promised.noise:
            one = gaussian(path, means[:1], float(spread[0]))
            found = exact_moments(sampler, one, times)
            for what, value, truth in zip(("mean", "std"), found, (MEAN[0], STD[0]), strict=True):
                worst = abs(value - truth)
                label = f"bias of the {what}, {count} jump{'s'[: count > 1]}"
                yield Check(name, label, worst, "below 1e-8", worst < 1e-8)
        else:
            ends.append(walked(sampler, exact, x, times))
            worst = float((ends[-1] - exact.flow(x, 1.0, 0.0)).abs().max())
            yield Check(name, f"{count} jump{'s'[: count > 1]} beside the flow", worst, "below 1e-8", worst < 1e-8)
    for count, end in zip(COUNTS[1:], ends[1:], strict=False):
        apart = float((end - ends[0]).abs().max())
        yield Check(name, f"{count} jumps where one leads", apart, f"below {ROUNDING:g}", apart < ROUNDING)


def certify_map(
    denoiser: DenoiserLike,
    start: Float[Tensor, " n *d"],
    *,
    tolerance: float | None = None,
    steps: int = 200,
    cond: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Check]:
    """The promises of a denoiser that spans two times, from starts at t = 1.

    Of the first, the largest difference to the estimate; of the others √ mean |a - b|² over √ mean |b|². These are
    measured, and pass or fail only against a `tolerance`. steps: of Heun's method along the denoiser's own velocity.

    start: x₁, in the network's units.
    """
    if not getattr(denoiser, "spans", False):
        raise InputError("This denoiser spans a single time, so it is no flow map.")
    path = denoiser.path
    sampler = "heun:clock=flow" if denoiser.gaussian_end else "heun"
    name = type(path).__name__.lower()

    def measured(what: str, found: Tensor, wanted: Tensor) -> Check:
        apart = rms(found - wanted) / max(rms(wanted), 1e-300)
        if tolerance is None:
            return Check(name, what, apart, "", None, "measured")
        return Check(name, what, apart, f"below {tolerance:g}", apart < tolerance)

    yield _toward_itself(denoiser, path, name, start, cond)
    ends = [walked("jump", denoiser, start, grid_times(EVEN, count, path), cond=cond) for count in JUMPS]
    for count, end in zip(JUMPS[1:], ends[1:], strict=True):
        yield measured(f"1 jump beside {count}", ends[0], end)
    flow = walked(sampler, denoiser, start, grid_times(FLOW, steps, path), cond=cond)
    for count, end in zip(JUMPS, ends, strict=True):
        yield measured(f"{count} jump{'s'[: count > 1]} beside its own flow", end, flow)


@torch.no_grad()
def _toward_itself(denoiser: DenoiserLike, path: Path, name: str, start: Tensor, cond: Mapping[str, Any]) -> Check:
    """u(x, t, t) = v: the largest difference over times, at points on the way of single jumps."""
    here, *later = path.along(grid_times(EVEN, TIMES, path))
    worst = 0.0
    for c in later[:-1]:
        x = jumped(denoiser, start, here, c, cond)
        toward, plain = (mean_slope(denoiser, x, c, to, cond) for to in (c, None))
        apart = float((toward - plain).abs().max())
        worst = apart if math.isnan(apart) else max(worst, apart)
    if isinstance(denoiser, nn.Module):
        return Check(name, "u(x, t, t) = v", worst, "0, to the bit", worst == 0)
    return Check(name, "u(x, t, t) = v", worst, f"below {ROUNDING:g}", worst < ROUNDING)
