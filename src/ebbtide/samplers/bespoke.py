"""Bespoke solvers: every weight of every step free, to be fitted to one denoiser (`ebbtide tune` does it).

Whatever a solver without noise does, unrolled it is a table of numbers: each point it visits is the start and the
estimates before it, weighed. Shaul et al. 2024, arXiv:2403.01329 fit that table (Eq. 10) to a network: a bespoke
non-stationary solver. Here it is in the x0 form, and a row's weights sum to 1, so that where x₀ is known every step
is exact, fitted well or badly.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..core import mixtures
from ..core.paths import Scales
from ..errors import InputError
from .walks import Walk

__all__ = ["SolverRows", "bespoke", "ddim_weights", "format_weights", "parse_weights"]

SolverRows = Sequence[Sequence[float]]  # row i has the i + 1 weights of step i's end


def bespoke(walk: Walk, *, weights: str = "") -> Iterator[Tensor]:
    """x_i = A_i x_0 + (α_i - A_i α_0) Σ_{j<i} w_ij x̂₀(x_j, t_j),   A_i = σ_i / σ_0,   Σ_j w_ij = 1.

    weights: /w_20/w_30 w_31/…, each row but its last, which is what is missing to 1; without them, DDIM's. mixtures:
    those of the stored table for this number of steps, which belongs to the grid of that name (mixtures.py).
    One evaluation a step; as many rows as `times` has steps. Between two sample sets x̂₀ is a coordinate of the
    velocity, which serves as well.
    """
    if weights == "mixtures":
        rows = mixtures.table_of(len(walk.steps)).rows
    else:
        rows = parse_weights(weights, len(walk.steps)) if weights else ddim_weights(walk.grid)
    estimates: list[Tensor] = []
    x, first = walk.x, walk.grid[0]
    for (now, then), row in zip(walk.steps, rows, strict=True):
        estimates.append(walk.estimate(x, now).x0)
        keep = then.sigma / first.sigma
        x = walk.x * keep
        for weight, x0 in zip(row, estimates, strict=True):
            if weight:
                x = torch.add(x, x0, alpha=(then.alpha - keep * first.alpha) * weight)
        yield x


def ddim_weights(grid: Sequence[Scales]) -> SolverRows:
    """w_ij = (ρ_{j+1} - ρ_j) / (ρ_i - ρ_0), ρ = α/σ: DDIM never forgets an estimate, until σ = 0 leaves the last."""
    rows = []
    for i, end in enumerate(grid[1:], 1):
        if end.sigma == 0:
            rows.append([*[0.0] * (i - 1), 1.0])
        else:
            rho = [c.alpha / c.sigma for c in grid[: i + 1]]
            rows.append([(b - a) / (rho[-1] - rho[0]) for a, b in pairwise(rho)])
    return rows


def parse_weights(spec: str, steps: int) -> SolverRows:
    """The rows of a spec, each completed to 1; InputError unless they match the number of steps."""
    try:
        rows = [[float(weight) for weight in row.split()] for row in spec.split("/")]
    except ValueError:
        raise InputError(f"bespoke: weights are rows of numbers such as /0.2/0.1 0.3; got {spec[:60]!r}.") from None
    if [len(row) for row in rows] != list(range(steps)):
        raise InputError(f"bespoke: {len(rows)} rows of weights don't make {steps} steps (row i has i of them).")
    return [[*row, 1 - sum(row, 0.0)] for row in rows]


def format_weights(rows: SolverRows) -> str:
    """The inverse of `parse_weights`. rows: of the solver, one for each step."""
    return "/".join(" ".join(f"{weight:.12g}" for weight in row[:-1]) for row in rows)
