"""The arguments of a sampler, a Walk, and the facts that its row declares."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.paths import Batch, Path, Scales, Time
from ..core.randomness import Draws
from ..core.targets import Estimate, velocity
from ..errors import InputError
from ..specs import options

__all__ = ["Facts", "Sampler", "Stepper", "Walk", "slope"]


@dataclass(frozen=True)
class Walk:
    """A denoiser, x at the first of a grid's times, the grid, and what noise and conditions come from.

    grid: α, σ and their derivatives at every time, as floats, computed once before the first step.
    draws: noise by address, for samplers that need some. cond: passed to the denoiser at every evaluation.
    """

    denoiser: DenoiserLike
    x: Batch
    grid: Sequence[Scales]
    draws: Draws | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The denoiser's path."""
        return self.denoiser.path

    @property
    def steps(self) -> list[tuple[Scales, Scales]]:
        """(now, then) of every step."""
        return list(pairwise(self.grid))

    def estimate(self, x: Batch, t: Time, to: Time | None = None) -> Estimate:
        """x̂₀ and ε̂ of x at time t, or those that lead to another time: one evaluation of the network."""
        return self.denoiser(x, t, **({} if to is None else {"to": to}), **self.cond)

    def slope(self, x: Batch, t: Time) -> Batch:
        """The velocity u_t(x) = α̇ x̂₀ + σ̇ ε̂ of the probability-flow ODE: one evaluation."""
        return slope(self.denoiser, x, t, **self.cond)

    def noised(self, x: Batch, std: float, address: int) -> Batch:
        """x + std z. Every address, such as the number of the step, has its own z."""
        if not std:
            return x
        if self.draws is None:
            raise InputError("A sampler that adds noise needs draws=Draws.first(n, seed).")
        return torch.add(x, self.draws(address, x), alpha=std)

    def require(self, sampler: str, *, gaussian_end: bool = True, draws: bool = False, spans: bool = False) -> None:
        """Raise InputError where the sampler needs what is not there; said before the first step.

        gaussian_end: that t = 1 is noise. draws: random numbers. spans: a network of two times.
        """
        if gaussian_end and not self.denoiser.gaussian_end:
            raise InputError(
                f"{sampler} needs a path from Gaussian noise: between two sample sets there is only a velocity; "
                "use an ODE sampler such as euler or heun."
            )
        if spans and not getattr(self.denoiser, "spans", False):
            raise InputError(
                f"{sampler} needs a denoiser that spans two times, which `ebbtide distill` makes of any run."
            )
        if draws and self.draws is None:
            raise InputError(f"{sampler} is stochastic and needs draws=Draws.first(n, seed).")


def slope(denoiser: DenoiserLike, x: Batch, t: Time, **cond: Any) -> Tensor:
    """The marginal velocity u_t(x) = α̇ x̂₀ + σ̇ ε̂."""
    c = denoiser.path.at(t, x)
    return velocity(c, denoiser(x, c, **cond))


Stepper = Callable[..., Iterator[Tensor]]  # x after every step of a Walk; its options come after it


class Facts(NamedTuple):
    """Promises and needs of a sampler; `ebbtide certify` checks them on every path.

    order: p where the end point's error is O(hᵖ) as the steps shrink; of the moments (weak order) with noise. 0: its
    error doesn't follow the grid.
    noise: it needs draws. gaussian_end: it needs x̂₀ and ε̂, which only a path from Gaussian noise has, as noise does.
    at_least: the order shown may be higher, until the steps are so small that a cheap start's error is all there is.
    smooth: p holds for a path that is smooth in t alone, not for a β table, whose velocity jumps at every entry.
    spans: it needs a denoiser that spans two times.
    """

    order: int = 0
    noise: bool = False
    gaussian_end: bool = False
    at_least: bool = False
    smooth: bool = False
    spans: bool = False


@dataclass(frozen=True)
class Sampler:
    """A row of SAMPLERS: a function of a walk, and its facts, or a function of its options that returns them."""

    function: Callable[..., Iterator[Tensor]]
    about: Facts | Callable[..., Facts]

    def facts(self, **given: Any) -> Facts:
        """The facts with these options, and the others as they are by default. given: options of the sampler."""
        chosen = {name: option.default for name, option in options(self).items()} | given
        return self.about if isinstance(self.about, Facts) else self.about(**chosen)

    def __call__(self, walk: Walk, **given: Any) -> Iterator[Tensor]:
        """x after every step; InputError where the walk lacks what the sampler needs."""
        own = self.facts(**given)
        chosen = ",".join(f"{name}={value}" for name, value in (getattr(self.function, "keywords", {}) | given).items())
        name = getattr(self.function, "func", self.function).__name__ + (chosen and f":{chosen}")
        walk.require(name, gaussian_end=own.gaussian_end or own.noise, draws=own.noise, spans=own.spans)
        return self.function(walk, **given)
