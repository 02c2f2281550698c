"""Memorisation: the samples' nearest training images, beside those of held-out images."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.shards import Shards
from ..errors import InputError
from ..progress import progress_bar
from .intervals import influence_interval, median_interval

__all__ = [
    "PAIR_COLUMNS", "PAIR_ROWS", "Nearest", "copied_share", "copy_distance", "nearest", "nearness", "nearness_interval",
]  # fmt: skip

PAIR_ROWS, PAIR_COLUMNS = 256, 4096  # of a strip of pairs at most: 8 MB
_BLOCK = 2**25  # bytes of rows of y that are in float64 at a time


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest y of every x, and how far off it is: root mean square over an image's values, in data units."""

    index: Int[Tensor, " n"]
    distance: Float[Tensor, " n"]


def nearest(x: Tensor, y: Tensor | Shards) -> Nearest:
    """The nearest of y (n of m images, any shape) to every x; pixels 0..255 give grey levels. Exact: a copy is at 0.

    y may lie on the disk, which is then read once from its beginning to its end.
    The first of several equally near. Costs n m d multiplications: 5000 by 60 000 images of 28 × 28, 12 s on a core.
    """
    if not len(x) or not len(y) or x.shape[1:] != y.shape[1:] or not x[0].numel():
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise InputError(f"x and y must be images of one shape, at least one of each; got {shapes}.")
    own, d = x.detach().cpu()[:, None].flatten(1), x[0].numel()
    centre = torch.zeros(d, dtype=torch.float64)
    # Integers need no centre: their squares are exact in float64.
    if not isinstance(y, Shards) and (x.is_floating_point() or y.is_floating_point()):
        if not (x.isfinite().all() and y.isfinite().all()):
            raise InputError("x and y must be finite; some of their values are not.")
        centre = y.detach().cpu()[:, None].flatten(1).double().mean(0)
    best, index = torch.full((len(own),), torch.inf, dtype=torch.float64), torch.zeros(len(own), dtype=torch.int64)
    apart = best.clone()
    columns = max(1, min(PAIR_COLUMNS, _BLOCK // (8 * d)))
    bar = progress_bar(len(y), "nearest images", "img", delay=2, leave=False)
    with bar:
        for start in range(0, len(y), columns):
            flat = y[start : start + columns].detach().cpu()[:, None].flatten(1)
            b = flat.double() - centre
            squares = b.square().sum(1)
            for rows in torch.arange(len(own)).split(PAIR_ROWS):
                a = own[rows].double()
                value, which = torch.addmm(squares, a - centre, b.T, alpha=-2).min(1)  # |x − y|² less |x|²
                nearer = value < best[rows]
                taken = rows[nearer]
                index[taken], best[taken] = start + which[nearer], value[nearer]
                apart[taken] = (a[nearer] - flat[which[nearer]].double()).square().mean(1)
            bar.update(len(b))
    return Nearest(index, apart.sqrt())


def copy_distance(held: Float[Tensor, " n"], share: float = 0.01) -> float:
    """The distance below which an image is called a copy: held-out images are nearer to a training image in 1 % of
    cases. `held`: their distances to the nearest one."""
    if not len(held):
        raise InputError("held must have the distance of at least one held-out image; it is empty.")
    return float(np.quantile(held.cpu().numpy(), share, method="lower"))


def copied_share(samples: Float[Tensor, " n"], held: Float[Tensor, " m"], share: float = 0.01) -> float:
    """The fraction of samples no farther from the training images than the nearest 1 % of the held-out ones.

    Real images score 0.01, copies 1. A blurred sample is near everything in pixels, so look at the pairs too.
    """
    if not len(samples):
        raise InputError("samples must have the distance of at least one sample; it is empty.")
    return float((samples <= copy_distance(held, share)).double().mean())


def nearness(samples: Float[Tensor, " n"], held: Float[Tensor, " m"]) -> float:
    """The samples' median distance to the nearest training row over that of held-out rows; below 1: memorised.

    Of means where the held-out rows' median is 0: in a table of few different rows most are equal to one another.
    """
    if float(held.median()):
        return _over(float(samples.median()), float(held.median()))
    return _over(float(samples.mean()), float(held.mean()))


def nearness_interval(samples: Float[Tensor, " n"], held: Float[Tensor, " m"]) -> tuple[float, float]:
    """Interval of the samples' median, or mean, alone, with the held-out rows as a fixed reference."""
    by_median = bool(held.median())
    ends = (
        median_interval(samples)
        if by_median
        else influence_interval(float(samples.mean()), [samples.double().cpu().numpy()])
    )
    low, high = (_over(end, float(held.median() if by_median else held.mean())) for end in ends)
    return low, high


def _over(a: float, b: float) -> float:
    """a / b, 1 where both are 0: rows that repeat are no farther from one another than samples are."""
    return a / b if b else (1.0 if not a else math.inf)
