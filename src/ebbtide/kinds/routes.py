"""Routes from noise to data, as figures of a run show them.

Of a path whose noise explodes, x_t is a hundred times wider than the data, and nearly all of its times are noise. Such
a path is drawn in the flow clock, as the linear path is: z = x/(α + σ) against τ = σ/(α + σ).
"""

from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.paths import Path
from ..core.times import grid_times
from ..samplers import facts
from ..training.trained import Label, Trained

__all__ = ["explodes", "route"]

CLOCK = "flow_power:exponent=1"


def explodes(path: Path) -> bool:
    """True if the noise at t = 1 is much wider than the data."""
    return path.along([1.0])[0].size > 2


def route(
    trained: Trained, n: int, steps: int, label: Label = None
) -> tuple[Float[np.ndarray, " k"], Float[Tensor, "k n *d"]]:
    """The times t and n points on their ways, without randomness, in data units.

    By Heun's method; of a run that samples by jumps, where a single jump from the noise leads at each t.
    """
    path, seed = trained.denoiser.path, trained.recipe.seed
    times, shown = grid_times("uniform", steps, path), explodes(path)
    if shown:
        clock, times = times, grid_times(CLOCK, steps, path)
    if facts(trained.recipe.sampler).spans:
        grids = [[1.0, 0.0], *([1.0, t, 0.0] for t in times.tolist()[1:-1]), [1.0, 0.0]]
        walks = [trained.trajectory(n, seed=seed, label=label, sampler="jump", grid=grid) for grid in grids]
        walk = [next(islice(each, min(k, 1), None))[1] for k, each in enumerate(walks)]
    else:
        sampler, grid = ("heun:clock=flow", CLOCK) if shown else ("heun", "uniform")
        found = trained.trajectory(n, seed=seed, label=label, sampler=sampler, grid=grid, steps=steps)
        walk = [x for _, x in found]
    if not shown:
        return times.numpy(), torch.stack(walk)
    sizes = [c.size for c in path.along(times)]
    return clock.numpy(), torch.stack(
        [trained.to_data(trained.to_network(x) / size) for x, size in zip(walk, sizes, strict=True)]
    )
