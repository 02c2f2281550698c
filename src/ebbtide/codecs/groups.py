"""Columns of a table as groups of the numbers that a codec makes of them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .category import Category
from .codec import Codec
from .missing import Missing
from .mixed import Mixed

__all__ = ["Groups", "groups"]


class Groups(NamedTuple):
    """For each number of z the column that it belongs to, and whether it tells if there is a cell at all."""

    column: Int[Tensor, " k"]
    tells: Bool[Tensor, " k"]


def groups(codec: Codec | None, columns: int) -> Groups:
    """The groups of a codec for a number of columns; one number each, unless the codec has more."""
    places, no = torch.arange(columns), torch.zeros(columns, dtype=torch.bool)
    if isinstance(codec, Missing):
        return Groups(places.repeat(2), torch.cat([no, ~no]))
    if isinstance(codec, Category):
        widths, gaps = torch.tensor(codec.widths), torch.tensor(codec.gaps)
        last = torch.zeros(int(widths.sum()), dtype=torch.bool)
        last[widths.cumsum(0) - 1] = gaps
        return Groups(places.repeat_interleave(widths), last)
    if isinstance(codec, Mixed):
        parts = [groups(part, len(own)) for own, part in zip(codec.columns, codec.parts)]
        owners = [torch.tensor(own)[part.column] for own, part in zip(codec.columns, parts)]
        return Groups(torch.cat(owners), torch.cat([part.tells for part in parts]))
    return Groups(places, no)
