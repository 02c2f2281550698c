"""Pairing of noise and data in a batch. A coupling permutes the noise; it never adds or drops any.

The assignment is without replacement. (A plan drawn *with* replacement loses about a third of the batch,
and a plan across classes hands each class its own part of the noise, so that class-conditional samples, which start
from all of it, go wrong: hence `class_aware_ot`.)
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ..errors import InputError
from ..specs import expect, require, shaped
from .paths import Batch

__all__ = [
    "COUPLINGS", "Labels", "as_given", "class_aware_ot", "entropic_ot", "independent", "minibatch_ot", "partial_ot",
]  # fmt: skip

Labels = Int[Tensor, " b"] | None


def independent(x0: Batch, x1: Batch, labels: Labels = None) -> Batch:
    """q(x₀) q(x₁): what diffusion and plain flow matching use."""
    return x1


def minibatch_ot(x0: Batch, x1: Batch, labels: Labels = None) -> Batch:
    """The permutation π least in Σ |x₀ᵢ - x₁_π(i)|² (Tong et al. 2024, arXiv:2302.00482, Section 3.2)."""
    return x1[_assigned(_costs(x0, x1))]


def entropic_ot(
    x0: Batch, x1: Batch, labels: Labels = None, *, epsilon: float = 0.1, draw: Generator | None = None
) -> Batch:
    """A permutation drawn nearly as from Sinkhorn's plan: least in Σ cᵢ_π(i) - ε gᵢ_π(i), g Gumbel noise.

    Sinkhorn's plan (Cuturi 2013, arXiv:1306.0895) is exp((aᵢ + bⱼ - cᵢⱼ)/ε). A row's largest log plan + g is a draw
    from that row; the best permutation draws all rows without replacement (Mena et al. 2018, arXiv:1802.08665,
    Section 3), and in it a and b cancel, so that no iteration is needed.

    epsilon: ε as a share of the batch's mean |x₀ - x₁|²: towards 0 it is `minibatch_ot`, large, independent.
    draw: of g; torch's own unless given.
    """
    require("epsilon", epsilon, above=0)
    cost = _costs(x0, x1)
    uniform = torch.rand(cost.shape, generator=draw, dtype=torch.float64, device=cost.device)
    gumbel = -(-uniform.clamp(1e-300, 1 - 2**-53).log()).log()
    return x1[_assigned(cost - epsilon * cost.mean() * gumbel)]


def partial_ot(x0: Batch, x1: Batch, labels: Labels = None, *, share: float = 0.8) -> Batch:
    """Of all ways to pair a share of the batch the cheapest; the rest, such as outliers, keeps independent pairs.

    Partial transport by one assignment in which what stays free goes to dummies at no cost (Chapel et al. 2020,
    arXiv:2002.08276, Proposition 1). share: of the pairs; 1 is `minibatch_ot`, 0 independent.
    """
    require("share", share, 0, 1)
    cost = _costs(x0, x1)
    n, free = len(cost), len(cost) - round(share * len(cost))
    padded = torch.nn.functional.pad(cost, (0, free, 0, free))
    padded[n:, n:] = 2 * cost.max() + 1  # a dummy is never another's
    columns = _assigned(padded)[:n]
    rest = torch.ones(n, dtype=torch.bool, device=x1.device)
    rest[columns[columns < n]] = False
    columns[columns >= n] = rest.nonzero()[:, 0]
    return x1[columns]


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


def _costs(x0: Batch, x1: Batch) -> Float[Tensor, "b b"]:
    """|x₀ᵢ - x₁ⱼ|² of all pairs."""
    expect("x0", x0, Tensor)
    shaped("x1", x1, *x0.shape)
    return torch.cdist(x0.flatten(1), x1.flatten(1)).square().nan_to_num()  # an overflow is for the loss to report


def _assigned(cost: Float[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """The column of each row in the assignment of least cost."""
    from scipy.optimize import linear_sum_assignment  # here: 0.4 s that only these couplings need

    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(columns).to(cost.device)


COUPLINGS: dict[str, Callable[..., Tensor]] = {
    "independent": independent, "ot": minibatch_ot, "class_ot": class_aware_ot, "sinkhorn": entropic_ot,
    "partial": partial_ot, "given": as_given,
}  # fmt: skip
