"""Conditions of a run on images: images of fewer pixels, or numbers by name, that its samples are drawn given."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.attributes import scaled
from ..data.levels import Levels
from ..errors import InputError
from ..recipes import Recipe
from ..specs import expect, listed, named_ranges, pick, shaped
from .asked import tensor_of

__all__ = ["Conditioned"]


class Conditioned:
    """The part of a `Trained` that reads what its samples are drawn given, as a whole."""

    recipe: Recipe
    shape: tuple[int, ...]
    recordings: Callable[[Any, int, int, int], Mapping[str, Tensor]] | None

    @property
    def condition_shape(self) -> tuple[int, ...]:
        """The shape of what a sample is drawn given; () for a run without."""
        return self.recipe.condition(self.shape)

    def given_nothing(self, because: str) -> None:
        """InputError if samples are drawn given something; because: the rest of the sentence."""
        if self.condition_shape:
            raise InputError(f"This run's images are drawn given other images or numbers, which {because}.")

    @property
    def attributes(self) -> dict[str, Levels]:
        """The range of each attribute in the data."""
        ranges = named_ranges("attribute_ranges", getattr(self.recipe, "attribute_ranges", ""))
        return {name: Levels.parse(ends) for name, ends in ranges.items()}

    def asked_condition(self, given: Any, n: int, seed: int, first: int) -> Float[Tensor, " b *g"] | None:
        """`trajectory`'s given as the network takes it, one for all samples or one each; None for nothing given.

        Of a run for super-resolution that is asked for samples without, images that it never learned, made smaller;
        where its data was in memory, nothing.
        """
        shape = self.condition_shape
        if len(shape) == 3:
            if given is None and self.recordings is not None and not self.recipe.in_memory:
                given = self.recordings(self, n, seed, first)["given"]
            x = None if given is None else self._as_given(given, shape, n)
            return None if x is None else x / 127.5 - 1
        if given is None:
            return None
        if not shape:
            if len(self.shape) == 3:
                raise InputError("This run draws images given nothing: train one with factor or attributes.")
            return None
        own = self.attributes
        if isinstance(given, Mapping):
            known = torch.full((n, len(own)), torch.nan)
            for name, value in given.items():
                number = tensor_of(f"given {name!r}", _number(name, value)).float().reshape(-1)
                if len(number) not in (1, n):
                    raise InputError(f"given {name!r} must be one number or {n}; got {len(number)}.")
                known[:, list(own).index(pick(own, name, "given"))] = number
        else:
            known = self._as_given(given, shape, n)
        low, high = (torch.tensor([float(ends[k]) for ends in own.values()]) for k in (0, 1))
        if bool((beyond := (known < low) | (known > high)).any()):
            row, k = beyond.nonzero()[0].tolist()
            raise InputError(
                f"given {list(own)[k]!r} must be at least {low[k]:g} and at most {high[k]:g}, as in the data that was "
                f"learned; got {known[row, k]:g}."
            )
        return scaled(known, own)

    def _as_given(self, given: Any, shape: tuple[int, ...], n: int) -> Float[Tensor, " b *g"]:
        """A tensor or array, one for all or one for each sample, NaN where nothing is known."""
        if isinstance(given, Mapping) or not isinstance(given, Tensor | np.ndarray):
            names = f" or a mapping of {listed(self.attributes)}" if self.attributes else ""
            raise InputError(f"given must be a tensor or array{names}; got {repr(given)[:60]}.")
        x = tensor_of("given", given)
        shaped("given", x, "n", *shape)
        if len(x) not in (1, n) or x.is_complex() or bool(x.isinf().any()):
            raise InputError(f"given must be one or {n} of finite numbers, NaN where nothing is known; got {len(x)}.")
        return x.float()


def _number(name: str, value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise InputError(f"given {name!r} must be a number; got {value!r}.") from None
    expect(f"given {name!r}", value, int, float, list, tuple, np.ndarray, Tensor)
    return value
