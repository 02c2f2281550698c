"""Category: columns of levels without an order, each as one number per level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..specs import expect, shaped
from .codec import Batches, Shape
from .groups import Groups
from .ranks import Cells

__all__ = ["Category", "fit_category", "read_category"]


@dataclass(frozen=True, eq=False)
class Category(Cells):
    """z = (e − p) / s of each column: its level's unit vector e, centred by the levels' shares p; s² = 1 − Σ p².

    A group of numbers has the variance 1 together, as a column of ranks has. Undone by the largest of s z + p. A
    missing cell is a level besides `levels`, the last one, in columns that have some.
    """

    about: ClassVar[str] = "unit vectors of levels; undone on sampling"

    levels: tuple[int, ...]
    """The number of levels of each column."""
    gaps: tuple[bool, ...]
    """True for columns with missing cells."""
    shares: Float[Tensor, " k"]
    """p of all columns, end to end."""

    def __post_init__(self) -> None:
        shaped("category: shares", self.shares, "k")
        if not self.levels or len(self.levels) != len(self.gaps):
            raise InputError("category: levels and gaps must have one entry per column.")
        if not all(type(one) is int and 1 <= one <= 10**6 for one in self.levels) or not all(
            type(g) is bool for g in self.gaps
        ):
            raise InputError("category: levels must be whole numbers above 0, and gaps true or false.")
        if sum(self.widths) != len(self.shares) or self.shares.dtype != torch.float64:
            raise InputError(f"category: shares must be {sum(self.widths)} numbers in float64; got {len(self.shares)}.")
        if not bool(((self.shares >= 0) & (self.shares <= 1)).all()):
            raise InputError("category: shares must lie in 0 to 1.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of z per column."""
        return tuple(count + gap for count, gap in zip(self.levels, self.gaps))

    @property
    def direct(self) -> Bool[Tensor, " k"]:
        return torch.ones(sum(self.widths), dtype=torch.bool)

    def groups(self, columns: int) -> Groups:
        widths, gaps = torch.tensor(self.widths), torch.tensor(self.gaps)
        last = torch.zeros(int(widths.sum()), dtype=torch.bool)
        last[widths.cumsum(0) - 1] = gaps
        return Groups(torch.arange(columns).repeat_interleave(widths), last)

    @classmethod
    def fit(cls, x: Float[Tensor, "n d"], levels: Sequence[int], missing: Sequence[bool] | None = None) -> "Category":
        """The shares of levels, of which x holds the numbers, NaN where a cell is missing.

        missing: columns in which cells may be missing; those in which some are, unless given.
        """
        shaped("x", x, "n", len(levels))
        gaps = tuple(x.isnan().any(0).tolist() if missing is None else missing)
        found = cls(tuple(levels), gaps, torch.zeros(sum(levels) + sum(gaps), dtype=torch.float64))
        return cls(tuple(levels), gaps, found._vectors(x).mean(0))

    def _vectors(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        parts = []
        for k, (count, width) in enumerate(zip(self.levels, self.widths)):
            odd = x[:, k].isinf()
            code = torch.where(x[:, k].isnan(), count, torch.where(odd, 0, x[:, k])).long()
            if len(code) and not 0 <= int(code.min()) <= int(code.max()) < width:
                raise InputError(
                    f"A column of {count} levels holds another, or a missing cell where none was in training."
                )
            parts.append(torch.nn.functional.one_hot(code, width).double().masked_fill(odd[:, None], torch.nan))
        return torch.cat(parts, 1)

    def _scales(self) -> Tensor:
        """s of every number of z; 1 for a column of one level."""
        spread = [(1 - part.square().sum()).clamp(min=0).sqrt() for part in self.shares.split(self.widths)]
        return torch.cat(
            [(s if s > 1e-6 else torch.ones_like(s)).expand(width) for s, width in zip(spread, self.widths)]
        )

    def shape(self, data: Shape) -> Shape:
        """A number per level."""
        if data[-1:] != (len(self.levels),):
            raise InputError(f"The codec expects {len(self.levels)} columns; got data of shape {data}.")
        return (*data[:-1], sum(self.widths))

    def ends(self) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        return -self.shares / self._scales(), (1 - self.shares) / self._scales()

    def cells(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k 2"]:
        self.shape(tuple(x.shape))
        z = (self._vectors(x.cpu()) - self.shares) / self._scales()
        return torch.stack([z, torch.zeros_like(z)], -1).to(x.device)

    def decode(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b d"]:
        """The network's output → the levels' numbers."""
        expect("The data", z, Tensor)
        if z.shape[-1:] != (sum(self.widths),):
            raise InputError(f"category: z must have {sum(self.widths)} numbers; got shape {tuple(z.shape)}.")
        y = z * self._scales().to(z) + self.shares.to(z)
        columns = []
        for part, count in zip(y.split(self.widths, -1), self.levels):
            code = part.argmax(-1).to(z)
            code = code.masked_fill(code == count, torch.nan)
            columns.append(code.masked_fill(~part.isfinite().all(-1), torch.inf))  # NaN would be a missing cell
        return torch.stack(columns, -1)

    def to_config(self) -> dict[str, Any]:
        return {"name": "category", "levels": list(self.levels), "gaps": list(self.gaps)}

    def weights(self) -> dict[str, Tensor]:
        return {"shares": self.shares}


def fit_category(batches: Batches) -> Category:
    """Columns of levels as unit vectors."""
    x = torch.cat([*batches()])
    if not bool((x.isnan() | ((x >= 0) & (x == x.round()) & (x < 10**6))).all()):
        raise InputError("category takes columns of levels, numbered from 0.")
    return Category.fit(x, [int(n) + 1 for n in x.nan_to_num(0.0).amax(0)])


def read_category(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Category:
    """The codec whose `to_config` and `weights` these are; anything else is an InputError."""
    if set(config) != {"name", "levels", "gaps"} or set(weights) != {"shares"}:
        raise InputError(f"category must have levels and gaps, and a tensor shares; got {', '.join(weights)}.")
    if not all(isinstance(config[key], list | tuple) for key in ("levels", "gaps")):
        raise InputError("category: levels and gaps must be lists.")
    return Category(tuple(config["levels"]), tuple(config["gaps"]), weights["shares"])
