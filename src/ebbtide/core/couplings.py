"""Pairing of noise and data in a batch. A coupling permutes the noise; it never adds or drops any.

The assignment is exact and without replacement. (A plan drawn *with* replacement loses about a third of the batch,
and a plan across classes hands each class its own part of the noise, so that class-conditional samples, which start
from all of it, go wrong: hence `class_aware_ot`.)
"""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import InputError
from ..specs import expect, shaped
from .paths import Batch

__all__ = ["COUPLINGS", "Labels", "as_given", "class_aware_ot", "independent", "minibatch_ot"]

Labels = Int[Tensor, " b"] | None


def independent(x0: Batch, x1: Batch, labels: Labels = None) -> Batch:
    """q(x₀) q(x₁): what diffusion and plain flow matching use."""
    return x1


def minibatch_ot(x0: Batch, x1: Batch, labels: Labels = None) -> Batch:
    """The permutation π least in Σ |x₀ᵢ - x₁_π(i)|² (Tong et al. 2024, arXiv:2302.00482, Section 3.2)."""
    from scipy.optimize import linear_sum_assignment  # here: 0.4 s that only these couplings need

    expect("x0", x0, Tensor)
    shaped("x1", x1, *x0.shape)
    cost = torch.cdist(x0.flatten(1), x1.flatten(1)).square().nan_to_num()  # an overflow is for the loss to report
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return x1[torch.from_numpy(columns).to(x1.device)]


def class_aware_ot(x0: Batch, x1: Batch, labels: Labels = None) -> Batch:
    """Optimal transport within each class, from the noise its examples had drawn, so each class keeps N(0, I)."""
    if labels is None:
        raise InputError("The class_ot coupling needs labelled data and a conditional network.")
    shaped("labels", labels, len(x0))
    coupled = x1.clone()
    for label in set(labels.tolist()):
        members = labels == label
        coupled[members] = minibatch_ot(x0[members], x1[members])
    return coupled


def as_given(x0: Batch, x1: Batch, labels: Labels = None) -> Batch:
    """The pairs of a teacher, each noise beside the data that its flow leads to (Liu et al. 2023, arXiv:2209.03003)."""
    return x1


COUPLINGS: dict[str, Callable[..., Tensor]] = {
    "independent": independent, "ot": minibatch_ot, "class_ot": class_aware_ot, "given": as_given,
}  # fmt: skip
