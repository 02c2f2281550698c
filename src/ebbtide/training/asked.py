"""Samples that were asked for, with all that each depends on, so that they can be drawn in pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws
from ..errors import InputError
from ..samplers import Stepper

__all__ = ["Asked", "Choice", "numbers"]


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
        numbers = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.empty(0)
    if numbers.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8) or numbers.shape != (n,):
        raise InputError(f"ids must be {n} whole numbers, one for each sample; got {repr(ids)[:60]}.")
    return numbers.long()
