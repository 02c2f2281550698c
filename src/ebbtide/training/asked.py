"""Samples that were asked for, with all that each depends on, so that they can be drawn in pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws
from ..errors import InputError
from ..samplers import Stepper
from ..specs import require

__all__ = ["Asked", "Choice", "ends_of", "numbers", "tensor_of"]


class Choice(NamedTuple):
    """Sampler, grid and steps of samples."""

    sampler: str | Stepper
    grid: str | Sequence[float]
    steps: int


class Asked(NamedTuple):
    """Samples that were asked for: the arguments of their walk, those of each sample row by row."""

    denoiser: DenoiserLike
    choice: Choice
    draws: Draws
    first: int
    cond: dict[str, Tensor]
    seen: Mapping[str, Tensor] | None
    known: Tensor | None = None
    """Columns that were given, in data units, NaN where they are drawn."""
    fill: bool = False
    """True if no cell may be missing."""
    start: Tensor | None = None
    """Own starting points, in data units,"""
    at: float = 1.0
    """the time that they are noised to,"""
    gradient: bool = False
    """and whether samples keep their gradient."""

    def piece(self, start: int, most: int) -> "Asked":
        """The samples from number `start` on, `most` of them at the most."""
        rows = slice(start, start + most)
        cond = {name: part[rows] for name, part in self.cond.items()}
        seen = None if self.seen is None else {name: part[rows] for name, part in self.seen.items()}
        draws = replace(self.draws, ids=self.draws.ids[rows])
        known, own = (None if part is None else part[rows] for part in (self.known, self.start))
        return self._replace(draws=draws, first=self.first + start, cond=cond, seen=seen, known=known, start=own)


def numbers(ids: Any, n: int) -> Int[Tensor, " n"]:
    """The samples' numbers as a tensor; InputError unless there is a whole one for each of n.

    ids: as in `trajectory`, anything that torch.as_tensor takes.
    """
    try:
        numbers = tensor_of("ids", ids)
    except InputError:
        numbers = torch.empty(0)
    if numbers.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8) or numbers.shape != (n,):
        raise InputError(f"ids must be {n} whole numbers, one for each sample; got {repr(ids)[:60]}.")
    return numbers.long()


def ends_of(interval: Any) -> tuple[float, float]:
    """The two times of an interval, as floats; InputError unless they rise from 0 or later to 1 or earlier."""
    if isinstance(interval, Tensor | np.ndarray):
        interval = interval.tolist()
    if not isinstance(interval, Sequence) or len(interval) != 2:
        raise InputError(f"interval must be two times, (low, high); got {interval!r}.")
    low, high = interval
    require("the interval's low", low, 0)
    require("the interval's high", high, above=low, high=1)
    return float(low), float(high)


def tensor_of(what: str, value: Any) -> Tensor:
    """A user's array, tensor or list as a tensor, NaN where an array is masked; InputError where it holds no numbers.

    value: an array's bytes and rows may be in any order. what: the argument's name.
    """
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_meta:
            raise InputError(f"{what} must be a dense tensor that holds numbers; got one of {value.layout}.")
        return value
    try:
        array = np.asanyarray(value)
    except (TypeError, ValueError, RuntimeError):  # lists of unequal lengths
        array = np.array(None)
    if isinstance(array, np.ma.MaskedArray):
        array = np.ma.filled(array.astype(float), np.nan) if array.mask.any() else array.data
    if array.dtype.kind not in "fiubc":
        raise InputError(
            f"{what} must hold numbers; got {repr(value)[:60] if array.dtype.kind == 'O' else array.dtype}."
        )
    widest = {"f": np.float64, "c": np.complex128}.get(array.dtype.kind, array.dtype)  # torch has no wider ones
    kind = widest if array.dtype.itemsize > np.dtype(widest).itemsize else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, kind, order="C"))
