"""Rows of a table as its metrics take them: typed columns, and the units in which rows are near to one another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError
from ...specs import pick, shaped

__all__ = ["Rows", "Units"]


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of a table: numbers, in a column of levels their places among these, and NaN where a cell is missing."""

    x: Float[np.ndarray, "n d"]
    names: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    """Of each column its levels, () for numbers."""
    dates: tuple[str, ...] = ()
    """Names of the columns of dates, whose numbers are days since 1970."""

    def __post_init__(self) -> None:
        shaped("x", torch.from_numpy(self.x), "n", len(self.names))
        if len(self.levels) != len(self.names):
            raise InputError(f"levels must be given for {len(self.names)} columns; got {len(self.levels)}.")

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def of(cls, x: Float[Tensor, "n d"], names: Sequence[str] = (), levels: Sequence[Sequence[str]] = ()) -> "Rows":
        """Rows of a tensor in float32, as data is kept: so equal values of two tables are equal.

        By default columns of numbers that are named by their place.
        """
        d = x.shape[1]
        named = tuple(names) or tuple(f"column {k + 1}" for k in range(d))
        return cls(x.detach().cpu().float().double().numpy(), named, tuple(map(tuple, levels)) or ((),) * d)

    def beside(self, labels: Int[Tensor, " n"], name: str, classes: Sequence[str]) -> "Rows":
        """The rows with their labels as one more column, the last."""
        x = np.concatenate([self.x, labels.cpu().double().numpy()[:, None]], 1)
        return Rows(x, (*self.names, name), (*self.levels, tuple(classes)), self.dates)

    def take(self, rows: Tensor | slice) -> "Rows":
        """Some of the rows."""
        return replace(self, x=self.x[rows if isinstance(rows, slice) else rows.numpy()])

    def drawn(self, n: int, draw: torch.Generator) -> "Rows":
        """At most n of the rows, in random order."""
        return self.take(torch.randperm(len(self), generator=draw)[:n])

    def column(self, name: str) -> int:
        """The place of a column; InputError for a name that it doesn't have."""
        return self.names.index(pick(dict.fromkeys(self.names), name, "The column"))

    def level(self, k: int) -> Float[np.ndarray, "n levels"]:
        """Column k as 1 for a row's own level, and 0."""
        return np.equal(self.x[:, [k]], np.arange(len(self.levels[k]))).astype(float)

    @property
    def tensor(self) -> Float[Tensor, "n d"]:
        return torch.from_numpy(self.x)


@dataclass(frozen=True, eq=False)
class Units:
    """One unit for distances between rows of any columns: numbers by the training rows' mean and standard deviation.

    A level is a 1 among 0s over √2, so that two different ones are 1 apart; a missing cell is the mean, and in columns
    that have some in training there is an indicator over √2.
    """

    train: Rows

    def numbers(self, rows: Rows) -> tuple[Float[np.ndarray, "n k"], tuple[str, ...]]:
        """The rows' numbers, and the names of these, such as carat, cut=Ideal and "price missing"."""
        parts, names = [np.zeros((len(rows), 0))], []
        for k, name in enumerate(self.train.names):
            own, gap = self.train.x[:, k], np.isnan(self.train.x[:, k])
            if levels := self.train.levels[k]:
                parts.append(rows.level(k) / np.sqrt(2))
                names += [f"{name}={level}" for level in levels]
            else:
                mean, spread = (own[~gap].mean(), own[~gap].std(ddof=1)) if (~gap).sum() > 1 else (0.0, 0.0)
                parts.append(np.nan_to_num((rows.x[:, [k]] - mean) / (spread or 1.0), nan=0.0))
                names.append(name)
            if gap.any():
                parts.append(np.isnan(rows.x[:, [k]]) / np.sqrt(2))
                names.append(f"{name} missing")
        return np.concatenate(parts, 1), tuple(names)

    def __call__(self, rows: Rows) -> Float[Tensor, "n k"]:
        return torch.from_numpy(self.numbers(rows)[0])
