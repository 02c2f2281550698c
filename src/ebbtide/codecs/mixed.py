"""Mixed: a table whose columns have codecs for their kinds, side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..specs import expect
from .category import Category, read_category
from .codec import Batches, Shape, all_weights, split_weights
from .groups import Groups
from .missing import Missing, read_missing
from .ranks import Cells, Ranks, read_ranks

__all__ = ["ONE_HOT", "Mixed", "fit_mixed", "fit_table", "read_mixed"]

ONE_HOT = 8  # levels without an order that have a number each
_READ: dict[str, Callable[[Mapping[str, Any], Mapping[str, Tensor]], Ranks | Missing | Category]] = {
    "ranks": read_ranks,
    "missing": read_missing,
    "category": read_category,
}


@dataclass(frozen=True, eq=False)
class Mixed(Cells):
    """z = the parts' z end to end, each a codec for some of the columns of x."""

    columns: tuple[tuple[int, ...], ...]
    """The columns of each part, from 0."""
    parts: tuple[Ranks | Missing | Category, ...]

    def __post_init__(self) -> None:
        every = [k for columns in self.columns for k in columns]
        whole = all(type(k) is int for k in every) and sorted(every) == list(range(len(every)))
        if not every or not whole or len(self.columns) != len(self.parts):
            raise InputError("mixed: each column must belong to one part.")
        for columns, part in zip(self.columns, self.parts):
            part.shape((len(columns),))

    @property
    def about(self) -> str:
        """Those of its parts: "4 columns by ranks, as a normal distribution; 1 column by unit vectors of levels"."""
        counts = [f"{len(columns)} column{'s' * (len(columns) > 1)}" for columns in self.columns]
        return "; ".join(f"{n} by {part.about.partition(';')[0]}" for n, part in zip(counts, self.parts))

    @property
    def seen(self) -> tuple[str, ...]:
        """The form in which the network sees each column, in the columns' order."""
        found = {k: part.about.partition(";")[0] for own, part in zip(self.columns, self.parts) for k in own}
        return tuple(found[k] for k in range(len(found)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of z per part."""
        return tuple(part.shape((len(columns),))[-1] for columns, part in zip(self.columns, self.parts))

    @property
    def direct(self) -> Bool[Tensor, " k"]:
        return torch.cat(
            [torch.full((width,), isinstance(part, Category)) for width, part in zip(self.widths, self.parts)]
        )

    def groups(self, columns: int) -> Groups:
        parts = [part.groups(len(own)) for own, part in zip(self.columns, self.parts)]
        owners = [torch.tensor(own)[part.column] for own, part in zip(self.columns, parts)]
        return Groups(torch.cat(owners), torch.cat([part.tells for part in parts]))

    def ends(self) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        low, high = zip(*(part.ends() for part in self.parts), strict=True)
        return torch.cat(low), torch.cat(high)

    def beyond(self, x: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        return torch.stack([part.beyond(x[:, list(own)]) for own, part in zip(self.columns, self.parts)]).any(0)

    def shape(self, data: Shape) -> Shape:
        """All numbers of all parts."""
        if data[-1:] != (sum(map(len, self.columns)),):
            raise InputError(f"The codec expects {sum(map(len, self.columns))} columns; got data of shape {data}.")
        return (*data[:-1], sum(self.widths))

    def cells(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k 2"]:
        self.shape(tuple(x.shape))
        return torch.cat([part.cells(x[:, list(columns)]) for columns, part in zip(self.columns, self.parts)], 1)

    def decode(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b d"]:
        """The network's output → data."""
        expect("The data", z, Tensor)
        if z.shape[-1:] != (sum(self.widths),):
            raise InputError(f"mixed: z must have {sum(self.widths)} numbers; got shape {tuple(z.shape)}.")
        found = [part.decode(own) for own, part in zip(z.split(self.widths, -1), self.parts)]
        order = torch.tensor([k for columns in self.columns for k in columns], device=z.device)
        return torch.cat(found, -1).index_select(-1, order.argsort())

    def to_config(self) -> dict[str, Any]:
        return {
            "name": "mixed",
            "columns": [list(columns) for columns in self.columns],
            "parts": [part.to_config() for part in self.parts],
        }

    def weights(self) -> dict[str, Tensor]:
        return all_weights(self.parts)


def fit_table(
    x: Float[Tensor, "n d"],
    levels: Sequence[int] = (),
    ordered: Sequence[bool] = (),
    gaps: Bool[Tensor, " d"] | None = None,
) -> Mixed:
    """The codecs that suit columns: unit vectors for few levels without an order, ranks for all else, gaps apart.

    x: numbers, and of levels their places; NaN where a cell is missing. levels: how many a column has, 0 for numbers.
    gaps: columns in which cells may be missing; those in which some are, unless given.
    ordered: of each column whether its levels have an order.
    """
    d = x.shape[-1]
    counts, order = list(levels) or [0] * d, list(ordered) or [False] * d
    gap = (x.isnan().any(0) if gaps is None else gaps).tolist()
    nominal = [k for k in range(d) if 0 < counts[k] + gap[k] <= ONE_HOT and counts[k] and not order[k]]
    rest = [k for k in range(d) if k not in set(nominal)]
    columns: list[tuple[int, ...]] = []
    parts: list[Ranks | Missing | Category] = []
    for own, fit in (([k for k in rest if not gap[k]], Ranks.fit), ([k for k in rest if gap[k]], Missing.fit)):
        if own:
            columns.append(tuple(own))
            parts.append(fit(x[:, own], tuple(counts[k] > 0 for k in own)))
    if nominal:
        columns.append(tuple(nominal))
        parts.append(Category.fit(x[:, nominal], [counts[k] for k in nominal], [gap[k] for k in nominal]))
    return Mixed(tuple(columns), tuple(parts))


def fit_mixed(batches: Batches) -> Mixed:
    """Columns of numbers by ranks, with an indicator for missing cells; texts and levels of a file as they suit."""
    return fit_table(torch.cat([*batches()]))


def read_mixed(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Mixed:
    """The codec whose `to_config` and `weights` these are; anything else is an InputError."""
    columns, parts = config.get("columns"), config.get("parts")
    if set(config) != {"name", "columns", "parts"} or not isinstance(columns, list) or not isinstance(parts, list):
        raise InputError("mixed must have columns and parts, both lists.")
    own = split_weights(weights, len(parts), "mixed has no part")
    if not all(isinstance(one, list) for one in columns) or not all(
        isinstance(p, Mapping) and p.get("name") in _READ for p in parts
    ):
        raise InputError(f"mixed: parts must be of {', '.join(_READ)}, and columns lists of them.")
    return Mixed(tuple(map(tuple, columns)), tuple(_READ[p["name"]](p, w) for p, w in zip(parts, own)))
