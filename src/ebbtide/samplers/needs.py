"""What a sampler can't do without, said in one sentence before its first step."""

from typing import Any

import torch
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws
from ..errors import InputError


def gaussian_end(denoiser: DenoiserLike, sampler: str) -> None:
    """x̂₀ and ε̂, which only a path that ends in Gaussian noise has."""
    if not denoiser.gaussian_end:
        raise InputError(
            f"{sampler} needs a path from Gaussian noise: between two sample sets there is only a velocity; "
            "use an ODE sampler such as euler or heun."
        )


def needed(denoiser: DenoiserLike, draws: Draws | None, sampler: str) -> Draws:
    """The same, and noise to draw on the way."""
    gaussian_end(denoiser, sampler)
    if draws is None:
        raise InputError(f"{sampler} is stochastic and needs draws=Draws.first(n, seed).")
    return draws


def boolean(mask: Any, what: str) -> Tensor:
    """A mask of bools: integers would be taken for indices, and floats for nothing."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = getattr(mask, "dtype", "") if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"{what}: a mask must be a tensor of bools, true where the value is known; got {got}.")
    return mask
