"""Any sampler without noise as a table of weights, which is what `samplers.bespoke` walks by."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..core.paths import Path
from ..core.targets import Estimate
from ..samplers import Walk
from ..samplers.bespoke import SolverRows

__all__ = ["Weighed", "unrolled"]


class Weighed:
    """A denoiser that answers the j-th question with 1 for the j-th sample and 0 for all others.

    So a walk's points are, sample by sample, the weights of its estimates.
    """

    gaussian_end = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[float, Tensor]] = []

    def __call__(self, x_t: Tensor, t: Any, /, **cond: Any) -> Estimate:
        c = self.path.at(t, x_t)
        x0 = torch.zeros_like(x_t)
        x0[len(self.asked)] = 1
        self.asked.append((float(c.t), x_t[:, 0]))
        return Estimate(x_t, x0, x0=(0.0, 1.0), noise=(1 / c.sigma, -c.alpha / c.sigma))


def unrolled(
    sampler: Callable[[Walk], Iterator[Tensor]], path: Path, times: Tensor, count: int
) -> tuple[Tensor, SolverRows]:
    """The times at which a deterministic sampler asks (`count` of them) and its weights there: it as a bespoke one."""
    probe = Weighed(path)
    with torch.no_grad():
        *_, end = sampler(Walk(probe, torch.zeros(count, 1, dtype=torch.float64), path.along(times)))
    asked = torch.tensor([time for time, _ in probe.asked] + [float(times[-1])], dtype=torch.float64)
    first, *grid = path.along(asked)
    rows = []
    for i, (c, x) in enumerate(zip(grid, [*(x for _, x in probe.asked[1:]), end[:, 0]], strict=True), 1):
        rows.append((x[:i] / (c.alpha - c.sigma / first.sigma * first.alpha)).tolist())
    return asked, rows
