"""Parts of a certificate: a check, the end of a walk, and a sampler's exact moments on a Gaussian."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.denoiser import DenoiserLike
from ..core.randomness import Draws
from ..samplers import Stepper, walk
from .oracle import Gaussian

__all__ = ["Check", "Impulses", "exact_moments", "rms", "walked"]


@dataclass(frozen=True)
class Check:
    """One promise of one sampler on one path: the measured value, the promised one, and the verdict.

    passed is None where the promise doesn't apply; `why` gives the reason.
    """

    path: str
    name: str
    found: float
    promised: str
    passed: bool | None
    why: str = ""


def walked(
    sampler: str | Stepper,
    denoiser: DenoiserLike,
    x: Tensor,
    times: Tensor,
    draws: Draws | None = None,
    cond: Mapping[str, Any] = MappingProxyType({}),
) -> Tensor:
    """The end of a walk."""
    with torch.no_grad():
        *_, end = walk(sampler, denoiser, x, times, draws=draws, cond=cond)
    return end


class Impulses(Draws):
    """Noise for the moments of a sampler that is linear in it, as every sampler is on a Gaussian.

    Sample 0 gets none; sample j gets 1 at the j-th draw and 0 at all others. The samples' differences at the end are
    then the sampler's response to each draw, and Σ response² is the variance it puts out: exactly, without sampling.
    """

    def __init__(self, count: int) -> None:
        super().__init__(0, torch.arange(count))
        object.__setattr__(self, "drawn", 0)

    drawn: int

    def __call__(self, step: int, x: Tensor) -> Tensor:
        object.__setattr__(self, "drawn", self.drawn + 1)
        z = torch.zeros_like(x)
        if self.drawn < len(x):
            z[self.drawn] = 1
        return z


def rms(error: Float[Tensor, " n *d"]) -> float:
    """√ mean of the squared distance |e|² over the n examples. error: (n, *d)."""
    return math.sqrt(float(error.flatten(1).square().sum(1).mean()))


def exact_moments(
    sampler: str | Stepper, denoiser: DenoiserLike, times: Tensor, law: Gaussian | None = None
) -> tuple[float, float]:
    """Mean and standard deviation of a sampler's output on a 1-D Gaussian, started from the exact marginal.

    law: that Gaussian, where the denoiser is a network that learned it.
    """
    law = cast(Gaussian, denoiser) if law is None else law
    c = denoiser.path.along([float(times[0])])[0]
    mean = c.alpha * float(law.mean)
    std = math.hypot(c.alpha * float(law.stds), c.sigma)
    dry = Impulses(1)
    walked(sampler, denoiser, torch.full((1, 1), mean, dtype=torch.float64), times, dry)
    x = torch.full((dry.drawn + 2, 1), mean, dtype=torch.float64)
    x[-1] += std  # the response to the start, which no draw reaches
    end = walked(sampler, denoiser, x, times, Impulses(dry.drawn + 2))[:, 0]
    return float(end[0]), float((end[1:] - end[0]).square().sum().sqrt())
