"""Restart (Xu et al. 2023, arXiv:2306.14878): noise added on the way undoes errors that an ODE only carries along."""

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from ...specs import require
from ..edm import heun_step, renoise
from ..walks import Walk

__all__ = ["restart"]


def restart(walk: Walk, *, low: float = 0.1, high: float = 1.0, repeats: int = 2) -> Iterator[Tensor]:
    """Walk down; having passed r = `low`, jump back up to `high` with fresh noise and walk down again, `repeats` times.

    Algorithm 1. Steps are EDM's; every pass goes through the grid's own times nearest to `high` and `low`, and only
    the last is yielded.
    """
    require("restart: low", low, above=0)
    require("restart: high", high, above=low)
    require("restart: repeats", repeats, 0, 10**6, whole=True)
    x, grid = walk.x, walk.grid
    inner = [i for i in range(len(grid)) if grid[i].alpha and grid[i].sigma]
    top, bottom = (min(inner, key=lambda i: abs(math.log(grid[i].ratio / r)), default=0) for r in (high, low))
    for i, (now, then) in enumerate(walk.steps):
        x = heun_step(walk, x, now, then)
        if top < bottom == i + 1:
            for again in range(repeats):
                x = renoise(walk, x, then, grid[top], again)
                for upper, lower in pairwise(grid[top : bottom + 1]):
                    x = heun_step(walk, x, upper, lower)
        yield x
