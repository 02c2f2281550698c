"""Stable targets: the mean of what could have made x_t, in place of what did (Xu et al. 2023, arXiv:2302.00670)."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from ..core.paths import Path

__all__ = ["TOGETHER", "posterior_mean"]

FEW = 3  # columns, up to which one after the other is faster than cdist, for two by half
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
    means, whole = [], len(x0) // TOGETHER * TOGETHER
    for b, size in ((slice(0, whole), TOGETHER), (slice(whole, None), len(x0) - whole)):
        if not size or not len(points[b]):
            continue
        blocks = (-1, size, points.shape[1])
        x = points[b].reshape(blocks)
        logits = _squares(centres[b].reshape(blocks), x).mul_(-0.5 / spread[b].reshape(-1, size, 1).square())
        if allowed is not None:  # of each block with itself
            own = allowed[b, b].reshape(-1, size, len(x), size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
            logits.masked_fill_(~own, -torch.inf)
        means.append(
            (x.mT @ logits.softmax(2).mT).mT.reshape(-1, points.shape[1])
        )  # quicker than w @ x for few columns
    mean = torch.cat(means).reshape(x0.shape)
    return mean, noise + (x0 - mean) / ratio


def _squares(x: Float[Tensor, " k n d"], y: Float[Tensor, " k m d"]) -> Float[Tensor, " k n m"]:
    """|x_i - y_j|² by differences: the expanded square would cancel to nothing at small σ."""
    if x.shape[2] > FEW:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
    gap = x[:, :, None, 0] - y[:, None, :, 0]
    total = gap.square_()
    for k in range(1, x.shape[2]):
        gap = x[:, :, None, k] - y[:, None, :, k]
        total.addcmul_(gap, gap)
    return total
