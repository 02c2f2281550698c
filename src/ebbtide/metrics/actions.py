"""Errors of predicted actions against the actions that were executed."""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr, stdtrit
from torch import Tensor

from ..errors import InputError
from .measurement import Measurement

__all__ = ["EPISODE_REPLICATES", "FEW_EPISODES", "best_of", "mean_absolute_error"]

EPISODE_REPLICATES = 1000
FEW_EPISODES = 5  # with fewer episodes the interval is only a guess


def mean_absolute_error(
    predicted: Float[Tensor, " n h a"],
    carried_out: Float[Tensor, " n h a"],
    real: Bool[Tensor, " n h 1"] | None = None,
    episode: Int[Tensor, " n"] | None = None,
) -> Measurement:
    """mean |â - a| in the actions' own unit, with its interval; the floor is the error of a robot that holds still.

    A policy that follows one of several good strategies has a larger error than one that predicts their mean, which
    may be no strategy at all. So this is a sanity check, not a score; see `best_of`. real: False where a chunk extends
    beyond its episode's end.

    episode: the number of each chunk's episode; without it every chunk counts as a separate episode.
    Chunks of one episode overlap and fail together, so the interval is a bootstrap over episodes, never over chunks.
    For k episodes it is taken at the levels Φ(∓√(k/(k - 1)) t), t Student's with k - 1 degrees, in place of 2.5 and
    97.5 %: the percentiles alone are too narrow for small k (Hesterberg 2015, doi:10.1080/00031305.2015.1089789).
    """
    if predicted.shape != carried_out.shape or len(predicted) == 0:
        raise InputError(
            f"predicted must have the shape of carried_out, {tuple(carried_out.shape)}; got {tuple(predicted.shape)}."
        )
    predicted, carried_out = predicted.double(), carried_out.double()
    counts = torch.ones_like(carried_out) if real is None else real.expand_as(carried_out).double()
    errors = ((predicted - carried_out).abs() * counts).sum((1, 2))
    still = ((carried_out[:, :1] - carried_out).abs() * counts).sum() / counts.sum()
    own = torch.arange(len(errors)) if episode is None else episode.unique(return_inverse=True)[1]
    k = int(own.max()) + 1
    error, weight = (errors.new_zeros(k).index_add(0, own, each) for each in (errors, counts.sum((1, 2))))
    note = f"in the actions' unit; a robot that holds its first action errs by {float(still):.4g}; on {len(own)} chunks"
    note += "" if episode is None else f" of {k} episode{'s' * (k != 1)}"
    note += ", too few for an interval to rely on" if k < FEW_EPISODES else ""
    return Measurement(
        "mean absolute error", float(error.sum() / weight.sum()), *_interval(error, weight), 0.0, 0.0, 0.0, "lower",
        note,
    )  # fmt: skip


def best_of(
    predicted: Float[Tensor, " n k h a"],
    carried_out: Float[Tensor, " n h a"],
    real: Bool[Tensor, " n h 1"] | None = None,
    episode: Int[Tensor, " n"] | None = None,
) -> Measurement:
    """mean of min_j |â_j - a| over k chunks drawn for each step; the rest as in `mean_absolute_error`.

    If a policy has learned all good strategies, one of its draws is near the executed actions; if it predicts their
    mean, k draws are no better than one. The number doesn't show how many of the draws are good: read both.
    """
    if predicted.ndim != 4 or predicted.shape[:1] + predicted.shape[2:] != carried_out.shape or not predicted.numel():
        raise InputError(
            f"predicted must be draws (n, k, h, a) for carried_out, {tuple(carried_out.shape)}; "
            f"got {tuple(predicted.shape)}."
        )
    gaps = (predicted.double() - carried_out[:, None].double()).abs()
    nearest = (gaps if real is None else gaps * real[:, None]).sum((2, 3)).argmin(1)
    row = mean_absolute_error(predicted[torch.arange(len(nearest)), nearest], carried_out, real, episode)
    note = f"of {predicted.shape[1]} chunks for the same step, that nearest to what was done; {row.note}"
    return replace(row, name=f"best of {predicted.shape[1]}", note=note)


def _interval(error: Float[Tensor, " k"], weight: Float[Tensor, " k"]) -> tuple[float, float]:
    """The 95 % interval of Σ error / Σ weight over k episodes; a single episode has none."""
    k = len(error)
    if k == 1:
        return math.nan, math.nan
    tail = float(ndtr(-math.sqrt(k / (k - 1)) * stdtrit(k - 1, 0.975)))
    draws = torch.randint(k, (EPISODE_REPLICATES, k), generator=torch.Generator().manual_seed(0))
    low, high = (error[draws].sum(1) / weight[draws].sum(1)).quantile(error.new_tensor([tail, 1 - tail])).tolist()
    return low, high
