"""The probability-flow ODE dx/dt = α̇ x̂₀ + σ̇ ε̂ (Song et al. 2021, arXiv:2011.13456, Eq. 13; Lipman et al. 2023)."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..denoiser import DenoiserLike
from ..randomness import Draws
from ..targets import velocity


def slope(denoiser: DenoiserLike, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
    """The marginal velocity u_t(x) = α̇ x̂₀ + σ̇ ε̂."""
    time = t.reshape(1)
    return velocity(denoiser.path.at(time, x), denoiser(x, time, **cond))


def euler(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = x_t + (s - t) u_t(x_t). Order 1, one evaluation a step; on the linear path it is DDIM."""
    for t, s in pairwise(times):
        x = x + (s - t) * slope(denoiser, x, t, **cond)
        yield x


def heun(
    denoiser: DenoiserLike,
    x: Float[Tensor, " b *d"],
    times: Float[Tensor, " n"],
    *,
    draws: Draws | None = None,
    **cond: Any,
) -> Iterator[Tensor]:
    """x_s = x_t + (s - t) (u_t(x_t) + u_s(x̃_s)) / 2 with x̃_s from Euler (Karras et al. 2022, Algorithm 1).

    Order 2, two evaluations a step; the last step, to t = 0, is Euler's, for there σ = 0 and u may not exist.
    """
    for t, s in pairwise(times):
        first = slope(denoiser, x, t, **cond)
        x_s = x + (s - t) * first
        if s > 0:
            x_s = x + (s - t) * (first + slope(denoiser, x_s, s, **cond)) / 2
        x = x_s
        yield x
