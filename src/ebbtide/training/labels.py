"""The labels of a run's samples: given, drawn, in turn, or as frequent as in the data."""

import re
import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core.randomness import Draws, key
from ..errors import InputError
from ..recipes import Recipe
from ..specs import listed, pick

__all__ = ["Labelled"]


class Labelled:
    """The part of a `Trained` that makes the labels of its samples."""

    recipe: Recipe
    classes: tuple[str, ...]
    frequencies: tuple[float, ...]

    def labels(self, label: Any, n: int, draws: Draws | None = None) -> Int[Tensor, " n"] | None:
        """The label of each of n samples of a conditional run, from `trajectory`'s argument; None for another run.

        Without one it is the null label, or, where training hid no labels, one drawn as often as it occurs in the data,
        by `draws` (of samples 0, 1, … and seed 0, unless given). InputError for a class that was never learned.
        A tensor holds the classes' indices, as `in_turn` and `in_proportion` return them. Text is a name. So is any
        other integer where classes are called by whole numbers; elsewhere it is an index.
        """
        count = len(self.classes)
        if not self.recipe.conditional:
            if label is not None:
                raise InputError("This run was trained without labels, so it can't be asked for one.")
            return None
        if label is None:
            return torch.full((n,), count) if self.recipe.learns_null else self._drawn(draws or Draws.first(n, 0))
        if not self.recipe.learns_labels:
            raise InputError("This run learned no labels (label_dropout hid them all), so it can't be asked for one.")
        labels = self._indices(label)
        if len(labels) not in (1, n) or bool(((labels < 0) | (labels >= count)).any()):
            raise InputError(f"label must be one or {n} of the classes {self._choices}; got {_short(label)}.")
        if len(never := labels[torch.isin(labels.cpu(), self.learned, invert=True)]):
            name = self.classes[int(never[0])]
            raise InputError(f"label {name!r} can't be asked for: training had no example of it.")
        return labels.long().expand(n)

    def _indices(self, label: Any) -> Int[Tensor, " m"]:
        """The classes' indices from `labels`' argument; -1 for a number out of their range."""
        if isinstance(label, Tensor):
            if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
                raise InputError(f"label must be one of the classes {self._choices}; got a tensor of {label.dtype}.")
            return label.reshape(-1)
        try:
            given = np.asarray(label).reshape(-1).tolist()
        except (TypeError, ValueError, RuntimeError):
            given = [label]
        named = {name: k for k, name in enumerate(self.classes)}
        numbered = {int(name): k for name, k in named.items() if re.fullmatch("-?[0-9]{1,18}", name)}
        indices = numbered or {k: k for k in named.values()}
        found = []
        for one in given:
            if isinstance(one, str) and (one in named or not re.fullmatch("[0-9]{1,9}", one) or numbered):
                found.append(named[pick(named, one, "label")])
            elif isinstance(one, str | int) and not isinstance(one, bool):
                found.append(indices.get(int(one), -1))
            else:
                raise InputError(f"label must be one of the classes {self._choices}; got {_short(label)}.")
        return torch.tensor(found, dtype=torch.int64)

    @property
    def _choices(self) -> str:
        """The classes, by their names where these are whole numbers, else by index."""
        numbers = any(re.fullmatch("-?[0-9]{1,18}", name) for name in self.classes)
        return listed(self.classes) if numbers else f"0 to {len(self.classes) - 1}, or their names"

    @property
    def learned(self) -> Int[Tensor, " c"]:
        """The classes that training had an example of: all, where that isn't known."""
        shares = self.frequencies or [1.0] * len(self.classes)
        return torch.tensor([k for k, share in enumerate(shares) if share], dtype=torch.int64)

    def shares(self) -> Float[Tensor, " k"]:
        """Frequency of each class in the data; warns if unknown, and assumes equal ones."""
        if self.frequencies:
            return torch.tensor(self.frequencies, dtype=torch.float64)
        warnings.warn(
            "The run doesn't hold how often each class occurs (an older version wrote it): they are drawn evenly.",
            stacklevel=2,
        )
        return torch.full((len(self.classes),), 1 / len(self.classes), dtype=torch.float64)

    def in_turn(self, n: int) -> Int[Tensor, " n"] | None:
        """Every class that was learned in turn, for n samples to look at; None for a run that learned no labels."""
        return self.learned[torch.arange(n) % len(self.learned)] if self.recipe.learns_labels else None

    def in_proportion(self, n: int) -> Int[Tensor, " n"] | None:
        """Every class as often as in the data, for n samples to hold against it; None for a run that learned no labels.

        The j-th sample of a class of frequency f takes the place (j + ½)/f. So each class is evenly spread, and classes
        that are equally frequent come in turn.
        """
        if not self.recipe.learns_labels:
            return None
        shares = self.shares().tolist()
        most = n + len(shares)  # places up to the n-th
        count = torch.arange(most + 2, dtype=torch.float64) + 0.5
        each = [(k, count[: int(most * f) + 2] / f) for k, f in enumerate(shares) if f]
        order = torch.cat([places for _, places in each]).argsort(stable=True)[:n]
        return torch.cat([torch.full_like(places, k, dtype=torch.int64) for k, places in each])[order]

    def _drawn(self, draws: Draws) -> Int[Tensor, " n"]:
        """Independent labels, each as likely as it is frequent in the data; sample i's depends on (seed, i) alone."""
        z = Draws(key(draws.seed, "label"), draws.ids)(0, torch.empty(len(draws.ids), 1, dtype=torch.float64))
        up_to = self.shares().cumsum(0)
        return torch.searchsorted(up_to / up_to[-1], torch.special.ndtr(z[:, 0]).cpu(), right=True)


def _short(label: Any) -> str:
    return " ".join(repr(label).split())[:60]
