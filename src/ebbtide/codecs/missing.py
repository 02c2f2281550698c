"""Missing: columns of numbers with gaps, by their ranks and by whether a cell is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from .codec import Batches, Shape
from .groups import Groups
from .ranks import Cells, Ranks, read_ranks

__all__ = ["Missing", "fit_missing", "read_missing"]


@dataclass(frozen=True, eq=False)
class Missing(Cells):
    """Two numbers per column: the rank of the value, fresh noise where there is none, and the rank of being missing.

    Undone, a cell is NaN where the second says so, with the frequency of training.
    """

    about: ClassVar[str] = "ranks and an indicator of missing cells; undone on sampling"

    values: Ranks
    empty: Ranks
    """Of 0 for cells with a value, 1 for missing ones."""

    def __post_init__(self) -> None:
        if len(self.values.values) != len(self.empty.values):
            raise InputError("missing: values and indicators must be as many columns.")

    @classmethod
    def fit(cls, x: Float[Tensor, "n d"], stepped: tuple[bool, ...] = ()) -> "Missing":
        """The columns' ranks, and those of their gaps. stepped: as in `Ranks.fit`."""
        return cls(Ranks.fit(x, stepped), Ranks.fit(x.isnan().double()))

    def shape(self, data: Shape) -> Shape:
        """Twice as many columns."""
        return (*self.values.shape(data)[:-1], 2 * data[-1])

    def groups(self, columns: int) -> Groups:
        places, no = Groups.single(columns)
        return Groups(places.repeat(2), torch.cat([no, ~no]))

    def ends(self) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        low, high = zip(self.values.ends(), self.empty.ends(), strict=True)
        return torch.cat(low), torch.cat(high)

    def beyond(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        return self.values.beyond(x)

    def cells(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k 2"]:
        gap = x.isnan()
        own = self.values.cells(torch.where(gap, 0.0, x))
        noise = torch.tensor([0.0, 1.0], dtype=own.dtype, device=own.device)
        return torch.cat([torch.where(gap[..., None].to(own.device), noise, own), self.empty.cells(gap.to(x))], 1)

    def decode(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b d"]:
        """The network's output → data."""
        if z.shape[-1] % 2:
            raise InputError(f"missing: z must have two numbers per column; got shape {tuple(z.shape)}.")
        value, gap = z.chunk(2, -1)
        return self.values.decode(value).masked_fill(self.empty.decode(gap) == 1, torch.nan)

    def to_config(self) -> dict[str, Any]:
        return {"name": "missing", "decimals": list(self.values.decimals)}

    def weights(self) -> dict[str, Tensor]:
        parts = {"values": self.values, "empty": self.empty}
        return {f"{name}.{key}": part for name, ranks in parts.items() for key, part in ranks.weights().items()}


def fit_missing(batches: Batches) -> Missing:
    """Columns of numbers with missing cells, by ranks and indicators."""
    return Missing.fit(torch.cat([*batches()]))


def read_missing(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Missing:
    """The codec whose `to_config` and `weights` these are; anything else is an InputError."""
    own: dict[str, dict[str, Tensor]] = {"values": {}, "empty": {}}
    for key, part in weights.items():
        name, _, rest = key.partition(".")
        own.setdefault(name, {})[rest] = part
    if len(own) != 2 or set(config) != {"name", "decimals"} or not isinstance(config["decimals"], list | tuple):
        raise InputError(f"missing must have decimals, and tensors of values and of empty; got {', '.join(weights)}.")
    zeros = {"name": "ranks", "decimals": [0] * len(config["decimals"])}
    return Missing(
        read_ranks({"name": "ranks", "decimals": config["decimals"]}, own["values"]), read_ranks(zeros, own["empty"])
    )
