"""Which noise goes with which data point in a batch. A coupling permutes the noise; it never adds or drops any.

The assignment is exact and without replacement. (A plan drawn *with* replacement loses about a third of the batch,
and a plan across classes hands each class its own part of the noise, so that class-conditional samples, which start
from all of it, go wrong: hence `class_aware_ot`.)
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from .paths import Path

Labels = Int[Tensor, " b"] | None


def independent(
    x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], labels: Labels = None
) -> Float[Tensor, " b *d"]:
    """q(x₀) q(x₁): what diffusion and plain flow matching use."""
    return x1


def minibatch_ot(
    x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], labels: Labels = None
) -> Float[Tensor, " b *d"]:
    """The permutation π least in Σ |x₀ᵢ - x₁_π(i)|² (Tong et al. 2024, arXiv:2302.00482, Section 3.2)."""
    from scipy.optimize import linear_sum_assignment  # here: 0.4 s that only these couplings need

    cost = torch.cdist(x0.flatten(1), x1.flatten(1)).square().nan_to_num()  # an overflow is for the loss to report
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return x1[torch.from_numpy(columns).to(x1.device)]


def class_aware_ot(
    x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], labels: Labels = None
) -> Float[Tensor, " b *d"]:
    """Optimal transport within each class, from the noise its examples had drawn, so each class keeps N(0, I)."""
    if labels is None:
        raise InputError("The class_ot coupling needs labelled data and a conditional network.")
    coupled = x1.clone()
    for label in set(labels.tolist()):
        members = labels == label
        coupled[members] = minibatch_ot(x0[members], x1[members])
    return coupled


BLOCK = 128  # pairs that are averaged over together: the work is BLOCK per pair, and more would help little


def posterior_mean(
    path: Path,
    x0: Float[Tensor, " b *d"],
    noise: Float[Tensor, " b *d"],
    t: Float[Tensor, " b"],
    allowed: Bool[Tensor, "b b"] | None = None,
) -> tuple[Float[Tensor, " b *d"], Float[Tensor, " b *d"]]:
    """The pairs (E[x₀ | x_t], E[ε | x_t]) over the batch: the same x_t, a less noisy target (arXiv:2302.00670).

    Given x_t and the *set* of the batch's data points, point j made x_t with probability
    w_j ∝ exp(-|x_t - α x₀ⱼ|² / 2σ²), so x̄₀ = Σ w_j x₀ⱼ and ε̄ = (x_t - α x̄₀) / σ are conditional means
    (Rao–Blackwell): the expected gradient is exactly what it was, at any batch size, and its variance is smaller.
    How much depends on how many of the batch's points could have made x_t: a lot for points, nothing for images.
    For independent pairs from N(0, I) only. allowed[i, j]: whether point j may have made x_t of example i (labels).
    """
    c = path.at(t, x0)
    ratio = c.sigma / c.alpha.clamp(min=1e-6)
    points, centres, spread = x0.flatten(1), (x0 + ratio * noise).flatten(1), ratio.flatten(1)
    means = []
    for start in range(0, len(x0), BLOCK):
        b = slice(start, start + BLOCK)
        # Differences, not the expanded square: at small σ that would cancel to nothing.
        distance = torch.cdist(centres[b], points[b], compute_mode="donot_use_mm_for_euclid_dist")
        logits = (distance / spread[b]).square() * -0.5
        if allowed is not None:
            logits = logits.masked_fill(~allowed[b, b], -torch.inf)
        means.append((points[b].T @ logits.softmax(1).T).T)  # w @ x, in the order that is quick for few columns
    mean = torch.cat(means).reshape(x0.shape)
    return mean, noise + (x0 - mean) / ratio


COUPLINGS: dict[str, Callable[..., Tensor]] = {
    "independent": independent,
    "ot": minibatch_ot,
    "class_ot": class_aware_ot,
}
