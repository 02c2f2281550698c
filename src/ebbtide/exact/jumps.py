"""Grids of a student's jumps: the times between noise and data at which few jumps lead to what the teacher's flow does.

The grid matters as much as the loss: a jump that ends where two modes have just parted errs there, and the next can't
take it back. Chosen on trajectories that the student never saw, by how far each end is from the nearest of the
teacher's, and each of the teacher's from the nearest end. The distance to where its trajectory ends counts a sample
in another mode as the worst of errors, though the two sets are the same, and so prefers samples between the modes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..samplers import walk
from .checks import rms
from .tuned import Tuned

__all__ = ["JUMPS", "fit_jumps"]

JUMPS = (1, 2, 4)  # evaluations that grids are fitted for unless others are asked for

FIRST = tuple((exponent, shift) for exponent in (1.0, 1.5, 2.0, 3.0) for shift in (0.5, 1.0, 2.0))
CENTRES, SPREAD = (0.15, 0.2, 0.25, 0.3, 0.4), 0.2  # all times are close to one of these, by this share of it
MOVES = (0.25, 0.5, 0.75)  # of the way to each neighbour
SWEEPS = 3
NEAR = 500  # ends that others are compared with: enough to see which lie between modes


def fit_jumps(
    denoiser: DenoiserLike,
    start: Float[Tensor, " n *d"],
    end: Float[Tensor, " n *d"],
    evaluations: Sequence[int],
    *,
    cond: Mapping[str, Any] = MappingProxyType({}),
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Tuned, ...]:
    """For each number of evaluations the grid on which the ends of as many jumps from `start` are nearest to `end`.

    First grids of two families, k v / (1 + (k - 1) v), v = (1 - i/n)^p in the flow clock, and times close together;
    then each time between its neighbours. Three quarters choose: by `chamfer` within a label, or by the mean distance
    to their ends where starts have other conditions too, since what follows on one observation is none of another's.
    The last quarter judges: its distances are what a `Tuned` holds; the spread of the teacher's ends is unknown to
    this, so `error` is 0, and `usual` is that of the even grid.
    """
    path = denoiser.path
    last, n = path.along([1.0])[0].tau, len(start)
    choose, judge = slice(0, n - n // 4), slice(n - n // 4, n)
    own = {name: part for name, part in cond.items() if isinstance(part, Tensor) and len(part) == n}
    comparable, label = own.keys() <= {"label"}, own["label"][choose] if "label" in own else None

    def landed(tau: Sequence[float], part: slice) -> Tensor:
        times = path.time_at(torch.tensor(tau, dtype=torch.float64) * last)
        times = torch.cat([times.new_ones(1), times, times.new_zeros(1)])
        given = {**cond, **{name: each[part] for name, each in own.items()}}
        with torch.no_grad():
            *_, x = walk("jump", denoiser, start[part], times, cond=given)
        return x

    def distances(tau: Sequence[float], part: slice) -> Tensor:
        return (landed(tau, part) - end[part]).flatten(1).norm(dim=1)

    def score(tau: Sequence[float]) -> float:
        found = chamfer(landed(tau, choose), end[choose], label) if comparable else distances(tau, choose).mean()
        return float(found) if found.isfinite() else math.inf

    made = []
    for count in evaluations:
        v = [1 - i / count for i in range(1, count)]
        even, grids = v, {tuple(k * w**p / (1 + (k - 1) * w**p) for w in v) for p, k in FIRST}
        if count > 2:
            about = [1 + SPREAD * (2 * i / (count - 2) - 1) for i in range(count - 2, -1, -1)]
            grids |= {tuple(centre * share for share in about) for centre in CENTRES}
        best = min((score(grid), grid) for grid in grids)
        for _ in range(SWEEPS if count > 1 else 0):
            before = best
            for i in range(count - 1):
                ends = (1.0, *best[1], 0.0)
                here, later, sooner = ends[i + 1], ends[i], ends[i + 2]
                moved = [here + share * (way - here) for way in (later, sooner) for share in MOVES]
                trials = [(*best[1][:i], tau, *best[1][i + 1 :]) for tau in moved]
                best = min([best, *((score(grid), grid) for grid in trials)])
            if best == before:
                break
        far, usual = distances(best[1], judge), distances(even, judge)
        times = path.time_at(torch.tensor(best[1], dtype=torch.float64) * last).tolist()
        text = ",".join(f"{t:.5g}" for t in (1.0, *times, 0.0))
        missed, missed_evenly = (rms(each[:, None]) for each in (far, usual))
        made.append(Tuned(count, "jump", text, count, missed, float(far.median()), 0.0, missed_evenly))
        progress(len(made) / len(evaluations))
    return tuple(made)


def chamfer(x: Float[Tensor, " n *d"], y: Float[Tensor, " n *d"], label: Tensor | None = None) -> Tensor:
    """½ (mean_i min_j |x_i - y_j| + mean_j min_i |x_i - y_j|), the Chamfer distance, of the first `NEAR` of y.

    Between points of one label, where they have some and both sets have it.
    """
    apart = torch.cdist(x.flatten(1), y[:NEAR].flatten(1))
    if label is not None:
        apart = apart.masked_fill(label[:, None] != label[:NEAR], math.inf)
    there, back = apart.amin(0), apart.amin(1)
    return (there.mean() + back[back.isfinite() | (label is None)].mean()) / 2
