"""A critic's part of a loss: it learns to tell what is made from what is real, and the maker to mislead it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from ..core.paths import Batch

__all__ = ["NUDGE", "Score", "discern", "misled"]

Score = Callable[["Batch"], Tensor]
NUDGE = 0.01  # step of the critic's smoothness, in its input


def discern(score: Score, real: "Batch", made: "Batch", smooth: float, nudge: "Batch") -> Tensor:
    """The critic's loss: softplus of what is made's score less that of its real pair, and the critic's smoothness.

    Relativistic pairing (Jolicoeur-Martineau 2019, arXiv:1807.00734); the gradient at what is real is kept small by
    a difference in place of R1's second derivative, λ |D(x) - D(x + h ε)|² / h² (Lin et al. 2025, arXiv:2501.08316),
    for which no kernel is too simple. score: high for what is real. smooth: λ. nudge: ε.
    """
    own = score(real)
    rough = (score(real + NUDGE * nudge) - own).square() / NUDGE**2
    return softplus(score(made) - own) + smooth * rough


def misled(critic: nn.Module, score: Score, real: "Batch", made: "Batch") -> Tensor:
    """softplus of what is real's score less that of what is made, without a gradient of the critic's."""
    critic.requires_grad_(False)
    try:
        return softplus(score(real) - score(made))
    finally:
        critic.requires_grad_(True)
