"""Stable targets: the mean of what could have made x_t, in place of what did (Xu et al. 2023, arXiv:2302.00670)."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from ..core.paths import Path

__all__ = ["TOGETHER", "posterior_mean"]

TOGETHER = 128  # pairs that are averaged over together: the work is TOGETHER per pair, and more would help little


def posterior_mean(
    path: "Path",
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
    for start in range(0, len(x0), TOGETHER):
        b = slice(start, start + TOGETHER)
        # Differences, not the expanded square: at small σ that would cancel to nothing.
        distance = torch.cdist(centres[b], points[b], compute_mode="donot_use_mm_for_euclid_dist")
        logits = (distance / spread[b]).square() * -0.5
        if allowed is not None:
            logits = logits.masked_fill(~allowed[b, b], -torch.inf)
        means.append((points[b].T @ logits.softmax(1).T).T)  # w @ x, in the order that is quick for few columns
    mean = torch.cat(means).reshape(x0.shape)
    return mean, noise + (x0 - mean) / ratio
