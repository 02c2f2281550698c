"""Rows of which some columns are known: how a network learns every conditional distribution of a table."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..codecs import Groups, groups
from ..core.randomness import share_of, uniform
from .prepared import TensorData

__all__ = ["PartlyKnown", "known_numbers"]


@dataclass(frozen=True)
class PartlyKnown(TensorData):
    """Rows as the network sees them, and of every other one what is known of it: `given`, NaN where nothing is.

    mask: 0 for what is known, so that the loss is the mean over the columns that aren't.
    """

    groups: Groups = field(default_factory=lambda: groups(None, 1))

    def take(self, indices: Int[Tensor, " b"], draw: torch.Generator) -> dict[str, Tensor]:
        """The examples at these places, what is known of them, and what the rest counts in the loss."""
        taken = super().take(indices, draw)
        known, unknown = known_numbers(len(indices), self.groups, draw)
        given = taken["x0"].masked_fill(~known, torch.nan)
        return taken | {"given": given, "mask": ~known / unknown[:, None]}


def known_numbers(n: int, of: Groups, draw: torch.Generator) -> tuple[Bool[Tensor, "n k"], Float[Tensor, " n"]]:
    """For each number of n rows whether it is known, and the share of columns that aren't known in each row.

    Of rows 1, 3, … those of 1 to d - 1 of the d columns are known, at random, as many in one row as in another. Of an
    unknown column it may be known that there is a cell, so that gaps can be filled; then rows without a known column
    are among these, too.
    """
    device = draw.device
    column, tells = (part.to(device) for part in of)
    d, least = int(column.max()) + 1, int(not bool(tells.any()))
    whole, rows = share_of(draw, n)
    odd = torch.arange(whole, device=device)[rows] % 2
    count = odd * (least + (uniform(draw, n) * (d - least)).long())
    known = uniform(draw, n, d).argsort(1) < count[:, None]
    there = known | ((uniform(draw, n, d) < 0.5) & (odd == 1)[:, None])
    return torch.where(tells, there[:, column], known[:, column]), 1 - count / d
