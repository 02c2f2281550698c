"""Rows of which some columns are known: how a network learns every conditional distribution of a table."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..codecs import Groups, groups
from .prepared import TensorData

__all__ = ["PartlyKnown", "known_numbers"]


@dataclass(frozen=True)
class PartlyKnown(TensorData):
    """Rows as the network sees them, and of every other one what is known of it: `given`, NaN where nothing is.

    mask: what isn't known, which alone counts in the loss.
    """

    groups: Groups = field(default_factory=lambda: groups(None, 1))

    def take(self, indices: Int[Tensor, " b"], draw: torch.Generator) -> dict[str, Tensor]:
        """The examples at these places, what is known of them, and the mask of the rest."""
        taken = super().take(indices, draw)
        known = known_numbers(len(indices), self.groups, draw)
        return taken | {"given": taken["x0"].masked_fill(~known, torch.nan), "mask": ~known}


def known_numbers(n: int, of: Groups, draw: torch.Generator) -> Bool[Tensor, "n k"]:
    """For each number of n rows whether it is known: of rows 1, 3, … those of 1 to d - 1 of the d columns, at random.

    As many columns are known in one row as in another. Of an unknown column it may be known that there is a cell, so
    that gaps can be filled; then rows without a known column are among these, too.
    """
    device = draw.device
    column, tells = (part.to(device) for part in of)
    d, least = int(column.max()) + 1, int(not bool(tells.any()))
    count = least + (torch.rand(n, 1, generator=draw, device=device) * (d - least)).long()
    known = torch.rand(n, d, generator=draw, device=device).argsort(1).argsort(1) < count
    there = known | (torch.rand(n, d, generator=draw, device=device) < 0.5)
    odd = (torch.arange(n, device=device) % 2 == 1)[:, None]
    return torch.where(tells, there[:, column], known[:, column]) & odd
