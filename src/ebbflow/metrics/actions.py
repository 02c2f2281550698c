"""How far predicted actions are from those that were carried out."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from .report import Measurement

REPLICATES = 1000


def mean_absolute_error(
    predicted: Float[Tensor, " n h a"], carried_out: Float[Tensor, " n h a"], real: Bool[Tensor, " n h 1"] | None = None
) -> Measurement:
    """mean |â - a| in the actions' own unit, with a bootstrap over chunks; beside it, that of a robot that holds still.

    A policy that picks one of several good ways errs by more than one that answers with their mean, which may be no
    way at all: a sign of life, not a score. real: False where a chunk goes on beyond its episode's end.
    """
    if predicted.shape != carried_out.shape or len(predicted) == 0:
        raise InputError(
            f"predicted must have the shape of carried_out, {tuple(carried_out.shape)}; got {tuple(predicted.shape)}."
        )
    counts = torch.ones_like(carried_out) if real is None else real.expand_as(carried_out).to(carried_out)
    weight = counts.sum((1, 2))
    each = ((predicted - carried_out).abs() * counts).sum((1, 2))
    still = ((carried_out[:, :1] - carried_out).abs() * counts).sum() / weight.sum()
    g = torch.Generator().manual_seed(0)
    draws = torch.randint(len(each), (REPLICATES, len(each)), generator=g)
    means = each[draws].sum(1) / weight[draws].sum(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975])).tolist()
    return Measurement(
        "mean absolute error", float(each.sum() / weight.sum()), low, high, 0.0, 0.0, 0.0, "lower",
        f"in the actions' unit; a robot that holds its first action errs by {float(still):.4g}; on {len(each)} chunks",
    )  # fmt: skip
