"""Columns of a table as groups of the numbers that a codec makes of them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .codec import Codec

__all__ = ["Groups", "groups"]


class Groups(NamedTuple):
    """For each number of z the column that it belongs to, and whether it tells if there is a cell at all."""

    column: Int[Tensor, " k"]
    tells: Bool[Tensor, " k"]

    @classmethod
    def single(cls, columns: int) -> "Groups":
        """A number for each column, which tells its value."""
        return cls(torch.arange(columns), torch.zeros(columns, dtype=torch.bool))


def groups(codec: Codec | None, columns: int) -> Groups:
    """The groups of a codec for a number of columns; one number each, unless the codec has more."""
    own = getattr(codec, "groups", Groups.single)
    made: Groups = own(columns)
    return made
