"""The sampler, grid and steps of a run's samples: asked for, the recipe's, or those of the run's own solver."""

import re
from collections.abc import Sequence
from typing import Any

from ..data import Observation
from ..errors import InputError
from ..exact.plans import COUNTS
from ..exact.tuned import Tuned
from ..recipes import Recipe
from ..samplers import Stepper, facts
from .asked import Choice
from .solver import kept_solver

__all__ = ["Choosing"]

_AS_TRAINED = {"guidance": 1.0, "interval": (0.0, 1.0), "bound": None}  # as a stored solver was fitted


class Choosing:
    """The part of a `Trained` that chooses how its samples are drawn."""

    recipe: Recipe
    tuned: tuple[Tuned, ...]
    observation: Observation | None

    def choice(
        self,
        sampler: str | Stepper | None = None,
        grid: str | Sequence[float] | None = None,
        steps: int | str | None = None,
        *,
        at: float = 1.0,
        progress: bool = False,
        **how: Any,
    ) -> Choice:
        """The sampler, grid and steps that these options of `trajectory` come to; how: guidance, interval, bound.

        Without any, a run whose recipe samples an ODE takes its own solver of 20 evaluations, if it was fitted one; it
        is made for a whole grid, so not where at is below 1.
        """
        if not (sampler is None or isinstance(sampler, str) or callable(sampler)):
            raise InputError(f"sampler must be the name of one, or a function; got {repr(sampler)[:60]}.")
        if not (grid is None or hasattr(grid, "__iter__")):
            raise InputError(f"grid must be the name of one, or falling times; got {repr(grid)[:60]}.")
        how = _AS_TRAINED | how
        if how["bound"] == self.recipe.bound:  # said aloud
            how["bound"] = None
        if isinstance(steps, str):
            if sampler or grid:
                raise InputError("steps=auto chooses the sampler and the grid itself; leave them out.")
            if at < 1:
                raise InputError(f"steps=auto fits a solver from t = 1, and at is {at:g}; give a number.")
            return self._own(steps, progress, **how)
        if sampler is grid is None and facts(self.recipe.sampler).spans:  # a student's own grid
            count = self.recipe.sample_steps if steps is None else steps
            for one in reversed(self.tuned):
                if one.weights and one.evaluations == count:
                    return Choice(one.sampler, one.grid, one.steps)
        by_itself = sampler is grid is steps is None and how == _AS_TRAINED and self.observation is None and at == 1
        if by_itself and not facts(self.recipe.sampler).noise:
            for one in reversed(self.tuned):
                if one.weights and one.evaluations == COUNTS[-1]:
                    return Choice(one.sampler, one.grid, one.steps)
        recipe = self.recipe
        return Choice(
            recipe.sampler if sampler is None else sampler,
            recipe.grid if grid is None else grid,
            recipe.sample_steps if steps is None else steps,
        )

    def _own(self: Any, steps: str, progress: bool, **how: Any) -> Choice:
        """The run's solver for "auto:N" evaluations, for "auto" the latest: stored with it, in the cache, or fitted."""
        wanted = re.fullmatch(r"auto(?::([0-9]{1,6}))?", steps)
        if not wanted:
            raise InputError(f"steps must be a number, auto, or auto:N for N evaluations; got {steps!r}.")
        latest = self.tuned[-1].evaluations if self.tuned else COUNTS[-1]
        count = int(wanted[1] or latest)
        one = next((one for one in reversed(self.tuned) if one.evaluations == count), None)
        if one is None or (how != _AS_TRAINED and count <= COUNTS[-1]):
            one = kept_solver(self, count, progress=progress, **how)
        return Choice(one.sampler, one.grid, one.steps)
